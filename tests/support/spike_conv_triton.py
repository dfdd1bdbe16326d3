"""Runs convolutions of spikes in Triton's interpreter and compares them with the reference.

As a program, ``python -m support.spike_conv_triton`` in tests/, it does so in a process of its own,
as whether Triton interprets is read once per process.
"""

import argparse
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from snm_kernels import SNMState, preset, snm_conv, snm_linear, spike_conv, spike_linear
from snm_kernels.triton import spike_conv as operators
from support.equality import assert_same_bits, assert_same_run, strides

MOST = 2**31 - 1


@dataclass(frozen=True)
class ConvCase:
    """A layer and what is given to it."""

    name: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    places: dict[str, Any] = field(default_factory=dict)
    """Stride, padding, dilation, groups and pool."""
    rule: str = "snm"
    options: dict[str, int] = field(default_factory=dict)
    """What the rule's constructor takes."""
    threshold: str = "channel"
    """Whose threshold it is: "channel", "pixel" or "silent", of which some have none."""
    bias: str | None = "channel"
    residual: str | None = None
    """How the residual lies in memory: None for none, "contiguous", "channels_last", "constant"."""
    state: bool = False
    emit: str = "spike"
    most: int = 1
    """The largest spike."""
    dense: bool = True
    """Whether x is channels_last, as it is else copied."""

    def __str__(self) -> str:
        return self.name

    def arguments(self) -> dict[str, Any]:
        g = Generator().manual_seed(len(self.name) + sum(self.x))

        def integers(least: int, most: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return torch.randint(least, most + 1, shape, generator=g, dtype=torch.int64).to(dtype)

        x = integers(-self.most, self.most, self.x, torch.int8)
        if self.dense and x.dim() > 3:
            order = (0, 1, *range(3, x.dim()), 2)
            back = (0, 1, x.dim() - 1, *range(2, x.dim() - 1))
            x = x.permute(order).contiguous().permute(back)
        return {"x": x, "weight": integers(-127, 127, self.weight, torch.int8), **self.places}

    def neurons(self, drive: Tensor) -> dict[str, Any]:
        """The arguments of the neurons that are driven so."""
        g = Generator().manual_seed(len(self.name))
        shape = tuple(drive.shape[2:])
        mean = max(1, int(drive.abs().to(torch.float64).sum()) // max(1, drive.numel()))

        def near(shape: tuple[int, ...]) -> Tensor:
            return torch.randint(-mean, 2 * mean, shape, generator=g, dtype=torch.int32)

        def owned(kind: str) -> tuple[int, ...]:
            return shape if kind == "pixel" else (shape[0],) + (1,) * (len(shape) - 1)

        threshold = near(owned(self.threshold)).abs()
        if self.threshold == "silent":
            threshold[::2] = MOST
            threshold[1::4] = 0
        if self.rule == "burst":
            threshold = threshold.clamp(min=1)
        given: dict[str, Any] = {"threshold": threshold, "rule": preset(self.rule, **self.options)}
        given["emit"] = self.emit
        if self.bias is not None:
            given["bias"] = near(owned(self.bias)) // 4
        if self.residual == "constant":
            given["residual"] = near(tuple(drive.shape[1:])).expand(drive.shape)
        elif self.residual == "contiguous":
            given["residual"] = near(tuple(drive.shape))
        elif self.residual == "channels_last":
            given["residual"] = torch.empty_like(drive).copy_(near(tuple(drive.shape)))
        if self.state:
            m = torch.randint(-1, 2, tuple(drive.shape[1:]), generator=g, dtype=torch.int32)
            given["state"] = SNMState(near(tuple(drive.shape[1:])), m)
        return given


CASES = [
    ConvCase("one place", (3, 2, 32, 3, 3), (4, 32, 1, 1)),
    ConvCase("three by three", (9, 1, 32, 5, 4), (70, 32, 3, 3), {"padding": 1}, rule="st-bif"),
    ConvCase("128 by 128", (8, 2, 128, 2, 3), (129, 128, 1, 1), residual="channels_last"),
    ConvCase(
        "strided, dilated",
        (4, 2, 3, 9, 8),
        (5, 3, 3, 2),
        {"stride": (2, 1), "padding": (2, 0), "dilation": (2, 3)},
        threshold="pixel",
        bias="pixel",
        state=True,
    ),
    ConvCase("depthwise", (5, 1, 6, 5, 5), (12, 1, 3, 3), {"groups": 6, "padding": 1}, state=True),
    ConvCase("many groups", (3, 1, 96, 3, 4), (96, 2, 2, 3), {"groups": 48}, bias="pixel"),
    ConvCase("groups of 32", (2, 1, 64, 4, 4), (34, 32, 3, 1), {"groups": 2}, rule="if-half"),
    ConvCase(
        "pooled",
        (5, 2, 6, 9, 7),
        (4, 3, 3, 3),
        {"pool": 2, "groups": 2, "padding": 1},
        most=127,
        residual="constant",
    ),
    ConvCase("pooled by whole blocks", (2, 1, 32, 6, 7), (8, 32, 2, 1), {"pool": (3, 2)}),
    ConvCase("large spikes", (3, 1, 150, 1, 1), (3, 150, 1, 1), most=127, bias=None),
    ConvCase(
        "burst",
        (7, 1, 4, 3, 3),
        (4, 4, 2, 2),
        rule="burst",
        options={"max_spikes": 5},
        residual="contiguous",
        most=40,
        dense=False,
    ),
    ConvCase("burst, silent", (6, 1, 4, 3, 3), (8, 4, 1, 1), rule="burst", threshold="silent"),
    ConvCase("silent", (4, 1, 4, 3, 3), (8, 4, 2, 2), rule="snm-half", threshold="silent"),
    ConvCase("zero", (4, 1, 4, 3, 3), (8, 4, 2, 2), rule="snm-zero", threshold="pixel"),
    ConvCase(
        "counts are bounded",
        (17, 2, 4, 2, 3),
        (4, 4, 1, 1),
        rule="st-bif",
        options={"levels": 3},
        state=True,
    ),
    ConvCase("nothing sent", (3, 2, 4, 2, 3), (4, 4, 1, 1), emit="none", residual="contiguous"),
    ConvCase("one step", (1, 3, 4, 5, 3), (130, 4, 1, 1), state=True, residual="contiguous"),
    ConvCase("two steps", (2, 3, 4, 5, 3), (130, 4, 1, 1), rule="if"),
    ConvCase("a row", (4, 2, 6, 8), (4, 3, 3), {"padding": 1, "groups": 2, "stride": 2}),
    ConvCase("linear", (11, 5, 48), (130, 48), state=True, residual="contiguous"),
    ConvCase("linear, 64 inputs", (4, 3, 64), (10, 64), rule="snm-half"),
    ConvCase("no samples", (2, 0, 4, 3, 3), (4, 4, 1, 1)),
]


def compare(case: ConvCase) -> None:
    """Compares the sums, and what neurons make of them, with the reference."""
    neurons, sums = (snm_linear, spike_linear) if len(case.x) == 3 else (snm_conv, spike_conv)
    layer = case.arguments()
    drive = sums(**layer, backend="reference")
    given = case.neurons(drive)
    expected = neurons(**layer, **given, backend="reference")
    bias = given.get("bias")
    actual_sums = sums(**layer, bias=bias, backend="triton")
    assert_same_bits(actual_sums, sums(**layer, bias=bias, backend="reference"), "sums")
    actual = neurons(**layer, **given, backend="triton")
    assert_same_run(actual, expected)
    if drive.numel() == 0:
        return
    assert strides(actual_sums) == strides(drive)
    assert strides(actual.state.v) == strides(actual.state.m) == strides(drive[0])
    if actual.spikes is not None:
        assert strides(actual.spikes) == strides(drive)
    fresh = case.arguments()
    assert_same_bits(layer["x"], fresh["x"], "x after the run")


def fires(case: ConvCase) -> bool:
    """Whether there are both spikes and none, so that a case says something of its neurons."""
    layer = case.arguments()
    neurons, sums = (snm_linear, spike_linear) if len(case.x) == 3 else (snm_conv, spike_conv)
    given = case.neurons(sums(**layer, backend="reference")) | {"emit": "spike"}
    spikes = neurons(**layer, **given, backend="reference").spikes
    return bool((spikes != 0).any()) and bool((spikes == 0).any())


def check_operators() -> None:
    """Has opcheck look at every call of an operator from now on."""
    module = sys.modules["snm_kernels.spike_layers"]
    found = module._operator

    def operator(name: str, chosen: str) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            torch.library.opcheck(found(name, chosen), arguments)
            return found(name, chosen)(*arguments)

        return run

    module._operator = operator


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--multiprocessors", type=int, default=0)
    parser.add_argument("--major", type=int, default=0, help="of a GPU's compute capability")
    parser.add_argument("--every", type=int, default=1, help="n-th case is run")
    parser.add_argument("--far", action="store_true", help="places have 64 bits")
    parser.add_argument("--opcheck", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    operators.multiprocessors = lambda _: arguments.multiprocessors
    operators.capability = lambda _: arguments.major
    if arguments.far:
        operators.MOST_NARROW = -1
    if arguments.opcheck:
        check_operators()
    failures = []
    cases = CASES[:: arguments.every]
    for case in cases:
        try:
            compare(case)
        except Exception:
            failures.append(f"{case}: {traceback.format_exc(limit=-1)}")
    print(json.dumps({"cases": len(cases), "failures": failures}))


if __name__ == "__main__":
    main()
