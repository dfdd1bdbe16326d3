"""Evaluation by several processes is that of one, bit for bit; whatever fails ends all of them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import snm
from snm.commands import cli
from snm.conversion.statistics import Statistic
from snm.data.batches import Shards, shards_of
from snm.data.datasets import open_dataset
from snm.evaluate.calibration import shared_statistics
from snm.evaluate.neurons import Neurons
from snm.evaluate.processes import Processes
from support.evaluation import (
    GREY,
    PATIENCE,
    in_processes,
    run_small,
    small_model,
    write_fashion_mnist,
)

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Seven shards of eight test images, the last of five; three of calibration, the last of four.
    return write_fashion_mnist(tmp_path_factory.mktemp("data"), test=53, train=20)


def decided(result: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on the number of processes."""
    names = ("settings", "neurons", "images", "right", "agreeing", "relu_right", "layers", "silent")
    shards = [(shard["shard"], shard["images"]) for shard in result["shards"]]
    return {**{name: result[name] for name in names}, "shards": shards}


@pytest.mark.parametrize(
    "how",
    [
        {"preset": "snm-zero"},
        {"preset": "snm", "statistic": "percentile", "percentile": 99.0},
        {"preset": "burst", "max_spikes": 3, "norm": "channel", "statistic": "mse"},
        {"preset": "if-half", "norm": "layer", "dtype": "bfloat16"},
        {"tune_for": 4, "fit_weights": False, "budget": 3600.0},
        pytest.param(
            {"tune_for": 4, "budget": 3600.0},
            marks=pytest.mark.skipif(
                torch.version.cuda is not None,
                reason="a forked process lacks autograd after one that has it for CUDA",
            ),
        ),
    ],
    ids=["max", "percentile", "burst channel mse", "bfloat16 layer", "tuned", "weights fitted"],
)
def test_every_number_of_processes_gives_the_same(
    data: Path, tmp_path: Path, how: dict[str, Any]
) -> None:
    results, thresholds = [], []
    for world in (1, 2, 3):
        found = run_small(data, tmp_path / str(world), world, **how)
        assert all(result["processes"] == world for result in found)
        assert [decided(result) for result in found] == [decided(found[0])] * world
        results.append(found[0])
        thresholds.append((tmp_path / str(world) / "neurons.safetensors").read_bytes())
        assert json.loads((tmp_path / str(world) / "result.json").read_text()) == found[0]
    assert decided(results[1]) == decided(results[0])
    assert decided(results[2]) == decided(results[0])
    assert thresholds[1] == thresholds[0]
    assert thresholds[2] == thresholds[0]
    assert results[0]["images"] == 53
    assert all(layer["spikes"] > 0 for layer in results[0]["layers"].values())
    assert {shard["rank"] for shard in results[2]["shards"]} == {0, 1, 2}


def test_more_processes_than_shards(data: Path, tmp_path: Path) -> None:
    alone, shared = (
        run_small(
            *(data, tmp_path / f"{world}", world),
            batch_size=32,
            statistic="percentile",
        )
        for world in (1, 3)
    )
    assert len(alone[0]["shards"]) == 2
    assert decided(shared[0]) == decided(alone[0])
    assert shared[0]["communication"]["reduced"] > 0
    assert set(alone[0]["communication"].values()) == {0}
    # The largest activation and the histogram of the layers 1, 5 and output, and the images.
    neurons = 576 + 16 + 10
    sizes = 4 * neurons + 4 * (576 + 16 + 10) * 2048 + 8
    assert shared[0]["communication"]["reduced"] == sizes


@pytest.mark.parametrize("statistic", ["max", "percentile"])
def test_merged_statistics_are_those_of_one_pass(
    data: Path, tmp_path: Path, statistic: Statistic
) -> None:
    images = open_dataset(f"mnist:{data}", "train")
    shards = Shards(images, GREY, range(len(images)), 8)

    def work(processes: Processes) -> dict[str, torch.Tensor]:
        # The first has none.
        own = shards_of(range(3), processes.rank - 1, 2) if processes.rank else ()
        found = shared_statistics(
            *(small_model().model, shards.read(own)),
            norm="neuron",
            statistic=statistic,
            processes=processes,
        )
        return {name: value.numpy() for name, value in found.state_dict().items()}

    expected = snm.calibrate(
        small_model().model,
        [batch.images for batch in shards.read(range(3))],
        statistic=statistic,
    ).state_dict()
    for found in in_processes(3, tmp_path / "meeting", work):
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert torch.equal(torch.from_numpy(found[name]), value), name


def command(
    data: Path,
    out: Path,
    *more: str,
    model: str = "snm.demo.data:load_network",
    known: bool = False,
) -> list[str]:
    fixed = ("--timesteps", "4", "--batch-size", "8")
    fixed += () if known else ("--mean", "0.2860", "--std", "0.3530")
    place = ("--data", f"fashion-mnist:{data}", "--out", str(out), "--device", "cpu")
    return ["-m", "snm", "evaluate", model, *fixed, *place, *more]


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python, with this Python's path and that of the tests."""
    path = os.pathsep.join([str(TESTS), *(entry for entry in sys.path if entry)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    run = [sys.executable, *arguments]
    return subprocess.run(
        run, cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_torchrun_gives_what_one_process_gives(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(data, tmp_path / "alone")[2:]) == 0
    alone = capsys.readouterr().out
    both = python(*TORCHRUN, "2", *command(data, tmp_path / "both"), cwd=tmp_path)
    assert both.returncode == 0, both.stderr
    first, second = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("alone", "both")
    )
    assert decided(first) == decided(second)
    assert second["processes"] == 2
    assert first["right"][-1] >= 40
    neurons = [Neurons.load(tmp_path / name / "neurons.safetensors") for name in ("alone", "both")]
    for path, layer in neurons[0].layers.items():
        assert torch.equal(layer.threshold, neurons[1].layers[path].threshold)
    # The tables are printed once, and are the same but for the seconds.
    assert both.stdout.count("ReLU network") == 1
    tables = [text.rpartition("\n\n")[0].rpartition("\n\n")[0] for text in (alone, both.stdout)]
    assert tables[0] == tables[1]


def test_a_process_that_fails_ends_the_job(data: Path, tmp_path: Path) -> None:
    # Rank 0 waits for rank 1, half an hour if nobody ends it: longer than this waits for both.
    failed = python(
        *TORCHRUN,
        "2",
        *command(data, tmp_path / "out", model="support.failing:network", known=True),
        cwd=tmp_path,
    )
    assert failed.returncode != 0
    assert "snm evaluate: rank 1 of 2: the disk of rank 1 is on fire" in failed.stderr
    assert not (tmp_path / "out" / "result.json").exists()
