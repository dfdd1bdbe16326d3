"""The cases of the running maximum that parity, chunks, operator checks and GPU tests share."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from snm_kernels import RunningMaxOutput, adaptive_running_max_pool, running_max_pool
from support.cases import LAYOUTS, reversed_memory, short, specials

INFINITY = float("inf")
FLOATING = (torch.float32, torch.float16, torch.bfloat16)
MAX_POOL = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
ADAPTIVE_MAX_POOL = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)


@dataclass(frozen=True)
class PoolCase:
    """One run of the op, described by words; `inputs` turns the words into tensors."""

    name: str
    shape: tuple[int, ...] = (2, 3, 8, 10)
    """The shape of one time step, [B, C, *spatial]."""
    window: tuple[Any, ...] = (2,)
    """The arguments of max_pool from kernel_size on."""
    output: Any = None
    """The output size of the adaptive op; None for the op that is not adaptive."""
    time_steps: int = 5
    dtype: torch.dtype = torch.int8
    threshold: str | None = "channel"
    theta: str = "ordinary"
    emit: str = "amplitude"
    out_dtype: torch.dtype | None = None
    layout: str = "contiguous"
    total: str | None = None
    drive: str = "ordinary"

    def __str__(self) -> str:
        return self.name

    @property
    def spatial(self) -> int:
        return len(self.shape) - 2

    @property
    def input_steps(self) -> int:
        return self.time_steps * prod(self.shape)

    @property
    def shared(self) -> bool:
        """Whether windows have one threshold each."""
        if self.threshold is None:
            return False
        return THRESHOLDS[self.threshold][0] or prod(self.shape[2:]) == 1

    def inputs(self, device: torch.device | str = "cpu", seed: int = 0) -> dict[str, Any]:
        """The keyword arguments of the op, with the same values on every device."""
        g = Generator().manual_seed(zlib.crc32(self.name.encode()) + seed)
        arguments: dict[str, Any] = {"emit": self.emit}
        if self.out_dtype is not None:
            arguments["out_dtype"] = self.out_dtype
        sizes = (self.time_steps, *self.shape)
        if self.dtype == torch.int8:
            low, high = (-128, 128) if self.drive == "graded" else (-1, 2)
            x = torch.randint(low, high, sizes, generator=g, dtype=torch.int8)
        else:
            x = torch.randn(sizes, generator=g).to(self.dtype)
            if self.drive == "special":
                values = specials(self.dtype)
                chosen = values[torch.randint(len(values), sizes, generator=g)]
                x = torch.where(torch.rand(sizes, generator=g) < 0.1, chosen, x)
            if self.drive == "negative zero":
                signs = torch.randint(0, 2, sizes, generator=g)
                x = torch.where(signs > 0, -0.0, 0.0).to(self.dtype)
        arguments["x"] = LAYOUTS[self.layout](x.to(device))
        if self.threshold is not None:
            sizes = THRESHOLDS[self.threshold][1](self.shape)
            theta = thetas(self.theta, sizes, g).to(device)
            arguments["threshold"] = THRESHOLDS[self.threshold][2](theta, self.shape)
        if self.total is not None:
            arguments["total"] = self._total(g).to(device)
        return arguments

    def _total(self, g: Generator) -> Tensor:
        if self.dtype == torch.int8:
            total = torch.randint(-50, 50, self.shape, generator=g, dtype=torch.int32)
        elif self.total == "negative zero":
            signs = torch.randint(0, 2, self.shape, generator=g)
            total = torch.where(signs > 0, -0.0, 0.0)
        else:
            total = torch.randn(self.shape, generator=g)
        return reversed_memory(total[None])[0] if self.total == "permuted" else total

    def run(self, inputs: dict[str, Any], **changed: Any) -> RunningMaxOutput:
        """Runs the op on this case's inputs."""
        arguments = inputs | changed
        x = arguments.pop("x")
        if self.output is not None:
            return adaptive_running_max_pool(x, self.output, **arguments)
        return running_max_pool(x, *self.window, **arguments)

    def max_pool(self, values: Tensor) -> Tensor:
        """PyTorch's own max pooling of ``[B, C, *spatial]`` with this case's windows."""
        values = values.contiguous()
        if self.output is not None:
            return ADAPTIVE_MAX_POOL[self.spatial - 1](values, self.output)
        kernel, stride, padding, dilation, ceil_mode = (
            *self.window,
            *(None, 0, 1, False)[len(self.window) - 1 :],
        )
        return MAX_POOL[self.spatial - 1](values, kernel, stride, padding, dilation, ceil_mode)


