"""Each instruction set of the CPU kernels against the reference, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cases import CASES, COUNTED
from equality import assert_same_run
from parity import BULKS
from snm_kernels import snm
from test_parity import NEURON_STEPS

PARITY = Path(__file__).with_name("parity.py")
NEEDED = {
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "bmi2"},
    "avx2": {"avx2", "fma", "bmi1", "bmi2"},
    "baseline": set(),
}


def processor_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split(":")[1].split())
    return set()


USABLE = [isa for isa, needed in NEEDED.items() if needed <= processor_flags()]


def run_with_isa(isa: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "SNM_CPU_ISA": isa},
        cwd=PARITY.parent,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("isa", NEEDED)
def test_isa_equals_reference(isa: str) -> None:
    if isa not in USABLE:
        pytest.skip(f"this processor lacks {sorted(NEEDED[isa] - processor_flags())}")
    process = run_with_isa(isa, str(PARITY), "--backend", "cpu", "--bulk")
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)
    assert summary["failures"] == []
    assert summary["isa"] == isa
    assert summary["cases"] == len(CASES) + len(COUNTED) + len(BULKS)
    assert summary["neuron_steps"] >= NEURON_STEPS


STREAMED_BYTES = 2**25
"""From this many bytes of spikes on, the kernels store past the caches."""
SENT = {
    "float32": (torch.float32, "amplitude"),
    "bfloat16": (torch.bfloat16, "amplitude"),
    "int8": (torch.float32, "spike"),
}


def compare_streamed(sent: str) -> None:
    """Spikes too many for the caches, in rows that start and end anywhere in a line."""
    dtype, emit = SENT[sent]
    steps, edge = 7, 5
    size = 1 if emit == "spike" else dtype.itemsize
    neurons = STREAMED_BYTES // (steps * size) + 3
    g = torch.Generator().manual_seed(0)
    x = torch.randn(steps, neurons, generator=g).to(dtype)
    theta = torch.rand(neurons, generator=g) + 0.25
    expected = snm(x, theta, emit=emit, backend="reference")
    buffer = torch.full((steps, neurons + 2 * edge), 77).to(expected.spikes.dtype)
    assert_same_run(snm(x, theta, emit=emit, out=buffer[:, edge:-edge]), expected)
    assert buffer[:, :edge].eq(77).all()
    assert buffer[:, -edge:].eq(77).all()
    if emit == "amplitude":
        assert_same_run(snm(x, theta, out=x), expected)


@pytest.mark.parametrize("sent", SENT)
@pytest.mark.parametrize("isa", USABLE)
def test_streamed_spikes_equal_reference(isa: str, sent: str) -> None:
    code = f"import test_isa; test_isa.compare_streamed({sent!r})"
    process = run_with_isa(isa, "-c", code)
    assert process.returncode == 0, process.stderr


def test_best_isa_is_chosen() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "SNM_CPU_ISA"}
    code = "import snm_kernels; print(snm_kernels.build_info().isa)"
    process = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == USABLE[0]


@pytest.mark.parametrize("isa", ["avx", "AVX2", ""])
def test_unknown_isa_is_refused(isa: str) -> None:
    process = run_with_isa(isa, "-c", "import snm_kernels")
    names = ", ".join(USABLE)
    assert process.returncode != 0
    last = process.stderr.strip().splitlines()[-1]
    assert last == f"RuntimeError: snm: SNM_CPU_ISA must be one of {names} here, got {isa}".strip()
