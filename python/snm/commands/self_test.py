"""Tests a backend against the reference on small cases, and times it on a larger one."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

import snm_kernels

Backend = Literal["cpu", "cuda", "triton", "reference"]
Case = Callable[[Backend, str], list[Tensor]]
"""Runs on a backend and a device, and returns all that came out, on the CPU."""

_NEURON_CASES = (("snm", torch.float32), ("burst", torch.float16))
"""The rule and the drive's dtype of each case; few, for Triton compiles a kernel for each."""
_TIME_STEPS, _NEURONS = 8, (4, 6, 10, 10)
"""Time steps and neurons of the cases: few, for the reference runs them too."""
_LONG = 32
"""Time steps of the run that is timed."""
_BYTES = {"cpu": 2**25, "cuda": 2**27}
"""Bytes of the drive whose run is timed, by device; more than most caches hold."""
_ROUNDS = 7
"""How often the run and the copy are timed, in turn."""


class SelfTest(NamedTuple):
    """What the self-test of one backend gave.

    >>> self_test("cpu").wrong
    ''
    """

    wrong: str
    """What differs from the reference, or fails; empty where nothing does."""
    cases: int
    """How many cases are compared with the reference."""
    bandwidth: float
    """Bytes per second that a float32 run reads and writes; NaN where it was not timed."""
    copy_bandwidth: float
    """Bytes per second that ``Tensor.copy_`` reads and writes between tensors of the drive's size;
    NaN where it was not timed."""


def self_test(backend: Backend) -> SelfTest:
    """Compares a backend with the reference on small cases, and times it on a larger one.

    Args:
        backend: ``"cpu"``, ``"cuda"`` or ``"triton"``; one that :func:`snm_kernels.backends` calls
            available. Triton's interpreter is compared, not timed.

    Returns:
        :class:`SelfTest`; an exception of the backend is reported in ``wrong``.

    >>> self_test("cpu").cases
    3
    """
    interpreted = backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    device = "cpu" if backend == "cpu" or interpreted else "cuda"
    cases = _parity_cases()
    nan = float("nan")
    with torch.no_grad():
        for name, case in cases.items():
            try:
                equal = _same(case(backend, device), case("reference", "cpu"))
            # Whatever a backend raises is what the person who asked has to see.
            except Exception as error:
                return SelfTest(f"{name} fails: {error}", len(cases), nan, nan)
            if not equal:
                return SelfTest(f"{name} differs from the reference", len(cases), nan, nan)
        reached, copied = (nan, nan) if interpreted else _bandwidths(backend, device)
    return SelfTest("", len(cases), reached, copied)


def _parity_cases() -> dict[str, Case]:
    g = Generator().manual_seed(0)
    drive = torch.randn(_TIME_STEPS, *_NEURONS, generator=g)
    theta = torch.rand(_NEURONS[1:], generator=g) + 0.5
    cases: dict[str, Case] = {}

    def neurons(rule: str, dtype: torch.dtype) -> Case:
        def run(backend: Backend, device: str) -> list[Tensor]:
            spikes, state = snm_kernels.snm(
                drive.to(device, dtype),
                theta.to(device),
                rule=snm_kernels.preset(rule),
                backend=backend,
            )
            assert spikes is not None
            return [spikes.cpu(), state.v.cpu(), state.m.cpu()]

        return run

    def pooling(backend: Backend, device: str) -> list[Tensor]:
        spikes = drive.sign().to(device, torch.int8)
        pooled, totals = snm_kernels.running_max_pool(
            spikes, 2, threshold=theta[:, :1, :1].to(device), backend=backend
        )
        return [pooled.cpu(), totals.cpu()]

    for rule, dtype in _NEURON_CASES:
        kind = str(dtype).removeprefix("torch.")
        cases[f"snm, rule {rule!r}, {kind}"] = neurons(rule, dtype)
    cases["running_max_pool, int8"] = pooling
    return cases


def _same(actual: list[Tensor], expected: list[Tensor]) -> bool:
    return all(
        a.dtype == e.dtype and torch.equal(a, e) for a, e in zip(actual, expected, strict=True)
    )


def _bandwidths(backend: Backend, device: str) -> tuple[float, float]:
    """Bytes per second of a float32 run, and of a copy: medians of rounds taken in turn."""
    drive = torch.rand(_LONG, _BYTES[device] // (4 * _LONG), device=device)
    out = torch.empty_like(drive)

    def run() -> None:
        snm_kernels.snm(drive, 0.7, out=out, backend=backend)

    def copy() -> None:
        out.copy_(drive)

    times: tuple[list[float], list[float]] = ([], [])
    for call in (run, copy):
        _seconds(call, device)
    for _ in range(_ROUNDS):
        for call, taken in zip((run, copy), times, strict=True):
            taken.append(_seconds(call, device))
    moved = 2 * drive.numel() * 4
    # The last membrane and memory are written too.
    state = drive[0].numel() * 8
    return (moved + state) / statistics.median(times[0]), moved / statistics.median(times[1])


def _seconds(call: Callable[[], None], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
