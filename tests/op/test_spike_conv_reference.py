"""The reference of layers of spikes against a loop over weights, and worked by hand."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from snm_kernels import snm_conv, snm_linear, spike_conv, spike_linear
from support.spike_conv_cases import LAYERS, ConvCase

BACKENDS = ("reference", "cpu")


def naive(case: ConvCase, x: Tensor, weight: Tensor) -> Tensor:
    """Every weight of every output by itself, in Python's integers or NumPy's float32."""
    sizes = tuple(
        value if isinstance(value, tuple) else (value,) * case.spatial
        for value in (case.stride, case.padding, case.dilation, case.pool)
    )
    stride, padding, dilation, pool = sizes
    spatial = range(case.spatial)
    outputs = torch.zeros((case.time_steps, *case.output), dtype=case.dtype)
    values = x.tolist()
    per_group = case.outputs // case.groups

    def terms(t: int, b: int, k: int, place: tuple[int, ...]) -> Iterator[tuple[int, float]]:
        """Spikes and their weights: by the kernel's places, windows' places, channels."""
        for tap in product(*map(range, weight.shape[2:])):
            at = [place[d] * stride[d] - padding[d] + tap[d] * dilation[d] for d in spatial]
            if not all(0 <= at[d] < case.shape[2 + d] // pool[d] for d in spatial):
                continue
            for *inside, c in product(*map(range, (*pool, weight.shape[1]))):
                spikes = values[t][b][k // per_group * weight.shape[1] + c]
                for d in spatial:
                    spikes = spikes[at[d] * pool[d] + inside[d]]
                yield spikes, weight[(k, c, *tap)].item()

    for t, b, k in product(*map(range, (case.time_steps, case.shape[0], case.outputs))):
        for place in product(*map(range, case.output[2:])):
            found = list(terms(t, b, k, place))
            if case.dtype == torch.int32:
                outputs[(t, b, k, *place)] = sum(spikes * own for spikes, own in found)
                continue
            total = np.float32(0)
            for sign in (1, -1):
                for spikes, own in found:
                    for _ in range(spikes * sign):
                        total += np.float32(sign * own)
            outputs[(t, b, k, *place)] = total.item()
    return outputs


SMALL = (
    "2x2",
    "3x2/(2, 1), dilated by 1 and 2",
    "groups",
    "pool (2, 3), groups",
    "1d, 3",
    "linear",
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32], ids=str)
def test_equals_a_loop(name: str, backend: str, dtype: torch.dtype) -> None:
    shape, outputs, layer = LAYERS[name]
    small = (1, *shape[1:])
    case = ConvCase(name, small, outputs, time_steps=1, spikes="graded", dtype=dtype, **layer)
    inputs = case.inputs()
    expected = naive(case, inputs["x"], inputs["weight"])
    assert torch.equal(case.drive(inputs, backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_worked_by_hand(backend: str) -> None:
    x = torch.tensor([[1, 0, 0, 1], [0, -1, 1, 0], [-1, -1, 0, 0]], dtype=torch.int8)
    x = x.view(3, 1, 1, 4)
    weight = torch.tensor([[[3, 5]]], dtype=torch.int8)
    drive = [[3, 0, 5], [-5, 2, 3], [-8, -3, 0]]
    assert spike_conv(x, weight, backend=backend).view(3, 3).tolist() == drive
    run = snm_conv(x, weight, torch.tensor(3, dtype=torch.int32), backend=backend)
    # The first neuron takes its spike back at -5, and has none left to take back at -10.
    assert run.spikes.view(3, 3).tolist() == [[1, 0, 1], [-1, 0, 1], [0, 0, 0]]
    assert run.state.v.view(3).tolist() == [-10, -1, 2]
    assert run.state.m.view(3).tolist() == [0, 0, 2]


@pytest.mark.parametrize("backend", BACKENDS)
def test_worked_by_hand_with_pool_bias_and_residual(backend: str) -> None:
    x = torch.tensor([[[[1, 1], [0, 1]]]], dtype=torch.int8).view(1, 1, 1, 2, 2)
    weight = torch.tensor([2], dtype=torch.int8).view(1, 1, 1, 1)
    bias = torch.tensor([10], dtype=torch.int32).view(1, 1, 1)
    assert spike_conv(x, weight, pool=2, bias=bias, backend=backend).item() == 3 * 2 + 10
    run = snm_conv(
        x,
        weight,
        torch.tensor(16, dtype=torch.int32),
        pool=2,
        bias=bias,
        residual=torch.full((1, 1, 1, 1, 1), -1, dtype=torch.int32),
        backend=backend,
    )
    assert (run.spikes.item(), run.state.v.item()) == (0, 15)


@pytest.mark.parametrize("backend", BACKENDS)
def test_floats_are_added_in_order(backend: str) -> None:
    large = 2.0**24
    weight = torch.tensor([[large, 1.0, -large]])

    def driven(*spikes: int) -> float:
        x = torch.tensor(spikes, dtype=torch.int8).view(1, 1, 3)
        return spike_linear(x, weight, backend=backend).item()

    # Added to the large number, 1 is lost.
    assert driven(1, 1, 1) == 0.0
    # Positive spikes come first, so that it is taken from 0.
    assert driven(1, -1, 1) == -1.0
    # Three times 1 is lost; 3 would not be.
    assert driven(1, 3, 0) == large


@pytest.mark.parametrize("backend", BACKENDS)
def test_floats_worked_by_hand(backend: str) -> None:
    x = torch.tensor([[1, 1], [1, 0], [-1, 0]], dtype=torch.int8).view(3, 1, 2)
    weight = torch.tensor([[0.5, 0.25], [2.0, 0.0]])
    run = snm_linear(
        x,
        weight,
        torch.tensor([1.0, torch.inf]),
        bias=torch.tensor([0.125, 0.0]),
        residual=torch.full((3, 1, 2), 0.125),
        backend=backend,
    )
    # Driven with 1, 0.75 and -0.25, and a silent one with 2.125 and so on.
    assert run.spikes.view(3, 2).tolist() == [[1, 0], [0, 0], [0, 0]]
    assert run.state.v.view(2).tolist() == [0.5, 2.375]
    assert run.state.m.view(2).tolist() == [1, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_wrap_around(backend: str) -> None:
    x = torch.full((1, 1, 140000), 127, dtype=torch.int8)
    total = 127 * 127 * 140000
    assert total > 2**31
    assert spike_linear(x, x[0], backend=backend).item() == total - 2**32


def test_reference_runs_on_any_device() -> None:
    x = torch.zeros(3, 2, 5, dtype=torch.int8, device="meta")
    weight = torch.zeros(4, 5, dtype=torch.int8, device="meta")
    theta = torch.ones(4, dtype=torch.int32, device="meta")
    assert snm_linear(x, weight, theta, backend="reference").spikes.shape == (3, 2, 4)
