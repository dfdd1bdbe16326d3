"""What a spiking network consists of, as JSON beside its tensors, and the network built of it."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..conversion.lowering.layout import reads
from ..network.program import Call, Fire, Program, RunningMax, Step
from ..network.spiking import SpikingNetwork
from ..nn import SNMNeuron
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
"""What a network's constructor gets that is no setting."""
SETTINGS = (
    *("image_shape", "fixed_size", "dtype", "encoder", "readout", "tracer", "origin", "dead"),
    *("chunk_steps", "tuned_for", "tuning", "preprocessing"),
)
"""What a file says of a network beside its modules and its program: arguments of its constructor,
which are attributes too. Files of format 1 have just these."""
_NO_ARGUMENTS = ("device", "dtype")
_OF_NEURONS = ("threshold", "bias")
"""What neurons have as tensors."""
_CALLED: dict[str, type[nn.Module]] = {**MODULES, "SmallMapConv2d": SmallMapConv2d}
_LAYERS: dict[str, type[nn.Module]] = {**_CALLED, "SNMNeuron": SNMNeuron}


class Blueprint(NamedTuple):
    """A network in two parts."""

    graph: dict[str, Any]
    """JSON: the program, the constructor's other arguments, the modules, and where each parameter
    and buffer lies in ``tensors``, with its strides if they are not those of a contiguous one."""
    tensors: dict[str, Tensor]
    """By name, contiguous, on the CPU, none sharing memory with another."""


def blueprint_of(net: SpikingNetwork) -> Blueprint:
    """Describes a network.

    Raises:
        Refusal: it holds what a file cannot.
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
        "settings": {name: to_json(getattr(net, name)) for name in SETTINGS},
        "modules": modules,
        "tensors": places,
    }
    return Blueprint(graph, tensors)


def build(graph: Any, tensors: Mapping[str, Tensor], device: torch.device) -> SpikingNetwork:
    """Builds the network that :func:`blueprint_of` described.

    Args:
        graph: JSON from anywhere; all of it is checked.
        tensors: on the CPU; the network may share memory with them.
        device: where the network is to be.

    Raises:
        Refusal: the graph is not that of a network.
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
    settings = arguments_of(SpikingNetwork, parts["settings"], _GIVEN)
    net: SpikingNetwork = made(SpikingNetwork, settings, layers.eval(), program)
    _check_paths(net)
    _check_values(net)
    return net


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _check_plain(path: str, module: nn.Module) -> None:
    kind = type(module)
    if kind is not nn.Module and _LAYERS.get(kind.__name__) is not kind:
        raise Refusal(
            f"{path}: {kind.__name__}: is none of the layers that a file may hold; apply it to "
            "the images before the network"
        )
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        raise Refusal(f"{path}: {kind.__name__}: has forward hooks; remove them first")


def _arguments(module: nn.Module) -> dict[str, Any]:
    """The arguments of a module's constructor that are no tensors; of torch's layers those that
    are not their defaults, which older versions of torch need not know."""
    arguments = {}
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if isinstance(module, SNMNeuron) and name in _OF_NEURONS:
            continue
        value = None if name in _NO_ARGUMENTS else getattr(module, name)
        if name == "bias":
            value = value is not None
        usual = type(value) is type(parameter.default) and value == parameter.default
        if name in _NO_ARGUMENTS or isinstance(value, Tensor):
            continue
        if not usual or isinstance(module, SNMNeuron):
            arguments[name] = to_json(value)
    return arguments


def _stored(name: str, tensor: Tensor) -> Tensor:
    if tensor.is_meta or tensor.layout is not torch.strided:
        raise Refusal(f"{name} is on device {tensor.device} in layout {tensor.layout}")
    return tensor.detach().to("cpu", copy=True).contiguous()


def _stride(tensor: Tensor) -> list[int] | None:
    """A tensor's strides if a contiguous one has others and its elements lie side by side."""
    usual = torch.empty(tensor.shape, device="meta").stride()
    unusual = tensor.stride() != usual and _is_dense(tensor.shape, tensor.stride())
    return list(tensor.stride()) if unusual else None


def _is_dense(shape: Iterable[int], stride: Iterable[int]) -> bool:
    """Whether elements lie side by side, in whatever order of dimensions."""
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
    """The parameters and buffers by path, each in its memory format."""
    found: dict[str, Tensor] = {}
    made_of: dict[str, Tensor] = {}
    for path, raw in entries(places, "tensors").items():
        place = entries(raw, path)
        name, is_parameter = place.get("tensor"), place.get("parameter")
        if not isinstance(name, str) or name not in tensors or not isinstance(is_parameter, bool):
            raise Refusal(f"{path} is to be {described(place)}, which the file does not hold")
        # What shared memory shares it again.
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
    if stride is None:
        return tensor
    valid = isinstance(stride, list) and all(type(s) is int and 0 <= s < 2**62 for s in stride)
    if not valid or len(stride) != tensor.dim() or not _is_dense(tensor.shape, stride):
        raise Refusal(f"{path} cannot have the strides {described(stride)}")
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)


