"""Cases of the op that parity, chunks, NumPy, operator checks, GPU tests and benchmarks share."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Generator, Tensor

from snm_kernels import PRESETS, SILENT, SNM, SNMOutput, SNMRule, SNMState, preset, snm

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INFINITY = float("inf")


@dataclass(frozen=True)
class Case:
    """One run of the op, described by words; `inputs` turns the words into tensors."""

    name: str
    time_steps: int = 7
    shape: tuple[int, ...] = (2, 6, 5, 7)
    rule: SNMRule = SNM
    dtype: torch.dtype = torch.float32
    emit: str = "amplitude"
    out_dtype: torch.dtype | None = None
    drive: str = "aimed"
    layout: str = "contiguous"
    theta: str = "ordinary"
    threshold: str = "neuron"
    bias: str | None = None
    residual: str | None = None
    state: str | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def neurons(self) -> int:
        return prod(self.shape)

    @property
    def neuron_steps(self) -> int:
        return self.time_steps * self.neurons

    @property
    def for_numpy(self) -> bool:
        """Whether NumPy has every dtype of this case."""
        return torch.bfloat16 not in (self.dtype, self.out_dtype)

    def negative(self, device: torch.device | str = "cpu") -> Tensor | None:
        """How many negative spikes were sent before, laid out as the state is; None without one."""
        if self.state is None:
            return None
        g = Generator().manual_seed(zlib.crc32(self.name.encode()))
        _, negative = STATES[self.state](self.shape, torch.ones(()), g)
        return negative.abs().to(device)

    def inputs(self, device: torch.device | str = "cpu", seed: int = 0) -> dict[str, Any]:
        """The keyword arguments of `snm_kernels.snm`, with the same values on every device."""
        g = Generator().manual_seed(zlib.crc32(self.name.encode()) + seed)
        arguments: dict[str, Any] = {"rule": self.rule, "emit": self.emit}
        if self.out_dtype is not None:
            arguments["out_dtype"] = self.out_dtype
        sizes, give = PARAMETERS[self.threshold]
        theta = thetas(self.theta, sizes(self.shape), self.dtype, g)
        arguments["threshold"] = give(theta.to(device), self.shape)
        bias = residual = state = None
        if self.bias is not None:
            sizes, give = PARAMETERS[self.bias]
            bias = small_bias(sizes(self.shape), theta.dtype, g)
            arguments["bias"] = give(bias.to(device), self.shape)
        if self.residual is not None:
            arrange = LAYOUTS[self.residual]
            values = small_drive((self.time_steps, *self.shape), self.dtype, g)
            residual = arrange(values)
            arguments["residual"] = arrange(values.to(device))
        if self.state is not None:
            state = STATES[self.state](self.shape, theta, g)
            arguments["state"] = SNMState(*(part.to(device) for part in state))
        drive = self._drive(theta, bias, residual, state, g)
        arguments["x"] = LAYOUTS[self.layout](drive.to(device))
        return arguments

    def _drive(
        self,
        theta: Tensor,
        bias: Tensor | None,
        residual: Tensor | None,
        state: SNMState | None,
        g: Generator,
    ) -> Tensor:
        sizes = (self.time_steps, *self.shape)
        if self.drive == "negative zero":
            return torch.full(sizes, -0.0).to(self.dtype)
        if self.drive == "huge":
            return huge_drive(sizes, self.dtype, g)
        x, _ = aimed_run(
            self.rule, theta, sizes, self.dtype, g, bias=bias, residual=residual, state=state
        )
        if self.drive == "special":
            values = specials(self.dtype)
            chosen = values[torch.randint(len(values), sizes, generator=g)]
            return torch.where(torch.rand(sizes, generator=g) < 0.25, chosen, x)
        assert self.drive == "aimed", self.drive
        return x


def aimed_run(
    rule: SNMRule,
    theta: Tensor,
    sizes: tuple[int, ...],
    dtype: torch.dtype,
    g: Generator,
    *,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    state: SNMState | None = None,
    emit: str = "none",
) -> tuple[Tensor, SNMOutput]:
    """A drive that steers membranes onto and next to the thresholds, and the reference's run of it.

    Half of the steps aim at a threshold, a multiple of one, or one ulp beside it; the others are
    normal. What dtype can't represent misses its target by dtype's rounding.
    """
    x = torch.empty(sizes, dtype=dtype)
    sent = []
    integers = theta.dtype == torch.int32
    finite = torch.where(silent(theta), 1, theta).expand(sizes[1:])
    targets = integer_edges(rule, finite) if integers else edges(rule, finite)
    start = torch.where(silent(theta), 0.0, rule.v_init * theta)
    for t in range(sizes[0]):
        v = start if state is None else state.v
        choice = torch.randint(2 * len(targets), sizes[1:], generator=g)
        aim = targets.gather(0, (choice % len(targets))[None])[0]
        spread = 1.5 * torch.randn(sizes[1:], generator=g) * finite
        drive = torch.where(choice < len(targets), aim, spread) - v
        if bias is not None:
            drive = drive - bias
        if residual is not None:
            drive = drive - residual[t].to(torch.float32)
        x[t] = to_drive(drive, dtype)
        spikes, state = snm(
            x[t : t + 1],
            theta,
            rule=rule,
            state=state,
            bias=bias,
            residual=None if residual is None else residual[t : t + 1],
            emit=emit,
            backend="reference",
        )
        if spikes is not None:
            sent.append(spikes)
    return x, SNMOutput(torch.cat(sent) if sent else None, state)


def edges(rule: SNMRule, theta: Tensor) -> Tensor:
    """Membranes at which the rule's answer changes, and one ulp to either side: [K, *shape]."""
    several = {2, rule.max_spikes, rule.max_spikes + 1} - {1}
    at = [theta, -(rule.negative_threshold or 0.0) * theta, *(k * theta for k in sorted(several))]
    ends = torch.tensor([[-INFINITY], [INFINITY]])
    on = torch.stack(at)
    return torch.cat((on, *(torch.nextafter(on, end) for end in ends)))


