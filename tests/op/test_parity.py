"""The CPU backend against the reference, bit for bit."""

import pytest
import torch

from snm_kernels import PRESETS, SNMState, preset, snm
from support.cases import CASES, COUNTED, Case, aimed_run, thetas
from support.parity import BULKS, NEURON_STEPS, Bulk, compare, compare_bulk, compare_counted


def test_case_names_are_unique() -> None:
    cases = CASES + COUNTED
    assert len({case.name for case in cases}) == len(cases)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cpu_equals_reference(case: Case) -> None:
    assert compare(case, "cpu") == case.neuron_steps


@pytest.mark.parametrize("case", COUNTED, ids=str)
def test_cpu_counts_as_reference(case: Case) -> None:
    assert compare_counted(case, "cpu") == case.neuron_steps


@pytest.mark.parametrize("bulk", BULKS, ids=str)
def test_cpu_equals_reference_in_bulk(bulk: Bulk) -> None:
    assert compare_bulk(bulk, "cpu") * len(BULKS) >= NEURON_STEPS


@pytest.mark.parametrize("name", PRESETS)
def test_aimed_drives_meet_the_thresholds(name: str) -> None:
    rule = preset(name)
    g = torch.Generator().manual_seed(1)
    theta = thetas("ordinary", (2000,), torch.float32, g)
    x, _ = aimed_run(rule, theta, (16, 2000), torch.float32, g)
    state = SNMState(rule.v_init * theta, torch.zeros(2000, dtype=torch.int32))
    lower = -(rule.negative_threshold or 0.0) * theta
    at_upper = at_lower = beside_upper = beside_lower = 0
    for drive in x:
        u = state.v + drive
        at_upper += (u == theta).sum().item()
        at_lower += (u == lower).sum().item()
        below, above = (torch.nextafter(theta, torch.tensor(end)) for end in (0.0, 9.0))
        beside_upper += ((u == below) | (u == above)).sum().item()
        below, above = (torch.nextafter(lower, torch.tensor(end)) for end in (-9.0, 9.0))
        beside_lower += ((u == below) | (u == above)).sum().item()
        _, state = snm(drive[None], theta, rule=rule, state=state, emit="none")
    assert min(at_upper, at_lower, beside_upper, beside_lower) > 0.01 * x.numel()
