"""Evaluation on GPUs: the same from run to run, and from one process to two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from snm.evaluate.processes import Processes
from snm.evaluate.run import evaluate
from snm_kernels import backends
from support.evaluation import small_evaluation, write_fashion_mnist

if not torch.cuda.is_available():
    pytest.skip(backends()["cuda"].reason, allow_module_level=True)

DECISIVE = ("neurons", "right", "agreeing", "relu_right", "layers", "images")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_fashion_mnist(tmp_path / "data", test=53, train=20)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_two_runs_give_the_same(data: Path, tmp_path: Path, dtype: str) -> None:
    results = []
    for name in ("first", "second"):
        with Processes("cuda") as processes:
            evaluation = small_evaluation(data, statistic="percentile", dtype=dtype)
            results.append(evaluate(evaluation, tmp_path / name, processes))
    first, second = ({name: result[name] for name in DECISIVE} for result in results)
    assert first == second
    assert first["images"] == 53


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_processes_give_what_one_gives(data: Path, tmp_path: Path) -> None:
    results = []
    path = os.pathsep.join(
        [str(Path(__file__).parents[1]), *(entry for entry in sys.path if entry)]
    )
    for world in ("1", "2"):
        out = tmp_path / world
        run = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", world)
        command = ("-m", "snm", "evaluate", "support.evaluation:small_network", "--device", "cuda")
        options = ("--mean", "0.2860", "--std", "0.3530", "--timesteps", "4", "--batch-size", "8")
        place = ("--data", f"mnist:{data}", "--statistic", "percentile", "--out", str(out))
        subprocess.run(
            [sys.executable, *run, *command, *options, *place],
            env={**os.environ, "PYTHONPATH": path},
            check=True,
        )
        result = json.loads((out / "result.json").read_text())
        results.append({name: result[name] for name in DECISIVE})
    assert results[0] == results[1]
