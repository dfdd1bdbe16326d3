"""Describes a spiking network by JSON and tensors, and builds the network from them again."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..module_paths import put_at_path
from ..network.bounds import renew_bounds
from ..network.interpret import Interpreter, Values
from ..network.program import STEPS, Call, Fire, Program, RunningMax, Step
from ..network.spiking import SpikingNetwork
from ..nn import SNMNeuron
from ..nn.integer import (
    IntegerConv,
    IntegerLinear,
    IntegerNeuron,
    IntegerReadout,
    IntegerScale,
    IntegerSumPool,
    Pixels,
)
from ..nn.small_maps import SmallMapConv2d
from .as_json import (
    MODULES,
    Refusal,
    arguments_of,
    described,
    entries,
    fits,
    from_json,
    made,
    to_json,
)

_GIVEN = ("model", "program")
"""The arguments of a network's constructor that are not settings."""
SETTINGS = (
    *("image_shape", "fixed_size", "dtype", "encoder", "readout", "tracer", "origin", "dead"),
    *("chunk_steps", "tuned_for", "tuning", "events"),
)
"""The settings of a network, which a file holds besides its modules and its program: arguments of
the constructor, which are attributes too. Files of format 1 have these and ``preprocessing``."""
_BESIDE = "preprocessing"
"""The setting that is not an argument of the constructor, but text that the network keeps."""
_NO_ARGUMENTS = ("device", "dtype")
"""The arguments of a layer's constructor that files do not hold."""
_TENSORS: dict[type[nn.Module], dict[str, torch.dtype]] = {
    SNMNeuron: {"threshold": torch.float32, "bias": torch.float32},
    IntegerNeuron: {"threshold": torch.int32, "bias": torch.int32},
    IntegerConv: {"weight": torch.int8, "bias": torch.int32},
    IntegerLinear: {"weight": torch.int8, "bias": torch.int32},
    IntegerSumPool: {},
    IntegerScale: {"factor": torch.int32},
    IntegerReadout: {"unit": torch.float64},
    Pixels: {"step": torch.float64, "zero": torch.float64},
}
"""The arguments of this package's layers that are tensors, and their dtypes."""
_OPTIONAL = ("bias", "zero")
"""Those of them that may be missing."""
_NEURONS = (SNMNeuron, IntegerNeuron)
_CALLED: dict[str, type[nn.Module]] = {
    **MODULES,
    "SmallMapConv2d": SmallMapConv2d,
    **{cls.__name__: cls for cls in _TENSORS if cls not in _NEURONS},
}
"""The layers that a program in a file may call, by the name of their class."""
_LAYERS: dict[str, type[nn.Module]] = {**_CALLED, **{cls.__name__: cls for cls in _NEURONS}}
"""The layers that a file may hold, by the name of their class."""


class Blueprint(NamedTuple):
    """A spiking network taken apart into JSON and tensors."""

    graph: dict[str, Any]
    """JSON of the program, the constructor's other arguments and the modules, and of where each
    parameter and buffer lies in ``tensors``, with its strides unless it is contiguous."""
    tensors: dict[str, Tensor]
    """The tensors by name, contiguous, on the CPU, none sharing memory with another."""


def blueprint_of(net: SpikingNetwork) -> Blueprint:
    """Describes a network by JSON and tensors.

    Raises:
        Refusal: the network holds something that files cannot hold.
    """
    modules, places = {}, {}
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    for path, module in net.model.named_modules(remove_duplicate=False):
        _check_plain(path, module)
        if type(module) is not nn.Module:
            modules[path] = {"class": type(module).__name__, "arguments": _arguments(module)}
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, tensor in own:
            if name in module._non_persistent_buffers_set:
                continue
            full = _joined(path, name)
            if id(tensor) not in names:
                names[id(tensor)] = full
                tensors[full] = _stored(full, tensor)
            places[full] = {
                "tensor": names[id(tensor)],
                "parameter": isinstance(tensor, nn.Parameter),
                "stride": _stride(tensor),
            }
    graph = {
        "program": to_json(net.program),
        "settings": {name: to_json(getattr(net, name)) for name in (*SETTINGS, _BESIDE)},
        "modules": modules,
        "tensors": places,
    }
    return Blueprint(graph, tensors)