def thetas(kind: str, sizes: tuple[int, ...], g: Generator) -> Tensor:
    """Thresholds of some kind, float32."""
    ordinary = 0.25 + 1.75 * torch.rand(sizes, generator=g)
    if kind == "dyadic":
        return (ordinary * 64).round() / 64
    if kind == "silent":
        return torch.where(torch.rand(sizes, generator=g) < 0.3, INFINITY, ordinary)
    if kind == "NaN":
        return torch.where(torch.rand(sizes, generator=g) < 0.1, float("nan"), ordinary)
    if kind == "huge":
        return ordinary * 1e37
    if kind == "subnormal":
        return torch.randint(1, 1000, sizes, generator=g) * 2.0**-149
    assert kind == "ordinary", kind
    return ordinary


Shape = tuple[int, ...]


def _ones(shape: Shape) -> Shape:
    return (1,) * (len(shape) - 2)


def _as_it_is(theta: Tensor, _: Shape) -> Any:
    return theta


# Whether it is shared within windows, its sizes for [B, C, *spatial], and how it is given.
THRESHOLDS: dict[str, tuple[bool, Callable[[Shape], Shape], Callable[[Tensor, Shape], Any]]] = {
    "number": (True, lambda _: (), lambda theta, _: theta.item()),
    "scalar": (True, lambda _: (), _as_it_is),
    "ones": (True, lambda shape: (1, *_ones(shape)), _as_it_is),
    "channel": (True, lambda shape: (shape[1], *_ones(shape)), _as_it_is),
    "channel, float16": (
        True,
        lambda shape: (shape[1], *_ones(shape)),
        lambda theta, _: theta.half(),
    ),
    "channel, every other": (
        True,
        lambda shape: (shape[1], *_ones(shape)),
        lambda theta, _: torch.stack((theta, theta), 1)[:, 0],
    ),
    "neuron": (False, lambda shape: shape[1:], _as_it_is),
    "neuron, expanded": (
        False,
        lambda shape: (shape[1], *_ones(shape)),
        lambda theta, shape: theta.expand(shape[1:]),
    ),
    "neuron, reversed memory": (
        False,
        lambda shape: shape[1:],
        lambda theta, _: reversed_memory(theta[None])[0],
    ),
    "position": (False, lambda shape: shape[2:], _as_it_is),
    "column": (False, lambda shape: shape[-1:], _as_it_is),
}

KINDS: dict[str, dict[str, Any]] = {
    "spikes": {"emit": "spike"},
    "shared": {},
    "neuron": {"threshold": "neuron"},
    "float32": {"dtype": torch.float32, "threshold": None},
    "float16": {"dtype": torch.float16, "threshold": None},
    "bfloat16": {"dtype": torch.bfloat16, "threshold": None},
}
FORMATS = ("contiguous", "channels_last")

# [B, C, *spatial] and arguments of max_pool.
WINDOWS: dict[str, tuple[Shape, tuple[Any, ...]]] = {
    "2x2/2": ((2, 3, 8, 10), (2,)),
    "2x2/2, odd": ((2, 3, 7, 9), (2,)),
    "2x2/2, ceil": ((2, 3, 7, 9), (2, 2, 0, 1, True)),
    "2x2/1": ((2, 3, 5, 37), (2, 1)),
    "3x3/2, padded": ((2, 3, 9, 35), (3, 2, 1)),
    "3x3/2, padded, ceil": ((2, 3, 8, 10), (3, 2, 1, 1, True)),
    "3x3/1, padded": ((2, 3, 6, 33), (3, 1, 1)),
    "3x3/3": ((2, 3, 9, 12), (3,)),
    "1x1": ((2, 3, 4, 5), (1,)),
    "1x1/2": ((2, 3, 5, 6), (1, 2)),
    "2x2/3, gaps": ((2, 3, 8, 9), (2, 3)),
    "2x2 dilated": ((2, 3, 7, 8), (2, 2, 1, 2)),
    "3x3 dilated by 2 and 3": ((2, 3, 9, 11), (3, 1, 1, (2, 3))),
    "2x3/(1, 2)": ((2, 3, 6, 9), ((2, 3), (1, 2), (1, 0))),
    "5x5/1, padded": ((2, 3, 7, 8), (5, 1, 2)),
    "5x4/3, ceil": ((1, 2, 8, 9), ((5, 4), 3, (2, 1), 1, True)),
    "1d, 3/2": ((2, 5, 17), (3, 2, 1)),
    "1d, 4": ((2, 5, 16), (4,)),
    "1d, 11/5": ((2, 5, 40), (11, 5, 5)),
    "3d, 2": ((2, 3, 4, 6, 8), (2,)),
    "3d, 3/2, padded": ((1, 2, 5, 6, 7), (3, 2, 1)),
    "3d, (1, 2, 2)": ((2, 3, 3, 4, 6), ((1, 2, 2),)),
    "3d, (2, 1, 3)/1": ((2, 3, 3, 4, 6), ((2, 1, 3), 1, 0, (2, 1, 1))),
    "one window": ((2, 3, 4, 4), (4,)),
    "one pixel": ((2, 5, 1, 1), (1,)),
    "one pixel, padded": ((2, 5, 1, 1), (3, 2, 1)),
}
OUTPUTS: dict[str, tuple[Shape, Any]] = {
    "one": ((2, 3, 5, 6), 1),
    "regular": ((2, 3, 6, 8), (3, 2)),
    "irregular": ((2, 3, 7, 9), (3, 4)),
    "one way irregular": ((2, 3, 6, 9), (3, 4)),
    "None": ((2, 3, 7, 9), (None, 4)),
    "more than there are": ((2, 3, 3, 5), (5, 7)),
    "1d": ((2, 3, 11), 4),
    "3d": ((1, 2, 5, 6, 7), (2, 3, 3)),
}


