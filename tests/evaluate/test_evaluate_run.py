"""An evaluation from the command line to its results, in one process."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import snm
from snm.bench.vision import torchvision_models
from snm.commands import cli
from snm.commands import evaluate as command
from snm.evaluate import conversion, run
from snm.evaluate.conversion import Conversion
from snm.evaluate.neurons import Neurons
from snm.evaluate.processes import Processes
from snm.evaluate.results import Results
from snm.network.relu import relu_pass
from snm.network.tally import Tally
from support.evaluation import (
    GREY,
    SOURCE,
    in_processes,
    packaged,
    run_small,
    small_evaluation,
    small_model,
    small_network,
    write_fashion_mnist,
)

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")

LOOKS = ("--mean", "0.2860", "--std", "0.3530")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fashion_mnist(tmp_path_factory.mktemp("data"), test=29, train=20)


def once(data: Path, out: Path, **options: Any) -> dict[str, Any]:
    resume = options.pop("resume", False)
    with Processes("cpu") as processes:
        return run.evaluate(small_evaluation(data, **options), out, processes, resume=resume)


@torch.no_grad()
def test_result_is_what_the_network_says(data: Path, tmp_path: Path) -> None:
    result = once(data, tmp_path / "out", preset="snm", timesteps=6)
    arrays = packaged()
    images = torch.stack([GREY(image) for image in arrays["test_images"][:29]])
    labels = torch.from_numpy(arrays["test_labels"][:29].astype(np.int64))
    calibration = torch.stack([GREY(image) for image in arrays["calibration_images"][:20]])
    net = snm.convert(small_network(), calibration.split(8), preset="snm")
    answers = torch.cat([net.anytime(part, timesteps=6) for part in images.split(8)], 1).argmax(2)
    expected = small_network()(images).argmax(1)
    assert result["right"] == (answers == labels).sum(1).tolist()
    assert result["agreeing"] == (answers == expected).sum(1).tolist()
    assert result["relu_right"] == int((expected == labels).sum())
    assert result["images"] == 29
    assert result["corrupt"] == []
    assert [shard["images"] for shard in result["shards"]] == [8, 8, 8, 5]
    kept = Neurons.load(tmp_path / "out" / "neurons.safetensors")
    for path, neuron in net.layers.items():
        assert torch.equal(kept.layers[path].threshold, neuron.threshold)
        assert result["layers"][path]["neurons"] == {"1": 576, "5": 16}[path]


@pytest.mark.parametrize("preset", ["snm", "burst"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_spikes_are_those_of_the_steps(preset: str, dtype: torch.dtype) -> None:
    rule = snm.SNMRule(max_spikes=3) if preset == "burst" else snm.preset("snm")
    images = torch.stack([GREY(image) for image in packaged()["test_images"][:6]])
    net = snm.convert(small_network(), images, preset=rule).to(dtype)
    tally = Tally()
    net.simulation(images.to(dtype), timesteps=9, observers=[tally]).answer()
    sent: dict[str, int] = dict.fromkeys(net.layers, 0)
    negative = 0
    hooks = []
    for path, neuron in net.layers.items():
        before: dict[str, torch.Tensor] = {}

        def note(*seen: Any, path: str = path, before: dict[str, torch.Tensor] = before) -> None:
            nonlocal negative
            output = seen[-1]
            spikes = output.state.m - before.get("m", 0)
            sent[path] += int(spikes.abs().sum())
            negative += int((spikes < 0).sum())
            before["m"] = output.state.m

        hooks.append(neuron.register_forward_hook(note))
    for _ in range(9):
        net.step(images.to(dtype))
    assert {path: int(spikes.sum()) for path, spikes in tally.sent().items()} == sent
    assert negative > 0


def test_spikes_that_nobody_reads_are_counted() -> None:
    net, tally = snm.convert(small_network(), torch.rand(4, 1, 28, 28)), Tally()
    assert not any(fire.sends for fire in net.program.neurons if fire.path == "5")
    images = torch.rand(2, 1, 28, 28)
    net.simulation(images, timesteps=5, observers=[tally]).answer()
    with net.record("5", what="spikes") as recording:
        net(images, timesteps=5)
    expected = int(recording["5"].spikes.abs().sum())
    assert int(tally.sent()["5"].sum()) == expected
    assert expected > 0


def test_killed_and_resumed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Weights are fitted by autograd, which a forked process lacks after one that has it for CUDA.
    how: dict[str, Any] = {"tune_for": 4, "fit_weights": False, "budget": 3600.0}
    whole = once(data, tmp_path / "whole", **how)

    def killed(processes: Processes) -> None:
        def die(_result: object, _of: int) -> None:
            if len(list((tmp_path / "out" / "shards").glob("*.json"))) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        evaluation = small_evaluation(data, **how)
        run.evaluate(evaluation, tmp_path / "out", processes, report=die)

    with pytest.raises((AssertionError, EOFError)):
        in_processes(1, tmp_path / "meeting", killed)
    assert sorted(path.name for path in (tmp_path / "out" / "shards").iterdir()) == [
        *("000000.json", "000001.json"),
    ]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("calibrates or tunes again")

    monkeypatch.setattr(conversion, "shared_statistics", never)
    monkeypatch.setattr(conversion, "tune", never)
    resumed = run_small(data, tmp_path / "out", 2, resume=True, **how)[0]
    decisive = ("neurons", "right", "agreeing", "relu_right", "layers", "images", "tuning")
    assert {name: resumed[name] for name in decisive} == {name: whole[name] for name in decisive}
    assert [shard["rank"] for shard in resumed["shards"]] == [0, 0, 0, 1]


def test_resumed_when_all_is_done(data: Path, tmp_path: Path) -> None:
    first = once(data, tmp_path, resume=True)
    again = once(data, tmp_path, resume=True)
    assert again["right"] == first["right"]
    assert again["shards"] == first["shards"]


def test_other_results_are_not_mixed(data: Path, tmp_path: Path) -> None:
    once(data, tmp_path)
    with pytest.raises(ValueError, match="has shards of an earlier run; resume it, or choose"):
        once(data, tmp_path)
    with pytest.raises(ValueError, match=r"preset was 'snm-zero', is 'if'; timesteps was 4, is 5$"):
        once(data, tmp_path, resume=True, preset="if", timesteps=5)


def test_other_images_are_not_mixed(data: Path, tmp_path: Path) -> None:
    other = write_fashion_mnist(tmp_path / "copy", test=29, train=20)
    once(data, tmp_path / "out")
    again = once(other, tmp_path / "out", resume=True)
    assert again["images"] == 29
    labels = other / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match=r"data_digest was '.*', is '.*'$"):
        once(other, tmp_path / "out", resume=True)


def test_networks_of_other_encoders_are_refused(data: Path, tmp_path: Path) -> None:
    net = snm.convert(small_network(), torch.rand(2, 1, 28, 28), encoder="poisson")
    with pytest.raises(ValueError, match="must have encoder='direct', got 'poisson'"):
        once(data, tmp_path, loaded=small_model()._replace(model=net))


def test_damaged_results_are_named(data: Path, tmp_path: Path) -> None:
    once(data, tmp_path)
    shard = tmp_path / "shards" / "000001.json"
    content = shard.read_text()
    for text in ("{", "[]", "{}", content.replace('"images"', '"pictures"')):
        shard.write_text(text)
        with pytest.raises(ValueError, match=r"000001\.json must hold a shard's result"):
            once(data, tmp_path, resume=True)
    fingerprint = json.loads(content)["fingerprint"]
    shard.write_text(content.replace(fingerprint, "0" * 64))
    with pytest.raises(ValueError, match=r"000001\.json must be of these settings and neurons"):
        once(data, tmp_path, resume=True)
    shard.write_text(content)
    (tmp_path / "neurons.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"neurons\.safetensors must hold neurons"):
        once(data, tmp_path, resume=True)


def test_results_of_a_run_without_shards_are_replaced(data: Path, tmp_path: Path) -> None:
    Results(tmp_path, {"timesteps": 3}).begin(resume=False)
    assert once(data, tmp_path)["images"] == 29


def test_other_weights_in_another_process_are_refused(data: Path, tmp_path: Path) -> None:
    def work(processes: Processes) -> str:
        loaded = small_model()
        if processes.rank == 1:
            loaded = loaded._replace(digest="0" * 64)
        with pytest.raises(ValueError, match=r"settings of rank 1 must be .*: weights was "):
            run.evaluate(small_evaluation(data, loaded=loaded), tmp_path / "out", processes)
        return "refused"

    assert in_processes(2, tmp_path / "meeting", work) == ["refused", "refused"]


def test_other_thresholds_in_another_process_are_refused(data: Path, tmp_path: Path) -> None:
    def work(processes: Processes) -> str:
        evaluation = small_evaluation(data, preset=("snm", "if")[processes.rank])
        how = (evaluation.loaded, evaluation.conversion, evaluation.calibration, processes)
        with pytest.raises(ValueError, match="thresholds of rank 1 must be those of rank 0"):
            conversion.spiking_network(*how)
        return "refused"

    assert in_processes(2, tmp_path / "meeting", work) == ["refused", "refused"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"preset": "lif"}, "preset must be one of"),
        ({"norm": "row"}, "norm must be one of"),
        ({"statistic": "mean"}, "statistic must be one of"),
        ({"percentile": 0}, "percentile must be above 0"),
        ({"dtype": "float64"}, "dtype must be one of float32, bfloat16, float16, got 'float64'"),
        ({"max_spikes": 3}, "max_spikes must be left out but with preset='burst' or tuning, got 3"),
    ],
)
def test_bad_conversions_are_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conversion(**how)


def test_a_model_without_calibration_images(data: Path, tmp_path: Path) -> None:
    evaluation = small_evaluation(data)
    with Processes("cpu") as processes, pytest.raises(ValueError, match="needs calibration images"):
        run.evaluate(
            run.Evaluation(**{**vars(evaluation), "calibration": None}), tmp_path, processes
        )


def classes_of_five() -> torch.nn.Module:
    """A model of fewer classes than the data has."""
    return small_network()[:-1].append(torch.nn.Linear(16, 5)).eval()


def evaluated(data: Path, out: Path, *more: str, model: str = SOURCE) -> int:
    fixed = ("--timesteps", "4", "--batch-size", "8", "--device", "cpu", *LOOKS)
    arguments = [model, "--data", f"mnist:{data}", "--out", str(out), *fixed, *more]
    return cli.main(["evaluate", *arguments])


def test_command_prints_a_table(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(data, tmp_path, "--limit", "20", "--calibration-images", "12") == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["images"] == 20
    assert result["settings"]["calibration_images"] == 12
    assert json.loads(result["settings"]["preprocessing"])["mean"] == [0.286]
    lines = [line.split() for line in printed.splitlines()]
    percents = [f"{100 * result[name][3]:.2f}" for name in ("accuracy", "agreement")]
    assert ["4", *percents] in lines
    assert ["ReLU", "network", f"{100 * result['relu_accuracy']:.2f}"] in lines
    rows = [line for line in lines if line[:2] == ["1", "576"]]
    assert len(rows) == 1
    assert str(data) not in (tmp_path / "result.json").read_text()


def test_command_says_how_far_tuning_is(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(data, tmp_path, "--tune") == 0
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if line.startswith("tuning")] == [
        *("tuning layer 1 of 2: 1", "tuning layer 2 of 2: 5"),
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--tune", "--budget", "0"), "snm.tune: budget must be > 0"),
        (("--preset", "lif"), "convert: preset must be one of"),
        (("--crop", "99"), "at least 99 pixels"),
        (("--calibration", "mnist:nowhere"), "nowhere must hold train-images"),
        (("--calibration", "cifar"), "data must be KIND:FOLDER"),
        (("--split", "val"), "split must be train or test"),
        (("--checkpoint", "none.pt"), "checkpoint must be a file, got none.pt"),
    ],
)
def test_command_says_what_is_wrong(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    message: str,
) -> None:
    assert evaluated(data, tmp_path / "out", *more) == 1
    error = capsys.readouterr().err
    assert "snm evaluate: " in error
    assert message in error
    assert "evaluate: evaluate:" not in error


def test_command_says_that_classes_do_not_fit(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(data, tmp_path, model=f"{__name__}:classes_of_five") == 1
    assert "logits for classes up to 9, got [8, 5]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [("--timesteps", "0"), ("--batch-size", "x"), ("--workers", "-1"), ("--norm", "row")]
)
def test_command_line_is_checked(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluated(data, tmp_path, *options)
    assert f"argument {options[0]}" in capsys.readouterr().err


def test_command_without_a_gpu(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert evaluated(data, tmp_path, "--device", "cuda") == 1
    assert "device cuda needs an NVIDIA GPU, found none" in capsys.readouterr().err
    with pytest.raises(ValueError, match="a GPU for each process of a machine, got 0 for proc"):
        Processes("cuda")


def test_command_without_rich(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "PACKAGES", ("no_such_package",))
    assert evaluated(data, tmp_path) == 1
    assert "pip install 'snm-kernels[evaluate]'" in capsys.readouterr().err


def test_other_errors_keep_their_trace(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(command, "_evaluate", fail)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluated(data, tmp_path)
    assert "snm evaluate: rank 2 of 4: out of memory" in capsys.readouterr().err


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve packaged images as grey photos, the class of each its folder."""
    torchvision_models()
    arrays = packaged()
    for place, kind in (("train", "calibration"), ("val", "test")):
        for number, image in enumerate(arrays[f"{kind}_images"][:12]):
            folder = tmp_path / "photos" / place / f"class{number % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number:02}.png")
    return tmp_path / "photos"