def build(graph: Any, tensors: Mapping[str, Tensor], device: torch.device) -> SpikingNetwork:
    """Builds the network that :func:`blueprint_of` described.

    Args:
        graph: JSON from any source; all of it is checked.
        tensors: the tensors by name, on the CPU; the network may share memory with them.
        device: where the network is to be.

    Raises:
        Refusal: the graph does not describe a network.
    """
    parts = entries(graph, "the graph")
    if set(parts) != {"program", "settings", "modules", "tensors"}:
        raise Refusal(f"the graph has the parts {sorted(parts)}")
    values = _laid_out(parts["tensors"], tensors, device)
    layers = nn.Module()
    owned: dict[str, dict[str, Tensor]] = {}
    for path, value in values.items():
        owner, _, name = path.rpartition(".")
        owned.setdefault(owner, {})[name] = value
    for path, raw in entries(parts["modules"], "modules").items():
        _hold(layers, path, _module(path, raw, owned.pop(path, {})))
    for owner, own in owned.items():
        for name, value in own.items():
            _hold(layers, _joined(owner, name), value)
    program = from_json(parts["program"])
    if not isinstance(program, Program):
        raise Refusal(f"the program is {described(program)}")
    given = dict(entries(parts["settings"], "settings"))
    beside = given.pop(_BESIDE, "")
    settings = arguments_of(SpikingNetwork, given, _GIVEN)
    net: SpikingNetwork = made(SpikingNetwork, settings, layers.eval(), program)
    if not isinstance(beside, str):
        raise Refusal(f"{_BESIDE} cannot be {described(beside)}")
    net.preprocessing = beside
    if net.integers and not all(isinstance(n, IntegerNeuron) for n in net.layers.values()):
        raise Refusal("some of its neurons are of integers, others are not")
    _Check(net).check()
    if net.integers:
        # What a file says of bounds is not believed.
        offences = renew_bounds(net.program, net.model)
        if offences:
            raise Refusal(f"{offences[0]}")
    return net


def _joined(path: str, name: str) -> str:
    """The path of what a module holds under a name."""
    return f"{path}.{name}" if path else name


def _check_plain(path: str, module: nn.Module) -> None:
    """Refuses a module that is not one of the layers of files, or whose forward is changed."""
    kind = type(module)
    if kind is not nn.Module and _LAYERS.get(kind.__name__) is not kind:
        raise Refusal(
            f"{path}: {kind.__name__}: is none of the layers that a file may hold; apply it to "
            "the images before the network"
        )
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        raise Refusal(f"{path}: {kind.__name__}: has forward hooks; remove them first")


def _arguments(module: nn.Module) -> dict[str, Any]:
    """The arguments of a module's constructor that are not tensors, as JSON. For torch's layers
    those with their default are left out, as older versions of torch need not know them."""
    arguments = {}
    ours = _TENSORS.get(type(module))
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if name in (ours or {}):
            continue
        value = None if name in _NO_ARGUMENTS else getattr(module, name)
        if name == "bias":
            value = value is not None
        usual = type(value) is type(parameter.default) and value == parameter.default
        if name in _NO_ARGUMENTS or isinstance(value, Tensor):
            continue
        if not usual or ours is not None:
            arguments[name] = to_json(value)
    return arguments


def _stored(name: str, tensor: Tensor) -> Tensor:
    """A copy of a tensor as files hold it, contiguous and on the CPU."""
    if tensor.is_meta or tensor.layout is not torch.strided:
        raise Refusal(f"{name} is on device {tensor.device} in layout {tensor.layout}")
    return tensor.detach().to("cpu", copy=True).contiguous()


def _stride(tensor: Tensor) -> list[int] | None:
    """The strides of a tensor that is dense but not contiguous; None for any other tensor."""
    usual = torch.empty(tensor.shape, device="meta").stride()
    unusual = tensor.stride() != usual and _is_dense(tensor.shape, tensor.stride())
    return list(tensor.stride()) if unusual else None


