"""The reference against spike trains worked out by hand."""

import pytest
import torch
from torch import Tensor

from snm_kernels import PRESETS, SILENT, SNMOutput, SNMRule, SNMState, preset, snm
from support.trains import INTEGER_TRAINS, TRAINS, IntegerTrain, Train

INFINITY = float("inf")
NAN = float("nan")


def run(
    drive: list[float],
    rule: SNMRule,
    threshold: float = 1.0,
    state: tuple[float, int] | None = None,
    emit: str = "spike",
) -> SNMOutput:
    """One neuron without dimensions."""
    given = None
    if state is not None:
        given = SNMState(torch.tensor(state[0]), torch.tensor(state[1], dtype=torch.int32))
    x = torch.tensor(drive)
    return snm(x, threshold, rule=rule, state=given, emit=emit, backend="reference")


@pytest.mark.parametrize("train", TRAINS, ids=str)
def test_train_worked_by_hand(train: Train) -> None:
    spikes, state = run(train.drive, train.rule)
    assert spikes.tolist() == train.spikes
    assert state.m.item() == sum(train.spikes)
    membranes = [
        run(train.drive[: t + 1], train.rule, emit="none").state.v.item()
        for t in range(len(train.drive))
    ]
    assert membranes == train.membranes


@pytest.mark.parametrize("threshold", [0.125, 3.0, 2.0**-140, 2.0**100])
@pytest.mark.parametrize("train", TRAINS, ids=str)
def test_train_scales_with_the_threshold(train: Train, threshold: float) -> None:
    spikes, state = run(
        [threshold * c for c in train.drive], train.rule, threshold, emit="amplitude"
    )
    assert spikes.tolist() == [threshold * s for s in train.spikes]
    assert state.v.item() == threshold * train.membranes[-1]
    assert state.m.item() == sum(train.spikes)


def test_every_preset_has_a_train() -> None:
    named = {train.name.split()[0].rstrip(",") for train in TRAINS}
    assert named >= {"snm", "snm-half", "snm-zero", "if", "if-half", "st-bif", "burst"}


def test_bias_and_residual_are_added_to_the_drive_in_that_order() -> None:
    # A bias added to 2^24 is rounded away; added after the residual it would be kept.
    x = torch.tensor([[2.0**24]])
    _, state = snm(x, INFINITY, bias=1.0, residual=-x, emit="none", backend="reference")
    assert state.v.item() == 0.0


def test_state_given_is_continued() -> None:
    spikes, state = run([0.25, -2.0, -1.0], SNMRule(), state=(0.75, 1))
    assert spikes.tolist() == [1, -1, -1]
    assert (state.v.item(), state.m.item()) == (-1.0, 0)


@pytest.mark.parametrize("name", ["snm", "snm-half", "st-bif", "burst"])
def test_infinite_threshold_starts_at_zero_and_is_silent(name: str) -> None:
    spikes, state = run([1.0, 3e38, -1.0], preset(name), INFINITY, emit="amplitude")
    assert spikes.tolist() == [0.0, 0.0, 0.0]
    assert state.m.item() == 0
    assert run([0.0], preset(name), INFINITY).state.v.item() == 0.0


@pytest.mark.parametrize("drive", [INFINITY, -INFINITY])
def test_infinite_threshold_is_silent_under_infinite_drive(drive: float) -> None:
    spikes, state = run([drive, drive], preset("burst"), INFINITY, emit="amplitude")
    assert spikes.tolist() == [0.0, 0.0]
    assert (state.v.item(), state.m.item()) == (drive, 0)


def test_infinite_drive_fires_for_ever() -> None:
    spikes, state = run([INFINITY, 0.0, 0.0], preset("burst", max_spikes=3))
    assert spikes.tolist() == [3, 3, 3]
    assert (state.v.item(), state.m.item()) == (INFINITY, 9)


def test_negative_infinite_drive_corrects_all_and_stops() -> None:
    spikes, state = run([1.0, 1.0, -INFINITY, 0.0, 0.0], SNMRule())
    assert spikes.tolist() == [1, 1, -1, -1, 0]
    assert (state.v.item(), state.m.item()) == (-INFINITY, 0)


