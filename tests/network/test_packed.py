"""Ternary spikes in two bits: what is packed comes back, in a quarter of the memory."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snm import pack_spikes, unpack_spikes

SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@st.composite
def ternary(draw: st.DrawFn) -> torch.Tensor:
    """Ternary spikes of any shape, their dimensions in memory in any order."""
    shape = draw(SHAPES)
    size = math.prod(shape)
    values = draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=size, max_size=size))
    order = draw(st.permutations(range(len(shape))))
    return torch.tensor(values, dtype=torch.int8).reshape(shape).permute(order)


@given(ternary())
def test_what_is_packed_comes_back(spikes: torch.Tensor) -> None:
    before = spikes.clone()
    packed = pack_spikes(spikes)
    assert packed.dtype == torch.uint8
    assert packed.shape == (math.ceil(spikes.numel() / 4),)
    found = unpack_spikes(packed, spikes.shape)
    assert found.dtype == torch.int8
    assert torch.equal(found, before)
    assert torch.equal(spikes, before)


@given(ternary())
def test_each_spike_lies_where_it_should(spikes: torch.Tensor) -> None:
    packed = pack_spikes(spikes).tolist()
    for index, spike in enumerate(spikes.flatten().tolist()):
        assert packed[index // 4] >> 2 * (index % 4) & 3 == {0: 0, 1: 1, -1: 3}[spike]
    # What fills the last byte.
    if spikes.numel() % 4:
        assert packed[-1] >> 2 * (spikes.numel() % 4) == 0


def test_every_byte_comes_back() -> None:
    spikes = torch.cartesian_prod(*[torch.tensor([-1, 0, 1], dtype=torch.int8)] * 4)
    packed = pack_spikes(spikes)
    assert len(packed.unique()) == 81
    assert torch.equal(unpack_spikes(packed, spikes.shape), spikes)


def test_two_bits_a_spike() -> None:
    packed = pack_spikes(torch.ones(7, 11, 13, dtype=torch.int8))
    assert packed.untyped_storage().nbytes() == math.ceil(7 * 11 * 13 / 4)


@pytest.mark.parametrize("value", [2, -2, 127, -128])
def test_other_spikes_are_refused(value: int) -> None:
    spikes = torch.tensor([0, value, 1], dtype=torch.int8)
    with pytest.raises(ValueError, match=f"must be -1, 0 or 1, got .*{value}"):
        pack_spikes(spikes)


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match=r"must be an int8 tensor, got torch\.float32"):
        pack_spikes(torch.zeros(4))
    with pytest.raises(TypeError, match="must be an int8 tensor, got list"):
        pack_spikes([0, 1])
    with pytest.raises(TypeError, match=r"must be a uint8 tensor, got torch\.int8"):
        unpack_spikes(torch.zeros(1, dtype=torch.int8), (4,))
    with pytest.raises(ValueError, match=r"must be \[2\] for spikes of \[5\], got \[1\]"):
        unpack_spikes(torch.zeros(1, dtype=torch.uint8), (5,))