def _is_dense(shape: Iterable[int], stride: Iterable[int]) -> bool:
    """Whether elements with these strides fill their memory, in whatever order of dimensions."""
    expected = 1
    for step, size in sorted(
        (step, size) for step, size in zip(stride, shape, strict=True) if size != 1
    ):
        if step != expected:
            return False
        expected *= size
    return True


def _laid_out(
    places: Any, tensors: Mapping[str, Tensor], device: torch.device
) -> dict[str, Tensor]:
    """The parameters and buffers by path, each in its memory format.

    Args:
        places: JSON that says for each path which tensor it is, and how it is laid out.
        tensors: the tensors by name.
        device: where they are to be.
    """
    found: dict[str, Tensor] = {}
    made_of: dict[str, Tensor] = {}
    for path, raw in entries(places, "tensors").items():
        place = entries(raw, path)
        name, is_parameter = place.get("tensor"), place.get("parameter")
        if not isinstance(name, str) or name not in tensors or not isinstance(is_parameter, bool):
            raise Refusal(f"{path} is to be {described(place)}, which the file does not hold")
        # Parameters that shared memory share it again.
        key = f"{place}"
        if key not in made_of:
            value = _restrided(path, tensors[name], place.get("stride")).to(device)
            made_of[key] = nn.Parameter(value, requires_grad=False) if is_parameter else value
        found[path] = made_of[key]
    unused = set(tensors) - {place["tensor"] for place in places.values()}
    if unused:
        raise Refusal(f"nothing reads the tensors {sorted(unused)}")
    return found


def _restrided(path: str, tensor: Tensor, stride: Any) -> Tensor:
    """A tensor with the strides that JSON says, or as it is where that says none."""
    if stride is None:
        return tensor
    valid = isinstance(stride, list) and all(type(s) is int and 0 <= s < 2**62 for s in stride)
    if not valid or len(stride) != tensor.dim() or not _is_dense(tensor.shape, stride):
        raise Refusal(f"{path} cannot have the strides {described(stride)}")
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)


def _module(path: str, raw: Any, own: dict[str, Tensor]) -> nn.Module:
    """A layer made from JSON, with its own parameters and buffers."""
    entry = entries(raw, path)
    cls = _LAYERS.get(str(entry.get("class")))
    if cls is None or set(entry) != {"class", "arguments"}:
        raise Refusal(f"{path} is {described(entry)}, which is none of the layers of a file")
    try:
        return _ours(cls, entry["arguments"], own) if cls in _TENSORS else _layer(cls, entry, own)
    except Refusal as refusal:
        raise Refusal(f"{path}: {refusal}") from refusal


def _ours(cls: type[nn.Module], raw: Any, own: dict[str, Tensor]) -> nn.Module:
    """A layer of this package, from JSON of its arguments and its own tensors."""
    dtypes = _TENSORS[cls]
    needed = dtypes.keys() - _OPTIONAL
    known = needed <= own.keys() <= dtypes.keys()
    if not known or any(tensor.dtype != dtypes[name] for name, tensor in own.items()):
        typed = {name: f"a {name} in {_short(dtype)}" for name, dtype in dtypes.items()}
        must = " and ".join(typed[name] for name in dtypes if name in needed) or "no tensors"
        may = "".join(f", and may have {typed[name]}" for name in dtypes if name not in needed)
        got = [f"{name} in {_short(tensor.dtype)}" for name, tensor in sorted(own.items())]
        raise Refusal(f"{cls.__name__} must have {must}{may}, got {got}")
    arguments = arguments_of(cls, raw, dtypes)
    missing = dict.fromkeys(dtypes.keys() - own.keys())
    module: nn.Module = made(cls, {**arguments, **missing, **own})
    return module


