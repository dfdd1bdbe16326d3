"""Runs cases of the running maximum on a backend and on the reference and compares every bit.

As a program it does so in a process of its own, as parity.py does for the neuron.
"""

import argparse
import json
from typing import Any

import torch
from torch import Tensor

from snm_kernels import RunningMaxOutput, build_info
from support.equality import assert_same_bits, strides
from support.parity import compare_all
from support.running_max_cases import POOL_CASES, PoolCase


def pool_to_cpu(run: RunningMaxOutput) -> RunningMaxOutput:
    return RunningMaxOutput(run.spikes.cpu(), run.total.cpu())


def assert_same_pooling(actual: RunningMaxOutput, expected: RunningMaxOutput) -> None:
    """Asserts that what was sent and the totals are the same bits."""
    assert_same_bits(actual.spikes, expected.spikes, "spikes")
    assert_same_bits(actual.total, expected.total, "total")


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of ``[..., C, *spatial]`` change fastest in memory."""
    return x[0].numel() > 0 and x.stride(2) == 1 and x.movedim(2, -1)[0].is_contiguous()


def assert_pooled_layout(x: Tensor, output: RunningMaxOutput) -> None:
    """Asserts that slices are dense in the memory format of ``x``."""
    last = is_channels_last(x) and not x[0].is_contiguous()
    for dense, channel in ((output.spikes, 2), (output.total, 1)):
        wanted = dense.movedim(channel, -1) if last else dense
        assert strides(wanted) == strides(torch.empty(wanted.shape, device="meta"))


def tensors(inputs: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in inputs.items() if isinstance(value, Tensor)}


def compare_pooling(case: PoolCase, backend: str, device: str = "cpu") -> int:
    """Compares one case with the reference; returns the input-steps compared."""
    inputs = case.inputs()
    before = {name: tensor.clone() for name, tensor in tensors(inputs).items()}
    expected = case.run(inputs, backend="reference")
    if device != "cpu":
        inputs = case.inputs(device)
    actual = case.run(inputs, backend=backend)
    assert_same_pooling(pool_to_cpu(actual), expected)
    assert_pooled_layout(inputs["x"], actual)
    for name, tensor in tensors(inputs).items():
        assert_same_bits(tensor.cpu(), before[name], f"{name} after the run")
    return case.input_steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--most-input-steps", type=int, default=2**62)
    parser.add_argument("--every", type=int, default=1, help="n-th case is run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = [case for case in POOL_CASES if case.input_steps <= arguments.most_input_steps]
    cases = cases[:: arguments.every]
    runs = [(compare_pooling, case) for case in cases]
    compared, failures = compare_all(runs, arguments.backend)
    summary = {"isa": build_info().isa, "cases": len(cases), "input_steps": compared}
    print(json.dumps({**summary, "failures": failures}))


if __name__ == "__main__":
    main()
