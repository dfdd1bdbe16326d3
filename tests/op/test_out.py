"""Writing into a given tensor: in place, padded, and what is refused."""

import pytest
import torch
from torch import Tensor

from snm_kernels import SNMState, snm
from support.cases import CASES, IN_PLACE, Case, padded_time
from support.equality import assert_same_bits, assert_same_run

SENDING = [case for case in CASES if case.emit != "none"]
BACKENDS = ["cpu", "reference"]


def poisoned(like: Tensor) -> Tensor:
    return torch.empty_like(like).fill_(-77)


@pytest.mark.parametrize("case", SENDING, ids=str)
def test_out_is_written_and_returned(case: Case) -> None:
    inputs = case.inputs()
    expected = snm(**inputs)
    out = poisoned(expected.spikes)
    actual = snm(**inputs, out=out)
    assert actual.spikes is out
    assert_same_run(actual, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", IN_PLACE[::3], ids=str)
def test_out_may_be_the_drive(case: Case, backend: str) -> None:
    inputs = case.inputs()
    expected = snm(**inputs)
    x = inputs["x"]
    actual = snm(**inputs, out=x, backend=backend)
    assert actual.spikes is x
    assert_same_run(actual, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_out_may_be_the_residual(backend: str) -> None:
    inputs = Case("in place of a residual", 5, (3, 700), residual="contiguous").inputs()
    expected = snm(**inputs)
    assert_same_run(snm(**inputs, out=inputs["residual"], backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_between_steps_is_left_alone(backend: str) -> None:
    inputs = Case("padded", 4, (3, 50)).inputs()
    expected = snm(**inputs)
    buffer = torch.full((4, 160), 5.0)
    out = buffer[:, 3:153].unflatten(1, (3, 50))
    assert_same_run(snm(**inputs, out=out, backend=backend), expected)
    assert buffer[:, :3].eq(5).all()
    assert buffer[:, 153:].eq(5).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_padded_drive_may_be_written_in_place(backend: str) -> None:
    inputs = Case("padded in place", 4, (3, 50), layout="padded time").inputs()
    expected = snm(**inputs)
    assert_same_run(snm(**inputs, out=inputs["x"], backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_next_chunk_of_a_buffer_may_be_written(backend: str) -> None:
    inputs = Case("chunk by chunk", 4, (3, 50)).inputs()
    x = inputs.pop("x")
    expected = snm(x, **inputs)
    buffer = poisoned(x)
    first = snm(x[:3], **inputs, out=buffer[:3], backend=backend)
    last = snm(x[3:], **inputs, state=first.state, out=buffer[3:], backend=backend)
    assert_same_bits(buffer, expected.spikes)
    assert_same_run(last._replace(spikes=buffer), expected)


def test_out_of_no_neurons() -> None:
    out = torch.empty(3, 0, 4)
    assert snm(torch.empty(3, 0, 4), 1.0, out=out).spikes is out


X = torch.zeros(4, 2, 3)
REFUSED = {
    "transposed": (X, torch.zeros(4, 3, 2).mT, r"the drive's strides \[6, 3, 1\], got \[6, 1, 2\]"),
    "gaps in a slice": (X, torch.zeros(4, 2, 6)[..., ::2], r"the drive's strides \[6, 3, 1\], got"),
    "stride 0 over time": (
        X,
        torch.zeros(1, 2, 3).expand(4, 2, 3),
        r"strides \[6, 3, 1\], got \[0",
    ),
    "steps that overlap": (X, torch.zeros(99).as_strided((4, 2, 3), (5, 3, 1)), r"got \[5, 3, 1\]"),
    "channels_last for contiguous": (
        torch.zeros(2, 2, 3, 4, 4),
        torch.zeros(2, 2, 4, 4, 3).movedim(-1, 2),
        r"strides \[96, 48, 16, 4, 1\], got \[96, 48, 1, 12, 3\]",
    ),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("x", "out", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_strides_are_refused(x: Tensor, out: Tensor, message: str, backend: str) -> None:
    with pytest.raises(ValueError, match=r"^snm: out must have " + ".*" + message):
        snm(x, 1.0, out=out, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shift", [1, 6, 23])
def test_shifted_overlap_with_the_drive_is_refused(shift: int, backend: str) -> None:
    buffer = torch.zeros(64)
    x, out = buffer[:24].view(4, 2, 3), buffer[shift : shift + 24].view(4, 2, 3)
    with pytest.raises(ValueError, match=r"^snm: out must be x itself or share no memory with it$"):
        snm(x, 1.0, out=out, backend=backend)
    residual = out
    with pytest.raises(ValueError, match=r"^snm: out must be residual itself or share no memory"):
        snm(torch.zeros(4, 2, 3), 1.0, residual=residual, out=x, backend=backend)


def test_overlap_with_another_dtype_is_refused() -> None:
    x = torch.zeros(4, 6, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"^snm: out must be x itself or share no memory with it$"):
        snm(x, 1.0, out=x.view(torch.float32))


def test_neighbours_in_one_buffer_are_accepted() -> None:
    buffer = torch.ones(48)
    x, out = buffer[:24].view(4, 6), buffer[24:].view(4, 6)
    assert snm(x, 1.0, out=out).spikes.eq(1).all()


@pytest.mark.parametrize("part", ["threshold", "bias", "state.v", "state.m"])
def test_shifted_overlap_with_what_is_read_is_refused(part: str) -> None:
    buffer = torch.ones(4, 3000)
    shared = buffer.view(-1)[1500:4500]
    zeros = torch.zeros(3000)
    arguments = {
        "threshold": {"threshold": shared},
        "bias": {"threshold": 1.0, "bias": shared},
        "state.v": {"threshold": 1.0, "state": SNMState(shared, zeros.int())},
        "state.m": {"threshold": 1.0, "state": SNMState(zeros, shared.view(torch.int32))},
    }[part]
    with pytest.raises(ValueError, match=f"^snm: out must .*share no memory with {part}$"):
        snm(torch.ones(4, 3000), **arguments, out=buffer)


def test_drive_given_twice_is_not_changed() -> None:
    x = padded_time(torch.rand(3, 2, 3))
    before = x.clone()
    snm(x, 1.0, residual=x)
    assert_same_bits(x, before)
