"""Follows units through a simulation of one time step, and writes the integer program down."""

import math
import operator
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import Offence, refuse
from ...network.bounds import LARGEST_INT8, rearranges, renew_bounds
from ...network.interpret import Part, Values
from ...network.program import STEPS, Call, Fire, Program, Repeat, RunningMax, Step, Value
from ...network.run import Run
from ...network.spiking import SpikingNetwork
from ...nn.integer import (
    LARGEST_PIXEL,
    SILENT,
    IntegerNeuron,
    IntegerReadout,
    IntegerScale,
    IntegerSumPool,
    Pixels,
)
from .averages import is_average, is_convolution, pooling_of, why_uneven, windows_of
from .units import (
    common_unit,
    integers_of,
    multiples,
    typical_size,
    unit_by_itself,
    unit_of_thresholds,
)
from .values import Group, Integers, Known, Layer, Scaled, Sum, both, rows, spread
from .weights import CONVOLUTIONS, Weighted, averaging, weighted
from .writing import Writer

_ADDITIONS = (operator.add, operator.iadd, torch.add)


@dataclass
class Added:
    """What is to be added up."""

    group: Group
    sources: list[str]
    """The names of the parts, in the new program."""
    rest: Tensor | None
    """As of :class:`Sum`."""
    scaled_first: bool
    """Whether the first part is integers as they are."""


