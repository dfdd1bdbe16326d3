"""Pictures show the numbers they are of, tell them apart without colour, and leave pyplot alone."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

import snm
from snm import Diagnosis, LayerDiagnosis, LayerRecording, Part, Recording, Report, plot
from snm.diagnosis.result import PARTS
from snm.reports import Energy, LayerReport, Macs
from support.networks import exact_network

T = 12

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


def layer_report(path: str, kind: str, positive: int, negative: int) -> LayerReport:
    return LayerReport(
        path=path,
        kind=kind,
        neurons=10,
        neuron_steps=100,
        positive=positive,
        negative=negative,
        connections=50,
        synaptic_operations=500,
        dead=0.0,
        saturated=0.0,
        residual=0.25,
        rates=(0,) * 21,
    )


def made_report(
    accuracy: tuple[float, ...] = (0.25, 0.5, 0.75, 0.875),
    agreement: tuple[float, ...] = (0.5, 0.5, 0.75, 1.0),
    relu_accuracy: float = 0.9375,
) -> Report:
    layers = [
        layer_report("stem", "neurons", 25, 5),
        layer_report("pool", "max pooling", 50, 0),
        layer_report("head.relu", "neurons", 10, 10),
    ]
    return Report(
        timesteps=4,
        images=1,
        layers={layer.path: layer for layer in layers},
        macs=Macs(first=10, steps=0, readout=2, relu=30),
        energy=(
            Energy("arithmetic", "one", snn=2e-6, ann=8e-6, quantised=1e-6, parts={}),
            Energy("memory", "another", snn=3e-3, ann=4e-3, quantised=3.5e-3, parts={}),
        ),
        seconds=1.0,
        relu_seconds=0.5,
        peak_bytes=1,
        device="cpu",
        threads=1,
        dtype="float32",
        encoder="direct",
        rule=snm.preset("snm"),
        tuned_for=None,
        accuracy=accuracy,
        agreement=agreement,
        relu_accuracy=relu_accuracy,
        diagnosis=None,
        version="0",
    )


def made_diagnosis() -> Diagnosis:
    layers = {}
    for path, scale in (("stem", 1.0), ("head", 2.0), ("dead", 0.0)):
        sizes = (0.25, -0.125, 0.5, 0.0625, 0.03125)
        parts = {
            name: Part(0.0, scale * size, 1.0) for name, size in zip(PARTS, sizes, strict=True)
        }
        layers[path] = LayerDiagnosis(
            path=path,
            neurons=4,
            rule=snm.preset("snm"),
            activation=2 * scale,
            error=Part(0.0, sum(part.absolute for part in parts.values()), 1.0),
            parts=parts,
            silent=0.0,
            dead=0.0,
            saturated=0.0,
            clipped=0.0,
            muted=0.0,
            residual=0.0,
            negative=0.0,
            corrected=0.0,
        )
    return Diagnosis(8, 16, layers)


def recorded(preset: str = "snm-zero", **options: Any) -> Recording:
    model, calibration, images = exact_network("plain")
    net = snm.convert(model, calibration, preset=preset)
    with net.record(**options) as recording:
        net(images, timesteps=T)
    return recording


def busiest(layer: LayerRecording, image: int) -> int:
    """The neuron that sent most negative spikes."""
    return int((layer.spikes[:, image].flatten(1) < 0).sum(0).argmax())


PICTURES: dict[str, Callable[[Axes | None], Axes]] = {
    "accuracy": lambda axes: plot.accuracy(made_report(), axes),
    "rates": lambda axes: plot.rates(made_report(), axes),
    "energy": lambda axes: plot.energy(made_report(), axes),
    "raster": lambda axes: plot.raster(recorded(), "2", axes),
    "trace": lambda axes: plot.trace(recorded(), "2", 3, axes),
    "diagnosis": lambda axes: plot.diagnosis(made_diagnosis(), axes),
}


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_axes_that_are_given_are_drawn_into(draw: Callable[[Axes | None], Axes]) -> None:
    own = Figure().subplots()
    assert draw(own) is own
    assert own.has_data()
    assert draw(None) is not own


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_pictures_can_be_saved(draw: Callable[[Axes | None], Axes], tmp_path: Path) -> None:
    axes = draw(None)
    assert axes.get_xlabel() or axes.get_title(loc="left")
    for ending, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        axes.figure.savefig(tmp_path / f"picture.{ending}")
        assert (tmp_path / f"picture.{ending}").read_bytes().startswith(start)


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_without_matplotlib(
    draw: Callable[[Axes | None], Axes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'snm-kernels\[demo\]'"):
        draw(None)


def test_matplotlib_is_imported_late_and_pyplot_never() -> None:
    script = (
        "import sys, snm\n"
        "assert 'matplotlib' not in sys.modules\n"
        "snm.plot.accuracy([0.5, 0.75]).figure.canvas.draw()\n"
        "assert 'matplotlib' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_accuracy_of_a_report() -> None:
    axes = plot.accuracy(made_report())
    right, agreed, reference = axes.lines
    assert right.get_xdata().tolist() == [1, 2, 3, 4]
    assert right.get_ydata().tolist() == [25.0, 50.0, 75.0, 87.5]
    assert agreed.get_ydata().tolist() == [50.0, 50.0, 75.0, 100.0]
    assert list(reference.get_ydata()) == [93.75, 93.75]
    assert right.get_linestyle() != agreed.get_linestyle()
    assert right.get_marker() != agreed.get_marker()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "accuracy",
        "agreement with the ReLU network",
        "accuracy of the ReLU network",
    ]


def test_accuracy_of_what_a_report_has() -> None:
    unlabelled = plot.accuracy(made_report(accuracy=(), relu_accuracy=math.nan))
    assert len(unlabelled.lines) == 1
    alone = plot.accuracy(made_report(agreement=(), relu_accuracy=math.nan))
    assert len(alone.lines) == 1
    with pytest.raises(ValueError, match="one share for each time step"):
        plot.accuracy(made_report(accuracy=(), agreement=(), relu_accuracy=math.nan))


@pytest.mark.parametrize("shares", [[], torch.ones(2, 3), torch.tensor(0.5)])
def test_accuracy_of_no_shares(shares: Any) -> None:
    with pytest.raises(ValueError, match="one share for each time step"):
        plot.accuracy(shares)


def test_curves_in_the_same_axes_differ() -> None:
    axes = plot.accuracy(torch.tensor([0.5, 0.75]), label="a")
    for label in ("b", "c", "d"):
        plot.accuracy([0.25, 0.5], axes, label=label)
    assert len({line.get_linestyle() for line in axes.lines}) == 4
    assert len({line.get_marker() for line in axes.lines}) == 4
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "c", "d"]


def test_rates() -> None:
    axes = plot.rates(made_report())
    positive, negative = axes.containers
    assert [bar.get_width() for bar in positive] == [0.25, 0.5, 0.1]
    assert [bar.get_width() for bar in negative] == [-0.05, 0.0, -0.1]
    assert positive[0].get_hatch() != negative[0].get_hatch()
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["stem", "pool (max pooling)", "head.relu"]
    # The first layer is on top.
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    # A rate has no sign.
    assert axes.xaxis.get_major_formatter()(-0.05, None) == "0.05"


def test_energy() -> None:
    axes = plot.energy(made_report())
    found = {dots.get_label(): dots.get_offsets().tolist() for dots in axes.collections}
    assert found == {
        "spiking network": [[2e-6, 0], [3e-3, 1]],
        "ReLU network, 3 bits": [[1e-6, 0], [3.5e-3, 1]],
        "ReLU network, 32 bits": [[8e-6, 0], [4e-3, 1]],
    }
    shapes = {dots.get_paths()[0].vertices.tobytes() for dots in axes.collections}
    assert len(shapes) == 3
    assert [text.get_text() for text in axes.get_yticklabels()] == ["arithmetic", "memory"]


@pytest.mark.parametrize("neurons", [None, [54, 2, 3]])
def test_a_raster_shows_every_spike(neurons: list[int] | None) -> None:
    recording = recorded(paths="5", neurons=neurons)
    axes = plot.raster(recording, "5", image=1)
    spikes = recording["5"].spikes[:, 1].flatten(1)
    assert {-1, 0, 1} == set(spikes.unique().tolist())
    for line, sign in zip(axes.lines, (1, -1), strict=True):
        drawn = {(int(x) - 1, int(y)) for x, y in zip(*line.get_data(), strict=True)}
        assert drawn == {tuple(at) for at in (spikes == sign).nonzero().tolist()}
    assert axes.lines[0].get_marker() != axes.lines[1].get_marker()
    if neurons is not None:
        assert [text.get_text() for text in axes.get_yticklabels()] == ["54", "2", "3"]


def test_a_raster_of_graded_spikes() -> None:
    recording = recorded("burst")
    axes = plot.raster(recording, "2")
    spikes = recording["2"].spikes[:, 0]
    assert int(spikes.max()) > 1
    assert len(axes.lines[0].get_xdata()) == int((spikes > 0).sum())


def test_a_trace_shows_membrane_threshold_and_spikes() -> None:
    recording = recorded()
    layer = recording["5"]
    neuron = busiest(layer, 1)
    axes = plot.trace(recording, "5", neuron, image=1)
    membrane = layer.membrane[:, 1].flatten(1)[:, neuron].double()
    spikes = layer.spikes[:, 1].flatten(1)[:, neuron]
    theta = float(layer.threshold.flatten()[neuron])
    lines = {line.get_label(): line for line in axes.lines}
    drawn = lines[f"neuron {neuron} of 5"]
    assert list(drawn.get_xdata())[::2] == list(drawn.get_xdata())[1::2] == list(range(1, T + 1))
    assert list(drawn.get_ydata())[::2] == (membrane + spikes * theta).tolist()
    assert list(drawn.get_ydata())[1::2] == membrane.tolist()
    assert list(lines["threshold θ"].get_ydata()) == [theta, theta]
    assert list(lines["negative threshold"].get_ydata()) == [0, 0]
    before = membrane + spikes * theta
    for name, sign in (("positive spike", 1), ("negative spike", -1)):
        at = (spikes == sign).nonzero().flatten()
        assert len(at)
        assert list(lines[name].get_xdata()) == (at + 1).tolist()
        assert list(lines[name].get_ydata()) == before[at].tolist()
    assert lines["positive spike"].get_marker() != lines["negative spike"].get_marker()
    assert lines["negative threshold"].get_linestyle() != lines["threshold θ"].get_linestyle()


def test_a_trace_of_a_chosen_neuron() -> None:
    chosen = recorded(paths=["2", "5"], neurons=[9, 4, 30])
    everything = plot.trace(recorded(), "5", 4, image=2)
    axes = plot.trace(chosen, "5", 4, image=2)
    for line, other in zip(axes.lines, everything.lines, strict=True):
        assert list(line.get_ydata()) == list(other.get_ydata())


def test_pictures_of_a_network_of_integers() -> None:
    model, calibration, images = exact_network("plain")
    net = snm.quantize(
        snm.convert(model, calibration, preset="snm-zero", norm="channel"), calibration
    )
    with net.record() as recording:
        net(images, timesteps=T)
    layer = recording["5"]
    neuron = busiest(layer, 1)
    lines = {line.get_label(): line for line in plot.trace(recording, "5", neuron, image=1).lines}
    membrane = layer.membrane[:, 1].flatten(1)[:, neuron]
    assert list(lines[f"neuron {neuron} of 5"].get_ydata())[1::2] == membrane.tolist()
    assert lines["threshold θ"].get_ydata()[0] == int(layer.threshold.flatten()[neuron])
    never = int(net.layers["10"].silent.flatten().nonzero()[0])
    drawn = plot.trace(recording, "10", never)
    assert [line.get_label() for line in drawn.lines] == [f"neuron {never} of 10"]
    assert len(plot.raster(recording, "5").lines) == 2
    assert plot.rates(snm.report(net, images, timesteps=T)).has_data()


def test_a_trace_of_a_silent_neuron_has_no_threshold() -> None:
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 2)).eval()
    model[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
    net = snm.convert(model, torch.ones(1, 1))
    with net.record() as recording:
        net(torch.ones(1, 1), timesteps=4)
    axes = plot.trace(recording, "1", 1)
    assert [line.get_label() for line in axes.lines] == ["neuron 1 of 1"]
    assert list(axes.lines[0].get_ydata())[1::2] == [-1.0, -2.0, -3.0, -4.0]
    # Without negative spikes there is no threshold for them.
    with net.record() as recording:
        net.layers["1"].rule = snm.preset("if")
        net(torch.ones(1, 1), timesteps=4)
    labels = [line.get_label() for line in plot.trace(recording, "1", 0).lines]
    assert labels == ["threshold θ", "neuron 0 of 1", "positive spike"]


def test_parts_of_a_diagnosis() -> None:
    axes = plot.diagnosis(made_diagnosis())
    heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in axes.containers}
    # A layer without activations has no percentages.
    assert heights == {
        "inherited": [12.5, 12.5],
        "correction": [-6.25, -6.25],
        "clipping": [25.0, 25.0],
        "quantisation": [3.125, 3.125],
        "order": [1.5625, 1.5625],
    }
    bottoms = [bars[0].get_y() for bars in axes.containers]
    assert bottoms == [0.0, 0.0, 12.5, 37.5, 40.625]
    assert len({bars[0].get_hatch() for bars in axes.containers}) == len(PARTS)


def test_what_is_refused() -> None:
    recording = recorded(paths=["2", "5"], neurons=[9, 4, 30], what=("spikes", "membrane"))
    with pytest.raises(KeyError, match="'3' was not recorded, only 2, 5"):
        plot.raster(recording, "3")
    with pytest.raises(IndexError, match="image must be 0 to 2, got 3"):
        plot.raster(recording, "2", image=3)
    with pytest.raises(IndexError, match="image must be 0 to 2, got -1"):
        plot.trace(recording, "2", 9, image=-1)
    with pytest.raises(ValueError, match="must be one of those recorded, 9, 4, 30, got 0"):
        plot.trace(recording, "2", 0)
    with pytest.raises(ValueError, match="neuron of 10 must be 0 to 7, got 8"):
        plot.trace(recorded(), "10", 8)
    with pytest.raises(AttributeError, match="membrane of 2 was not recorded, only spikes"):
        plot.trace(recorded(what="spikes"), "2", 0)
    with pytest.raises(AttributeError, match="spikes of 2 was not recorded"):
        plot.raster(recorded(what="membrane"), "2")
