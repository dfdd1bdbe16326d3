"""Turns a spiking network into one of integers, whose layers and neurons compute exactly.

A value is integers that count a unit. Neurons send spikes, which are worth their thresholds; a
layer's weights take that in, and are rounded to whole parts of its own unit. That unit, one for
each output channel, is such a part of the threshold of the neurons that the layer drives that the
threshold comes out whole, and the largest weight as large as so many bits allow. All layers whose
results a sum adds up have the same.
"""

import copy
import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import Offence, refuse
from ..module_paths import put_at_path
from ..network.interpret import Values
from ..network.program import STEPS, Call, Fire, Program, Repeat, RunningMax, Step, Value, replaced
from ..network.run import Run
from ..network.spiking import SpikingNetwork
from ..nn.integer import (
    LARGEST_PIXEL,
    SILENT,
    IntegerConv,
    IntegerLinear,
    IntegerNeuron,
    IntegerReadout,
    IntegerScale,
    IntegerSumPool,
    Pixels,
    sum_pool,
)
from .faster import choose_paths
from .inputs import Progress, batches_of
from .lowering.layout import last_reads

_BITS = range(2, 9)
_FINEST = 2**20
"""The most parts that a threshold is divided into."""
_PIXELS = 255
"""How many steps lie between the smallest and the largest pixel."""
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_WATCHED = 8
"""How many images show shapes, and how many spikes there are."""
_CONVOLUTIONS = (F.conv1d, F.conv2d, torch.conv1d, torch.conv2d)


@torch.no_grad()
def quantize(
    net: SpikingNetwork,
    calibration: Tensor | Iterable[Any],
    *,
    bits: int = 8,
    pixels: tuple[Sequence[float], Sequence[float]] | None = None,
    progress: Progress | None = None,
) -> SpikingNetwork:
    """Turns a spiking network into one of integers, which gives the same bits everywhere.

    Weights are int8, with a scale for each output channel; thresholds, membranes and what drives
    neurons are int32; neurons send spikes. Between an image and the logits there is no floating
    point number, so no device, batch size, number of threads or of time steps at once changes a
    spike. Sums cannot overflow: their bounds are checked. Layers of spikes are computed spike by
    spike or densely, whichever was faster here on the calibration images; both give the same.

    Args:
        net: made with norm="channel" or "layer"; it is not changed. Tune it before.
        calibration: images ``[N, ...]`` as the network takes them, or batches of them. They show
            the range of the images, and how many spikes there are.
        bits: of the weights, 2 to 8; they are stored as int8.
        pixels: the mean and the standard deviation of each channel with which images are made of
            pixels, ``(pixel / 255 - mean) / std``; the network then takes uint8 images too, and
            of others knows exactly which pixels they are. None to divide the range of the
            calibration images, channel by channel, into 255 steps. Images are cut off at 512 steps
            on either side of 0.
        progress: wraps the calibration batches, as ``tqdm`` does.

    Returns:
        The integer network. It takes images of the same dtype, and of the size of those here where
            an adaptive pooling, a mean or a threshold of each neuron depends on it; its logits are
            float32.

    Raises:
        ConversionError: operations have no integer form, or thresholds differ within a channel that
            a convolution reads; it names each.
        ValueError: bits is out of range; calibration is empty, or has images of another size than
            the conversion's; or the network is one of integers.
        TypeError: an argument is of the wrong type.

    Source: integer arithmetic with a scale per channel: Jacob et al., "Quantization and Training of
    Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.

    >>> from snm import convert
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    >>> images = torch.rand(16, 1, 8, 8)
    >>> net = convert(model.eval(), images, preset="snm-zero", norm="channel")
    >>> integers = quantize(net, images)
    >>> integers.layers["1"].threshold.dtype
    torch.int32
    >>> (integers(images, timesteps=64) - net(images, timesteps=64)).abs().max() < 0.05
    tensor(True)
    """
    if type(net) is not SpikingNetwork:
        raise TypeError(f"quantize: net must be a SpikingNetwork, got {type(net).__name__}")
    if net.integers:
        raise ValueError("quantize: net is a network of integers already")
    if isinstance(bits, bool) or not isinstance(bits, int):
        raise TypeError(f"quantize: bits must be an integer, got {bits!r}")
    if bits not in _BITS:
        raise ValueError(f"quantize: bits must be 2 to 8, got {bits!r}")
    first, least, most = None, None, None
    for batch in batches_of(
        calibration, progress, net.device, net.dtype, "quantize", what="calibration"
    ):
        net.inputs.check(batch)
        if tuple(batch.shape[1:]) != net.image_shape:
            raise ValueError(
                f"quantize: calibration must be images of {list(net.image_shape)} each, as those "
                f"of the conversion, got {list(batch.shape[1:])}"
            )
        if len(batch) == 0:
            continue
        first = batch if first is None else first
        low, high = batch.transpose(0, 1).flatten(1).aminmax(dim=1)
        least = low if least is None else torch.minimum(least, low)
        most = high if most is None else torch.maximum(most, high)
    if first is None or least is None or most is None:
        raise ValueError("quantize: calibration must hold at least one image, got none")
    scale = _pixels(pixels, least.double(), most.double(), first)
    quantizer = _Quantizer(net, first[:_WATCHED], 2 ** (bits - 1) - 1, scale)
    made = quantizer.quantized(net)
    made.preprocessing = net.preprocessing
    choose_paths(made, first[:_WATCHED])
    return made