def integer_edges(rule: SNMRule, theta: Tensor) -> Tensor:
    """The same of int32 thresholds, and one to either side; float64, in which they are exact."""
    ratio = torch.tensor(rule.negative_threshold or 0.0).double()
    lower = -(ratio * theta).clamp(max=2.0**30)
    several = {2, rule.max_spikes, rule.max_spikes + 1} - {1}
    on = torch.stack((theta, lower.floor(), lower.ceil(), *(k * theta for k in sorted(several))))
    return torch.cat((on, on - 1, on + 1))


def silent(theta: Tensor) -> Tensor:
    """Which thresholds are those of silent neurons."""
    return theta == (SILENT if theta.dtype == torch.int32 else INFINITY)


def to_drive(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Float32 values as a drive of a dtype; integers are rounded and kept in range."""
    if dtype == torch.int32:
        values = values.nan_to_num().round().clamp(-(2.0**31), 2.0**31 - 128)
    return values.to(dtype)


def small_drive(sizes: tuple[int, ...], dtype: torch.dtype, g: Generator) -> Tensor:
    return to_drive(torch.randn(sizes, generator=g) * (3 if dtype == torch.int32 else 0.5), dtype)


def small_bias(sizes: tuple[int, ...], dtype: torch.dtype, g: Generator) -> Tensor:
    if dtype == torch.int32:
        return torch.randint(-3, 4, sizes, generator=g, dtype=dtype)
    return 0.2 * torch.randn(sizes, generator=g)


def huge_drive(sizes: tuple[int, ...], dtype: torch.dtype, g: Generator) -> Tensor:
    """Values up to dtype's limits; integers among them that float32 has to round."""
    if dtype == torch.int32:
        return torch.randint(INT32_MIN, INT32_MAX + 1, sizes, generator=g).to(dtype)
    return (2 * torch.rand(sizes, generator=g) - 1).to(dtype) * torch.finfo(dtype).max


def specials(dtype: torch.dtype) -> Tensor:
    """The values of a dtype that a kernel is most likely to get wrong."""
    if dtype == torch.int32:
        return torch.tensor([0, INT32_MIN, INT32_MAX, 2**24 + 1, -(2**24) - 1], dtype=dtype)
    info = torch.finfo(dtype)
    values = [float("nan"), INFINITY, -INFINITY, 0.0, -0.0, info.max, info.min, info.tiny]
    return torch.tensor([*values, info.smallest_normal / 2, -info.smallest_normal / 8]).to(dtype)


def thetas(kind: str, sizes: tuple[int, ...], dtype: torch.dtype, g: Generator) -> Tensor:
    """Thresholds, float32; the ordinary ones are values that a drive of dtype can reach exactly.
    Those of integers are int32."""
    if kind.startswith("integers"):
        most = 2**24 if kind == "integers, large" else 40
        theta = torch.randint(1, most, sizes, generator=g, dtype=torch.int32)
        share = {"integers, silent": 0.3, "integers, all silent": 1.0}.get(kind, 0.0)
        return torch.where(torch.rand(sizes, generator=g) < share, SILENT, theta)
    if kind == "subnormal":
        return torch.randint(1, 1000, sizes, generator=g) * 2.0**-149
    if kind == "half subnormal":
        return torch.randint(1, 3000, sizes, generator=g) * 2.0**-25
    if kind == "huge":
        return (0.3 + 0.7 * torch.rand(sizes, generator=g)) * torch.finfo(torch.float32).max
    if kind == "over half":
        return 60000 + 8.0 * torch.randint(2000, sizes, generator=g)
    ordinary = 0.25 + 1.75 * torch.rand(sizes, generator=g)
    if kind == "fine":
        return ordinary
    ordinary = (ordinary * 4).ceil() if dtype == torch.int32 else ordinary.to(dtype).float()
    if kind == "silent":
        return torch.where(torch.rand(sizes, generator=g) < 0.3, INFINITY, ordinary)
    if kind == "all silent":
        return torch.full(sizes, INFINITY)
    if kind == "one":
        return torch.ones(sizes)
    assert kind == "ordinary", kind
    return ordinary


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


def constant(x: Tensor) -> Tensor:
    return x[:1].expand(x.shape)


def unaligned(x: Tensor) -> Tensor:
    view = x.new_zeros(x.numel() + 1)[1:].view(x.shape)
    return view.copy_(x)


def padded_time(x: Tensor) -> Tensor:
    step = x[0].numel() + 5
    view = x.new_zeros(x.shape[0] * step + 5).as_strided(x.shape, (step, *x.stride()[1:]), 3)
    return view.copy_(x)


def sliding_window(x: Tensor) -> Tensor:
    return x.as_strided(x.shape, (1, *x.stride()[1:]))


def every_other(x: Tensor) -> Tensor:
    return torch.stack((x, x), -1)[..., 0]


def batch_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1).contiguous().transpose(0, 1)


