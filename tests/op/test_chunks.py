"""T steps at once equal T steps in chunks, the state carried from chunk to chunk."""

import pytest
import torch

from snm_kernels import SNMOutput, snm
from support.cases import CASES, Case
from support.equality import assert_same_run

LONG = [case for case in CASES if case.time_steps > 3]


@pytest.mark.parametrize("sizes", [(1, 2, 0), (0, 1)], ids=["1, 2, rest", "all but one, one"])
@pytest.mark.parametrize("case", LONG, ids=str)
def test_chunks_equal_one_run(case: Case, sizes: tuple[int, ...]) -> None:
    inputs = case.inputs()
    whole = snm(**inputs)
    x, residual, state = (inputs.pop(name, None) for name in ("x", "residual", "state"))
    rest = case.time_steps - sum(sizes)
    sent, begin = [], 0
    for size in (size or rest for size in sizes):
        steps = slice(begin, begin + size)
        added = None if residual is None else residual[steps]
        spikes, state = snm(x[steps], residual=added, state=state, **inputs)
        sent.append(spikes)
        begin += size
    spikes = None if whole.spikes is None else torch.cat(sent)
    assert_same_run(SNMOutput(spikes, state), whole)