def test_nan_silences_its_neuron_and_no_other() -> None:
    x = torch.tensor([[1.0, 1.0], [NAN, 1.0], [5.0, -1.0]])
    spikes, state = snm(x, 1.0, emit="spike", backend="reference")
    assert spikes.tolist() == [[1, 1], [0, 1], [0, -1]]
    assert state.v.isnan().tolist() == [True, False]
    assert state.m.tolist() == [1, 1]


def test_opposite_infinities_make_nan() -> None:
    spikes, state = run([-INFINITY, INFINITY, 1.0], SNMRule())
    assert spikes.tolist() == [0, 0, 0]
    assert state.v.isnan()


@pytest.mark.parametrize(
    ("start", "drive", "sign"), [(-0.0, -0.0, -1.0), (-0.0, 0.0, 1.0), (0.0, -0.0, 1.0)]
)
def test_sign_of_zero_is_kept(start: float, drive: float, sign: float) -> None:
    spikes, state = run([drive], SNMRule(), state=(start, 0), emit="amplitude")
    assert torch.copysign(torch.tensor(1.0), state.v).item() == sign
    assert torch.copysign(torch.tensor(1.0), spikes[0]).item() == 1.0


def test_next_float_below_the_threshold_is_silent() -> None:
    below = torch.nextafter(torch.tensor(0.3), torch.tensor(0.0)).item()
    assert run([below], SNMRule(), 0.3).spikes.tolist() == [0]
    assert run([0.3], SNMRule(), 0.3).spikes.tolist() == [1]


def test_memory_is_exact_where_a_float_sum_of_thresholds_drifts() -> None:
    theta = torch.tensor(0.1)
    assert (theta + theta + theta) - theta - theta - theta != 0
    drive = torch.stack([theta] * 3 + [-theta] * 4)
    spikes, state = snm(drive, theta, emit="spike", backend="reference")
    assert spikes.tolist() == [1, 1, 1, -1, -1, -1, 0]
    assert (state.v.item(), state.m.item()) == (-theta.item(), 0)


@pytest.mark.parametrize(
    ("memory", "rule", "drive", "spikes"),
    [
        (2**31 - 1, SNMRule(), [1.0, -2.0], [0, -1]),
        (2**31 - 2, preset("burst"), [9.0, 0.0], [1, 0]),
        (2**31 - 4, preset("burst"), [9.0, 0.0], [3, 0]),
        (-(2**31), SNMRule(count_min=None), [-1.0, 2.0], [0, 1]),
        (-(2**31) + 1, SNMRule(count_min=None), [-1.0, -1.0], [-1, 0]),
        (7, preset("st-bif", levels=5), [2.0, -9.0], [0, -1]),
        (-3, SNMRule(), [-9.0, 10.0], [0, 1]),
    ],
)
def test_memory_given_at_or_beyond_its_bounds(
    memory: int, rule: SNMRule, drive: list[float], spikes: list[int]
) -> None:
    sent, state = run(drive, rule, state=(0.0, memory))
    assert sent.tolist() == spikes
    assert state.m.item() == memory + sum(spikes)


def test_half_precision_drive_is_integrated_in_float32() -> None:
    x = torch.full((4096, 1), 2.0**-12, dtype=torch.float16)
    _, state = snm(x, 2.0, emit="none", backend="reference")
    assert state.v.item() == 1.0


@pytest.mark.parametrize(
    ("dtype", "theta", "sent"),
    [
        (torch.float16, 1 + 2.0**-11, 1.0),
        (torch.float16, 1 + 3 * 2.0**-11, 1 + 2.0**-9),
        (torch.float16, 65519.0, 65504.0),
        (torch.float16, 65520.0, INFINITY),
        (torch.float16, 2.0**-25, 0.0),
        (torch.float16, 3 * 2.0**-25, 2.0**-23),
        (torch.bfloat16, 1 + 2.0**-8, 1.0),
        (torch.bfloat16, 1 + 3 * 2.0**-8, 1 + 2.0**-6),
        (torch.bfloat16, 3.4e38, INFINITY),
    ],
)
def test_amplitude_is_rounded_once_and_the_membrane_is_not(
    dtype: torch.dtype, theta: float, sent: float
) -> None:
    x = torch.tensor([[theta]])
    spikes, state = snm(x, x[0], out_dtype=dtype, backend="reference")
    assert spikes.item() == sent
    assert state.v.item() == 0.0