def _module(path: str, raw: Any, own: dict[str, Tensor]) -> nn.Module:
    """A layer with its parameters and buffers."""
    entry = entries(raw, path)
    cls = _LAYERS.get(str(entry.get("class")))
    if cls is None or set(entry) != {"class", "arguments"}:
        raise Refusal(f"{path} is {described(entry)}, which is none of the layers of a file")
    try:
        return _neuron(entry["arguments"], own) if cls is SNMNeuron else _layer(cls, entry, own)
    except Refusal as refusal:
        raise Refusal(f"{path}: {refusal}") from refusal


def _neuron(raw: Any, own: dict[str, Tensor]) -> nn.Module:
    known = set(own) in ({"threshold"}, set(_OF_NEURONS))
    if not known or any(tensor.dtype != torch.float32 for tensor in own.values()):
        raise Refusal(
            f"SNMNeuron must have a threshold in float32, and may have a bias, got {sorted(own)}"
        )
    arguments = arguments_of(SNMNeuron, raw, _OF_NEURONS)
    if "bias" in own:
        arguments["bias"] = own["bias"]
    neuron: nn.Module = made(SNMNeuron, arguments, own["threshold"])
    return neuron


def _layer(cls: type[nn.Module], entry: dict[str, Any], own: dict[str, Tensor]) -> nn.Module:
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


def _hold(layers: nn.Module, path: str, value: nn.Module | Tensor) -> None:
    """Puts a module or tensor at its path, in plain modules made for it."""
    *parents, name = path.split(".")
    holder = layers
    try:
        for parent in parents:
            if parent not in holder._modules:
                holder.add_module(parent, nn.Module())
            holder = holder.get_submodule(parent)
        if isinstance(value, nn.Module):
            holder.add_module(name, value)
        elif isinstance(value, nn.Parameter):
            holder.register_parameter(name, value)
        else:
            holder.register_buffer(name, value)
    # A name that is empty, or that modules have otherwise.
    except KeyError as error:
        raise Refusal(f"{path!r} cannot be the path of a module or tensor") from error


def _check_paths(net: SpikingNetwork) -> None:
    """Refuses a program that goes to anything but layers, neurons and tensors of the network."""
    modules = dict(net.model.named_modules())
    tensors = {
        name
        for named in (net.model.named_parameters, net.model.named_buffers)
        for name, _ in named(remove_duplicate=False)
    }
    fires = {fire.name for fire in net.program.neurons}
    for step in (*net.program.static, *net.program.temporal, *net.program.tail):
        known = True
        if isinstance(step, Fire):
            known = isinstance(modules.get(step.path), SNMNeuron)
        elif isinstance(step, RunningMax):
            known = fires.issuperset(step.fires)
        elif isinstance(step, Call) and step.kind == "module":
            known = type(modules.get(str(step.target))) in _CALLED.values()
        elif isinstance(step, Call) and step.kind == "attribute":
            known = step.target in tensors
        if not known:
            raise Refusal(f"{step.name} reads or calls what is no part of the network")


def _check_values(net: SpikingNetwork) -> None:
    """Refuses a program that reads a value before it is made or after it is freed."""
    program = net.program
    if program.images_change != (net.encoder != "direct"):
        raise Refusal(f"the program is not made for encoder={net.encoder!r}")
    known = {program.batch} if program.images_change else {program.batch, program.images}
    for call in program.static:
        _execute(program, call, known)
    constant = set(known)
    known.add(program.images)
    for step in program.temporal:
        _execute(program, step, known)
    read_out = {fire.name for fire in program.neurons if fire.read_out}
    known = constant | read_out
    if program.averages_images:
        known.add(program.images)
    for call in program.tail:
        _read(call, known)
        known.add(call.name)
    if program.output not in (read_out if net.readout == "count" else known):
        raise Refusal(f"nothing makes the output {program.output!r}")


def _execute(program: Program, step: Step, known: set[str]) -> None:
    """Brings up to date which values there are, as a step's execution would."""
    _read(step, known)
    if isinstance(step, Fire):
        known |= {step.name} if step.sends else set()
        known |= {step.spikes} if step.pooled else set()
        known -= {step.drive} if step.reuses_drive else set()
    else:
        known.add(step.name)
    if step.name not in program.frees:
        raise Refusal(f"the program does not say what {step.name} frees")
    known -= set(program.frees[step.name])


def _read(step: Step, known: set[str]) -> None:
    missing = set(reads(step)) - known
    if missing:
        raise Refusal(f"{step.name} reads {sorted(missing)}, which no step before it makes")
