"""``bench/on_gpu.sh`` from end to end, with stubs for the GPU, its tools and what takes long.

The stubs lie on PATH and in PYTHON's place; pytest is the real one, on tests of its own.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "on_gpu.sh"
STAGES = (
    *("gpu", "device", "build", "doctor", "backends", "tests", "benchmarks"),
    *("memcheck", "racecheck", "initcheck", "profile"),
)
FILES = {
    *("summary.json", "build.log", "tests.log", "sanitizer.log", "ncu.log"),
    *("record.json", "tables.md", "roofline.svg"),
}

STUB = """#!/usr/bin/env bash
# begin NAME: notes the call and the stages written down by then, and does what the test says.
begin() {
  local written
  written=$(grep -o '"stage": "[a-z]*"' "$OUT/summary.json" 2>/dev/null | cut -d'"' -f4)
  echo "$1|${written//$'\\n'/ }|$TORCH_CUDA_ARCH_LIST|$arguments" >>"$STUBS/calls"
  echo "output of $1"
  if [[ -f $STUBS/$1.does ]]; then source "$STUBS/$1.does"; fi
}
arguments="${*//$'\\n'/ }"
"""
PYTHON = """
case "$arguments" in
  *find_spec*) exec "$REAL_PYTHON" "$@" ;;
  *get_device_capability*) begin device; echo -n 9.0 >"$3" ;;
  *backends*) begin backends ;;
  "-m pip install"*"--editable .") begin build ;;
  "-m pip install"*) begin wheels ;;
  "-m snm doctor") begin doctor ;;
  "-m snm bench"*) begin benchmarks; touch "$OUT"/{record.json,tables.md,roofline.svg} ;;
  "-m pytest tests/gpu"*)
    begin tests
    shift 3
    exec "$REAL_PYTHON" -m pytest "$STUBS/cases" -p no:cacheprovider "$@" ;;
  *) echo "unexpected: $arguments"; exit 99 ;;
esac
"""
OTHERS = {
    "python": PYTHON,
    "nproc": "echo 2\n",
    "nvidia-smi": "begin gpu\n",
    "compute-sanitizer": 'begin "$2"\n',
    "ncu": "begin profile\n",
}
CASES = """
import pathlib, time

def test_quick():
    pass

def test_slow():
    time.sleep({seconds})
"""
OPTION = """
def pytest_addoption(parser):
    parser.addoption("--triton")
"""


@dataclass
class Run:
    """What a run of the script left."""

    status: int
    output: str
    seconds: float
    out: Path
    calls: list[list[str]]
    """Name, stages written down before it, target and arguments of each call of a stub."""

    @property
    def stages(self) -> dict[str, str]:
        summary = json.loads((self.out / "summary.json").read_text())
        return {stage["stage"]: stage["status"] for stage in summary["stages"]}

    def log(self, name: str) -> str:
        return (self.out / name).read_text()


class Machine:
    """A folder of stubs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name, body in OTHERS.items():
            (self.bin / name).write_text(STUB + body)
            (self.bin / name).chmod(0o755)
        (folder / "cases").mkdir()
        (folder / "cases" / "conftest.py").write_text(OPTION)
        self.slow_test(0)

    def slow_test(self, seconds: float) -> None:
        (self.folder / "cases" / "test_it.py").write_text(CASES.format(seconds=seconds))

    def does(self, stage: str, what: str) -> None:
        """What a stage's stub does, in Bash, instead of nothing."""
        (self.folder / f"{stage}.does").write_text(what)

    def run(self, ignoring_interrupts: bool = False, **environment: str) -> Run:
        out = self.folder / "out"
        settings = {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHON": str(self.bin / "python"),
            "REAL_PYTHON": sys.executable,
            "STUBS": str(self.folder),
            "OUT": str(out),
        }
        own = ("PYTEST", "TORCH_CUDA_ARCH_LIST", "LIMIT", "STAGES", "SUITES")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        start = time.monotonic()
        process = subprocess.run(
            ["bash", str(SCRIPT)],
            env={**kept, **settings, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            preexec_fn=_ignore_interrupts if ignoring_interrupts else None,
        )
        seconds = time.monotonic() - start
        calls = (self.folder / "calls").read_text().splitlines()
        split = [call.split("|", 3) for call in calls]
        return Run(process.returncode, process.stdout, seconds, out, split)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_all_stages_in_order(machine: Machine) -> None:
    run = machine.run()
    assert run.status == 0, run.output
    stages = [name for name in run.stages if name != "wheels"]
    assert stages == [*STAGES]
    assert set(run.stages.values()) == {"passed"}
    done: list[str] = []
    for name, written, target, _ in run.calls:
        assert written.split() == done
        done.append(name)
        assert target == ("9.0" if name not in ("wheels", "gpu", "device") else "")
    assert done == [*run.stages]
    assert "2 passed" in run.log("tests.log")
    assert "output of benchmarks" in run.log("tests.log")
    assert run.log("sanitizer.log").count("output of") == 3
    assert "all stages passed" in run.output


def test_no_more_files_than_come_back(machine: Machine) -> None:
    run = machine.run()
    assert {path.name for path in run.out.iterdir()} == FILES
    assert len(FILES) <= 8
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in FILES)