def time_last(x: Tensor) -> Tensor:
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def reversed_memory(x: Tensor) -> Tensor:
    order = (0, *range(x.dim() - 1, 0, -1))
    return x.permute(order).contiguous().permute(order)


def one_sample_for_all(x: Tensor) -> Tensor:
    return x[:, :1].expand(x.shape)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels_last": channels_last,
    "constant": constant,
    "constant channels_last": lambda x: constant(channels_last(x)),
    "unaligned": unaligned,
    "padded time": padded_time,
    "sliding window": sliding_window,
    "reversed memory": reversed_memory,
    "every other": every_other,
    "batch first": batch_first,
    "time last": time_last,
    "one sample for all": one_sample_for_all,
}
"""How a drive [T, *shape] lies in memory. From "every other" on, its slices have gaps."""

Shape = tuple[int, ...]


def _channel(shape: Shape) -> Shape:
    return (shape[1], *[1] * (len(shape) - 2))


def _neuron(shape: Shape) -> Shape:
    return shape[1:]


def _as_it_is(p: Tensor, _: Shape) -> Tensor:
    return p


PARAMETERS: dict[str, tuple[Callable[[Shape], Shape], Callable[[Tensor, Shape], Any]]] = {
    "number": (lambda _: (), lambda p, _: p.item()),
    "scalar": (lambda _: (), _as_it_is),
    "one": (lambda _: (1,), _as_it_is),
    "ones": (lambda shape: (1,) * len(shape), _as_it_is),
    "last": (lambda shape: shape[-1:], _as_it_is),
    "channel": (_channel, _as_it_is),
    "neuron": (_neuron, _as_it_is),
    "batch": (lambda shape: shape, _as_it_is),
    "sample": (lambda shape: (shape[0], *[1] * (len(shape) - 1)), _as_it_is),
    "sample and row": (lambda shape: (shape[0], 1, shape[2], 1), _as_it_is),
    "channel and column": (lambda shape: (shape[1], 1, shape[3]), _as_it_is),
    "row": (lambda shape: (shape[2], 1), _as_it_is),
    "channel, expanded": (_channel, lambda p, shape: p.expand(shape[1:])),
    "neuron, expanded": (_neuron, lambda p, shape: p.expand(shape)),
    "neuron, reversed memory": (_neuron, lambda p, _: reversed_memory(p[None])[0]),
    "neuron, every other": (_neuron, lambda p, _: every_other(p)),
    "neuron, unaligned": (_neuron, lambda p, _: unaligned(p)),
    "neuron, float64": (_neuron, lambda p, _: p.double()),
    "channel, float16": (_channel, lambda p, _: p.half()),
    "channel, bfloat16": (_channel, lambda p, _: p.bfloat16()),
}
"""Sizes of a threshold or bias for a neuron shape, and how it is given."""