def integers(values: int | list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def run_integers(
    drive: list[int],
    rule: SNMRule,
    threshold: int,
    state: tuple[int, int] | None = None,
    emit: str = "spike",
    backend: str = "reference",
) -> SNMOutput:
    """One neuron of an int32 threshold, without dimensions."""
    given = None if state is None else SNMState(integers(state[0]), integers(state[1]))
    return snm(
        integers(drive), integers(threshold), rule=rule, state=given, emit=emit, backend=backend
    )


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("train", INTEGER_TRAINS, ids=str)
def test_train_of_integers_worked_by_hand(train: IntegerTrain, backend: str) -> None:
    spikes, state = run_integers(train.drive, train.rule, train.threshold, backend=backend)
    assert spikes.tolist() == train.spikes
    assert (state.v.dtype, state.m.dtype, spikes.dtype) == (torch.int32, torch.int32, torch.int8)
    assert state.m.item() == sum(train.spikes)
    membranes = [
        run_integers(
            train.drive[: t + 1], train.rule, train.threshold, emit="none", backend=backend
        )
        for t in range(len(train.drive))
    ]
    assert [each.state.v.item() for each in membranes] == train.membranes


def test_every_preset_has_a_train_of_integers() -> None:
    named = {train.name.split()[0].rstrip(",") for train in INTEGER_TRAINS}
    assert named >= PRESETS.keys()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", PRESETS)
def test_silent_integers_start_at_zero_and_send_nothing(name: str, backend: str) -> None:
    most, least = 2**31 - 1, -(2**31)
    for drive in ([most, -most, least], [least, most, 1]):
        spikes, state = run_integers(drive, preset(name), SILENT, backend=backend)
        assert spikes.tolist() == [0, 0, 0]
        assert (state.v.item(), state.m.item()) == (sum(drive), 0)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(
    "rule", [SNMRule(negative_threshold=None, count_min=None), SNMRule(0, 1e9)]
)
def test_the_least_integer_corrects_no_more_than_another(rule: SNMRule, backend: str) -> None:
    spikes, state = run_integers([-(2**31)], rule, 5, state=(0, 3), backend=backend)
    assert (spikes.item(), state.v.item(), state.m.item()) == (0, -(2**31), 3)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_integers_beyond_float32_are_exact(backend: str) -> None:
    start, theta = 2**30 + 1, 2**24 - 1
    spikes, state = run_integers(
        [3, 1], preset("burst", max_spikes=127), theta, (start, 0), backend=backend
    )
    assert spikes.tolist() == [64, 0]
    assert state.v.item() == start + 4 - 64 * theta
    run = run_integers([-theta, 1, -2], SNMRule(), theta, (1, 2), backend=backend)
    assert run.spikes.tolist() == [0, 0, -1]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", PRESETS)
def test_integers_do_what_floats_do_where_those_are_exact(name: str, backend: str) -> None:
    g = torch.Generator().manual_seed(7)
    x = torch.randint(-90, 100, (40, 500), generator=g, dtype=torch.int32)
    theta = 2 * torch.randint(1, 40, (500,), generator=g, dtype=torch.int32)
    bias = torch.randint(-9, 10, (500,), generator=g, dtype=torch.int32)
    more = {"rule": preset(name), "residual": x.flip(0), "emit": "spike", "backend": backend}
    ours = snm(x, theta, bias=bias, **more)
    theirs = snm(x, theta.float(), bias=bias.float(), **more)
    assert torch.equal(ours.spikes, theirs.spikes)
    assert torch.equal(ours.state.v.float(), theirs.state.v)
    assert torch.equal(ours.state.m, theirs.state.m)
    assert ours.spikes.unique().numel() > 1


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_quotients_of_integers_are_exact_at_every_multiple(backend: str) -> None:
    g = torch.Generator().manual_seed(5)
    some = torch.randint(1, 2**24, (200,), generator=g)
    theta = torch.cat((torch.arange(1, 50), 2**24 - torch.arange(1, 50), some))[:, None]
    multiples = theta * torch.arange(1, 129)
    u = torch.cat((multiples - 1, multiples, multiples + 1), 1).clamp(max=2**31 - 1)
    rule = preset("burst", max_spikes=127)
    drive = u[None].to(torch.int32)
    spikes, state = snm(drive, theta.int(), rule=rule, emit="spike", backend=backend)
    assert torch.equal(spikes[0], (u // theta).clamp(0, 127).to(torch.int8))
    assert torch.equal(state.v, (u - spikes[0] * theta).to(torch.int32))