class Quantizer(Run):
    """Follows units through a simulation of one time step, and writes the integer program down.

    Args:
        net: the network in floating point.
        images: some calibration images.
        limit: the largest weight.
        pixels: makes integers of images.
    """

    def __init__(self, net: SpikingNetwork, images: Tensor, limit: int, pixels: Pixels) -> None:
        program = net.program
        self.limit = limit
        self.known: dict[str, Known] = {}
        self.offences: list[Offence] = []
        self.fixed_size = False
        """Whether there is something that fits images of the calibrated size only."""
        self.readers: dict[str, list[Step]] = defaultdict(list)
        for step in program.steps:
            for name in step.reads:
                self.readers[name].append(step)
        self.random = torch.Generator().manual_seed(0)
        self.writer = Writer(program, net.model, self._source)
        self._know_images(program, pixels, images.shape[1:])
        super().__init__(program, net.model, images, readout=net.readout)

    def quantized(self, net: SpikingNetwork) -> SpikingNetwork:
        """The integer network; raises an error that lists all that prevents it."""
        program = self.program
        if program.tail_reads_images:
            reason = "what comes behind the last neurons reads the images, which are no spikes"
            self.offences.append(Offence("", program.output, reason))
        self.advance(1, self.images if program.images_change else None)
        if self.readout == "mean" and not program.tail_reads_images:
            self.answer()
        output = program.output
        if self.readout == "mean" and not self.offences:
            output = self._read_out(output)
        refuse(self.offences, "quantize", "quantized")
        made = self.writer.written(output)
        refuse(renew_bounds(made, self.writer.layers), "quantize", "quantized")
        return SpikingNetwork(
            self.writer.layers.eval(),
            made,
            image_shape=net.image_shape,
            fixed_size=net.fixed_size or self.fixed_size,
            dtype=net.dtype,
            encoder=net.encoder,
            readout=net.readout,
            tracer=net.tracer,
            origin=net.origin,
            dead=net.dead,
            chunk_steps=net.chunk_steps,
            tuned_for=net.tuned_for,
            tuning=net.tuning,
        )

    def see(self, images: Tensor) -> None:
        """Keeps the images, and computes what is constant in time."""
        self.images = images
        super().see(images)

    # --- steps ---

    def call(self, call: Call, values: Values) -> Any:
        """Runs an operation, and finds its integer form."""
        result = super().call(call, values)
        if call.kind == "attribute":
            return result
        if not isinstance(result, Tensor):
            self.writer.emit_as_is(self.part, call)
            return result
        inputs = [self.known[name] for name in call.reads if name in self.known]
        self.known[call.name] = None
        if all(known is not None for known in inputs):
            self.known[call.name] = self._integer_form(call, values, result)
        return result

    def repeat(self, step: Repeat, values: Values) -> Tensor:
        """Repeats a value, which keeps its unit."""
        known = self.known[step.value]
        self.writer.emit(self.part, Repeat(step.name, self._source(step.value)))
        self.known[step.name] = None if known is None else replace(known, source=step.name)
        return super().repeat(step, values)

    def pool(self, step: RunningMax, values: Values) -> Tensor:
        """Pools spikes, which are worth the same in all of a channel."""
        pooled = super().pool(step, values)
        parts = [self.known[name] for name in step.fires or (step.value,)]
        self.known[step.name] = None
        units, most = [], 0
        for part in parts:
            if part is None:
                return pooled
            if not isinstance(part, Integers) or part.largest is None or part.rest is not None:
                self._refuse(step.path or step.name, "max pooling", "it pools what is no spikes")
                return pooled
            own = part.of_channels
            if own is None:
                self._refuse(step.path or step.name, "max pooling", part.why_spread)
                return pooled
            units.append(own)
            most = max(most, part.largest)
        unit = spread(torch.cat(units), pooled.dim() - 1).expand(pooled.shape[1:])
        self.writer.emit(self.part, step)
        self.known[step.name] = Integers(unit, step.name, most)
        return pooled

    def fire(self, fire: Fire, values: Values) -> None:
        """Gives what drives neurons their unit, and makes integer neurons of them."""
        shape = torch.Size(values[fire.drive].shape[1:])
        neuron = self.neuron(fire)
        super().fire(fire, values)
        theta = neuron.threshold.double()
        full = theta.view((1,) * (len(shape) - theta.dim()) + theta.shape).expand(shape)
        finite = rows(torch.where(full.isinf(), 0.0, full)).amax(1)
        worth = torch.where(full.isinf(), spread(finite, full.dim()), full)
        sent = Integers(worth, fire.name, neuron.rule.max_spikes)
        self.known[fire.name] = self.known[fire.spikes] = sent
        names = [fire.drive, *([] if fire.residual is None else [fire.residual])]
        drive = self._added(names, fire, fire.path)
        if drive is None:
            return
        if drive.group.unit is None:
            self._settle(drive.group, unit_of_thresholds(drive.group, finite, self.limit))
        assert drive.group.unit is not None
        one = spread(drive.group.unit, full.dim())
        threshold = (full / one).round().clamp(1, 2**24 - 1)
        threshold = torch.where(full.isinf(), float(SILENT), threshold).to(torch.int32)
        shared = rows(threshold)
        if bool((shared == shared[:, :1]).all()):
            threshold = spread(shared[:, 0], full.dim())
        bias = drive.rest
        if neuron.bias is not None:
            added = neuron.bias.double()
            bias = both(bias, added.view((1,) * (len(shape) - added.dim()) + added.shape))
        if bias is not None:
            bias = (bias / one).round().clamp(-SILENT, SILENT).to(torch.int32)
        made = IntegerNeuron(threshold, neuron.rule, bias=bias, backend=neuron.backend)
        self.fixed_size |= fire.per_neuron or drive.rest is not None
        self.writer.put(fire.path, made)
        constant = [fire.constant_drive, fire.constant_residual]
        sources = drive.sources
        if drive.scaled_first:
            # What drives neurons may be computed along with them.
            sources, constant = sources[::-1], constant[::-1]
        unit = drive.group.unit
        cap = () if not fire.cap else tuple((torch.tensor(fire.cap).to(unit) / unit).tolist())
        step = replace(
            fire,
            drive=sources[0],
            constant_drive=constant[0],
            residual=sources[1] if len(sources) > 1 else None,
            constant_residual=constant[1],
            reuses_drive=False,
            cap=cap,
        )
        self.writer.emit(self.part, step)

    # --- operations ---

    def _integer_form(self, call: Call, values: Values, result: Tensor) -> Known:
        """Writes down the integer form of an operation; returns what is known of its result."""
        layer = weighted(call, self.model, values)
        if layer is not None:
            return self._convolve(call, result, layer)
        names = [name for name in call.reads if isinstance(values.get(name), Tensor)]
        if any(name not in self.known for name in names):
            return self._refuse_call(call, "it reads a constant, which has no unit")
        if not names:
            reason = "it reads one of the parts that an operation made; take it by an index instead"
            return self._refuse_call(call, reason)
        sums = call.target in _ADDITIONS or (call.kind == "method" and call.target == "add")
        if sums and len(names) == 2 and len(call.args) == 2 and not call.kwargs:
            return self._add(call, names, result)
        if rearranges(call, self.model):
            one = len(names) == 1
            return (self._rearranged if one else self._joined)(call, names, values)
        if len(names) == 1 and is_average(call, self._module(call)):
            return self._average(call, names[0], values, result)
        return self._refuse_call(call, "it has no integer form")

    def _convolve(self, call: Call, result: Tensor, layer: Weighted) -> Known:
        """A layer with weights: they take in the unit of what it reads."""
        x = self._counted(layer.name)
        if x is None:
            return None
        dims = layer.dims
        if x.unit.dim() != dims + 1:
            return self._refuse_call(call, "it is applied to more than one vector of an image")
        own = x.of_channels if dims else x.unit
        if own is None:
            return self._refuse_call(call, x.why_spread)
        places: tuple[Any, ...] = ()
        if dims:
            *sizes, groups = layer.places
            if any(isinstance(size, str) for size in sizes):
                return self._refuse_call(call, f"its padding is {sizes[1]!r}; give it as numbers")
            pool = (1,) * (2 - len(x.pool or (1,) * dims)) + x.pool or (1, 1)
            places = (*(_sizes(size, dims) for size in sizes), groups, pool)
            layer = replace(layer, places=(*places[:3], groups))
        bias = own.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias.double()
        rest = None
        if x.rest is not None:
            rest = layer.summed(x.rest)
            # All places have the same in common; only at borders there is more, or less.
            flat = rows(rest.narrow(1, rest.shape[1] // 2, 1)) if dims else rows(rest)
            inside = flat[:, flat.shape[1] // 2]
            bias = bias + inside
            even = not dims or (not any(places[1]) and _is_even(x.rest))
            rest = None if even else rest - spread(inside, rest.dim())
        is_module = call.kind == "module"
        path = self.writer.free_path(str(call.target) if is_module else call.name, own=is_module)
        weight = layer.weight.double() * layer.on_inputs(own)
        term = Layer(path, weight, bias, places, fine=x.summed, typical=x.typical)
        steps = [STEPS] if self.part == "tail" else []
        self.writer.emit_module(self.part, call.name, path, x.source, *steps)
        return Sum(Group([term]), call.name, torch.Size(result.shape[1:]), rest)

    def _add(self, call: Call, names: list[str], result: Tensor) -> Known:
        """A sum: all its parts are to have the same unit."""
        added = self._added(names, call, call.name)
        if added is None:
            return None
        self.writer.emit(
            self.part, Call(call.name, "function", operator.add, tuple(map(Value, added.sources)))
        )
        return Sum(added.group, call.name, torch.Size(result.shape[1:]), added.rest)

    def _rearranged(self, call: Call, names: list[str], values: Values) -> Known:
        """An operation that arranges the elements of one value otherwise."""
        [name] = names
        given = values[name]
        x = torch.randint(-99, 100, given.shape, generator=self.random).to(given)

        def run(value: Tensor) -> Tensor:
            return self._made(call, {**values, name: value})

        if not _takes_integers(run, x):
            return self._refuse_call(call, "it has no integer form")
        known = self.known[name]
        if isinstance(known, Sum) and torch.equal(run(x), x):
            self.writer.emit_as_is(self.part, call)
            return replace(known, source=call.name)
        counted = self._counted(name)
        if counted is None:
            return None
        self.writer.emit_as_is(self.part, call)

        def moved(part: Tensor) -> Tensor:
            return run(part.expand(given.shape))[0]

        unit = moved(counted.unit)
        # Zeros count any unit.
        added = moved(torch.ones_like(counted.unit)) == 0
        unit = torch.where(added, spread(rows(unit).amax(1), unit.dim()), unit)
        rest = None if counted.rest is None else moved(counted.rest)
        return replace(counted, unit=unit, source=call.name, rest=rest)

    def _joined(self, call: Call, names: list[str], values: Values) -> Known:
        """An operation that puts several values together, such as a concatenation."""
        parts = {name: self._counted(name) for name in names}
        known = {name: part for name, part in parts.items() if part is not None}
        if len(known) < len(parts):
            return None
        self.writer.emit_as_is(self.part, call)

        def joined(own: dict[str, Tensor]) -> Tensor:
            full = {name: part.expand(values[name].shape) for name, part in own.items()}
            return self._made(call, {**values, **full})[0]

        unit = joined({name: part.unit for name, part in known.items()})
        rest = None
        if any(part.rest is not None for part in known.values()):
            zero = torch.zeros((), dtype=torch.float64, device=unit.device)
            rests = {name: zero if p.rest is None else p.rest for name, p in known.items()}
            rest = joined(rests)
        most = [part.largest for part in known.values()]
        largest = max((size for size in most if size is not None), default=0)
        summed = all(part.summed for part in known.values())
        size = max(part.typical for part in known.values())
        return Integers(
            unit, call.name, None if None in most else largest, summed, typical=size, rest=rest
        )

    def _average(self, call: Call, name: str, values: Values, result: Tensor) -> Known:
        """An average over windows: a sum whose factor is in the unit, or a convolution."""
        x = self._counted(name)
        if x is None:
            return None
        given = values[name]

        def run(value: Tensor) -> Tensor:
            return self._made(call, {**values, name: value})

        pooling = pooling_of(call, self._module(call))
        # Elsewhere windows depend on the size.
        self.fixed_size |= pooling is None or pooling.ceil_mode
        apart = True
        if pooling is not None:
            apart = pooling.stride == pooling.kernel_size and not any(pooling.padding)
        window = windows_of(run, given, self.random) if apart else None
        if window is not None:
            return self._sum_pool(call, x, window, result)
        if pooling is not None and is_convolution(run, given, pooling, self.random):
            return self._convolve(call, result, averaging(call, pooling, given.shape[1], given))
        return self._refuse_call(call, why_uneven(pooling, given, result))

    def _sum_pool(self, call: Call, x: Integers, window: tuple[int, ...], result: Tensor) -> Known:
        """Sums over windows, as many of which as there are places in one are worth an average."""
        own = x.of_channels
        if own is None:
            return self._refuse_call(call, x.why_spread)
        count = math.prod(window)
        unit = spread(own / count, result.dim() - 1).expand(result.shape[1:])
        rest = None
        if x.rest is not None:
            sums = IntegerSumPool(window, flat=result.dim() <= x.unit.dim())
            rest = sums(x.rest.unsqueeze(0)).squeeze(0) / count
        readers = self.readers[call.name]
        layers = all(isinstance(step, Call) and self._is_conv(step) for step in readers)
        same_dims = result.dim() == x.unit.dim() + 1
        small = self.part == "temporal" and x.largest is not None
        if layers and small and not x.pool and same_dims:
            return replace(x, unit=unit, pool=window, rest=rest)
        largest = None if x.largest is None else x.largest * count
        wide = largest is not None and largest > LARGEST_INT8 and self.part != "tail"
        path = self.writer.free_path(call.name)
        self.writer.put(path, IntegerSumPool(window, flat=not same_dims, wide=wide))
        self.writer.emit_module(self.part, call.name, path, x.source)
        return Integers(
            *(unit, call.name, None if wide else largest, x.summed, x.typical * count), rest=rest
        )

    def _made(self, call: Call, values: Values) -> Tensor:
        """What an operation makes of other values."""
        made = super().call(call, values)
        assert isinstance(made, Tensor)
        return made

    # --- units ---

    def _added(self, names: list[str], reader: Step, path: str) -> Added | None:
        """What is to be added up, all of it in the same unit."""
        parts = [part for part in (self._addend(name, reader) for name in names) if part]
        if len(parts) < len(names):
            return None
        if len({part.shape[:1] for part in parts}) > 1 or len({len(p.shape) for p in parts}) > 1:
            self._refuse(path, "sum", "it adds one channel to several")
            return None
        rest = None
        for part in parts:
            rest = both(rest, part.rest)
        unit = common_unit([part.group for part in parts], self.limit)
        if unit is None:
            group = self._merged([part.group for part in parts])
            return Added(group, [part.source for part in parts], rest, parts[0].scaled)
        sources = [self._in_unit(part, unit, reader) for part in parts]
        if None in sources:
            reason = (
                "it adds sums that others read before, in units of which none is a whole multiple "
                "of the other; add them before others read them"
            )
            self._refuse(path, "sum", reason)
            return None
        made = [source for source in sources if source is not None]
        size = max(
            part.group.typical * float((part.group.unit / unit).max())
            for part in parts
            if part.group.unit is not None
        )
        return Added(Group(unit=unit, typical=size), made, rest, parts[0].scaled)

    def _addend(self, name: str, reader: Step) -> Sum | None:
        """What is known of a value that is added up; spikes get a factor of their own."""
        known = self.known[name]
        if known is None or isinstance(known, Sum):
            return known
        own = known.of_channels
        if own is None:
            self._refuse(name, "sum", known.why_spread)
            return None
        shape = torch.Size(known.unit.shape)
        if known.summed:
            group = Group(unit=own, typical=known.typical)
            return Sum(group, known.source, shape, known.rest)
        path = self.writer.free_path(f"{reader.name}_{name}_scale")
        scaled = f"{name} for {reader.name}"
        self.writer.emit_module(self.part, scaled, path, known.source)
        return Sum(Group([Scaled(path, own)]), scaled, shape, known.rest, scaled=True)

    def _merged(self, groups: list[Group]) -> Group:
        """One group in the place of several."""
        first, *others = groups
        for other in others:
            if other is first:
                continue
            first.terms += other.terms
            for known in self.known.values():
                if isinstance(known, Sum) and known.group is other:
                    known.group = first
        return first

    def _in_unit(self, part: Sum, unit: Tensor, reader: Step) -> str | None:
        """The name of the value that is a part in a unit; None if there is none."""
        if part.group.unit is None:
            self._settle(part.group, unit * multiples(part.group, unit, self.limit))
        assert part.group.unit is not None
        own = torch.where(part.group.unit > 0, part.group.unit, unit)
        factor = (own / unit).round()
        # Units are real numbers, which float64 rounds.
        if not torch.allclose(unit * factor, own, rtol=1e-12, atol=0.0) or bool(
            (factor >= 2**31).any()
        ):
            return None
        if bool((factor == 1).all()):
            return part.source
        path = self.writer.free_path(f"{part.source}_{reader.name}_scale")
        self.writer.put(path, IntegerScale(factor.to(torch.int32)))
        scaled = f"{part.source} for {reader.name}"
        self.writer.emit_module(self.part, scaled, path, part.source)
        return scaled

    def _counted(self, name: str) -> Integers | None:
        """What is known of a value that is not added up; a sum gets a unit if it has none."""
        known = self.known[name]
        if not isinstance(known, Sum):
            return known
        if known.group.unit is None:
            self._settle(known.group, unit_by_itself(known.group, self.limit))
        assert known.group.unit is not None
        unit = spread(known.group.unit, len(known.shape)).expand(known.shape)
        size = known.group.typical
        return Integers(unit, known.source, None, summed=True, typical=size, rest=known.rest)

    def _settle(self, group: Group, unit: Tensor) -> None:
        """Makes the integers of all that has this unit."""
        group.unit = unit
        for term in group.terms:
            made, reason = integers_of(term, unit, self.limit)
            if reason is not None:
                self._refuse(term.path, type(made).__name__, reason)
            group.typical = max(group.typical, typical_size(made, term))
            self.writer.put(term.path, made)

    # --- the new program ---

    def _know_images(self, program: Program, pixels: Pixels, shape: torch.Size) -> None:
        """Makes integers of images first."""
        name = f"{program.images} pixels"
        unit = spread(pixels.step.double(), len(shape)).expand(shape)
        rest = None
        if bool(pixels.rest.any()):
            rest = spread(pixels.rest.double(), len(shape)).expand(shape) * unit
        path = self.writer.free_path("pixels")
        self.writer.put(path, pixels)
        part: Part = "temporal" if program.images_change else "static"
        self.writer.emit_module(part, name, path, program.images)
        typical = float(LARGEST_PIXEL // 2)
        self.known[program.images] = Integers(unit, name, None, typical=typical, rest=rest)

    def _read_out(self, output: str) -> str:
        """Appends what makes logits; returns the name of the output."""
        known = self._counted(output)
        if known is None or self.offences:
            return output
        assert known.rest is None
        own, unit = known.of_channels, known.unit.contiguous()
        if own is not None:
            unit = spread(own, unit.dim())
        path = self.writer.free_path("readout")
        self.writer.put(path, IntegerReadout(unit))
        name = f"{output} logits"
        self.writer.emit_module("tail", name, path, known.source, STEPS)
        return name

    def _source(self, name: str) -> str:
        """The name that a value has in the new program."""
        known = self.known.get(name)
        return name if known is None else known.source

    def _module(self, call: Call) -> nn.Module | None:
        return self.model.get_submodule(str(call.target)) if call.kind == "module" else None

    def _is_conv(self, call: Call) -> bool:
        module = self._module(call)
        if module is None:
            return call.target in CONVOLUTIONS
        return isinstance(module, nn.Conv1d | nn.Conv2d) and module.padding_mode == "zeros"

    def _refuse(self, path: str, operation: str, reason: str) -> None:
        self.offences.append(Offence(path, operation, reason))

    def _refuse_call(self, call: Call, reason: str) -> Known:
        path, operation = call.name, getattr(call.target, "__name__", str(call.target))
        module = self._module(call)
        if module is not None:
            path, operation = str(call.target), type(module).__name__
        self._refuse(path, operation, reason)
        return None


def _is_even(values: Tensor) -> bool:
    """Whether values ``[C, ...]`` are the same at all places of a channel."""
    flat = rows(values)
    return bool((flat == flat[:, :1]).all())


def _sizes(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)


def _takes_integers(run: Callable[[Tensor], Any], x: Tensor) -> bool:
    """Whether an operation takes integers of all sizes."""
    try:
        for dtype in (torch.int8, torch.int32, torch.int64):
            run(x.to(dtype))
    except (RuntimeError, TypeError):  # NotImplementedError is a RuntimeError
        return False
    return True