def _given_state(shape: Shape, theta: Tensor, g: Generator) -> SNMState:
    v = torch.randn(shape, generator=g) * torch.where(silent(theta), 1, theta)
    v = v.round().int() if theta.dtype == torch.int32 else v
    return SNMState(v, torch.randint(-2, 5, shape, generator=g, dtype=torch.int32))


def _permuted_state(shape: Shape, theta: Tensor, g: Generator) -> SNMState:
    return SNMState(*(reversed_memory(p[None])[0] for p in _given_state(shape, theta, g)))


def _state_at_limits(shape: Shape, theta: Tensor, g: Generator) -> SNMState:
    v, _ = _given_state(shape, theta, g)
    limits = [INT32_MIN, INT32_MIN + 1, INT32_MIN + 2, INT32_MAX, INT32_MAX - 1, INT32_MAX - 3, 0]
    chosen = torch.randint(len(limits), shape, generator=g)
    return SNMState(v, torch.tensor(limits, dtype=torch.int32)[chosen])


def _special_state(shape: Shape, theta: Tensor, g: Generator) -> SNMState:
    v, m = _given_state(shape, theta, g)
    values = specials(theta.dtype)
    chosen = values[torch.randint(len(values), shape, generator=g)]
    return SNMState(torch.where(torch.rand(shape, generator=g) < 0.7, chosen, v), m)


STATES: dict[str, Callable[[Shape, Tensor, Generator], SNMState]] = {
    "given": _given_state,
    "permuted": _permuted_state,
    "int32 limits": _state_at_limits,
    "special": _special_state,
}

RULES = {
    "signed without bounds": SNMRule(negative_threshold=0.5, count_min=None),
    "three below and two above": SNMRule(0.5, 0.0, strict=True, count_min=-3, count_max=2),
    "graded and signed": SNMRule(0.25, 1.5, max_spikes=4, count_min=None),
    "graded with little room": SNMRule(max_spikes=4, count_max=6),
    "most spikes a step": SNMRule(max_spikes=127, count_max=100),
    "strict at one": SNMRule(strict=True),
    "equality at zero": SNMRule(negative_threshold=0.0),
    "starts below zero": SNMRule(v_init=-0.75),
    "starts above the threshold": SNMRule(v_init=3.25, max_spikes=2),
    "no room at all": SNMRule(count_min=0, count_max=0),
    "inexact fractions": SNMRule(v_init=0.1, negative_threshold=0.3),
    "integers as fractions": SNMRule(v_init=1, negative_threshold=2),
}

FLOATING = (torch.float32, torch.float16, torch.bfloat16)
DTYPES = (*FLOATING, torch.int32)
EMITS = ("amplitude", "spike", "none")


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def preset_cases() -> list[Case]:
    return [
        Case(f"{name}-{short(dtype)}-{emit}", 16, (3, 19), preset(name), dtype, emit)
        for name, dtype, emit in product(PRESETS, DTYPES, EMITS)
    ]


def rule_cases() -> list[Case]:
    return [
        Case(
            f"rule-{name}-{short(dtype)}-{drive}",
            16,
            (3, 19),
            rule,
            dtype,
            drive=drive,
            state=state,
        )
        for (name, rule), dtype in product(RULES.items(), (torch.float32, torch.int32))
        for drive, state in (("aimed", None), ("special", "given"))
    ]


