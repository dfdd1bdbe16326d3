"""The two invariants of the rule, and the closed form of the count under a constant drive."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snm_kernels import SNMOutput, SNMRule, SNMState, preset, snm

BACKENDS = ["reference", "cpu"]
STEPS = st.integers(1, 24)
UNIT = 2.0**-4

presets = st.sampled_from(["snm", "snm-half", "snm-zero", "if", "if-half", "st-bif", "burst"])
dyadic_rules = st.builds(
    SNMRule,
    v_init=st.integers(-8, 8).map(lambda n: n / 4),
    negative_threshold=st.none() | st.integers(0, 8).map(lambda n: n / 4),
    strict=st.booleans(),
    max_spikes=st.sampled_from([1, 2, 5, 127]),
    count_min=st.none() | st.integers(-4, 0),
    count_max=st.none() | st.integers(0, 9),
)
moderate = st.floats(-(2.0**20), 2.0**20, width=32)
thresholds = st.floats(2.0**-20, 2.0**20, width=32, exclude_min=True)


def dyadics(most: int) -> st.SearchStrategy[float]:
    return st.integers(-most, most).map(lambda n: n * UNIT)


@st.composite
def drives(draw: st.DrawFn, values: st.SearchStrategy[float]) -> Tensor:
    steps, neurons = draw(STEPS), draw(st.integers(1, 5))
    size = steps * neurons
    flat = draw(st.lists(values, min_size=size, max_size=size))
    return torch.tensor(flat).view(steps, neurons)


def start(rule: SNMRule, theta: Tensor, neurons: int) -> SNMState:
    return SNMState((rule.v_init * theta).expand(neurons), torch.zeros(neurons, dtype=torch.int32))


def single_steps(
    x: Tensor, theta: Tensor, rule: SNMRule, backend: str
) -> list[tuple[SNMState, Tensor, SNMOutput]]:
    """Per time step: the state before, the drive, and the run of this one step."""
    state, steps = start(rule, theta, x.shape[1]), []
    for drive in x:
        run = snm(drive[None], theta, rule=rule, state=state, emit="spike", backend=backend)
        steps.append((state, drive, run))
        state = run.state
    return steps


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    x=drives(st.floats(width=32)),
    theta=st.floats(0, width=32, exclude_min=True),
    rule=dyadic_rules,
)
def test_memory_stays_in_its_bounds(backend: str, x: Tensor, theta: float, rule: SNMRule) -> None:
    low, high = rule.count_bounds
    for before, _, run in single_steps(x, torch.tensor(theta), rule, backend):
        assert run.state.m.ge(low).all()
        assert run.state.m.le(high).all()
        assert torch.equal(run.state.m, before.m + run.spikes[0])
        assert run.spikes.ge(-1).all()
        assert run.spikes.le(rule.max_spikes).all()


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    x=drives(dyadics(500)),
    theta=st.integers(1, 200).map(lambda n: n * UNIT),
    rule=dyadic_rules,
)
def test_charge_is_conserved_exactly_on_dyadic_numbers(
    backend: str, x: Tensor, theta: float, rule: SNMRule
) -> None:
    # All sums are multiples of 2^-6 below 2^18, so that float32 rounds nothing.
    state = snm(x, theta, rule=rule, emit="none", backend=backend).state
    assert torch.equal(x.sum(0) + rule.v_init * theta, state.v + theta * state.m)


@pytest.mark.parametrize("backend", BACKENDS)
@given(x=drives(moderate), theta=thresholds, rule=dyadic_rules)
def test_charge_is_conserved_up_to_rounding(
    backend: str, x: Tensor, theta: float, rule: SNMRule
) -> None:
    threshold = torch.tensor(theta)
    steps = single_steps(x, threshold, rule, backend)
    for neuron in range(x.shape[1]):
        at = [
            (
                Fraction(before.v[neuron].item()),
                Fraction(drive[neuron].item()),
                run.spikes[0, neuron].item() * Fraction(threshold.item()),
                Fraction(run.state.v[neuron].item()),
            )
            for before, drive, run in steps
        ]
        memory = steps[-1][2].state.m[neuron].item()
        left = sum(c for _, c, _, _ in at) + at[0][0]
        right = at[-1][3] + memory * Fraction(threshold.item())
        # Three operations round in each step: v + c, s·θ and u - s·θ, each by half an ulp of
        # its result at most. Each result is at most its exact value times 1 + 2^-24.
        results = sum(2 * abs(v + c) + 2 * abs(sent) + abs(after) for v, c, sent, after in at)
        assert abs(left - right) <= results * Fraction(1, 2**24)


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    name=presets,
    constants=st.lists(dyadics(300), min_size=1, max_size=8),
    theta=st.integers(1, 8).map(lambda n: 4 * n * UNIT),
    steps=st.integers(1, 40),
)
def test_count_under_a_constant_drive_has_a_closed_form(
    backend: str, name: str, constants: list[float], theta: float, steps: int
) -> None:
    rule = preset(name)
    x = torch.tensor(constants).expand(steps, -1)
    spikes, _ = snm(x, theta, rule=rule, emit="spike", backend=backend)
    counts = spikes.long().cumsum(0)
    for neuron, constant in enumerate(constants):
        for t in range(1, steps + 1):
            total = Fraction(constant) * t + Fraction(rule.v_init * theta)
            most = min(rule.max_spikes * t, rule.count_bounds[1])
            assert counts[t - 1, neuron].item() == min(max(total // Fraction(theta), 0), most)
