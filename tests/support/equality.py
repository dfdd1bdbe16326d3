"""Equality of tensors and runs to the last bit, and of memory layouts. There is no tolerance."""

import torch
from torch import Tensor

from snm_kernels import SNMOutput


def bits(tensor: Tensor) -> Tensor:
    """A floating tensor as integers, in which every NaN looks alike and -0.0 is not 0.0."""
    if not tensor.is_floating_point():
        return tensor
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return torch.where(tensor.isnan(), float("nan"), tensor).view(integers)


def assert_same_bits(actual: Tensor, expected: Tensor, name: str = "tensor") -> None:
    assert actual.dtype == expected.dtype, f"{name}: {actual.dtype}, not {expected.dtype}"
    assert actual.shape == expected.shape, f"{name}: {actual.shape}, not {expected.shape}"
    if torch.equal(bits(actual), bits(expected)):
        return
    wrong = (bits(actual) != bits(expected)).nonzero().tolist()
    first = tuple(wrong[0])
    raise AssertionError(
        f"{name}: {len(wrong)} of {actual.numel()} differ, first at {list(first)}: "
        f"{actual[first].item()!r}, not {expected[first].item()!r}"
    )


def assert_same_run(actual: SNMOutput, expected: SNMOutput) -> None:
    """Asserts that spikes (or that there are none), membrane and memory are the same bits."""
    assert (actual.spikes is None) == (expected.spikes is None)
    if expected.spikes is not None:
        assert_same_bits(actual.spikes, expected.spikes, "spikes")
    assert_same_bits(actual.state.v, expected.state.v, "v")
    assert_same_bits(actual.state.m, expected.state.m, "m")


def strides(tensor: Tensor) -> list[int]:
    """The strides of those dimensions that have more than one place."""
    return [s for n, s in zip(tensor.shape, tensor.stride(), strict=True) if n > 1]


def assert_laid_out_as(x: Tensor, output: SNMOutput) -> None:
    """Asserts that slices are dense in the drive's memory format, spikes one dense slice a step."""
    slice_ = torch.empty_like(x[0])
    assert strides(output.state.v) == strides(slice_)
    assert strides(output.state.m) == strides(slice_)
    if output.spikes is None or x.numel() == 0:
        return
    assert strides(output.spikes[0]) == strides(slice_)
    assert output.spikes.shape[0] == 1 or output.spikes.stride(0) == slice_.numel()