def window_cases() -> list[PoolCase]:
    return [
        PoolCase(f"{name}-{kind}-{layout}", shape, window, layout=layout, **KINDS[kind])
        for (name, (shape, window)), kind, layout in product(WINDOWS.items(), KINDS, FORMATS)
    ]


def adaptive_cases() -> list[PoolCase]:
    return [
        PoolCase(
            f"adaptive {name}-{kind}-{layout}", shape, output=output, layout=layout, **KINDS[kind]
        )
        for (name, (shape, output)), kind, layout in product(OUTPUTS.items(), KINDS, FORMATS)
    ]


def conversion_cases() -> list[PoolCase]:
    return [
        PoolCase(
            f"{kind} to {short(out_dtype)}-{window[0]}-{drive}-{layout}",
            (2, 3, 9, 8),
            window,
            out_dtype=out_dtype,
            drive=drive,
            layout=layout,
            **KINDS[kind],
        )
        for kind, out_dtype, window, layout in product(
            list(KINDS)[1:], FLOATING, ((2,), (3, 2, 1)), FORMATS
        )
        for drive in (("ordinary", "graded") if "float" not in kind else ("ordinary", "special"))
    ]


def size_cases() -> list[PoolCase]:
    channels = [
        PoolCase(f"{c} channels-{kind}-{layout}", (2, c, 6, 5), layout=layout, **KINDS[kind])
        for c, kind, layout in product((1, 2, 63, 64, 65, 130), KINDS, FORMATS)
    ]
    planes = [
        PoolCase(f"planes of {n}-{kind}-{window[0]}", (3, 41, n, n), window, **KINDS[kind])
        for n, kind, window in product(
            (1, 2, 4), ("spikes", "neuron", "float32"), ((1,), (3, 1, 1))
        )
    ]
    return [
        *channels,
        *planes,
        PoolCase("a plane over a unit", (1, 2, 50, 51), (3, 2, 1), time_steps=2),
        PoolCase("many planes", (7, 211, 4, 4), time_steps=2, threshold="neuron"),
        PoolCase("wide rows", (1, 2, 3, 1031), (3, 2, 1), time_steps=3, threshold="neuron"),
        PoolCase("no samples", (0, 3, 4, 4)),
        PoolCase("no samples-channels_last", (0, 3, 4, 4), layout="channels_last"),
        PoolCase("no channels", (2, 0, 4, 4), threshold="scalar"),
        PoolCase("one step", time_steps=1, total="given"),
        PoolCase("two steps", time_steps=2, threshold="neuron"),
        PoolCase("many steps", (1, 2, 4, 4), time_steps=67, threshold="neuron"),
        PoolCase("many steps of spikes", (1, 2, 5, 4), (3, 2, 1), time_steps=66, emit="spike"),
    ]


def layout_cases() -> list[PoolCase]:
    return [
        PoolCase(
            f"{layout}-{kind}-{window[0]}",
            (2, 6, 5, 7),
            window,
            layout=layout,
            total="permuted",
            **KINDS[kind],
        )
        for layout, kind, window in product(
            LAYOUTS, ("spikes", "neuron", "float32", "bfloat16"), ((2,), (3, 2, 1))
        )
    ]


def threshold_cases() -> list[PoolCase]:
    return [
        PoolCase(
            f"threshold {threshold}-{window[0]}-{layout}",
            (2, 5, 6, 9),
            window,
            threshold=threshold,
            theta=theta,
            layout=layout,
        )
        for threshold, window, layout in product(THRESHOLDS, ((2,), (3, 2, 1), (4, 2)), FORMATS)
        for theta in ("silent" if "number" not in threshold else "ordinary",)
    ]


