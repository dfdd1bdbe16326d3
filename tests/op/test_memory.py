"""Memory formats of what comes back, and what is never materialised."""

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from snm_kernels import SNMState, snm
from support.cases import channels_last, reversed_memory
from support.equality import assert_same_run

X = torch.rand(4, 2, 3, 5, 7)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    ("x", "strides"),
    [
        (X, (210, 105, 35, 7, 1)),
        (channels_last(X), (210, 105, 1, 21, 3)),
        (reversed_memory(X), (210, 1, 2, 6, 30)),
        (X.expand(4, 2, 3, 5, 7), (210, 105, 35, 7, 1)),
        (channels_last(X)[:1].expand(4, -1, -1, -1, -1), (210, 105, 1, 21, 3)),
        (X[..., ::2], (120, 60, 20, 4, 1)),
        (channels_last(X)[..., ::2], (120, 60, 1, 12, 3)),
        (X.transpose(0, 1), (420, 105, 35, 7, 1)),
    ],
    ids=[
        "contiguous",
        "channels_last",
        "reversed",
        "expanded",
        "constant",
        "gaps",
        "both",
        "batch",
    ],
)
def test_output_has_these_strides(x: Tensor, strides: tuple[int, ...], backend: str) -> None:
    spikes, state = snm(x, 0.5, emit="spike", backend=backend)
    assert spikes.stride() == strides
    assert state.v.stride() == strides[1:]
    assert state.m.stride() == strides[1:]
    assert spikes.is_contiguous() == (strides[-1] == 1)


def allocated(**arguments: object) -> int:
    """Bytes that one run allocates in all."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        snm(**arguments)
    return sum(
        max(0, event.self_device_memory_usage, event.self_cpu_memory_usage)
        for event in record.events()
    )


STATE = 2 * 4 * 64 * 100
SMALL = STATE // 2


@pytest.mark.parametrize("kind", ["constant", "padded", "whole", "sliding"])
def test_drive_and_residual_are_not_copied(kind: str) -> None:
    whole = torch.rand(256, 64, 100)
    x = {
        "constant": whole[:1].expand(256, -1, -1),
        "padded": torch.rand(256, 65, 100)[:, :64],
        "whole": whole,
        "sliding": whole.as_strided((256, 64, 100), (100, 100, 1)),
    }[kind]
    assert STATE <= allocated(x=x, threshold=1.0, residual=x, emit="none") < STATE + SMALL


@pytest.mark.parametrize("sizes", [(1,), (100,), (64, 1)])
def test_parameters_are_not_spread_over_the_neurons(sizes: tuple[int, ...]) -> None:
    theta = torch.rand(sizes)
    used = allocated(x=torch.rand(4, 64, 100), threshold=theta, bias=theta, emit="none")
    assert STATE <= used < STATE + SMALL


def test_parameters_are_not_spread_over_the_batch() -> None:
    x = channels_last(torch.rand(2, 64, 5, 4, 5))
    theta = torch.rand(5, 4, 5)
    assert STATE <= allocated(x=x, threshold=theta, bias=theta, emit="none") < STATE + SMALL


def test_spikes_are_allocated_once() -> None:
    x = torch.rand(256, 64, 100)
    assert allocated(x=x, threshold=1.0) < STATE + x.nbytes + SMALL
    assert allocated(x=x, threshold=1.0, out=x) < 2 * STATE


def test_offsets_beyond_32_bits() -> None:
    step = 2**30 + 5
    # Pages that nobody writes are never backed by memory.
    buffer = torch.empty(2 * step + 64, dtype=torch.float16)
    x = buffer.as_strided((3, 64), (step, 1))
    small = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)).half()
    x.copy_(small)
    expected = snm(small, 0.5)
    assert_same_run(snm(x, 0.5), expected)
    assert_same_run(snm(x, 0.5, out=x), expected)


def test_negated_view_is_read_with_its_sign() -> None:
    x = torch.imag(torch.randn(4, 10, dtype=torch.complex64).conj())
    assert x.is_neg()
    assert_same_run(snm(x, 0.5), snm(x.resolve_neg(), 0.5))


def test_parameters_and_frozen_weights_are_accepted() -> None:
    theta = torch.nn.Parameter(torch.ones(7), requires_grad=False)
    assert_same_run(snm(X, theta), snm(X, 1.0))


def test_state_may_be_a_plain_pair() -> None:
    first = snm(X, 1.0).state
    assert_same_run(snm(X, 1.0, state=tuple(first)), snm(X, 1.0, state=SNMState(*first)))
