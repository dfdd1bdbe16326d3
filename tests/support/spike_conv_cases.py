"""The cases of layers of spikes that parity, chunks, operator checks and GPU tests share."""

import dataclasses
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Generator, Tensor

from snm_kernels import (
    PRESETS,
    SILENT,
    SNM,
    SNMOutput,
    SNMRule,
    SNMState,
    pack_spike_weight,
    preset,
    snm_conv,
    snm_linear,
    spike_conv,
    spike_linear,
)
from support.cases import LAYOUTS, PARAMETERS, RULES, STATES

Sizes = int | tuple[int, ...]


@dataclass(frozen=True)
class ConvCase:
    """One run of a layer, described by words; `inputs` turns the words into tensors."""

    name: str
    shape: tuple[int, ...] = (2, 5, 6, 7)
    """The shape of one time step, [B, C, *spatial]; linear layers have no spatial dimension."""
    outputs: int = 6
    kernel: Sizes = 3
    stride: Sizes = 1
    padding: Sizes = 1
    dilation: Sizes = 1
    groups: int = 1
    pool: Sizes = 1
    time_steps: int = 5
    rule: SNMRule = SNM
    emit: str = "spike"
    density: float = 0.2
    spikes: str = "ternary"
    weights: str = "ordinary"
    theta: str = "ordinary"
    threshold: str = "channel"
    bias: str | None = None
    residual: str | None = None
    state: str | None = None
    layout: str = "channels_last"
    packed: bool = False
    dtype: torch.dtype = torch.int32
    """That of sums; with float32 weights are float32 too."""

    def __str__(self) -> str:
        return self.name

    @property
    def spatial(self) -> int:
        return len(self.shape) - 2

    @property
    def output(self) -> tuple[int, ...]:
        """The shape of one time step of the outputs, [B, K, *spatial]."""
        sizes = zip(
            self.shape[2:],
            *map(self._sizes, (self.kernel, self.stride, self.padding, self.dilation, self.pool)),
            strict=True,
        )
        along = [
            (size // pool + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation, pool in sizes
        ]
        return (self.shape[0], self.outputs, *along)

    @property
    def neuron_steps(self) -> int:
        return self.time_steps * prod(self.output)

    @property
    def fan_in(self) -> int:
        """How many weights an output has."""
        return self.shape[1] // self.groups * prod(self._sizes(self.kernel))

    @property
    def can_be_dense(self) -> bool:
        """Whether weights are int8, as sums over windows are."""
        fits = self.spikes == "ternary" or prod(self._sizes(self.pool)) == 1
        return fits and self.dtype == torch.int32

    @property
    def most_events(self) -> int:
        """How many weights an output may have to add up one by one, of each sign."""
        largest = {"ternary": 1, "ones": 1, "minus ones": 1, "few": 3}.get(self.spikes, 128)
        return self.fan_in * prod(self._sizes(self.pool)) * largest

    @property
    def places(self) -> dict[str, Any]:
        """The arguments of the convolution that are no tensors; none of a linear layer."""
        if self.spatial == 0:
            return {}
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "pool": self.pool,
        }

    def inputs(self, device: torch.device | str = "cpu", seed: int = 0) -> dict[str, Any]:
        """The keyword arguments of `run`, with the same values on every device."""
        g = Generator().manual_seed(zlib.crc32(self.name.encode()) + seed)
        sizes = (self.outputs, self.shape[1] // self.groups, *self._sizes(self.kernel))
        weight = WEIGHTS[self.weights](sizes, g)
        x = SPIKES[self.spikes]((self.time_steps, *self.shape), g)
        x = torch.where(torch.rand(x.shape, generator=g) < self.density, x, 0).to(torch.int8)
        arguments: dict[str, Any] = {"rule": self.rule, "emit": self.emit, **self.places}
        arguments["x"] = LAYOUTS[self.layout](x.to(device))
        scale = self._scale(x, weight)
        weight = self._number(weight)
        arguments["weight"] = weight.to(device)
        if self.packed:
            arguments["packed"] = pack_spike_weight(weight, self.groups).to(device)
        sizes, give = PARAMETERS[self.threshold]
        theta = thetas(self.theta, sizes(self.output), scale, g)
        arguments["threshold"] = give(self._number(theta).to(device), self.output)
        if self.bias is not None:
            sizes, give = PARAMETERS[self.bias]
            bias = around_zero(sizes(self.output), scale, g)
            arguments["bias"] = give(self._number(bias).to(device), self.output)
        if self.residual is not None:
            residual = around_zero((self.time_steps, *self.output), scale, g)
            arguments["residual"] = LAYOUTS[self.residual](self._number(residual).to(device))
        if self.state is not None:
            v, m = STATES[self.state](self.output, theta, g)
            arguments["state"] = SNMState(self._number(v).to(device), m.to(device))
        return arguments

    def densely(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs for products of matrices."""
        if "packed" not in inputs:
            return inputs | {"dense": True}
        return inputs | {
            "dense": True,
            "packed": pack_spike_weight(inputs["weight"], self.groups, dense=True),
        }

    def _number(self, values: Tensor) -> Tensor:
        """Integers as this case's numbers: as they are or, of floats, most of them no integers."""
        if self.dtype == torch.int32:
            return values
        floats = values.float().where(values.int() != SILENT, math.inf)
        # Of small weights sums are exact, and meet thresholds.
        return floats if self.weights == "small" else floats / 7

    def _sizes(self, value: Sizes) -> tuple[int, ...]:
        return value if isinstance(value, tuple) else (value,) * self.spatial

    def _scale(self, x: Tensor, weight: Tensor) -> int:
        """About how large the sums of an output are."""
        if x.numel() == 0 or weight.numel() == 0:
            return 1
        summed = self.fan_in * prod(self._sizes(self.pool))
        size = x.double().square().mean() * weight.double().square().mean() * summed
        return max(1, math.ceil(size.sqrt().item()))

    def run(self, inputs: dict[str, Any], **changed: Any) -> SNMOutput:
        """Runs the layer and its neurons on this case's inputs."""
        return (snm_linear if self.spatial == 0 else snm_conv)(**(inputs | changed))

    def drive(self, inputs: dict[str, Any], **changed: Any) -> Tensor:
        """Runs the layer alone."""
        ours = {k: v for k, v in inputs.items() if k not in OF_NEURONS}
        return (spike_linear if self.spatial == 0 else spike_conv)(**(ours | changed))


OF_NEURONS = ("rule", "emit", "threshold", "residual", "state")

Shape = tuple[int, ...]


def _integers(low: int, high: int) -> Callable[[Shape, Generator], Tensor]:
    return lambda sizes, g: torch.randint(low, high, sizes, generator=g, dtype=torch.int8)


def _ends(sizes: Shape, g: Generator) -> Tensor:
    ends = torch.tensor([-128, -127, 127], dtype=torch.int8)
    return ends[torch.randint(len(ends), sizes, generator=g)]


SPIKES: dict[str, Callable[[Shape, Generator], Tensor]] = {
    "ternary": lambda sizes, g: 2 * _integers(0, 2)(sizes, g) - 1,
    "graded": _integers(-128, 128),
    "few": _integers(-3, 4),
    "ones": _integers(1, 2),
    "minus ones": _integers(-1, 0),
    "most": _integers(127, 128),
    "least": _integers(-128, -127),
    "ends": _ends,
}
"""Spikes where there are any."""
WEIGHTS: dict[str, Callable[[Shape, Generator], Tensor]] = {
    "ordinary": _integers(-127, 128),
    "small": _integers(-1, 2),
    "zero": _integers(0, 1),
    "most": _integers(127, 128),
    "least": _integers(-128, -127),
    "ends": _ends,
}


def thetas(kind: str, sizes: Shape, scale: int, g: Generator) -> Tensor:
    """Thresholds, int32, of the size that sums have."""
    theta = torch.randint(1, 2 * scale + 2, sizes, generator=g, dtype=torch.int32)
    share = {"ordinary": 0.0, "silent": 0.3, "all silent": 1.0}[kind]
    return torch.where(torch.rand(sizes, generator=g) < share, SILENT, theta)


def around_zero(sizes: Shape, scale: int, g: Generator) -> Tensor:
    return torch.randint(-scale, scale + 1, sizes, generator=g, dtype=torch.int32)


# [B, C, *spatial], outputs, and what else makes a layer.
LAYERS: dict[str, tuple[Shape, int, dict[str, Any]]] = {
    "1x1": ((2, 5, 6, 7), 6, {"kernel": 1, "padding": 0}),
    "1x1/2": ((2, 5, 6, 7), 6, {"kernel": 1, "padding": 0, "stride": 2}),
    "2x2": ((2, 5, 6, 7), 6, {"kernel": 2, "padding": 0}),
    "3x3": ((2, 5, 6, 7), 6, {}),
    "3x3 without padding": ((2, 5, 6, 7), 6, {"padding": 0}),
    "3x3/2": ((2, 5, 7, 9), 6, {"stride": 2}),
    "3x3/3, dilated": ((2, 5, 11, 9), 6, {"stride": 3, "dilation": 2, "padding": 2}),
    "4x4/4": ((2, 3, 8, 12), 6, {"kernel": 4, "stride": 4, "padding": 0}),
    "5x5": ((1, 5, 6, 7), 6, {"kernel": 5, "padding": 2}),
    "7x7/2": ((1, 3, 11, 13), 6, {"kernel": 7, "stride": 2, "padding": 3}),
    "1x5": ((2, 5, 6, 7), 6, {"kernel": (1, 5), "padding": (0, 2)}),
    "3x2/(2, 1), dilated by 1 and 2": (
        (2, 5, 6, 7),
        6,
        {"kernel": (3, 2), "stride": (2, 1), "padding": (0, 1), "dilation": (1, 2)},
    ),
    "as large as its input": ((2, 5, 6, 7), 6, {"kernel": (6, 7), "padding": 0}),
    "more padding than kernel": ((2, 5, 2, 3), 6, {"padding": 5}),
    "steps over all but one": ((2, 5, 6, 7), 6, {"stride": 9}),
    "holes between taps": ((1, 5, 3, 4), 6, {"dilation": 7, "padding": 7}),
    "groups": ((2, 6, 5, 7), 9, {"groups": 3}),
    "groups/2, dilated": ((2, 6, 9, 7), 4, {"groups": 2, "stride": 2, "dilation": 2}),
    "depthwise": ((2, 7, 5, 6), 7, {"groups": 7}),
    "depthwise times 3": ((2, 5, 5, 6), 15, {"groups": 5}),
    "pool 2": ((2, 5, 8, 10), 6, {"pool": 2}),
    "pool 2, odd": ((2, 5, 7, 9), 6, {"pool": 2, "stride": 2}),
    "pool (2, 3), groups": ((2, 6, 7, 11), 4, {"pool": (2, 3), "groups": 2}),
    "pool of all": ((2, 5, 6, 7), 6, {"pool": (6, 7), "kernel": 1, "padding": 0}),
    "1d, 3": ((2, 5, 17), 6, {}),
    "1d, 1": ((2, 5, 17), 6, {"kernel": 1, "padding": 0}),
    "1d, 7/3, dilated": ((2, 5, 31), 6, {"kernel": 7, "stride": 3, "padding": 4, "dilation": 2}),
    "1d, pool 4, groups": ((2, 6, 18), 4, {"pool": 4, "groups": 2}),
    "1d, depthwise": ((2, 9, 12), 9, {"groups": 9, "kernel": 5, "padding": 2}),
    "linear": ((3, 37), 10, {}),
}
DENSITIES = (0.0, 0.02, 0.1, 0.5, 1.0)
FORMATS = ("contiguous", "channels_last")


def layer_cases() -> list[ConvCase]:
    return [
        ConvCase(f"{name}-density {density}", shape, outputs, density=density, **layer)
        for (name, (shape, outputs, layer)), density in product(LAYERS.items(), DENSITIES)
    ]


def channel_cases() -> list[ConvCase]:
    counts = (1, 3, 63, 64, 65, 127, 128, 129, 130, 193, 256)
    wide = ((129, 64), (64, 129), (130, 65), (65, 130), (1, 256), (256, 1), (100, 200))
    grouped = ((130, 130, 130), (130, 260, 130), (128, 192, 2), (195, 65, 65), (260, 258, 2))
    pairs = [(c, k, 1) for c, k in ((n, n) for n in counts)]
    pairs += [(c, k, 1) for c, k in wide]
    return [
        *(
            ConvCase(f"{c} to {k} channels, {g} groups", (1, c, 3, 5), k, groups=g, time_steps=3)
            for c, k, g in (*pairs, *grouped)
        ),
        *(
            ConvCase(f"{c} to {k}, linear", (3, c), k, time_steps=4, density=0.1)
            for c, k, _ in pairs
        ),
    ]


def preset_cases() -> list[ConvCase]:
    return [
        ConvCase(f"{name}-{kind}-{emit}", rule=preset(name), emit=emit, time_steps=16, **values)
        for name, (kind, values), emit in product(PRESETS, VALUES.items(), ("spike", "none"))
    ]


def rule_cases() -> list[ConvCase]:
    return [
        ConvCase(f"rule {name}-{kind}", rule=rule, time_steps=12, state="given", **values)
        for (name, rule), (kind, values) in product(RULES.items(), VALUES.items())
    ]


# Sums of few small numbers meet thresholds exactly.
VALUES: dict[str, dict[str, Any]] = {
    "ordinary": {},
    "small": {"weights": "small", "shape": (2, 3, 5, 6)},
    "few": {"spikes": "few", "weights": "small"},
    "graded": {"spikes": "graded"},
}


def value_cases() -> list[ConvCase]:
    return [
        ConvCase(
            f"spikes {spikes}-weights {weights}-{form}",
            shape,
            outputs,
            density=density,
            spikes=spikes,
            weights=weights,
            time_steps=3,
        )
        for spikes, weights, (form, shape, outputs, density) in product(
            SPIKES,
            WEIGHTS,
            (("some", (1, 9, 3, 4), 5, 0.3), ("all", (1, 40, 3, 4), 70, 1.0)),
        )
    ]


def parameter_cases() -> list[ConvCase]:
    kinds = (
        "scalar",
        "one",
        "last",
        "channel",
        "neuron",
        "channel and column",
        "row",
        "channel, expanded",
        "neuron, reversed memory",
        "neuron, every other",
        "neuron, unaligned",
    )
    two = [
        ConvCase(
            f"threshold {threshold}-bias {bias}-thetas {theta}",
            (2, 5, 5, 36),
            9,
            threshold=threshold,
            bias=bias,
            theta=theta,
        )
        for threshold, bias, theta in zip(
            kinds,
            (None, "scalar", "channel", "neuron", *reversed(kinds[4:])),
            ("ordinary", "silent", "all silent") * 4,
            strict=False,
        )
    ]
    other = [
        ConvCase(f"threshold {kind}, {name}", shape, 70, threshold=kind, bias=kind, theta="silent")
        for kind, (name, shape) in product(
            ("scalar", "channel", "neuron"), (("1d", (2, 5, 19)), ("linear", (4, 31)))
        )
    ]
    return two + other


def state_cases() -> list[ConvCase]:
    return [
        ConvCase(
            f"residual {residual}-state {state}-{name}",
            shape,
            residual=residual,
            state=state,
            bias="channel",
        )
        for residual, state, (name, shape) in product(
            ("contiguous", "channels_last", "constant", "constant channels_last", "time last"),
            (None, "given", "permuted", "int32 limits"),
            (("2d", (2, 5, 6, 7)), ("1d", (2, 5, 9)), ("linear", (3, 20))),
        )
    ]


def layout_cases() -> list[ConvCase]:
    return [
        ConvCase(f"{layout}-{name}", shape, layout=layout, residual=layout)
        for layout, (name, shape) in product(
            LAYOUTS, (("2d", (2, 5, 6, 7)), ("1d", (2, 5, 9)), ("linear", (3, 20)))
        )
    ]


def size_cases() -> list[ConvCase]:
    empty = {
        "no samples": ((0, 5, 6, 7), 6),
        "no channels": ((2, 0, 6, 7), 6),
        "no outputs": ((2, 5, 6, 7), 0),
        "no samples, 1d": ((0, 5, 9), 6),
        "no channels, 1d": ((2, 0, 9), 6),
        "no samples, linear": ((0, 20), 6),
        "no channels, linear": ((2, 0), 6),
        "no outputs, linear": ((2, 20), 0),
    }
    return [
        *(
            ConvCase(f"{name}-{layout}", *sizes, layout=layout, bias="channel", residual="constant")
            for (name, sizes), layout in product(empty.items(), FORMATS)
        ),
        ConvCase("one step", time_steps=1, state="given"),
        ConvCase("two steps", time_steps=2),
        ConvCase("many steps", (1, 3, 4, 5), time_steps=70),
        ConvCase("one neuron", (1, 1, 1, 1), 1, 1, padding=0, time_steps=20),
        ConvCase("rows of several tiles", (1, 3, 2, 100), 7, threshold="neuron", bias="neuron"),
        ConvCase("rows of several tiles, two blocks", (1, 3, 2, 70), 130, threshold="neuron"),
        ConvCase("rows of tiles, 1d", (2, 3, 163), 5, threshold="neuron", state="given"),
        ConvCase("packed", packed=True),
        ConvCase("packed, groups", (2, 6, 5, 7), 9, groups=3, packed=True),
        ConvCase("packed, two blocks", (2, 6, 5, 7), 200, packed=True),
        ConvCase("packed, linear", (2, 70), 130, packed=True),
        # Sums of 16 bits are folded after 255 events.
        *(
            ConvCase(
                f"{n} spikes {spikes} of weights {weights}",
                (1, n),
                3,
                density=1.0,
                spikes=spikes,
                weights=weights,
                time_steps=2,
            )
            for n in (254, 255, 256, 257, 511, 765, 1000)
            for spikes, weights in (
                ("ones", "most"),
                ("ones", "least"),
                ("minus ones", "least"),
                ("ternary", "ends"),
            )
        ),
        ConvCase("many channels", (1, 300, 4, 4), 66, density=0.5),
        ConvCase("25088 inputs", (2, 25088), 70, density=0.1, time_steps=2),
        ConvCase("sums beyond int32", (1, 140000), 2, density=1.0, spikes="most", weights="most"),
    ]


CONV_CASES = [
    *layer_cases(),
    *channel_cases(),
    *preset_cases(),
    *rule_cases(),
    *value_cases(),
    *parameter_cases(),
    *state_cases(),
    *layout_cases(),
    *size_cases(),
]


def as_floats(cases: list[ConvCase], most_events: int = 6000) -> list[ConvCase]:
    """The same cases in float32, but for those whose reference would take long."""
    return [
        dataclasses.replace(case, name=f"{case.name}-float32", dtype=torch.float32)
        for case in cases
        if case.most_events <= most_events
    ]


def graded_cases() -> list[ConvCase]:
    """Spikes of all sizes and few weights, which are added one by one."""
    return [
        ConvCase(f"1x1, {spikes}-{name}", kernel=1, padding=0, spikes=spikes, rule=preset(name))
        for spikes, name in product(SPIKES, ("snm", "burst"))
    ]


FLOAT_CASES = as_floats([*CONV_CASES, *graded_cases()], 1500)


def random_case(number: int, neuron_steps: int) -> ConvCase:
    """A layer of any kind of about so many neuron-steps."""
    g = Generator().manual_seed(number)

    def pick(*values: Any) -> Any:
        return values[int(torch.randint(len(values), (), generator=g))]

    spatial = pick(0, 1, 2, 2, 2)
    groups = pick(1, 1, 1, 2, 4) if spatial else 1
    channels, outputs = (groups * pick(1, 3, 8, 16, 33) for _ in range(2))
    if spatial and pick(False, False, False, True):
        groups = channels = outputs = pick(7, 32, 64, 130)
    elif groups == 1:
        outputs = pick(outputs, 63, 64, 65, 128, 200)
    kernel, dilation, pool = (
        [pick(*each) for _ in range(spatial)]
        for each in (
            (1, 2, 3, 3, 3, 5) if groups == 1 else (1, 3, 3, 5, 7),
            (1, 1, 1, 2),
            (1, 1, 1, 2, 3),
        )
    )
    room = {0: (), 1: (pick(40, 129, 300),), 2: (pick(7, 14, 20), pick(7, 15, 28, 40))}[spatial]
    along = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = [max(n, extent * p) for n, extent, p in zip(room, along, pool, strict=True)]
    case = ConvCase(
        f"random {number}",
        (pick(1, 2, 4), channels if spatial else pick(64, 200, 1000), *size),
        outputs,
        tuple(kernel),
        stride=tuple(pick(1, 1, 1, 2) for _ in range(spatial)),
        padding=tuple(pick(0, k // 2, k) for k in kernel),
        dilation=tuple(dilation),
        groups=groups,
        pool=tuple(pool),
        rule=preset(pick(*PRESETS)) if pick(True, True, False) else pick(*RULES.values()),
        emit=pick("spike", "spike", "spike", "none"),
        density=pick(0.0, 0.02, 0.1, 0.1, 0.3, 0.6, 1.0),
        spikes=pick("ternary", "ternary", "ternary", "ones", "few", "graded", "ends"),
        weights=pick("ordinary", "ordinary", "small", "ends"),
        theta=pick("ordinary", "ordinary", "silent"),
        threshold=pick("scalar", "channel", "channel", "neuron"),
        bias=pick(None, "channel", "neuron"),
        residual=pick(None, None, "channels_last", "constant"),
        state=pick(None, "given"),
        layout=pick("channels_last", "channels_last", "contiguous"),
        packed=pick(False, True),
    )
    return dataclasses.replace(case, **_repeated(case, neuron_steps))


def _repeated(case: ConvCase, neuron_steps: int) -> dict[str, Any]:
    """Time steps and samples with which a case has at least so many neuron-steps."""
    steps = max(1, math.ceil(neuron_steps / prod(case.output)))
    times = max(1, steps // 64)
    shape = (case.shape[0] * times, *case.shape[1:])
    return {"time_steps": math.ceil(steps / times), "shape": shape}