def conversion_cases() -> list[Case]:
    rules = {"ternary": SNM, "graded": RULES["graded and signed"]}
    return [
        Case(
            f"{short(dtype)} to {short(out_dtype)}-thetas {theta}-{kind}",
            9,
            (3, 19),
            rule,
            dtype,
            out_dtype=out_dtype,
            theta=theta,
        )
        for dtype, out_dtype in product(DTYPES, FLOATING)
        for theta in ("fine", "half subnormal", "over half")
        for kind, rule in rules.items()
    ]


def length_cases() -> list[Case]:
    return [
        Case(f"{steps} steps-{emit}", steps, (3, 5, 2), emit=emit, theta="fine", bias="channel")
        for steps, emit in zip((1, 2, 3, 31, 32, 33, 64, 257), EMITS * 3, strict=False)
    ]


def size_cases() -> list[Case]:
    sizes = (1, 2, 15, 16, 17, 63, 64, 65, 127, 1023, 1024, 1025, 2047, 2049, 4097)
    cases = [
        Case(f"{n} neurons-{short(dtype)}-{emit}", 5, (n,), SNM, dtype, emit, threshold="last")
        for n in (0, *sizes)
        for dtype, emit in ((torch.float32, "amplitude"), (torch.float16, "spike"))
    ]
    return [
        *cases,
        Case("no dimensions", 9, (), threshold="scalar", bias="number", state="given"),
        Case("no dimensions-int8", 9, (), dtype=torch.int32, emit="spike", threshold="number"),
        Case("no channels", 4, (2, 0, 3), threshold="channel", state="given"),
        Case("no samples", 4, (0, 3, 4, 4), bias="channel", residual="constant"),
        Case("no samples-channels_last", 4, (0, 3, 4, 4), layout="channels_last"),
        Case("one sample-channels_last", 4, (1, 3, 4, 5), layout="channels_last"),
        Case("one channel-channels_last", 4, (2, 1, 4, 5), layout="channels_last"),
        Case("one pixel-channels_last", 4, (2, 5, 1, 1), layout="channels_last"),
        Case("volumes-channels_last", 4, (2, 3, 4, 5, 6), layout="channels_last"),
        Case("volumes-reversed memory", 4, (2, 3, 4, 5, 6), layout="reversed memory"),
    ]


def ring_cases() -> list[Case]:
    """Cases with more steps than a GPU's kernel has under way, by words of 16 bytes and by odd
    elements."""
    rules = {"snm": SNM, "graded": RULES["graded and signed"]}
    return [
        Case(
            f"ring-{short(dtype)}-{emit}-{prod(shape)} neurons-{name}-{residual} residual",
            70,
            shape,
            rules[name],
            dtype,
            emit,
            threshold="channel",
            residual=residual,
            state=state,
        )
        for dtype, emit in product(DTYPES, EMITS)
        for shape, name, residual, state in (
            ((2, 8, 6, 8), "snm", None, None),
            ((2, 8, 6, 8), "graded", "contiguous", "given"),
            ((5, 7), "snm", "contiguous", "int32 limits"),
            ((5, 7), "graded", None, None),
        )
    ]


def tile_cases() -> list[Case]:
    """Cases with parameters whose pattern crosses the 64 and 1024 neurons that kernels work in."""
    patterns = [
        ("period over a tile", (2, 3, 40, 41), "contiguous", "neuron"),
        ("period over a tile in channels_last", (2, 3, 40, 41), "channels_last", "neuron"),
        ("period of a tile", (3, 4, 16, 16), "contiguous", "neuron"),
        ("repeats over a tile", (2, 3, 37, 41), "contiguous", "channel"),
        ("repeats that don't divide a tile", (2, 30, 5, 7), "contiguous", "channel"),
        ("channels that don't divide a tile", (2, 13, 16, 16), "channels_last", "channel"),
        ("odd pattern over tiles", (3, 5, 20, 21), "contiguous", "sample and row"),
        ("many features", (3, 2600), "contiguous", "neuron"),
        ("tokens", (2, 50, 48), "contiguous", "last"),
        ("one value a sample", (3, 700), "contiguous", "sample"),
    ]
    return [
        Case(f"{name}-{bias} bias", 4, shape, layout=layout, threshold=threshold, bias=bias)
        for name, shape, layout, threshold in patterns
        for bias in (None, threshold)
    ]


