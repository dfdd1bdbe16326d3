"""Times the op and its rivals, float32; each runs in turn with ``copy_`` and with the op.

snm_kernels and ``copy_`` write into tensors that are there. The rivals, but for the compiled
reference on a CPU, allocate what they return, and on Linux a large fresh tensor costs a page fault
per 4 KiB on top. Set in the process's environment, glibc's ``MALLOC_MMAP_MAX_=0`` and
``MALLOC_TRIM_THRESHOLD_=100000000000`` keep freed memory in the heap, so that fresh tensors lie on
mapped pages. ``snm bench`` runs this both ways, on a warm heap and on a cold one; ``clone`` and the
op with a fresh output show what it costs them.
"""

from functools import partial
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from snm.bench.peers import PEERS
from snm.bench.scale import Scale
from snm.bench.timing import time_beside
from snm.bench.workload import Workload, at_one_threshold, inputs_of
from snm_kernels import SNM, SNMRule, snm

COPY, OURS, CLONE = "copy_", "snm, amplitude", "clone, fresh output"
OURS_FRESH = f"{OURS}, fresh output"


class Case(NamedTuple):
    """A contender, and the rule that it runs."""

    workload: Workload
    contender: str
    rule_name: str = "snm"
    rule: SNMRule = SNM

    def __str__(self) -> str:
        return f"{self.contender} {self.rule_name} {self.workload}"


def cases(device: str, scale: Scale) -> list[Case]:
    """All contenders; compiled ones come last, as torch.compile leaves behind what slows others."""
    workload = Workload(device, features=scale.features)
    names = sorted(scale.rivals or PEERS, key=lambda name: PEERS[name].compiled)
    rules = {"snm": SNM} | {PEERS[name].rule_name: PEERS[name].rule for name in names}
    return [
        *(Case(workload, name, "") for name in (COPY, CLONE)),
        *(Case(workload, OURS, name, rule) for name, rule in rules.items()),
        Case(workload, OURS_FRESH),
        *(Case(workload, name, PEERS[name].rule_name, PEERS[name].rule) for name in names),
    ]


def test_rival(benchmark: BenchmarkFixture, case: Case, scale: Scale) -> None:
    workload, contender, rule_name, rule = case
    inputs = inputs_of(workload)
    if rule_name != "snm":
        inputs = at_one_threshold(inputs)
    peer = PEERS.get(contender)
    if peer is not None and (reason := peer.missing()):
        pytest.skip(reason)
    drive, threshold, out = inputs
    ours = partial(snm, drive, threshold, rule=rule, out=out)
    known = {
        COPY: partial(out.copy_, drive),
        CLONE: drive.clone,
        OURS: ours,
        OURS_FRESH: partial(snm, drive, threshold, rule=rule),
    }
    run = known.get(contender) or peer.build(inputs)
    compared = (COPY, OURS) if rule_name else (COPY,)
    time_beside(
        benchmark,
        run,
        workload.device,
        scale.seconds[workload.device],
        {name: known[name] for name in compared if name != contender},
        suite="rivals",
        contender=contender,
        rule=rule_name,
        yardstick=COPY,
        bytes_per_neuron_step=2 * drive.itemsize,
        **workload.info(),
    )
    if peer is not None:
        benchmark.extra_info["implementation"] = run.implementation
