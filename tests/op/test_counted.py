"""Negative spikes counted in the run itself: the number that counting the spikes gives."""

from typing import Any

import pytest
import torch
from torch import Tensor

from snm_kernels import SNMOutput, SNMState, preset, snm, snm_counted
from support.cases import COUNTED, Case
from support.compilation import SPREAD, compiled, operator_arguments
from support.equality import assert_same_bits, assert_same_run
from support.naive import Neurons
from support.trains import TRAINS, Train

BACKENDS = ["cpu", "reference"]
T, NEURONS = 24, 300


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("train", TRAINS, ids=str)
def test_trains_worked_out_by_hand(train: Train, backend: str) -> None:
    drive = torch.tensor(train.drive)
    run = snm_counted(drive, 1.0, rule=train.rule, emit="none", backend=backend)
    assert run.negative.item() == train.spikes.count(-1)
    assert (run.state.m + run.negative).item() == sum(s for s in train.spikes if s > 0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["snm", "snm-half", "snm-zero", "if", "st-bif", "burst"])
def test_both_kinds_are_those_of_a_naive_simulation(name: str, backend: str) -> None:
    g = torch.Generator().manual_seed(3)
    theta = torch.rand(NEURONS, generator=g) + 0.25
    drive = torch.randn(T, NEURONS, generator=g) + 0.1
    neurons = Neurons(theta, preset(name))
    for step in drive:
        neurons(step)
    spikes = torch.stack(neurons.spikes)
    run = snm_counted(drive, theta, rule=preset(name), emit="none", backend=backend)
    assert torch.equal(run.negative, (spikes == -1).sum(0, dtype=torch.int32))
    assert torch.equal(run.state.m + run.negative, spikes.clamp(min=0).sum(0, dtype=torch.int32))
    corrects = preset(name).negative_threshold is not None
    assert bool(run.negative.any()) == corrects


@pytest.mark.parametrize("case", COUNTED, ids=str)
def test_count_is_that_of_the_spikes(case: Case) -> None:
    inputs = case.inputs() | {"emit": "spike"}
    before = case.negative()
    run = snm_counted(**inputs, negative=before)
    sent = (run.spikes == -1).sum(0, dtype=torch.int32)
    assert torch.equal(run.negative, sent if before is None else before + sent)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [case for case in COUNTED if case.time_steps > 3][::2], ids=str)
def test_chunks_count_as_one_run(case: Case, backend: str) -> None:
    inputs = case.inputs()
    whole = snm_counted(**inputs, negative=case.negative())
    x, residual, state = (inputs.pop(name, None) for name in ("x", "residual", "state"))
    negative = case.negative()
    for steps in (slice(0, 2), slice(2, 3), slice(3, None)):
        added = None if residual is None else residual[steps]
        _, state, negative = snm_counted(
            x[steps], residual=added, state=state, negative=negative, backend=backend, **inputs
        )
    assert_same_bits(negative, whole.negative)
    assert_same_bits(state.m, whole.state.m)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_and_silent_neurons_send_nothing_more(backend: str) -> None:
    x = torch.tensor([[1.0, 1.0, -1.0], [-1.0, float("nan"), -1.0], [-1.0, -1.0, -1.0]])
    theta = torch.tensor([1.0, 1.0, float("inf")])
    run = snm_counted(x, theta, backend=backend)
    assert run.negative.tolist() == [1, 0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "padded time"])
def test_out_may_be_the_drive(layout: str, backend: str) -> None:
    case = Case(f"counted in place, {layout}", 6, rule=preset("snm-zero"), layout=layout)
    expected, inputs = snm_counted(**case.inputs()), case.inputs()
    run = snm_counted(**inputs, out=inputs["x"], backend=backend)
    assert run.spikes is inputs["x"]
    assert_same_run(SNMOutput(*run[:2]), SNMOutput(*expected[:2]))
    assert_same_bits(run.negative, expected.negative)


def test_streamed_spikes_are_counted() -> None:
    # So many bytes of spikes go past the caches.
    x = torch.randn(8, 2**20 + 5, generator=torch.Generator().manual_seed(0))
    run = snm_counted(x, 0.5, rule=preset("snm-zero"))
    assert torch.equal(run.negative, (run.spikes < 0).sum(0, dtype=torch.int32))


def counting_arguments(case: Case) -> tuple[Any, ...]:
    """A case's arguments as the operator `snm_counted` takes them."""
    arguments = operator_arguments(case.inputs())
    return (*arguments[:6], case.negative(), *arguments[6:])


FEW = [case for case in SPREAD if case.state is not None] + SPREAD[:3]


@pytest.mark.parametrize("case", FEW, ids=str)
def test_opcheck(case: Case) -> None:
    torch.library.opcheck(torch.ops.snm_kernels.snm_counted.default, counting_arguments(case))