def test_corrupt_photos_are_counted(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, seen = photos / "val" / "class1" / "04.png", photos / "train" / "class0" / "03.png"
    for path in (bad, seen):
        path.write_bytes(b"a note")
    line = ["evaluate", SOURCE, "--data", f"folder:{photos}", "--timesteps", "2", *LOOKS]
    line += ["--batch-size", "4", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert cli.main(line) == 1
    # Calibration comes first.
    assert f"snm evaluate: {seen} is corrupt" in capsys.readouterr().err
    line[-1] = str(tmp_path / "other")
    assert cli.main([*line, "--skip-corrupt"]) == 0
    printed = capsys.readouterr().out
    assert "11 images" in printed
    assert "1 corrupt, left out:" in printed
    assert "1 corrupt of calibration, left out:" in printed
    assert str(bad) in printed
    assert str(seen) in printed
    result = json.loads((tmp_path / "other" / "result.json").read_text())
    assert result["images"] == 11
    assert result["accuracy"][1] == result["right"][1] / 11
    assert len(result["corrupt"]) == len(result["corrupt_calibration"]) == 1
    seen.write_bytes((photos / "train" / "class0" / "00.png").read_bytes())
    line[-1] = str(tmp_path / "third")
    assert cli.main(line) == 1
    assert f"snm evaluate: {bad} is corrupt" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:SpikingNetwork. thresholds and biases were tuned")
def test_convert_then_run(
    data: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, calibration = tmp_path / "net.safetensors", f"mnist:{data}"
    line = ["convert", "snm.demo.data:load_network", *LOOKS, "--out", str(file), "--device", "cpu"]
    assert cli.main([*line, "--calibration", calibration, "--tune", "--timesteps", "4"]) == 0
    printed, told = capsys.readouterr()
    assert "5 layers" in printed
    assert "chosen" in printed
    assert "tuning layer 5 of 5: features.21" in told.splitlines()
    net = snm.load(file)
    assert net.preprocessing == GREY.to_json()
    pictures = sorted((photos / "val").glob("*/*.png"))
    classes = tmp_path / "classes.txt"
    classes.write_text("".join(f"garment {n}\n" for n in range(10)))
    line = ["run", str(file), *map(str, pictures), "--timesteps", "4", "--classes", str(classes)]
    assert cli.main(line) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    right = 0
    for path, row in zip(pictures, rows[1:], strict=True):
        image = GREY(Image.open(path))[None]
        logits = net(image, timesteps=4)
        probability = float(torch.softmax(logits, 1).max())
        found = int(logits.argmax())
        assert row == [str(path), "garment", str(found), f"{probability:.4f}", "4"]
        right += found == packaged()["test_labels"][int(path.stem)]
    assert right >= 9
    # What was converted is evaluated as it is.
    assert evaluated(data, tmp_path / "out", model=str(file)) == 0
    assert cli.main([*line[:2], str(pictures[0]), "--timesteps", "4", "--confidence", "0.2"]) == 0
    steps = int(net.until(GREY(Image.open(pictures[0]))[None], 0.2, max_steps=4).steps)
    assert capsys.readouterr().out.split()[-1] == str(steps)
    assert steps < 4
    classes.write_text("only one\n")
    assert cli.main(line) == 1
    assert "must name 10 classes, got 1" in capsys.readouterr().err


def test_convert_to_integers_then_run(
    data: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, floating = tmp_path / "net.safetensors", tmp_path / "floating.safetensors"
    line = ["convert", "snm.demo.data:load_network", *LOOKS, "--device", "cpu"]
    line += ["--calibration", f"mnist:{data}"]
    assert cli.main([*line, "--bits", "8", "--out", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "5 layers" in printed
    assert "integers, with weights of 8 bits" in printed
    net = snm.load(file)
    assert net.integers
    assert net.preprocessing == GREY.to_json()
    pictures = sorted((photos / "val").glob("*/*.png"))
    # Every image is made of pixels, which the network takes too.
    picture = Image.open(pictures[0])
    pixels = torch.from_numpy(np.asarray(picture).copy())[None, None]
    found = net.digest(pixels, timesteps=4)
    assert net.digest(GREY(picture)[None], timesteps=4) == found
    assert cli.main(["run", str(file), *map(str, pictures), "--timesteps", "16", *LOOKS]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()][1:]
    classes = [packaged()["test_labels"][int(path.stem)] for path in pictures]
    assert sum(int(row[1]) == own for row, own in zip(rows, classes, strict=True)) >= 9
    assert cli.main(["run", str(file), str(pictures[0]), "--timesteps", "4"]) == 0
    # Evaluated and reported on as it is, beside the ReLU network of the rounded weights.
    assert evaluated(data, tmp_path / "out", model=str(file)) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["relu_accuracy"] > 0.5
    assert evaluated(data, tmp_path / "out", "--resume", model=str(file)) == 0
    out = tmp_path / "report.html"
    line = ["report", str(file), "--data", f"mnist:{data}", "--timesteps", "4", "--device", "cpu"]
    assert cli.main([*line, "--out", str(out)]) == 0
    assert "integers" in capsys.readouterr().out
    assert out.stat().st_size
    assert cli.main([*line, "--diagnose"]) == 1
    assert "diagnose it before snm.quantize" in capsys.readouterr().err
    # A saved network in floating point can be made one of integers.
    line = ["convert", "snm.demo.data:load_network", *LOOKS, "--device", "cpu", "--norm", "channel"]
    line += ["--calibration", f"mnist:{data}"]
    assert cli.main([*line, "--out", str(floating)]) == 0
    line[1] = str(floating)
    assert cli.main([*line, "--bits", "8", "--out", str(tmp_path / "again")]) == 0
    assert snm.load(tmp_path / "again").digest(pixels, timesteps=4) == found


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--bits", "9"], "snm convert: quantize: bits must be 2 to 8, got 9"),
        (["--bits", "8", "--norm", "neuron"], "convert with norm='channel' or 'layer'"),
    ],
)
def test_bad_bits_are_refused(
    more: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["convert", "snm.demo.data:load_network", *LOOKS, "--device", "cpu"]
    line += ["--calibration", f"mnist:{data}", "--out", str(tmp_path / "net.safetensors")]
    assert cli.main([*line, *more]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "net.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", SOURCE, "--out", "net.safetensors", *LOOKS), "calibration must name images"),
        (("convert", SOURCE, "--out", "net.safetensors"), "takes its images"),
        (
            ("convert", SOURCE, "--tune", "--out", "net.safetensors", *LOOKS),
            "tuning needs timesteps, got none",
        ),
        (("run", "none.safetensors", "a.png", "--timesteps", "2"), "none.safetensors"),
        (("convert", SOURCE, "--out", "a", "--resize", "9"), "mean and std must be given"),
    ],
)
def test_bad_commands_are_refused(
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(list(arguments)) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"snm {arguments[0]}: ")
    assert message in error


def test_run_refuses_what_has_no_probabilities(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a.png"
    Image.new("L", (28, 28)).save(image)
    line = ["run", str(tmp_path / "net.safetensors"), str(image), "--timesteps", "2"]
    for readout, more, message in (
        ("mean", (), "does not say how it takes its images"),
        ("count", LOOKS, "must have readout='mean'"),
    ):
        net = snm.convert(small_network(), torch.rand(2, 1, 28, 28), readout=readout)
        snm.save(net, tmp_path / "net.safetensors")
        assert cli.main([*line, *more]) == 1
        assert message in capsys.readouterr().err
    image.write_bytes(b"a note")
    snm.save(snm.convert(small_network(), torch.rand(2, 1, 28, 28)), tmp_path / "net.safetensors")
    assert cli.main([*line, *LOOKS]) == 1
    assert "a.png is corrupt" in capsys.readouterr().err


def test_fitted_weights_go_with_the_neurons(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)
    ).eval()
    images = torch.rand(120, 1, 8, 8)
    tuned = snm.tune(model, images, timesteps=3)
    assert tuned.weights
    Neurons.of(tuned.net).save(tmp_path / "neurons.safetensors")
    other = snm.convert(model, images)
    Neurons.load(tmp_path / "neurons.safetensors").install(other)
    assert torch.equal(other(images, timesteps=3), tuned.net(images, timesteps=3))
    assert torch.equal(relu_pass(other, images)[1], relu_pass(tuned.net, images)[1])
    assert Neurons.of(other).digest() == Neurons.of(tuned.net).digest()
    # As the process does that tuned.
    Neurons.of(tuned.net).install(tuned.net)
    assert torch.equal(relu_pass(other, images)[1], relu_pass(tuned.net, images)[1])
    kept = snm.tune(model, images, timesteps=3, weights=False).net
    assert not Neurons.of(kept).weights