def layout_cases() -> list[Case]:
    drives = [
        Case(
            f"{layout} drive-{short(dtype)}-{residual} residual",
            dtype=dtype,
            layout=layout,
            threshold="channel",
            bias="neuron",
            residual=residual,
        )
        for layout, dtype in product(LAYOUTS, (torch.float32, torch.bfloat16))
        for residual in (None, "contiguous")
    ]
    residuals = [
        Case(f"{residual} residual-{layout} drive", layout=layout, emit="spike", residual=residual)
        for residual, layout in product(LAYOUTS, ("channels_last", "constant"))
    ]
    return drives + residuals


def parameter_cases() -> list[Case]:
    return [
        Case(
            f"{threshold} threshold-{bias} bias-{layout}",
            5,
            layout=layout,
            threshold=threshold,
            bias=bias,
        )
        for threshold, bias in zip(PARAMETERS, reversed(PARAMETERS), strict=True)
        for layout in ("contiguous", "channels_last", "reversed memory", "every other")
    ]


def value_cases() -> list[Case]:
    rules = {name: preset(name) for name in ("snm", "snm-zero", "st-bif", "burst")}
    drives = [
        Case(
            f"{drive} drive-{name}-{short(dtype)}-{state} state",
            12,
            (2, 41),
            rule,
            dtype,
            drive=drive,
            theta="silent",
            state=state,
        )
        for (name, rule), dtype in product(rules.items(), DTYPES)
        for drive, state in (("special", None), ("huge", None), ("negative zero", "special"))
    ]
    thresholds = [
        Case(
            f"{theta} thresholds-{name}-{drive} drive-{out}",
            12,
            (2, 41),
            rule,
            drive=drive,
            theta=theta,
            out_dtype=dtype,
        )
        for theta in ("subnormal", "huge", "fine", "all silent")
        for (name, rule), drive in product(rules.items(), ("aimed", "special"))
        for out, dtype in (("float32", None), ("float16", torch.float16))
    ]
    rules = {"snm": SNM, "st-bif": preset("st-bif", levels=3)} | {
        name: RULES[name] for name in ("signed without bounds", "graded and signed")
    }
    states = [
        Case(f"{state} state-{name}-{emit}", 12, (2, 5, 7), rule, emit=emit, state=state)
        for state, (name, rule), emit in product(STATES, rules.items(), EMITS)
    ]
    return drives + thresholds + states


INTEGER_RULES = RULES | {
    "far fractions": SNMRule(v_init=-3e38, negative_threshold=1e9),
    "far fractions, strict": SNMRule(v_init=3e38, negative_threshold=200.0, strict=True),
    "tiny fractions": SNMRule(v_init=-1e-45, negative_threshold=1e-45),
    "tiny fractions, strict": SNMRule(v_init=1e-45, negative_threshold=1e-45, strict=True),
}


def integer_cases() -> list[Case]:
    """Cases of int32 thresholds, with which all else is int32 as well."""

    def case(
        name: str, *words: Any, theta: str = "integers", emit: str = "spike", **more: Any
    ) -> Case:
        more = {"threshold": "neuron", "theta": theta, "emit": emit, **more}
        return Case(f"integers-{name}", *words, dtype=torch.int32, **more)

    presets = [
        case(f"{name}-{theta}-{emit}", 16, (3, 19), preset(name), emit=emit, theta=theta)
        for name, theta, emit in product(
            PRESETS, ("integers", "integers, silent", "integers, large"), ("spike", "none")
        )
    ]
    rules = [
        case(
            f"rule-{name}-{theta}-{drive}", 16, (3, 19), rule, drive=drive, theta=theta, state=state
        )
        for (name, rule), theta in product(INTEGER_RULES.items(), ("integers", "integers, large"))
        for drive, state in (("aimed", None), ("special", "given"))
    ]
    values = [
        case(
            f"{drive} drive-{theta}-{name}",
            12,
            (2, 41),
            rule,
            drive=drive,
            theta=theta,
            state=state,
        )
        for name, rule in (("snm", SNM), ("st-bif", preset("st-bif")), ("burst", preset("burst")))
        for drive, theta, state in (
            ("huge", "integers, silent", None),
            ("special", "integers, all silent", "special"),
            ("negative zero", "integers", "special"),
        )
    ]
    states = [
        case(f"{state} state-{name}", 12, (2, 5, 7), RULES[name], state=state)
        for state, name in product(STATES, ("signed without bounds", "graded and signed"))
    ]
    sizes = [
        case(f"{n} neurons-{emit}", steps, (n,), emit=emit, threshold="last", bias="one")
        for n, steps in ((0, 3), (1, 1), (15, 2), (17, 33), (64, 5), (65, 3), (1025, 6), (4097, 5))
        for emit in ("spike", "none")
    ]
    layouts = [
        case(
            f"{layout} drive-{residual} residual",
            layout=layout,
            threshold=threshold,
            bias="neuron",
            residual=residual,
        )
        for layout in LAYOUTS
        for threshold, residual in (("channel", None), ("scalar", "contiguous"))
    ]
    given = [name for name in PARAMETERS if name != "number" and "float" not in name]
    parameters = [
        case(f"{threshold} threshold-{bias} bias-{layout}", 5, layout=layout, **named)
        for threshold, bias in zip(given, ["number", *reversed(given[1:])], strict=True)
        for named in ({"threshold": threshold, "bias": bias},)
        for layout in ("contiguous", "channels_last")
    ]
    rings = [
        case(f"ring-{prod(shape)} neurons-{emit}-{residual} residual", 70, shape, **more)
        for emit, shape, name, residual in (
            ("spike", (2, 8, 6, 8), "snm", None),
            ("none", (2, 8, 6, 8), "graded", "contiguous"),
            ("spike", (5, 7), "graded", "contiguous"),
            ("none", (5, 7), "snm", None),
        )
        for more in (
            {
                "rule": SNM if name == "snm" else RULES["graded and signed"],
                "emit": emit,
                "threshold": "channel",
                "residual": residual,
            },
        )
    ]
    dimensionless = case("no dimensions", 9, (), threshold="scalar", bias="number", state="given")
    return [
        *presets,
        *rules,
        *values,
        *states,
        *sizes,
        *layouts,
        *parameters,
        *rings,
        dimensionless,
    ]