def _layer(cls: type[nn.Module], entry: dict[str, Any], own: dict[str, Tensor]) -> nn.Module:
    """A layer of torch, from JSON of its arguments and its own tensors."""
    arguments = {}
    for name, content in entries(entry["arguments"], "arguments").items():
        arguments[name] = from_json(content)
        if name in _NO_ARGUMENTS or not fits(arguments[name], Any):
            raise Refusal(f"{cls.__name__} cannot have {described(arguments[name])} as {name}")
    with torch.device("meta"):
        module: nn.Module = made(cls, arguments)
    slots = {**module._parameters, **module._buffers}
    expected = {name: slot for name, slot in slots.items() if slot is not None}
    if set(expected) != set(own):
        raise Refusal(f"{cls.__name__} has the tensors {sorted(expected)}, got {sorted(own)}")
    for name, slot in expected.items():
        same_kind = isinstance(slot, nn.Parameter) == isinstance(own[name], nn.Parameter)
        if not same_kind or own[name].shape != slot.shape:
            raise Refusal(f"{name} must be {list(slot.shape)}, got {list(own[name].shape)}")
        setattr(module, name, own[name])
    return module


def _short(dtype: torch.dtype) -> str:
    """The name of a dtype, such as ``"float32"``."""
    return str(dtype).removeprefix("torch.")


def _hold(layers: nn.Module, path: str, value: nn.Module | Tensor) -> None:
    """Puts a module or tensor at its path, in plain modules made for it."""
    try:
        put_at_path(layers, path, value)
    except KeyError as error:
        raise Refusal(f"{path!r} cannot be the path of a module or tensor") from error


class _Check(Interpreter):
    """Refuses a program that cannot be executed, as it uses anything but the layers, neurons and
    tensors of its network, or reads a value before it is made or after it is freed.

    Nothing is computed: of the values only the names are known.
    """

    def __init__(self, net: SpikingNetwork) -> None:
        super().__init__(net.program, net.model)
        self.net = net
        self.modules = dict(net.model.named_modules())
        self.tensors = {
            name
            for named in (net.model.named_parameters, net.model.named_buffers)
            for name, _ in named(remove_duplicate=False)
        }
        self.fires = {fire.name for fire in net.program.neurons}

    def check(self) -> None:
        """Goes through all three parts of the program; raises a :class:`Refusal` if one fails."""
        program = self.program
        if program.images_change != (self.net.encoder != "direct"):
            raise Refusal(f"the program is not made for encoder={self.net.encoder!r}")
        values: Values = {program.batch: None}
        if not program.images_change:
            values[program.images] = None
        constant = self.execute_static(values)
        self.execute_temporal({**constant, program.images: None})
        read_out = {fire.name: None for fire in program.neurons if fire.read_out}
        means = constant | read_out
        if program.averages_images:
            means[program.images] = None
        if self.net.integers:
            means[STEPS] = None
        made = self.execute_tail(means)
        if program.output not in (read_out if self.net.readout == "count" else made):
            raise Refusal(f"nothing makes the output {program.output!r}")

    def execute(self, step: Step, values: Values) -> None:
        """Checks that what a step reads is there, and that the program says what it frees."""
        missing = set(step.reads) - set(values)
        if missing:
            raise Refusal(f"{step.name} reads {sorted(missing)}, which no step before it makes")
        if self.part != "tail" and step.name not in self.program.frees:
            raise Refusal(f"the program does not say what {step.name} frees")
        super().execute(step, values)

    def call(self, call: Call, values: Values) -> None:  # noqa: ARG002
        """Checks that the network has the layer or tensor that is called."""
        known = True
        if call.kind == "module":
            known = type(self.modules.get(str(call.target))) in _CALLED.values()
        elif call.kind == "attribute":
            known = call.target in self.tensors
        self._require(call, known)

    def pool(self, step: RunningMax, values: Values) -> None:  # noqa: ARG002
        """Checks that a max pooling counts the spikes of layers of neurons."""
        self._require(step, self.fires.issuperset(step.fires))

    def fire(self, fire: Fire, values: Values) -> None:
        """Checks that the network has the layer of neurons."""
        self._require(fire, isinstance(self.modules.get(fire.path), SNMNeuron))
        if fire.reuses_drive:
            del values[fire.drive]
        if fire.sends:
            values[fire.name] = None
        if fire.pooled:
            values[fire.spikes] = None

    def _require(self, step: Step, known: bool) -> None:
        """Refuses a step unless all that it uses is known."""
        if not known:
            raise Refusal(f"{step.name} reads or calls what is no part of the network")