def _pixels(
    given: tuple[Sequence[float], Sequence[float]] | None,
    least: Tensor,
    most: Tensor,
    images: Tensor,
) -> Pixels:
    """Makes integers of images; ``least`` and ``most`` are the values of each channel."""
    channels, device = images.shape[1], images.device
    if given is None:
        # Channels that lie far from 0 are divided into fewer steps, none of which is cut off.
        sizes = torch.maximum(most - least, torch.maximum(most, -least) / 2)
        return Pixels(torch.where(sizes > 0, sizes / _PIXELS, 1.0))
    try:
        mean, std = (torch.as_tensor(part, dtype=torch.float64, device=device) for part in given)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"quantize: pixels must be the mean and the std of each channel, got {given!r}"
        ) from error
    if mean.dim() != 1 or mean.shape != std.shape or len(mean) not in (1, channels):
        raise ValueError(
            f"quantize: pixels must be the mean and std of {channels} channels, "
            f"got {list(mean.shape)} and {list(std.shape)}"
        )
    if not bool((std > 0).all()):
        raise ValueError(f"quantize: pixels must have std > 0, got {std.tolist()}")
    zero = (mean * _PIXELS).expand(channels)
    return Pixels((1 / (_PIXELS * std)).expand(channels).contiguous(), zero)


@dataclass
class _Integers:
    """A value that counts a unit."""

    unit: Tensor
    """float64, of the shape of one image's value."""
    largest: int
    """The largest amount that an element has at a time step, before pooling."""
    source: str
    """The name of the step that makes it, in the new program."""
    pool: tuple[int, ...] = ()
    """The windows over which whoever reads it has to sum it."""
    rest: Tensor | None = None
    """What has to be added to every element, in the units of the model; None for nothing."""


@dataclass
class _Layer:
    """A convolution or linear layer whose unit is not known yet."""

    path: str
    weight: Tensor
    """float64, the unit of what it reads taken in."""
    bias: Tensor
    """float64 ``[K]``."""
    places: tuple[Any, ...]
    """Stride, padding, dilation, groups and pool; none for a linear layer."""
    largest: int
    made: IntegerConv | None = None
    unit: Tensor | None = None
    """The unit of its sums, float64 ``[K]``, once it is known."""


@dataclass
class _Scaled:
    """Spikes that a sum adds as they are."""

    path: str
    worth: Tensor
    """What a spike is worth, float64 ``[K]``."""
    largest: int
    unit: Tensor | None = None
    """As a layer's."""


@dataclass
class _Sum:
    """What is to have the unit of the neurons that it drives."""

    terms: list[_Layer | _Scaled]
    source: str
    shape: torch.Size
    """Of one image's value."""


_Known = _Integers | _Sum | None
"""What is known of a value; None if what makes it is refused."""


