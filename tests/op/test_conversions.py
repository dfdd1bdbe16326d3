"""Every widening of a half-precision drive and every rounding border of a half-precision spike."""

import pytest
import torch
from torch import Tensor

from snm_kernels import SNMRule, snm
from support.equality import assert_same_bits

HALVES = [torch.float16, torch.bfloat16]
INFINITY = float("inf")


def every_value(dtype: torch.dtype) -> Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_half_is_widened_exactly(dtype: torch.dtype) -> None:
    x = every_value(dtype)[None]
    membrane = torch.full(x.shape[1:], -0.0)
    state = (membrane, torch.zeros(x.shape[1:], dtype=torch.int32))
    _, after = snm(x, INFINITY, state=state, emit="none")
    assert_same_bits(after.v, x[0].to(torch.float32))


@pytest.mark.parametrize("bias", [None, 0.0, -0.0])
def test_every_residual_is_widened_exactly(bias: float | None) -> None:
    residual = every_value(torch.float16)[None]
    x = torch.full_like(residual, -0.0)
    membrane = torch.full(x.shape[1:], -0.0)
    state = (membrane, torch.zeros(x.shape[1:], dtype=torch.int32))
    _, after = snm(x, INFINITY, residual=residual, bias=bias, state=state, emit="none")
    expected = residual[0].to(torch.float32)
    assert_same_bits(after.v, expected if bias is None else expected + bias)


@pytest.mark.parametrize("drive", [2**24 + 1, 2**24 + 3, 2**31 - 1, -(2**31), -(2**24) - 1, 0])
def test_integers_are_rounded_to_the_nearest_float(drive: int) -> None:
    x = torch.tensor([[drive]], dtype=torch.int32)
    _, state = snm(x, INFINITY, emit="none")
    assert state.v.item() == torch.tensor(drive, dtype=torch.float64).float().item()


def rounding_borders(dtype: torch.dtype) -> Tensor:
    """Positive float32 values on, halfway between, and one ulp beside those of dtype."""
    values = every_value(dtype).float()
    values = values[values.isfinite() & (values > 0)].unique()
    halfway = ((values[:-1].double() + values[1:].double()) / 2).float()
    last = values[-1] + (values[-1] - values[-2]) / 2
    first = values[0] / 2
    borders = torch.cat((values, halfway, torch.stack((last, first))))
    borders = torch.cat(
        (borders, *(torch.nextafter(borders, torch.tensor(t)) for t in (0.0, 3e38)))
    )
    return borders[borders.isfinite() & (borders > 0)]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_amplitudes_are_rounded_to_nearest_even(dtype: torch.dtype, sign: int) -> None:
    theta = rounding_borders(dtype)
    spikes, _ = snm((sign * theta)[None], theta, rule=SNMRule(count_min=None), out_dtype=dtype)
    assert_same_bits(spikes[0], (sign * theta).to(dtype))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_amplitudes_of_any_float_are_rounded_to_nearest_even(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    theta = torch.randint(1, 0x7F800000, (2**20,), generator=g, dtype=torch.int32)
    theta = theta.view(torch.float32)
    spikes, _ = snm(theta[None], theta, out_dtype=dtype)
    assert_same_bits(spikes[0], theta.to(dtype))


def test_subnormal_thresholds_are_not_flushed() -> None:
    theta = torch.arange(2, 1000, 2, dtype=torch.int32).view(torch.float32)
    spikes, state = snm(torch.stack((theta, theta / 2, -theta)), theta)
    assert_same_bits(spikes, torch.stack((theta, 0 * theta, 0 * theta)))
    assert_same_bits(state.v, -(theta / 2))
    assert state.m.eq(1).all()
