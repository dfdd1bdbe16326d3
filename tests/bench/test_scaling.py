"""The simulation of weak scaling, and the files for a cluster."""

import copy
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from snm.bench import scaling

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "examples" / "cluster"

# Four shards of each of two processes.
RESULT: dict[str, Any] = {
    "processes": 2,
    "preparation_seconds": 3.0,
    "communication": {"exchanges": 10, "reduced": 8_000, "broadcast": 500, "gathered": 100},
    "shards": [{"seconds": 1.5, "waited": 0.5} for _ in range(8)],
}


def test_equal_shards_lose_the_exchanges_alone() -> None:
    job = scaling.simulate(RESULT, 4, latency=0.01, bandwidth=1000.0)
    # Twice two rounds of ten exchanges; three quarters twice, once, and of three others.
    expected = 2 * 2 * 10 * 0.01 + (2 * 0.75 * 8_000 + 500 + 3 * 100) / 1000
    assert job.exchanging == pytest.approx(expected)
    assert job.seconds == pytest.approx(3 + 4 * 2 + expected)
    assert job.efficiency == pytest.approx(11 / (11 + expected))


def test_one_process_exchanges_nothing() -> None:
    job = scaling.simulate(RESULT, 1, latency=1.0, bandwidth=1.0)
    assert job == scaling.Job(1, 11.0, 0.0, 1.0)


def test_the_slowest_of_many_is_slower() -> None:
    uneven = copy.deepcopy(RESULT)
    for number, shard in enumerate(uneven["shards"]):
        shard["seconds"] = number
    jobs = [
        scaling.simulate(uneven, ranks, latency=0.0, bandwidth=float("inf"))
        for ranks in scaling.RANKS
    ]
    seconds = [job.seconds for job in jobs]
    assert seconds == sorted(seconds)
    assert seconds[0] == pytest.approx(3 + 4 * 4)
    assert seconds[-1] <= 3 + 4 * 7.5
    assert jobs[-1].efficiency < 0.75
    again = scaling.simulate(uneven, 64, latency=0.0, bandwidth=float("inf"))
    assert again == jobs[scaling.RANKS.index(64)]


def test_a_result_of_one_process_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 processes, got 1"):
        scaling.simulate({**RESULT, "processes": 1}, 4, latency=0.0, bandwidth=1.0)


def test_tables_have_a_row_for_each_number(tmp_path: Path) -> None:
    text = scaling.scaling_table(RESULT, scaling.NETWORKS)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()]
    assert [row[0] for row in rows[2:]] == [f"{ranks:,}" for ranks in scaling.RANKS]
    assert {len(row) for row in rows} == {1 + 3 * len(scaling.NETWORKS)}
    assert scaling.scaling_tables(tmp_path) == "Not yet measured.\n"


def test_the_slurm_script_asks_for_what_the_page_says(tmp_path: Path) -> None:
    """Stubs note how they are called; tar is the real one."""
    calls = tmp_path / "calls"
    for name, body in {
        "scontrol": "printf 'node-b\\nnode-c\\n'",
        "srun": 'while [[ $1 == --* ]]; do shift; done; "$@"',
        "apptainer": f'env > {tmp_path}/env; printf "%s\\n" "$@" > {calls}',
    }.items():
        stub = tmp_path / "bin" / name
        stub.parent.mkdir(exist_ok=True)
        stub.write_text(f"#!/bin/bash\n{body}\n")
        stub.chmod(0o755)
    (tmp_path / "val" / "n01").mkdir(parents=True)
    (tmp_path / "val" / "n01" / "a.jpg").write_bytes(b"a photo")
    subprocess.run(["tar", "-cf", "data.tar", "val"], cwd=tmp_path, check=True)
    environment = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "node-[b-c]",
        "SLURM_NNODES": "2",
        "SLURM_TMPDIR": str(tmp_path / "scratch"),
        "DATA": "data.tar",
        "IMAGE": "snm.sif",
        "OUT": "/shared/out",
        "BIND": "/shared",
    }
    script = ["bash", str(CLUSTER / "evaluate.sbatch"), "my_model:build", "--timesteps", "8"]
    subprocess.run(script, cwd=tmp_path, env=environment, check=True)
    called = calls.read_text().splitlines()
    scratch = str(tmp_path / "scratch" / "snm-123456")
    assert called[:5] == ["exec", "--nv", "--bind", f"{scratch},/shared/out,/shared", "snm.sif"]
    assert called[called.index("--rdzv-endpoint") + 1] == "node-b:23456"
    assert called[called.index("--nnodes") + 1] == "2"
    assert called[called.index("--nproc-per-node") + 1] == "4"
    command = called[called.index("evaluate") :]
    assert command[:4] == ["evaluate", "my_model:build", "--timesteps", "8"]
    assert command[command.index("--data") + 1] == f"folder:{scratch}/data"
    assert command[command.index("--out") + 1] == "/shared/out"
    assert "--resume" in command
    assert (Path(scratch) / "data" / "val" / "n01" / "a.jpg").read_bytes() == b"a photo"
    noted = dict(
        line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line
    )
    assert noted["TRITON_CACHE_DIR"] == f"{scratch}/triton"
    assert noted["CUDA_CACHE_PATH"] == f"{scratch}/cuda"
    del environment["DATA"]
    lacking = subprocess.run(
        script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert lacking.returncode != 0
    assert "DATA: a tar file with train/ and val/" in lacking.stderr
