"""A layer of neurons alone: time per neuron-step of snm_kernels, of its rivals, and of ``copy_``.

All contenders of a group run in this process on the same tensors. ``copy_`` of the drive is the
yardstick of bandwidth, its ``sum`` that of a kernel that only reads. A kernel whose stores go past
the caches can be faster than ``copy_``, which reads every line before it writes it.

snm_kernels and ``copy_`` write into tensors that are there. The rivals can't: they allocate what
they return, and on Linux a large fresh tensor costs a page fault per 4 KiB on top. Set in the
process's environment, glibc's ``MALLOC_MMAP_MAX_=0`` and ``MALLOC_TRIM_THRESHOLD_=100000000000``
keep freed memory in the heap, so that fresh tensors lie on mapped pages; comparisons with rivals
should be recorded so. Records say whether both were set. The pair of cases that allocates shows
what a fresh output costs.
"""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from peers import PEERS
from snm_kernels import SNMRule, backends, snm
from timing import HEAP, time_call
from workload import Workload, at_one_threshold, inputs_of

FLOATING = (torch.float32, torch.bfloat16, torch.float16)
BACKENDS = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}
SMALL = (8, 8, 8)
EMITTED_BYTES = {"spike": 1, "none": 0}

# As many neuron-steps at every T: the batch shrinks as T grows.
TIME_STEPS = {4: 64, 32: 8, 256: 1}

ON_DEVICES = [Workload(device, dtype) for device, dtype in product(BACKENDS, FLOATING)]
IN_FLOAT32 = [workload for workload in ON_DEVICES if workload.dtype == torch.float32]
OTHER_SIZES = [
    workload
    for device in BACKENDS
    for workload in (
        *(Workload(device, timesteps=t, batch=b) for t, b in TIME_STEPS.items() if t != 32),
        Workload(device, features=SMALL),
    )
]
ON_BACKENDS = [
    (workload, backend)
    for workload in (*ON_DEVICES, *OTHER_SIZES)
    for backend in BACKENDS[workload.device]
]


def need(device: str, backend: str | None = None) -> None:
    """Skips what this machine or this build can't run."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    if backend is not None and not backends()[backend].available:
        pytest.skip(f"backend {backend}: {backends()[backend].reason}")


def time_neurons(
    benchmark: BenchmarkFixture,
    run: Callable[[], object],
    workload: Workload,
    contender: str,
    *,
    rule: str,
    sent_bytes: int | None = None,
    **info: object,
) -> None:
    """Times a contender; the bytes are those of a drive read and spikes written."""
    read_bytes = workload.dtype.itemsize
    benchmark.group = str(workload)
    seconds = time_call(
        benchmark,
        run,
        workload.device,
        suite="neuron",
        contender=contender,
        rule=rule,
        dtype=str(workload.dtype).removeprefix("torch."),
        timesteps=workload.timesteps,
        neurons=workload.neurons,
        bytes_per_neuron_step=read_bytes + (read_bytes if sent_bytes is None else sent_bytes),
        **info,
    )
    if seconds is not None:
        benchmark.extra_info["ns_per_neuron_step"] = 1e9 * seconds / workload.neuron_steps


@pytest.mark.parametrize("workload", [*ON_DEVICES, *OTHER_SIZES], ids=str)
def test_copy(benchmark: BenchmarkFixture, workload: Workload) -> None:
    need(workload.device)
    drive, _, out = inputs_of(workload)
    time_neurons(benchmark, lambda: out.copy_(drive), workload, "copy_", rule="")


@pytest.mark.parametrize("workload", IN_FLOAT32, ids=str)
def test_read(benchmark: BenchmarkFixture, workload: Workload) -> None:
    need(workload.device)
    drive, _, _ = inputs_of(workload)
    time_neurons(benchmark, drive.sum, workload, "sum, a pure read", rule="", sent_bytes=0)


@pytest.mark.parametrize(("workload", "backend"), ON_BACKENDS, ids=str)
def test_amplitude(benchmark: BenchmarkFixture, workload: Workload, backend: str) -> None:
    need(workload.device, backend)
    drive, threshold, out = inputs_of(workload)
    time_neurons(
        benchmark,
        lambda: snm(drive, threshold, out=out, backend=backend),
        workload,
        "snm, amplitude",
        rule="snm",
        backend=backend,
    )


@pytest.mark.parametrize("emit", EMITTED_BYTES)
@pytest.mark.parametrize(
    ("workload", "backend"), [case for case in ON_BACKENDS if case[0] in ON_DEVICES], ids=str
)
def test_less_sent(
    benchmark: BenchmarkFixture, workload: Workload, backend: str, emit: str
) -> None:
    need(workload.device, backend)
    drive, threshold, _ = inputs_of(workload)
    out = torch.zeros_like(drive, dtype=torch.int8) if emit == "spike" else None
    time_neurons(
        benchmark,
        lambda: snm(drive, threshold, emit=emit, out=out, backend=backend),
        workload,
        f"snm, {emit}",
        rule="snm",
        sent_bytes=EMITTED_BYTES[emit],
        backend=backend,
    )


def rules_at_one_threshold() -> dict[str, SNMRule]:
    """The rules that rivals run at θ = 1 alone, by name."""
    return {peer.rule_name: peer.rule for peer in PEERS.values() if not peer.per_neuron}


@pytest.mark.parametrize("rule", rules_at_one_threshold())
@pytest.mark.parametrize(
    ("workload", "backend"), [case for case in ON_BACKENDS if case[0] in IN_FLOAT32], ids=str
)
def test_other_rules(
    benchmark: BenchmarkFixture, workload: Workload, backend: str, rule: str
) -> None:
    need(workload.device, backend)
    drive, threshold, out = at_one_threshold(inputs_of(workload))
    chosen = rules_at_one_threshold()[rule]
    time_neurons(
        benchmark,
        lambda: snm(drive, threshold, rule=chosen, out=out, backend=backend),
        workload,
        "snm, amplitude",
        rule=rule,
        backend=backend,
    )


def rivals() -> list[tuple[Workload, str]]:
    """Every rival on the default size; the published code on the others too."""
    return [
        *product(IN_FLOAT32, PEERS),
        *product(OTHER_SIZES, ["published step code"]),
    ]


@pytest.mark.parametrize(("workload", "name"), rivals(), ids=str)
def test_rival(benchmark: BenchmarkFixture, workload: Workload, name: str) -> None:
    peer = PEERS[name]
    need(workload.device)
    if reason := peer.missing():
        pytest.skip(reason)
    run = peer.build(peer.inputs(inputs_of(workload)))
    time_neurons(benchmark, run, workload, name, rule=peer.rule_name)
    benchmark.extra_info["implementation"] = run.implementation


@pytest.mark.parametrize("contender", ["clone", "snm, amplitude"])
def test_allocates(benchmark: BenchmarkFixture, contender: str) -> None:
    workload = Workload("cpu")
    drive, threshold, _ = inputs_of(workload)
    run = drive.clone if contender == "clone" else lambda: snm(drive, threshold)
    rule = "" if contender == "clone" else "snm"
    name = f"{contender}, fresh output on a {HEAP}"
    time_neurons(benchmark, run, workload, name, rule=rule)
