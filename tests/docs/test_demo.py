"""The demo: its network, its images, its accuracies, its table and its picture."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

import snm
from snm.commands import cli
from snm.commands import demo as run
from snm.demo import load_images, load_network
from snm.demo.data import DemoImages
from snm.demo.step_by_step import StepByStepNetwork

ASSETS = Path(str(files("snm.demo"))) / "assets"


@pytest.fixture(scope="module")
def images() -> DemoImages:
    return load_images()


@torch.no_grad()
def percent_right(logits_of: object, images: DemoImages) -> float:
    assert callable(logits_of)
    batches = images.test_images.split(100)
    predictions = torch.cat([logits_of(batch).argmax(1) for batch in batches])
    return 100 * float((predictions == images.test_labels).double().mean())


def test_assets_fit_in_three_megabytes() -> None:
    sizes = {path.name: path.stat().st_size for path in ASSETS.iterdir()}
    assert sum(sizes.values()) <= 3_000_000, sizes
    assert {"LICENSE-fashion-mnist.txt", "README.md"} <= set(sizes)


def test_network_is_as_accurate_as_its_metrics_say(images: DemoImages) -> None:
    metrics = json.loads((ASSETS / "metrics.json").read_text())
    assert metrics["test_accuracy_10000"] >= 0.93
    network = load_network()
    assert sum(p.numel() for p in network.parameters()) == metrics["parameters"]
    right = percent_right(network, images)
    assert right == pytest.approx(100 * metrics["test_accuracy_2000"], abs=0.11)


@pytest.mark.parametrize(
    ("preset", "timesteps", "published_loss"),
    # Percent that a network of this kind loses against its ANN, by section 7 of the design.
    [("snm", 32, 93.75 - 93.0), ("snm-zero", 8, 93.75 - 93.2)],
)
def test_conversion_loses_no_more_than_expected(
    images: DemoImages, preset: str, timesteps: int, published_loss: float
) -> None:
    model = load_network()
    with pytest.warns(snm.DeadNeuronWarning):
        net = snm.convert(model, images.calibration_images.split(100), preset=preset)
    half = DemoImages(*(part[:1000] for part in images))
    loss = percent_right(model, half) - percent_right(
        lambda batch: net(batch, timesteps=timesteps), half
    )
    print(f"{preset} loses {loss:.2f} points at T = {timesteps}")
    assert loss <= published_loss + 1


@pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")
def test_published_way_computes_the_same(images: DemoImages) -> None:
    model = load_network()
    net = snm.convert(model, images.calibration_images, preset="snm")
    thresholds = {path: neuron.threshold for path, neuron in net.layers.items()}
    batch = images.test_images[:50]
    published = StepByStepNetwork(model, thresholds)(batch, 16)
    fused = net(batch, timesteps=16)
    # Float memory drifts and sums round differently, which moves single spikes.
    assert bool(torch.isfinite(published).all())
    assert float((published.argmax(1) == fused.argmax(1)).double().mean()) >= 0.95
    assert float((published - fused).abs().mean()) < 0.05


def test_demo_prints_its_tables_and_draws(
    images: DemoImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = DemoImages(*(part[:100] for part in images))
    monkeypatch.setattr(run, "load_images", lambda: few)
    monkeypatch.setattr(run, "SHOWN_STEPS", (1, 2, 4))
    monkeypatch.setattr(run, "TUNED_STEPS", (2,))
    monkeypatch.setattr(run, "TIMED_STEPS", 2)
    monkeypatch.setattr(run, "INTEGER_STEPS", (4,))
    monkeypatch.setattr(run, "TIMED_INTEGER_STEPS", 2)
    console = Console(record=True, width=120)
    results = run.show(console, tmp_path / "curve.png")
    printed = console.export_text()
    for preset in run.PRESETS:
        assert preset in printed
        assert len(results.accuracy[preset]) == 4
        assert f"{results.accuracy[preset][3]:.2f}" in printed
    assert results.accuracy["snm-zero"][3] > results.accuracy["snm"][3]
    assert f"{results.tuned[2]:.2f}" in printed
    assert results.tuned[2] > results.accuracy["snm"][1]
    assert f"{results.integers[4]:.2f}" in printed
    assert results.integers[4] > results.accuracy["snm"][3]
    assert results.network.ratio > 0
    assert f"{results.all_images.ratio:.1f} times as long" in " ".join(printed.split())
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_demo_says_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "PACKAGES", ("rich", "no_such_package"))
    assert cli.main(["demo"]) == 1
    assert "snm demo needs no_such_package: pip install" in capsys.readouterr().err


def test_thresholds_of_other_modules_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^StepByStepNetwork: thresholds must be for .*, got \['features.0'\]$"
    ):
        StepByStepNetwork(load_network(), {"features.0": Tensor()})