class _Quantizer(Run):
    """Follows units through a simulation of one time step, and writes down the integer program."""

    def __init__(self, net: SpikingNetwork, images: Tensor, limit: int, pixels: Pixels) -> None:
        program = net.program
        self.limit = limit
        """The largest weight."""
        self.known: dict[str, _Known] = {}
        self.offences: list[Offence] = []
        self.fixed_size = False
        """Whether there is something that fits images of the calibrated size only."""
        self.layers = nn.Module()
        self.steps_of: dict[str, list[Any]] = defaultdict(list)
        """The steps of each part of the new program."""
        self.renamed: dict[str, str] = {}
        self.readers: dict[str, list[Step]] = defaultdict(list)
        for step in program.steps:
            for name in step.reads:
                self.readers[name].append(step)
        self.used: set[str] = {fire.path for fire in program.neurons}
        self.reserved = {path for path, _ in net.model.named_modules()}
        """The model's own paths, which what is new here has to leave free."""
        self.random = torch.Generator().manual_seed(0)
        shape = images.shape[1:]
        unit = pixels.step.double().view(-1, *[1] * (len(shape) - 1)).expand(shape)
        rest = pixels.rest.double().view(-1, *[1] * (len(shape) - 1)).expand(shape) * unit
        name = f"{program.images} pixels"
        self.renamed[program.images] = name
        self.known[program.images] = _Integers(unit, LARGEST_PIXEL, name, rest=rest)
        path = self._free("pixels")
        put_at_path(self.layers, path, pixels)
        self._pixels_call = Call(name, "module", path, (Value(program.images),))
        if program.images_change:
            self.steps_of["temporal"].append(self._pixels_call)
        else:
            self.steps_of["static"].append(self._pixels_call)
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
        made = self._program(output)
        return SpikingNetwork(
            self.layers.eval(),
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
            self._emit(replace(call, args=self._names(call.args), kwargs=self._names(call.kwargs)))
            return result
        inputs = [self.known[name] for name in call.reads if name in self.known]
        if any(known is None for known in inputs):
            self.known[call.name] = None
            return result
        self.known[call.name] = self._integer_form(call, values, result)
        return result

    def repeat(self, step: Repeat, values: Values) -> Tensor:
        """Repeats a value, which keeps its unit."""
        known = self.known[step.value]
        value = self.renamed.get(step.value, step.value)
        if known is not None:
            value = known.source
            known = replace(known, source=step.name)
        self._emit(Repeat(step.name, value))
        self.known[step.name] = known
        return super().repeat(step, values)

    def pool(self, step: RunningMax, values: Values) -> Tensor:
        """Pools spikes, which are worth the same in all of a channel."""
        pooled = super().pool(step, values)
        names = step.fires or (step.value,)
        parts = [self.known[name] for name in names]
        self.known[step.name] = None
        if any(part is None for part in parts):
            return pooled
        units = []
        for part in parts:
            if not isinstance(part, _Integers) or part.largest > 127 or part.rest is not None:
                self._refuse(step.path or step.name, "max pooling", "it pools what is no spikes")
                return pooled
            own = self._of_channels(part)
            if own is None:
                self._refuse(step.path or step.name, "max pooling", _PER_NEURON)
                return pooled
            units.append(own)
        unit = torch.cat(units).view(-1, *[1] * (pooled.dim() - 2)).expand(pooled.shape[1:])
        largest = max(part.largest for part in parts if isinstance(part, _Integers))
        self._emit(step)
        self.known[step.name] = _Integers(unit, largest, step.name)
        return pooled

    def fire(self, fire: Fire, values: Values) -> None:
        """Gives what drives neurons their unit, and makes integer neurons of them."""
        shape = torch.Size(values[fire.drive].shape[1:])
        neuron = self.neuron(fire)
        super().fire(fire, values)
        names = [fire.drive, *([] if fire.residual is None else [fire.residual])]
        parts = [self._summed(name, fire) for name in names]
        theta = neuron.threshold.double()
        full = theta.view((1,) * (len(shape) - theta.dim()) + theta.shape).expand(shape)
        finite = _rows(torch.where(full.isinf(), 0.0, full)).amax(1)
        worth = torch.where(full.isinf(), _spread(finite, full), full)
        sent = _Integers(worth, neuron.rule.max_spikes, fire.name)
        self.known[fire.name] = self.known[fire.spikes] = sent
        if any(part is None for part in parts):
            return
        terms = [term for part in parts if part is not None for term in part.terms]
        unit = self._unit(terms, finite)
        bound = sum(self._settle(term, unit, finite > 0) for term in terms)
        one = _spread(unit, full)
        own = (full / one).round().clamp(1, 2**24 - 1)
        threshold = torch.where(full.isinf(), float(SILENT), own).to(torch.int32)
        shared = _rows(threshold)
        if bool((shared == shared[:, :1]).all()):
            threshold = shared[:, :1].view(-1, *[1] * (len(shape) - 1))
        bias = None
        if neuron.bias is not None:
            added = neuron.bias.double()
            added = added.view((1,) * (len(shape) - added.dim()) + added.shape)
            bias = added / (one if _rows(added).shape[1] > 1 else _spread(unit, added))
            bias = bias.round().clamp(-SILENT, SILENT)
            bound += int(bias.abs().max())
            bias = bias.to(torch.int32)
        made = IntegerNeuron(threshold, neuron.rule, bias=bias, bound=bound, backend=neuron.backend)
        if made.most_steps < _WATCHED:
            reason = f"what drives them could leave int32 within {_WATCHED} time steps"
            self._refuse(fire.path, "neurons", reason)
        self.fixed_size |= fire.per_neuron
        put_at_path(self.layers, fire.path, made)
        sources = [part.source for part in parts if part is not None]
        constant = [fire.constant_drive, fire.constant_residual]
        if len(parts) == 2 and isinstance(parts[0].terms[0], _Scaled):  # type: ignore[union-attr]
            sources.reverse()
            constant.reverse()
        self._emit(
            replace(
                fire,
                drive=sources[0],
                constant_drive=constant[0],
                residual=sources[1] if len(sources) > 1 else None,
                constant_residual=constant[1],
                reuses_drive=False,
                cap=tuple((c / unit[i % len(unit)].item()) for i, c in enumerate(fire.cap)),
            )
        )

    # --- operations ---

    def _integer_form(self, call: Call, values: Values, result: Tensor) -> _Known:
        """Writes down the integer form of an operation; returns what is known of its result."""
        weighted = self._weighted(call, values)
        if weighted is not None:
            return self._convolve(call, result, *weighted)
        names = [name for name in call.reads if isinstance(values.get(name), Tensor)]
        if any(name not in self.known for name in names):
            return self._refuse_call(call, "it reads a constant, which has no unit")
        sums = call.target in _ADDITIONS or (call.kind == "method" and call.target == "add")
        if sums and len(names) == 2 and len(call.args) == 2 and not call.kwargs:
            return self._add(call, names, result)
        if len(names) == 1:
            return self._of_one(call, names[0], values, result)
        return self._joined(call, names, values)

    def _weighted(self, call: Call, values: Values) -> tuple[str, Tensor, Any, Any] | None:
        """The name of what a convolution or linear layer reads, its weight, bias and places."""
        if call.kind == "module":
            module = self.model.get_submodule(str(call.target))
            if isinstance(module, nn.Linear):
                return call.reads[0], module.weight, module.bias, ()
            if isinstance(module, nn.Conv1d | nn.Conv2d) and module.padding_mode == "zeros":
                places = (module.stride, module.padding, module.dilation, module.groups)
                return call.reads[0], module.weight, module.bias, places
            return None
        if call.target not in (F.linear, *_CONVOLUTIONS):
            return None

        def fetch(part: Any) -> Any:
            return values[part.name] if isinstance(part, Value) else part

        given = dict(zip(_PARAMETERS, replaced(call.args, fetch), strict=False))
        given |= replaced(dict(call.kwargs or {}), fetch)
        geometry: tuple[Any, ...] = ()
        if call.target is not F.linear:
            defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
            geometry = tuple(given.get(name, default) for name, default in defaults.items())
        return call.reads[0], given["weight"], given.get("bias"), geometry

    def _convolve(
        self, call: Call, result: Tensor, name: str, weight: Tensor, bias: Any, places: Any
    ) -> _Known:
        """A layer with weights: they take in the unit of what it reads."""
        x = self._counted(name)
        dims = weight.dim() - 2
        if x is None:
            return None
        if x.unit.dim() != dims + 1:
            return self._refuse_call(call, "it is applied to more than one vector of an image")
        own = self._of_channels(x) if dims else x.unit
        if own is None:
            return self._refuse_call(call, _PER_NEURON)
        geometry: tuple[Any, ...] = ()
        groups = 1
        if dims:
            stride, padding, dilation, groups = places
            if isinstance(padding, str):
                return self._refuse_call(call, f"its padding is {padding!r}; give it as numbers")
            sizes = [_sizes(each, dims) for each in (stride, padding, dilation)]
            geometry = (*sizes, groups, (1,) * (2 - len(x.pool or (1,) * dims)) + x.pool or (1, 1))
        outputs = weight.shape[0]
        scale = own.view(groups, 1, -1).expand(groups, outputs // groups, -1)
        scale = scale.reshape(outputs, -1, *[1] * dims)
        added = torch.zeros(outputs, dtype=torch.float64, device=weight.device)
        if bias is not None:
            added = bias.double()
        if x.rest is not None:
            rest = x.rest.reshape(x.rest.shape[0], -1)[:, 0].view(groups, 1, -1)
            rest = rest.expand(groups, outputs // groups, -1).reshape(outputs, -1, *[1] * dims)
            added = added + (weight.double() * rest).flatten(1).sum(1)
        is_module = call.kind == "module"
        path = self._free(str(call.target) if is_module else call.name, own=is_module)
        layer = _Layer(path, weight.double() * scale, added, geometry, x.largest)
        put_at_path(self.layers, path, nn.Identity())
        args: tuple[Any, ...] = (Value(x.source),)
        if self.part == "tail":
            args = (*args, Value(STEPS))
        self._emit(Call(call.name, "module", path, args))
        made = _Sum([layer], call.name, torch.Size(result.shape[1:]))
        self.known[call.name] = made
        return self._counted(call.name) if self.part == "tail" else made

    def _add(self, call: Call, names: list[str], result: Tensor) -> _Known:
        """A sum: all its parts are to have the same unit."""
        if self.part == "tail":
            return self._refuse_call(call, "sums behind the last neurons have no common unit")
        parts = [self._summed(name, call) for name in names]
        if any(part is None for part in parts):
            return None
        terms = [term for part in parts if part is not None for term in part.terms]
        sources = tuple(Value(part.source) for part in parts if part is not None)
        self._emit(Call(call.name, "function", operator.add, sources))
        return _Sum(terms, call.name, torch.Size(result.shape[1:]))

    def _of_one(self, call: Call, name: str, values: Values, result: Tensor) -> _Known:
        """An operation on one value: a rearrangement or an average, as random numbers tell."""
        known = self.known[name]
        given = values[name]
        x = torch.randint(-99, 100, given.shape, generator=self.random).to(given)
        y = torch.randint(1, 100, given.shape, generator=self.random).to(given)

        def run(value: Tensor) -> Tensor:
            made = super(_Quantizer, self).call(call, {**values, name: value})
            assert isinstance(made, Tensor)
            return made

        # It keeps products, sums and halves: what cuts off, rounds or squares does not.
        rearranges = torch.equal(run(x * y), run(x) * run(y))
        rearranges = rearranges and torch.equal(run(x + y), run(x) + run(y))
        rearranges = rearranges and torch.equal(run(x / 2), run(x) / 2)
        if rearranges and _takes_integers(run, x):
            if isinstance(known, _Sum):
                if not torch.equal(run(x), x):
                    return self._refuse_call(call, "it rearranges what drives neurons")
                self._emit_as_is(call)
                return replace(known, source=call.name)
            assert known is not None
            self._emit_as_is(call)
            unit, rest = (
                None if part is None else run(part.to(given).expand(given.shape))[0].double()
                for part in (known.unit, known.rest)
            )
            assert unit is not None
            return _Integers(unit, known.largest, call.name, rest=rest)
        counted = self._counted(name)
        # Of fractions, for what rounds is no average.
        window = _averaged(x / 8, run(x / 8))
        if counted is None:
            return None
        if window is None:
            return self._refuse_call(call, "it has no integer form")
        return self._average(call, counted, window, result)

    def _average(self, call: Call, x: _Integers, window: tuple[int, ...], result: Tensor) -> _Known:
        """An average over windows: a sum whose factor is in the unit."""
        own = self._of_channels(x)
        if own is None:
            return self._refuse_call(call, _PER_NEURON)
        count = math.prod(window)
        unit = (own / count).view(-1, *[1] * (result.dim() - 2)).expand(result.shape[1:])
        rest = None
        if x.rest is not None:
            rest = x.rest.flatten(1)[:, 0].view(-1, *[1] * (result.dim() - 2))
            rest = rest.expand(result.shape[1:])
        if not self._is_pooling(call):
            # Elsewhere windows depend on the size.
            self.fixed_size = True
        readers = self.readers[call.name]
        layers = all(isinstance(step, Call) and self._is_conv(step) for step in readers)
        same_dims = result.dim() == x.unit.dim() + 1
        spikes = self.part == "temporal" and x.largest < LARGEST_PIXEL
        if layers and spikes and not x.pool and same_dims:
            return _Integers(unit, x.largest, x.source, pool=window, rest=rest)
        path = self._free(call.name)
        wide = self.part != "tail" and x.largest * count > 127
        put_at_path(self.layers, path, IntegerSumPool(window, flat=not same_dims, wide=wide))
        self._emit(Call(call.name, "module", path, (Value(x.source),)))
        return _Integers(unit, x.largest * count, call.name, rest=rest)

    def _joined(self, call: Call, names: list[str], values: Values) -> _Known:
        """An operation that puts several values together, such as a concatenation."""
        parts = [self._counted(name) for name in names]
        if any(part is None for part in parts):
            return None
        own = {name: values[name] for name in names}

        def drawn(low: int) -> dict[str, Tensor]:
            return {
                name: torch.randint(low, 100, given.shape, generator=self.random).to(given)
                for name, given in own.items()
            }

        def run(made: dict[str, Tensor]) -> Tensor:
            joined = super(_Quantizer, self).call(call, {**values, **made})
            assert isinstance(joined, Tensor)
            return joined

        x, y = drawn(-99), drawn(1)
        both = {name: x[name] * y[name] for name in names}
        if not torch.equal(run(both), run(x) * run(y)) or any(
            part is not None and part.rest is not None for part in parts
        ):
            return self._refuse_call(call, "it has no integer form")
        self._emit_as_is(call)
        units = {
            name: part.unit.to(own[name]).expand(own[name].shape)
            for name, part in zip(names, parts, strict=True)
            if part is not None
        }
        largest = max(part.largest for part in parts if part is not None)
        return _Integers(run(units)[0].double(), largest, call.name)

    # --- units ---

    def _unit(self, terms: list[_Layer | _Scaled], thresholds: Tensor) -> Tensor:
        """The unit of a sum, float64 ``[K]``, for neurons of these thresholds, 0 if silent."""
        most = torch.zeros_like(thresholds)
        for term in terms:
            if isinstance(term, _Layer):
                most = torch.maximum(most, term.weight.abs().flatten(1).amax(1))
        fits = thresholds * self.limit / torch.where(most > 0, most, 1.0)
        parts = torch.where(most > 0, fits.floor(), float(_FINEST)).clamp(max=_FINEST)
        coarse = torch.where(most > 0, most / self.limit, 1.0)
        fine = (parts >= 1) & (thresholds > 0)
        return torch.where(fine, thresholds / parts.clamp(min=1), coarse)

    def _settle(self, term: _Layer | _Scaled, unit: Tensor, fires: Tensor | None = None) -> int:
        """Makes the integers of a sum's term; returns the largest amount that it adds.

        Args:
            term: what the sum adds.
            unit: that of the sum, float64 ``[K]``.
            fires: which channels ever fire; None if all do.
        """
        if term.unit is not None and not torch.equal(term.unit, unit):
            reason = "its result drives neurons that need it in different units"
            self._refuse(term.path, "layer" if isinstance(term, _Layer) else "sum", reason)
            return 0
        term.unit = unit
        if isinstance(term, _Scaled):
            factor = (term.worth / unit).round()
            factor = factor if fires is None else torch.where(fires, factor, 0.0)
            if bool((factor.abs() >= 2**31).any()):
                self._refuse(term.path, "sum", "its spikes are too large for int32")
                factor = torch.zeros_like(factor)
            put_at_path(self.layers, term.path, IntegerScale(factor.to(torch.int32)))
            return int(factor.abs().max()) * term.largest
        behind = [1] * (term.weight.dim() - 1)
        weight = (term.weight / unit.view(-1, *behind)).round().clamp(-self.limit, self.limit)
        bias = (term.bias / unit).round()
        if bool((bias.abs() >= 2**31).any()):
            self._refuse(term.path, "layer", "its bias is too large for int32 in units of a weight")
            bias = torch.zeros_like(bias)
        own = None if not bool(bias.any()) else bias.to(torch.int32)
        whole = weight.to(torch.int8)
        if term.places:
            term.made = IntegerConv(whole, own, *term.places, largest=term.largest)
        else:
            term.made = IntegerLinear(whole, own, largest=term.largest)
        if self.part == "tail" and term.made.exact_steps < _WATCHED:
            reason = f"its sums could leave 2**53 within {_WATCHED} time steps"
            self._refuse(term.path, "layer", reason)
        put_at_path(self.layers, term.path, term.made)
        return term.made.sums

    def _counted(self, name: str) -> _Integers | None:
        """What is known of a value that is read by what does not drive neurons."""
        known = self.known[name]
        if not isinstance(known, _Sum):
            return known
        if len(known.terms) > 1 or isinstance(known.terms[0], _Scaled):
            self._refuse(name, "sum", "its sum is read by what is no neuron")
            self.known[name] = None
            return None
        term = known.terms[0]
        if term.made is not None:
            self._refuse(term.path, "layer", "its result drives neurons, and is read otherwise too")
            return None
        unit = term.weight.abs().flatten(1).amax(1) / self.limit
        unit = torch.where(unit > 0, unit, term.bias.abs() / _FINEST)
        unit = torch.where(unit > 0, unit, 1.0)
        self._settle(term, unit)
        assert term.made is not None
        spread = unit.view(-1, *[1] * (len(known.shape) - 1)).expand(known.shape)
        found = _Integers(spread, term.made.sums, known.source)
        self.known[name] = found
        return found

    def _summed(self, name: str, reader: Step) -> _Sum | None:
        """What is known of a value that is added up; spikes get a factor of their own."""
        known = self.known[name]
        if known is None or isinstance(known, _Sum):
            return known
        own = self._of_channels(known)
        if own is None:
            self._refuse(name, "sum", _PER_NEURON)
            return None
        path = self._free(f"{reader.name}_{name}_scale")
        put_at_path(self.layers, path, nn.Identity())
        scaled = f"{name} for {reader.name}"
        self._emit(Call(scaled, "module", path, (Value(known.source),)))
        term = _Scaled(path, own, known.largest)
        return _Sum([term], scaled, torch.Size(known.unit.shape))

    def _of_channels(self, known: _Integers) -> Tensor | None:
        """The unit of each channel; None if it differs between places."""
        flat = known.unit.reshape(known.unit.shape[0], -1)
        return flat[:, 0] if bool((flat == flat[:, :1]).all()) else None

    # --- the new program ---

    def _read_out(self, output: str) -> str:
        """Appends what makes logits; returns the name of the output."""
        known = self._counted(output)
        if known is None:
            return output
        path = self._free("readout")
        own, unit = self._of_channels(known), known.unit.contiguous()
        if own is not None:
            unit = own.reshape(-1, *[1] * (unit.dim() - 1))
        put_at_path(self.layers, path, IntegerReadout(unit))
        name = f"{output} logits"
        self.part = "tail"
        self._emit(Call(name, "module", path, (Value(known.source), Value(STEPS))))
        return name

    def _program(self, output: str) -> Program:
        """The integer program."""
        static, temporal, tail = (self.steps_of[part] for part in ("static", "temporal", "tail"))
        kept = {name for step in (*temporal, *tail) for name in step.reads}
        return replace(
            self.program,
            static=tuple(static),
            temporal=tuple(temporal),
            tail=tuple(tail),
            output=output,
            frees=last_reads(static, kept) | last_reads(temporal, set()),
        )

    def _emit(self, step: Step) -> None:
        self.steps_of[self.part].append(step)

    def _emit_as_is(self, call: Call) -> None:
        """Writes down an operation that integers take as numbers do."""
        if call.kind == "module":
            path = str(call.target)
            put_at_path(self.layers, path, copy.deepcopy(self.model.get_submodule(path)))
        if call.kind == "method" and call.target == "view":
            # Layers may give sums in another memory format than the model's.
            call = replace(call, target="reshape")
        kwargs = None if call.kwargs is None else self._names(dict(call.kwargs))
        self._emit(replace(call, args=self._names(call.args), kwargs=kwargs))

    def _names(self, arguments: Any) -> Any:
        """A call's arguments with the names that values have in the new program."""

        def rename(part: Any) -> Any:
            if not isinstance(part, Value):
                return part
            known = self.known.get(part.name)
            return Value(part.name if known is None else known.source)

        return replaced(arguments, rename)

    def _is_conv(self, call: Call) -> bool:
        if call.kind == "module":
            module = self.model.get_submodule(str(call.target))
            return isinstance(module, nn.Conv1d | nn.Conv2d) and module.padding_mode == "zeros"
        return call.target in _CONVOLUTIONS

    def _is_pooling(self, call: Call) -> bool:
        """Whether a call is an average pooling over windows of a size of their own."""
        if call.kind == "module":
            module = self.model.get_submodule(str(call.target))
            return isinstance(module, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d)
        return call.target in (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)

    def _free(self, path: str, *, own: bool = False) -> str:
        """A path that no module has yet; ``own``: it is that of the module in the model."""
        path, number = path.replace(" ", "_"), 1
        found = path
        while found in self.used or (found in self.reserved and not (own and found == path)):
            number += 1
            found = f"{path}_{number}"
        self.used.add(found)
        return found

    def _refuse(self, path: str, operation: str, reason: str) -> None:
        self.offences.append(Offence(path, operation, reason))

    def _refuse_call(self, call: Call, reason: str) -> _Known:
        operation = getattr(call.target, "__name__", str(call.target))
        path = call.name
        if call.kind == "module":
            path = str(call.target)
            operation = type(self.model.get_submodule(path)).__name__
        self._refuse(path, operation, reason)
        return None


_PARAMETERS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_PER_NEURON = (
    "thresholds differ within a channel, which int8 weights cannot carry; convert with "
    "norm='channel' or 'layer'"
)


def _rows(values: Tensor) -> Tensor:
    """Values ``[C, ...]`` as ``[C, n]``."""
    return values.reshape(len(values), -1)


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """Values of channels as they broadcast to ``[C, ...]``."""
    return values.view(-1, *[1] * (like.dim() - 1))


def _sizes(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)


def _takes_integers(run: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether an operation takes integers of all sizes; an average over one place does not."""
    try:
        for dtype in (torch.int8, torch.int32, torch.int64):
            run(x.to(dtype))
    except (RuntimeError, TypeError):  # NotImplementedError is a RuntimeError
        return False
    return True


def _averaged(x: Tensor, made: Tensor) -> tuple[int, ...] | None:
    """The windows, side by side, over which a result is the average of x; None if it is not."""
    if x.dim() < 3 or made.shape[:2] != x.shape[:2]:
        return None
    sizes = made.shape[2:] or (1,) * (x.dim() - 2)
    if len(sizes) != x.dim() - 2 or any(
        out == 0 or out > size for out, size in zip(sizes, x.shape[2:], strict=True)
    ):
        return None
    window = tuple(size // out for out, size in zip(sizes, x.shape[2:], strict=True))
    average = sum_pool(x, window) / math.prod(window)
    if average.shape[2:] != torch.Size(sizes):
        return None
    return window if torch.allclose(average.view(made.shape), made, rtol=1e-3) else None
