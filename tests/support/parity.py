"""Runs cases on a backend and on the reference and compares every bit.

As a program, ``python -m support.parity`` in tests/, it does so in a process of its own, for what
is read once per process: the CPU's instruction set and Triton's interpreter.
"""

import argparse
import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Generator, Tensor

from snm_kernels import PRESETS, SNMOutput, SNMState, build_info, preset, snm, snm_counted
from support.cases import CASES, COUNTED, DTYPES, Case, aimed_run, short, thetas
from support.equality import assert_laid_out_as, assert_same_bits, assert_same_run
from support.pairwise import pairwise


def to_cpu(run: SNMOutput) -> SNMOutput:
    spikes = None if run.spikes is None else run.spikes.cpu()
    return SNMOutput(spikes, SNMState(*(part.cpu() for part in run.state)))


def tensors(inputs: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors among a case's inputs by name, the state's parts by their own names."""
    flat = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    if "state" in inputs:
        flat |= {"state.v": inputs["state"].v, "state.m": inputs["state"].m}
    return flat


def compare(case: Case, backend: str, device: str = "cpu") -> int:
    """Compares one case with the reference; returns the neuron-steps compared."""
    inputs = case.inputs()
    before = {name: tensor.clone() for name, tensor in tensors(inputs).items()}
    expected = snm(**inputs, backend="reference")
    if device != "cpu":
        inputs = case.inputs(device)
    actual = snm(**inputs, backend=backend)
    assert_same_run(to_cpu(actual), expected)
    assert_laid_out_as(inputs["x"], actual)
    for name, tensor in tensors(inputs).items():
        assert_same_bits(tensor.cpu(), before[name], f"{name} after the run")
    return case.neuron_steps


def compare_counted(case: Case, backend: str, device: str = "cpu") -> int:
    """Compares a run that counts negative spikes with the reference, and with one that does not."""
    expected = snm_counted(**case.inputs(), negative=case.negative(), backend="reference")
    inputs, before = case.inputs(device), case.negative(device)
    actual = snm_counted(**inputs, negative=before, backend=backend)
    run = SNMOutput(actual.spikes, actual.state)
    assert_same_run(to_cpu(run), SNMOutput(expected.spikes, expected.state))
    assert_same_run(to_cpu(run), to_cpu(snm(**inputs, backend=backend)))
    assert_same_bits(actual.negative.cpu(), expected.negative, "negative")
    assert_laid_out_as(inputs["x"], run)
    assert actual.negative.stride() == actual.state.m.stride()
    if before is not None:
        assert_same_bits(before.cpu(), case.negative(), "negative after the run")
    return case.neuron_steps


def compare_in_place(case: Case, backend: str, device: str = "cpu") -> int:
    """Compares a run that writes its spikes over the drive with the reference."""
    expected = snm(**case.inputs(), backend="reference")
    inputs = case.inputs(device)
    actual = snm(**inputs, out=inputs["x"], backend=backend)
    assert actual.spikes is inputs["x"]
    assert_same_run(to_cpu(actual), expected)
    return case.neuron_steps


def compare_all(
    runs: Sequence[tuple[Callable[[Any, str], int], Any]], backend: str
) -> tuple[int, list[str]]:
    """How many steps were compared, by pairs of a comparison and a case, and what failed."""
    compared, failures = 0, []
    for run, item in runs:
        try:
            compared += run(item, backend)
        except Exception:
            failures.append(f"{item}: {traceback.format_exc(limit=-1)}")
    return compared, failures


@dataclass(frozen=True)
class Bulk:
    """Many neurons of one preset, aimed at their thresholds."""

    preset: str
    dtype: torch.dtype
    time_steps: int = 32
    shape: tuple[int, ...] = (8, 14080)

    def __str__(self) -> str:
        return f"{self.preset}-{short(self.dtype)}"


BULKS = [Bulk(*pair) for pair in product(PRESETS, DTYPES)]
NEURON_STEPS = 10**8
"""How many neuron-steps the bulks have at least, all together."""


def compare_bulk(bulk: Bulk, backend: str, device: str = "cpu") -> int:
    """Compares one bulk with the reference; returns the neuron-steps compared."""
    g = Generator().manual_seed(BULKS.index(bulk))
    theta = thetas("ordinary", bulk.shape[1:], bulk.dtype, g)
    rule = preset(bulk.preset)
    x, expected = aimed_run(
        rule, theta, (bulk.time_steps, *bulk.shape), bulk.dtype, g, emit="amplitude"
    )
    actual = to_cpu(snm(x.to(device), theta.to(device), rule=rule, backend=backend))
    assert_same_run(actual, expected)
    return actual.spikes.numel()


def small_runs(most_neuron_steps: int) -> list[tuple[Callable[[Case, str], int], Case]]:
    """Comparisons and their cases, but for those of more neuron-steps."""
    cases = [(compare, case) for case in CASES] + [(compare_counted, case) for case in COUNTED]
    return [run for run in cases if run[1].neuron_steps <= most_neuron_steps]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--most-neuron-steps", type=int, default=2**62)
    parser.add_argument("--every", type=int, default=1, help="n-th case is run")
    parser.add_argument("--pairs", action="store_true", help="so few that no pair of words is lost")
    parser.add_argument("--bulk", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = small_runs(arguments.most_neuron_steps)
    runs = (pairwise(runs) if arguments.pairs else runs)[:: arguments.every]
    runs += [(compare_bulk, bulk) for bulk in BULKS if arguments.bulk]
    compared, failures = compare_all(runs, arguments.backend)
    summary = {"isa": build_info().isa, "cases": len(runs), "neuron_steps": compared}
    print(json.dumps({**summary, "failures": failures}))


if __name__ == "__main__":
    main()