def value_cases() -> list[PoolCase]:
    spikes = [
        PoolCase(
            f"{theta} thetas-{kind}-{drive}-{total} total-{window[0]}",
            (2, 5, 9, 7),
            window,
            theta=theta,
            drive=drive,
            total=total,
            **KINDS[kind],
        )
        for theta, kind, window in product(
            ("silent", "NaN", "huge", "subnormal", "dyadic"),
            ("shared", "neuron"),
            ((2,), (3, 2, 1), (4,)),
        )
        for drive, total in (("ordinary", None), ("graded", "given"))
    ]
    amplitudes = [
        PoolCase(
            f"{drive} drive-{short(dtype)}-{total} total-{window[0]}",
            (2, 5, 9, 7),
            window,
            dtype=dtype,
            threshold=None,
            drive=drive,
            total=total,
        )
        for dtype, window in product(FLOATING, ((2,), (3, 2, 1), (4,)))
        for drive, total in (
            ("special", None),
            ("special", "given"),
            ("negative zero", "negative zero"),
            ("ordinary", "permuted"),
        )
    ]
    return spikes + amplitudes


def word_cases() -> list[PoolCase]:
    """Cases in which four spikes lie in one word, and in which they do not quite."""
    windows: dict[str, tuple[Any, ...]] = {
        "2x2/2": (2,),
        "3x3/2": (3, 2, 1),
        "3x3/2, ceil": (3, 2, 1, 1, True),
        "2x2/(3, 2)": (2, (3, 2)),
        "1x2/(1, 2)": ((1, 2), (1, 2)),
        "2x3/(1, 2)": ((2, 3), (1, 2), (1, 1)),
        "2x2/2, dilated": (2, 2, 1, 2),
        "3x3/1": (3, 1, 1),
    }
    shapes = ((2, 4, 5, 8), (1, 8, 7, 12), (3, 12, 6, 4), (2, 6, 4, 10), (1, 7, 3, 16))
    two = {name: windows[name] for name in ("2x2/2", "3x3/2")}
    shape = (2, 8, 6, 8)
    return [
        *(
            PoolCase(f"words {shape}-{name}-{layout}", shape, window, emit="spike", layout=layout)
            for shape, (name, window), layout in product(shapes, windows.items(), FORMATS)
        ),
        *(
            PoolCase(
                f"words {name} to {short(out_dtype)}-{drive}-{layout}",
                shape,
                window,
                out_dtype=out_dtype,
                drive=drive,
                theta="silent",
                layout=layout,
                total="given",
            )
            for (name, window), out_dtype, drive, layout in product(
                two.items(), FLOATING, ("ordinary", "graded"), FORMATS
            )
        ),
        *(
            PoolCase(
                f"words {name}-threshold {kind}-{layout}",
                shape,
                window,
                threshold=kind,
                layout=layout,
            )
            for (name, window), kind, layout in product(two.items(), THRESHOLDS, FORMATS)
        ),
        *(
            PoolCase(f"words {name}-{layout}", shape, window, layout=layout, total="permuted")
            for (name, window), layout in product(two.items(), LAYOUTS)
        ),
        *(
            PoolCase(
                f"words {name}-{steps} steps-{layout}",
                shape,
                window,
                time_steps=steps,
                layout=layout,
            )
            for (name, window), steps, layout in product(
                two.items(), (1, 2, 3, 4, 6, 7, 8, 9, 66), FORMATS
            )
        ),
        *(
            PoolCase(f"words of many {name}-{layout}", (3, 36, 12, 20), window, layout=layout)
            for (name, window), layout in product(two.items(), FORMATS)
        ),
        *(
            PoolCase(f"words 3d, {window[0]}-{layout}", (1, 4, 5, 6, 8), window, layout=layout)
            for window, layout in product(
                ((2,), (3, 2, 1), ((1, 2, 2),), ((1, 3, 3), (1, 2, 2), (0, 1, 1))), FORMATS
            )
        ),
        *(
            PoolCase(f"words 1d, {window[0]}-{layout}", (2, 4, 16), window, layout=layout)
            for window, layout in product(((2,), (3, 2, 1), (4,)), FORMATS)
        ),
        *(
            PoolCase(f"words adaptive {size}-{layout}", (2, 4, 7, 8), output=size, layout=layout)
            for size, layout in product((3, (7, 4), (4, 4)), FORMATS)
        ),
    ]


POOL_CASES = [
    *window_cases(),
    *adaptive_cases(),
    *conversion_cases(),
    *size_cases(),
    *layout_cases(),
    *threshold_cases(),
    *value_cases(),
    *word_cases(),
]
