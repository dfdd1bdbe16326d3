"""Every example runs, and prints what it is there to show."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

# What examples/ holds beside those run here: trained for hours, and a cluster's job.
NOT_RUN = {"train_fashion_mnist.py", "cluster"}

WITH_TORCHVISION = """
import runpy, sys
from snm.bench.vision import torchvision_models
torchvision_models()
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script where torchvision may be built for another torch."""


def run(name: str, *options: object, imports_torchvision: bool = False) -> str:
    """What an example prints."""
    start = ["-c", WITH_TORCHVISION] if imports_torchvision else []
    done = subprocess.run(
        [sys.executable, *start, EXAMPLES / name, *map(str, options)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return done.stdout


def percent(line: str, text: str) -> float:
    """The percentage that follows a text."""
    found = re.search(re.escape(line) + r"\D*?([\d.]+)\s?%", text)
    assert found is not None, f"{line!r} in {text}"
    return float(found[1])


def test_all_examples_are_run_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        assert path.name in NOT_RUN or f'"{path.name}"' in here, path.name


def test_op_in_ten_lines() -> None:
    printed = run("op_in_ten_lines.py")
    for line in ("equal to the loop", "equal in two parts", "equal state", "rates are means"):
        assert f"{line}: True" in printed
    assert percent("sends 1 at", printed) > 10


def test_plain_pytorch_loop() -> None:
    printed = run("plain_pytorch_loop.py", "--images", 200, "--timesteps", 8)
    relu = percent("ReLU network:", printed)
    assert relu > 88
    assert abs(percent("8 time steps:", printed) - relu) < 4


@pytest.mark.needs("torchvision", "pytorch_lightning")
def test_lightning_loop() -> None:
    printed = run(
        *("lightning_loop.py", "--images", 100, "--timesteps", 8), imports_torchvision=True
    )
    accuracy = percent("validation accuracy, 8 time steps:", printed)
    assert accuracy > 85
    assert percent("prediction accuracy:", printed) == accuracy
    assert percent("half way:", printed) > 80


@pytest.mark.needs("torchvision")
def test_resnet() -> None:
    printed = run(
        *("resnet.py", "--size", 64, "--images", 4, "--timesteps", 64), imports_torchvision=True
    )
    assert "resnet18: convertible, followed by torch.fx" in printed
    errors = [float(row) for row in re.findall(r"^ +\d+ +([\d.]+)%", printed, re.MULTILINE)]
    assert len(errors) == 7
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files like CIFAR-10's, of coloured gratings that are easy to tell apart."""
    folder = tmp_path_factory.mktemp("data") / "cifar-10-batches-bin"
    folder.mkdir()
    random = np.random.default_rng(0)
    names = [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]
    for name in names:
        labels = random.integers(0, 10, 200)
        phase = random.random((200, 1, 1, 1))
        frequency = (1 + labels % 5).reshape(-1, 1, 1, 1) / 32
        wave = np.sin(2 * np.pi * (frequency * np.arange(32) + phase))
        upright = (labels < 5).reshape(-1, 1, 1, 1)
        wave = np.where(upright, wave, wave.transpose(0, 1, 3, 2) * np.ones((32, 1)))
        noise = random.normal(0, 0.2, (200, 3, 32, 32))
        pixels = np.clip(128 + 80 * (wave + noise), 0, 255).astype(np.uint8)
        records = np.concatenate([labels[:, None].astype(np.uint8), pixels.reshape(200, -1)], 1)
        records.tofile(folder / name)
    return folder.parent


def test_cifar10(cifar10: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    small = ("--data", cifar10, "--width", 8, "--timesteps", 2, "--budget", 5, "--test-images", 100)
    printed = run("cifar10.py", *small, "--epochs", 5, "--out", weights)
    relu = percent("ReLU network", printed)
    assert "of 100 test images" in printed
    assert relu > 60
    steps = {
        int(t): float(accuracy)
        for t, accuracy in re.findall(r"converted +(\d+) time steps +([\d.]+)%", printed)
    }
    assert list(steps) == [1, 2, 4, 8, 16, 32]
    assert abs(steps[32] - relu) < 8
    assert percent("tuned        2 time steps", printed) >= steps[1]
    again = run("cifar10.py", *small, "--checkpoint", weights)
    assert percent("ReLU network", again) == relu


Write = Callable[[Path, np.ndarray], None]


def as_n_mnist(path: Path, events: np.ndarray) -> None:
    """40 bits an event: x, y, one of polarity and 23 of microseconds, the highest first."""
    content = bytearray()
    for t, x, y, p in events.tolist():
        content += (x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big")
    path.with_suffix(".bin").write_bytes(content)


def as_columns(path: Path, events: np.ndarray) -> None:
    np.save(path.with_suffix(".npy"), events)


def as_fields(path: Path, events: np.ndarray) -> None:
    fields = np.zeros(len(events), [("x", "u2"), ("y", "u2"), ("p", "?"), ("t", "i8")])
    for field, column in zip("txyp", events.T, strict=True):
        fields[field] = column
    np.save(path.with_suffix(".npy"), fields)


def as_arrays(path: Path, events: np.ndarray) -> None:
    t, x, y, p = events.T
    np.savez(path.with_suffix(".npz"), t=t, x=x, y=y, p=p)


WRITERS: tuple[Write, ...] = (as_n_mnist, as_columns, as_fields, as_arrays)


def test_event_camera_on_recordings(tmp_path: Path) -> None:
    """An edge that moves right, left, down or up: written in four ways, told apart by all."""
    random = np.random.default_rng(0)
    for split, recordings in (("Train", 16), ("Test", 8)):
        for label in range(4):
            folder = tmp_path / split / f"moves {label}"
            folder.mkdir(parents=True)
            for recording in range(recordings):
                t = np.sort(random.integers(0, 300_000, 400))
                along = t * 33 // 300_000
                across = random.integers(0, 34, 400)
                # The lane that it keeps to is the class.
                across = (across % 8) + 8 * label
                events = np.stack([t, along, across, random.integers(0, 2, 400)], 1)
                WRITERS[recording % 4](folder / f"{recording:05}", events)
    printed = run(
        *("event_camera.py", "--data", tmp_path, "--recordings", 64, "--frames", 8),
        *("--epochs", 12),
    )
    assert "400 events a recording" in printed
    assert "of 20 recordings" in printed
    assert percent("mean of 8 frames:", printed) == 100
    assert percent("after   8 frames:", printed) == 100
    assert "as in the batch: True" in printed


def test_event_camera_synthetic() -> None:
    printed = run(
        *("event_camera.py", "--recordings", 450, "--frames", 16, "--epochs", 6),
    )
    assert "600 synthetic recordings" in printed
    relu = percent("mean of 16 frames:", printed)
    assert relu > 50
    assert percent("after  16 frames:", printed) > relu - 8
    assert "as in the batch: True" in printed


def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(EXAMPLES / "first_steps.ipynb", 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert cells[0].metadata.tags == ["parameters"]
    cells[0].source = "IMAGES = 200\nTIMESTEPS = 16\nBUDGET = 5"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(tmp_path))
    outputs = [output for cell in cells for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    print(printed)
    assert percent("ReLU network:", printed) > 88
    assert float(re.search(r"snm-zero +T=4: ([\d.]+)%", printed)[1]) > 85
    converted, tuned = re.search(r"([\d.]+)% as converted, ([\d.]+)% tuned", printed).groups()
    assert float(tuned) > float(converted) - 2 > 80
    assert float(re.search(r"([\d.]+)% right after", printed)[1]) > 85
    assert "the same network: True" in printed
    assert "synaptic operations an image" in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