def test_commands(machine: Machine) -> None:
    arguments = {name: given for name, _, _, given in machine.run().calls}
    assert "--no-index --no-build-isolation --no-deps" in arguments["build"]
    assert "-m pytest tests/gpu -q --triton subset" in arguments["tests"]
    assert "-n 2 --dist worksteal" in arguments["tests"]
    measuring = int(re.search(r"--limit (\d+)", arguments["benchmarks"])[1])
    # All of 480 s but what the sanitizer and the profiler may take, and some to end in.
    assert 240 < measuring < 480 - 120 - 45
    assert "bench/sanitized_run.py" in arguments["memcheck"]
    assert "--clock-control none" in arguments["profile"]
    assert "dram__bytes_write.sum,gpu__time" in arguments["profile"]


def test_failing_stages_stop_no_other(machine: Machine) -> None:
    machine.does("doctor", "exit 3")
    machine.does("memcheck", "exit 1")
    machine.slow_test("does not compile")
    run = machine.run()
    assert run.status == 1
    wrong = {name: status for name, status in run.stages.items() if status != "passed"}
    # pytest's status of tests that can't be collected is 2 alone, and 1 beside workers.
    assert wrong.pop("tests").startswith("failed with")
    assert wrong == {"doctor": "failed with 3", "memcheck": "failed with 1"}
    assert "not passed: doctor: failed with 3" in run.output


def test_without_a_gpu_nothing_is_built(machine: Machine) -> None:
    machine.does("device", "exit 1")
    run = machine.run()
    assert run.status == 1
    assert run.stages["build"] == "failed without a device"
    assert "build" not in [name for name, *_ in run.calls]


def test_what_runs_out_of_time_leaves_what_it_has(machine: Machine) -> None:
    machine.slow_test(100)
    limit = 26
    run = machine.run(ignoring_interrupts=True, LIMIT=str(limit))
    assert run.status == 1
    assert run.stages["tests"] == "out of time"
    assert "1 passed" in run.log("tests.log")
    assert "KeyboardInterrupt" in run.log("tests.log")
    assert [*run.stages.values()][-5:] == ["cut"] * 5
    assert run.seconds < limit
    assert run.out.joinpath("summary.json").exists()


def test_what_ignores_its_interrupt_is_killed(machine: Machine) -> None:
    machine.does("doctor", "trap '' INT; for _ in {1..100}; do sleep 1; done")
    limit = 15
    run = machine.run(LIMIT=str(limit))
    assert run.stages["doctor"] == "out of time"
    assert {*run.stages.values()} == {"passed", "out of time", "cut"}
    assert run.seconds < limit + 1


def test_chosen_stages_and_suites(machine: Machine) -> None:
    run = machine.run(STAGES="device build benchmarks", SUITES="network calls")
    assert run.status == 0, run.output
    assert [*run.stages] == ["device", "build", "benchmarks"]
    arguments = run.calls[-1][-1]
    assert arguments.endswith("--suites network calls")
    assert int(re.search(r"--limit (\d+)", arguments)[1]) > 400


def test_limits_add_up_to_eight_minutes() -> None:
    text = SCRIPT.read_text()
    limits = re.findall(r"^((?:[a-z]+=\d+ ?)+)$", text, re.MULTILINE)
    by_name = dict(pair.split("=") for line in limits for pair in line.split())
    stages = {
        *("wheels", "gpu", "device", "build", "doctor", "backends", "tests", "benchmarks"),
        *("sanitizer", "profile"),
    }
    assert sum(int(by_name[name]) for name in stages) == 480
