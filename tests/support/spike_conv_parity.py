"""Runs cases of layers of spikes on a backend and on the reference and compares every number.

As a program it does so in a process of its own, as parity.py does for the neuron.
"""

import argparse
import json
from typing import Any

import torch
from torch import Tensor

from snm_kernels import SNMOutput, build_info
from support.equality import assert_same_bits, assert_same_run, strides
from support.parity import compare_all, tensors, to_cpu
from support.spike_conv_cases import CONV_CASES, FLOAT_CASES, ConvCase, as_floats, random_case

BULK_NEURON_STEPS = 2 * 10**6
BULK_CASES = 64
"""How many neuron-steps the random layers have at least in the tests, and how many there are."""
FLOAT_BULK_NEURON_STEPS = 2 * 10**5
"""The same of those in float32, whose reference is slow."""


def assert_channels_last(value: Tensor, channel: int) -> None:
    """Asserts that slices are dense and that channels change fastest in memory, if any do."""
    if value.numel() == 0:
        return
    wanted = value.movedim(channel, -1)
    assert strides(wanted) == strides(torch.empty(wanted.shape, device="meta"))


def assert_layer_layout(run: SNMOutput) -> None:
    """Asserts that all that a layer gives is channels_last."""
    for part in run.state:
        assert_channels_last(part, 1)
    if run.spikes is not None:
        assert_channels_last(run.spikes, 2)


def compare_layer(case: ConvCase, backend: str, device: str = "cpu") -> int:
    """Compares one case with the reference, on the CPU both ways; returns the neuron-steps."""
    inputs = case.inputs()
    before = {name: tensor.clone() for name, tensor in tensors(inputs).items()}
    expected, expected_drive = run_both(case, inputs, "reference")
    if device != "cpu":
        inputs = case.inputs(device)
    ways = [inputs, case.densely(inputs)] if backend == "cpu" and case.can_be_dense else [inputs]
    for given in ways:
        actual, drive = run_both(case, given, backend)
        assert_same_bits(drive.cpu(), expected_drive, "drive")
        assert_same_run(to_cpu(actual), expected)
        assert actual.state.v.numel() * case.time_steps == case.neuron_steps
        for run in (actual, expected):
            assert_layer_layout(run)
    for name, tensor in tensors(inputs).items():
        assert_same_bits(tensor.cpu(), before[name], f"{name} after the run")
    return case.neuron_steps


def run_both(case: ConvCase, inputs: dict[str, Any], backend: str) -> tuple[SNMOutput, Tensor]:
    """What a layer and its neurons give, and what the layer alone gives."""
    return case.run(inputs, backend=backend), case.drive(inputs, backend=backend)


def compare_threads(case: ConvCase, backend: str, threads: list[int]) -> dict[int, int]:
    """Compares a layer's neurons with the reference by numbers of threads; returns the
    neuron-steps compared of each."""
    inputs = case.inputs()
    torch.set_num_threads(max(threads))
    expected = case.run(inputs, backend="reference")
    compared = {}
    for n in threads:
        torch.set_num_threads(n)
        assert_same_run(to_cpu(case.run(inputs, backend=backend)), expected)
        if backend == "cpu" and case.can_be_dense:
            assert_same_run(case.run(case.densely(inputs)), expected)
        compared[n] = case.neuron_steps
    return compared


def bulk_cases(neuron_steps: int, cases: int = BULK_CASES) -> list[ConvCase]:
    """Random layers of at least so many neuron-steps, all together."""
    return [random_case(number, -(-neuron_steps // cases)) for number in range(cases)]


BULK = bulk_cases(BULK_NEURON_STEPS)
FLOAT_BULK = as_floats(bulk_cases(FLOAT_BULK_NEURON_STEPS))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--most-neuron-steps", type=int, default=2**62)
    parser.add_argument("--every", type=int, default=1, help="n-th case is run")
    parser.add_argument("--match", default="", help="runs the cases with this in their names")
    parser.add_argument("--floats", action="store_true", help="cases in float32")
    parser.add_argument("--with-bulk", action="store_true", help="runs the tests' bulk as well")
    parser.add_argument("--bulk", type=int, default=0, help="neuron-steps of random layers instead")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of random layers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.bulk:
        cases = bulk_cases(arguments.bulk)
        cases = as_floats(cases) if arguments.floats else cases
        compared = dict.fromkeys(arguments.threads, 0)

        def run(case: ConvCase, backend: str) -> int:
            for threads, steps in compare_threads(case, backend, arguments.threads).items():
                compared[threads] += steps
            return case.neuron_steps

    else:
        cases = FLOAT_CASES if arguments.floats else CONV_CASES
        cases = [c for c in cases if c.neuron_steps <= arguments.most_neuron_steps]
        cases = [c for c in cases if arguments.match in c.name][:: arguments.every]
        if arguments.with_bulk:
            cases += FLOAT_BULK if arguments.floats else BULK
        run, compared = compare_layer, {}
    steps, failures = compare_all([(run, case) for case in cases], arguments.backend)
    info = build_info()
    summary = {"isa": info.isa, "matrix": info.matrix, "cases": len(cases), "neuron_steps": steps}
    print(json.dumps({**summary, "by_threads": compared, "failures": failures}))


if __name__ == "__main__":
    main()
