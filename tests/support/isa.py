"""Runs Python with a chosen instruction set of the CPU kernels, which is read once per process."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from snm_kernels import snm
from support.equality import assert_same_run

TESTS = Path(__file__).resolve().parents[1]
NEEDED = {
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "bmi2"},
    "avx2": {"avx2", "fma", "bmi1", "bmi2"},
    "baseline": set(),
}


MATRICES = {
    "amx": {"avx512_vnni", "amx_tile", "amx_int8"},
    "vnni": {"avx512_vnni"},
    "plain": set(),
}
"""What multiplies matrices beside the best instruction set, and what it needs."""


def processor_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split(":")[1].split())
    return set()


USABLE = [isa for isa, needed in NEEDED.items() if needed <= processor_flags()]


USABLE_MATRICES = [
    matrix
    for matrix, needed in MATRICES.items()
    if needed <= processor_flags() and (not needed or USABLE[0] == "avx512")
]


def run_with_isa(
    isa: str, *command: str, matrix: str | None = None
) -> subprocess.CompletedProcess[str]:
    chosen = {"SNM_CPU_ISA": isa} | ({} if matrix is None else {"SNM_CPU_MATRIX": matrix})
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **chosen},
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
    )


STREAMED_BYTES = 2**25
"""The number of bytes of spikes from which on kernels store past the caches."""
SENT = {
    "float32": (torch.float32, "amplitude"),
    "bfloat16": (torch.bfloat16, "amplitude"),
    "int8": (torch.float32, "spike"),
}


def compare_streamed(sent: str) -> None:
    """Compares runs with more spikes than caches hold, in rows that start and end anywhere in a
    cache line."""
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