def counted_cases() -> list[Case]:
    """The cases in which negative spikes are counted; few, as all else is the same as in others."""
    rules = {
        "snm": SNM,
        "snm-zero": preset("snm-zero"),
        **{name: RULES[name] for name in ("signed without bounds", "graded and signed")},
    }
    sent = [
        Case(f"counted-{name}-{short(dtype)}-{emit}", 9, (3, 19), rules[name], dtype, emit)
        for name, dtype, emit in product(("snm-zero", "graded and signed"), DTYPES, EMITS)
    ]
    added = [
        Case(
            f"counted-{name}-{emit}-{bias} bias-{residual} residual",
            7,
            rule=rule,
            emit=emit,
            drive=drive,
            theta="silent",
            bias=bias,
            residual=residual,
            state=state,
        )
        for name, rule in rules.items()
        for emit, drive, bias, residual, state in (
            ("amplitude", "aimed", "channel", None, None),
            ("spike", "special", None, "contiguous", "given"),
        )
    ]
    layouts = ("channels_last", "constant", "unaligned", "padded time", "every other")
    laid_out = [
        Case(f"counted-{layout} drive", layout=layout, threshold="channel", state="permuted")
        for layout in layouts
    ]
    sizes = [
        Case(f"counted-{n} neurons-{state} state", steps, (n,), threshold="last", state=state)
        for n, steps in ((0, 3), (1, 1), (17, 33), (1025, 6), (2049, 4))
        for state in (None, "given")
    ]
    integers = [
        Case(
            f"counted-integers-{name}-{emit}",
            9,
            (3, 19),
            rule,
            torch.int32,
            emit,
            theta="integers, silent",
            bias="channel",
            residual=residual,
            state=state,
        )
        for name, rule in rules.items()
        for emit, residual, state in (("spike", None, "given"), ("none", "contiguous", None))
    ]
    return [*sent, *added, *laid_out, *sizes, *integers, Case("counted-no dimensions", 9, ())]


CASES = [
    *preset_cases(),
    *rule_cases(),
    *conversion_cases(),
    *length_cases(),
    *size_cases(),
    *ring_cases(),
    *tile_cases(),
    *layout_cases(),
    *parameter_cases(),
    *value_cases(),
    *integer_cases(),
]
COUNTED = counted_cases()
IN_PLACE = [
    case
    for case in CASES
    if case.layout in ("contiguous", "channels_last", "unaligned", "reversed memory")
    and case.emit == "amplitude"
    and case.dtype in FLOATING
    and case.out_dtype in (None, case.dtype)
]
"""The cases whose spikes may be written over the drive."""