@pytest.mark.parametrize("case", FEW[::2], ids=str)
def test_opcheck_out(case: Case) -> None:
    out = torch.empty_like(snm(**case.inputs()).spikes).fill_(-77)
    arguments = (*counting_arguments(case)[:-1], out)
    torch.library.opcheck(torch.ops.snm_kernels.snm_counted_out.default, arguments)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("emit", ["amplitude", "none"])
def test_compiled_equals_eager(emit: str, backend: str) -> None:
    torch.compiler.reset()
    case = Case("counted, compiled", emit=emit, layout="channels_last", state="given")
    arguments = case.inputs() | {"negative": case.negative()}
    actual = compiled(snm_counted, backend)(**arguments)
    expected = snm_counted(**arguments)
    assert_same_run(SNMOutput(*actual[:2]), SNMOutput(*expected[:2]))
    assert_same_bits(actual.negative, expected.negative)


X, COUNT = torch.zeros(4, 2, 3), torch.zeros(2, 3, dtype=torch.int32)
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "negative a number": ({"negative": 0}, TypeError, "negative must be a tensor, got 0"),
    "negative int64": (
        {"negative": COUNT.long()},
        TypeError,
        "negative must be torch.int32, got torch.int64",
    ),
    "negative of another shape": (
        {"negative": COUNT[0]},
        ValueError,
        "negative must be of shape [2, 3], got [3]",
    ),
    "negative elsewhere": (
        {"negative": COUNT.to("meta")},
        ValueError,
        "negative must be on cpu, got meta",
    ),
    "out over negative": (
        {"negative": X[0].view(torch.int32), "out": X},
        ValueError,
        "out must share no memory with negative",
    ),
    # The other checks are those of snm, under this op's name.
    "x float64": (
        {"x": X.double()},
        TypeError,
        "x must be one of float32, float16, bfloat16, int32, got torch.float64",
    ),
    "threshold 0": ({"threshold": 0.0}, ValueError, "threshold must be > 0 in float32, got 0.0"),
    "bias too long": (
        {"bias": torch.ones(4)},
        ValueError,
        "bias must broadcast to [2, 3], got [4]",
    ),
    "state a pair of one": (
        {"state": (X[0],)},
        TypeError,
        "state must be an SNMState(v, m), got tuple",
    ),
    "emit unknown": (
        {"emit": "rate"},
        ValueError,
        "emit must be 'amplitude', 'spike' or 'none', got rate",
    ),
    "out transposed": (
        {"out": torch.zeros(4, 3, 2).mT},
        ValueError,
        "out must have the drive's strides [6, 3, 1], got [6, 1, 2]",
    ),
    "backend unknown": (
        {"backend": "metal"},
        ValueError,
        "backend must be 'auto' or one of cpu, cuda, triton, reference, got metal",
    ),
    "x that requires grad": (
        {"x": X.clone().requires_grad_()},
        RuntimeError,
        "x requires grad, but this op has no gradient; call it under torch.no_grad()",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_argument_is_refused(name: str) -> None:
    changed, error, message = REFUSED[name]
    arguments = {"x": X, "threshold": 1.0, **changed}
    with pytest.raises(error) as raised:
        snm_counted(**arguments)
    assert str(raised.value) == f"snm_counted: {message}"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, X.double(), "x must be float32, float16, bfloat16 or int32, got Double"),
        (6, X[0], "negative must be Int, got Float"),
        (6, COUNT[0], r"negative must be of shape \[2, 3\], got \[3\]"),
        (10, 0, "max_spikes must be 1 to 127, got 0"),
    ],
)
def test_operator_called_directly_checks_its_arguments(
    place: int, value: Tensor | int, message: str
) -> None:
    arguments: list[Any] = [
        *(X, torch.tensor(1.0), None, None, None, None, COUNT),
        *(0.0, 1.0, False, 1, 0, 100),
    ]
    arguments[place] = value
    ops = torch.ops.snm_kernels
    for op, last in ((ops.snm_counted, torch.float32), (ops.snm_counted_out, X.clone())):
        with pytest.raises(RuntimeError, match=f"snm_counted: {message}"):
            op(*arguments, last)


def test_state_of_one_run_goes_on_in_the_other() -> None:
    inputs = COUNTED[0].inputs()
    x, first = inputs.pop("x"), slice(0, 4)
    run = snm_counted(x[first], **inputs)
    plain = snm(x[first], **inputs)
    counted = snm_counted(x[4:], state=plain.state, negative=run.negative, **inputs)
    assert isinstance(counted.state, SNMState)
    assert_same_bits(counted.negative, snm_counted(x, **inputs).negative)
