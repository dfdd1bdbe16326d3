"""Turns the values of a network's graph into JSON and back; only what fixed tables hold returns."""

import builtins
import dataclasses
import inspect
import math
import operator
from collections import abc
from collections.abc import Callable, Container, Iterable, Mapping
from functools import cache
from types import EllipsisType, ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import nn
from torch.nn import functional as F

from snm_kernels import SNMRule

from ..conversion.analysis import operations, pooling
from ..network import program
from ..network.program import Call, Pooling, Program, Step, Value


class Refusal(Exception):
    """Says why a network cannot be saved, or why a file cannot be loaded."""


_CLASSES: dict[str, type] = {
    cls.__name__: cls for cls in (*get_args(Step), Pooling, Program, SNMRule, Value)
}
"""The dataclasses of which a file may hold instances, by name."""

MODULES: dict[str, type[nn.Module]] = {
    cls.__name__: cls for cls in (*operations.MODULES, *pooling.MODULES, *pooling.ADAPTIVE_MODULES)
}
"""The layers of torch that a file may hold."""

METHODS: frozenset[str] = frozenset((*operations.METHODS, *operations.SHAPE_METHODS))
"""The methods that a program in a file may call."""

_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    *(*operations.FUNCTIONS, *pooling.FUNCTIONS, *pooling.ADAPTIVE_FUNCTIONS),
    # What a model computes from the sizes of tensors, and how a program reads them.
    *(operator.abs, operator.floordiv, operator.mod, operator.pow, builtins.getattr),
    *(program.reshape_steps, program.step_shape, program.step_size),
)
"""The functions that a program in a file may call."""


_HOMES: dict[str, ModuleType] = {
    "torch": torch,
    "torch.nn.functional": F,
    "operator": operator,
    "builtins": builtins,
    "snm.program": program,
}
"""The modules that hold these functions, by their names in files, which stay if a module moves."""


def _with_names(functions: Iterable[Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Functions by the names under which their modules hold them, such as ``torch.cat``."""
    wanted = {id(function) for function in functions}
    return {
        f"{home}.{name}": value
        for home, module in _HOMES.items()
        for name, value in vars(module).items()
        if id(value) in wanted and not name.startswith("_")
    }


FUNCTIONS: dict[str, Callable[..., Any]] = _with_names(_FUNCTIONS)
"""The functions that a program in a file may call, by name; some have several names."""

_NAMES: dict[Callable[..., Any], str] = {
    function: name for name, function in reversed(FUNCTIONS.items())
}
"""The name that each of these functions gets in files."""


def _short(value: torch.dtype | torch.memory_format) -> str:
    """The name of a dtype or a memory format, such as ``"float32"``."""
    return str(value).removeprefix("torch.")


_DTYPES = {_short(value): value for value in vars(torch).values() if type(value) is torch.dtype}
"""The dtypes of torch by name."""
_MEMORY_FORMATS = {
    _short(value): value
    for value in (
        *(torch.contiguous_format, torch.preserve_format),
        *(torch.channels_last, torch.channels_last_3d),
    )
}
"""The memory formats of torch by name."""
_LEAVES = (
    *(NoneType, bool, int, float, str, EllipsisType),
    *(torch.dtype, torch.memory_format, torch.device, Value),
)
"""The types of an operation's arguments that are not containers."""
_WIDTH = 80
"""The most characters that a value takes in a message."""


def to_json(value: Any) -> Any:
    """A value as JSON: itself if JSON has it, else an object with one entry that names its kind.

    Raises:
        Refusal: files have no form for such a value.

    >>> to_json((1, float("inf"), slice(None, 2, None)))
    {'tuple': [1, {'float': 'inf'}, {'slice': [None, 2, None]}]}
    """
    kind = type(value)
    if kind in (NoneType, bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    if kind is float:
        return {"float": str(value)}
    if kind is EllipsisType:
        return {"ellipsis": None}
    if kind in (torch.dtype, torch.memory_format):
        return {kind.__name__: _short(value)}
    if kind is torch.device:
        return {"device": str(value)}
    if kind is slice:
        return {"slice": [to_json(part) for part in (value.start, value.stop, value.step)]}
    if kind in (tuple, torch.Size):
        return {kind.__name__: [to_json(part) for part in value]}
    # torch.fx keeps arguments in lists and dictionaries of its own.
    if isinstance(value, list):
        return [to_json(part) for part in value]
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {"dict": {key: to_json(part) for key, part in value.items()}}
    if kind is Call:
        return {"Call": _call_to_json(value)}
    if _CLASSES.get(kind.__name__) is kind:
        return {kind.__name__: {name: to_json(part) for name, part in _fields(value).items()}}
    raise Refusal(f"{described(value)} has no form in a file")


def _fields(instance: Any) -> dict[str, Any]:
    """The fields of a dataclass's instance by name."""
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}


def _call_to_json(call: Call) -> dict[str, Any]:
    """The fields of a call as JSON, a function by its name; refuses what no file may call."""
    name = str(getattr(call.target, "__name__", call.target))
    values = _fields(call)
    try:
        if call.kind == "function":
            values["target"] = _NAMES.get(call.target, name)  # type: ignore[arg-type]
        _check_call(**values)
        return {field: to_json(part) for field, part in values.items()}
    except Refusal as refusal:
        raise Refusal(
            f"{call.name}: {name}: {refusal}; apply it to the images before the network"
        ) from refusal


def from_json(raw: Any) -> Any:
    """The value that :func:`to_json` made this JSON of.

    Raises:
        Refusal: :func:`to_json` makes no such JSON.

    >>> from_json(to_json((1, torch.float32, Value("x"))))
    (1, torch.float32, Value(name='x'))
    """
    if isinstance(raw, list):
        return [from_json(part) for part in raw]
    if not isinstance(raw, dict):
        return raw
    [tag, content] = next(iter(raw.items())) if len(raw) == 1 else ("", None)
    if tag in _CLASSES:
        return _instance(_CLASSES[tag], content)
    if tag in _READERS:
        return _READERS[tag](content)
    raise Refusal(f"{described(raw)} stands for no value")


def _instance(cls: type, raw: Any) -> Any:
    """An instance of one of the known dataclasses, from JSON of its fields."""
    values = arguments_of(cls, raw)
    if cls is Call:
        try:
            _check_call(**values)
        except Refusal as refusal:
            raise Refusal(f"{values['name']}: {values['target']}: {refusal}") from refusal
        if values["kind"] == "function":
            values["target"] = FUNCTIONS[values["target"]]
    return made(cls, values)


def arguments_of(cls: type, raw: Any, given: Container[str] = ()) -> dict[str, Any]:
    """The arguments of a class's constructor, each of the type that it declares.

    Args:
        cls: the class.
        raw: JSON of the arguments, by name.
        given: the names of arguments that the caller passes itself.

    Raises:
        Refusal: an argument is unknown, missing or of the wrong type.
    """
    hints = _hints(cls)
    values = {}
    for name, content in entries(raw, cls.__name__).items():
        if name not in hints or name in given:
            raise Refusal(f"{cls.__name__} has no {name!r}")
        values[name] = from_json(content)
        if not fits(values[name], hints[name]):
            raise Refusal(f"{cls.__name__} cannot have {described(values[name])} as {name}")
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.default is parameter.empty and name not in values and name not in given:
            raise Refusal(f"{cls.__name__} lacks {name}")
    return values


def made(cls: type, arguments: Mapping[str, Any], *given: Any) -> Any:
    """Makes an instance of a class; any error becomes a refusal of the arguments.

    Args:
        cls: the class.
        arguments: keyword arguments of its constructor.
        given: positional arguments of its constructor.
    """
    try:
        return cls(*given, **arguments)
    except Exception as error:
        raise Refusal(f"{cls.__name__} cannot be made: {error}") from error


def entries(raw: Any, what: str) -> dict[str, Any]:
    """The entries of a JSON object.

    Raises:
        Refusal: ``raw`` is not an object; ``what`` says in the message what it should be.
    """
    if not isinstance(raw, dict):
        raise Refusal(f"{what} must be an object, got {described(raw)}")
    return raw


def described(value: Any) -> str:
    """A value and its type, on one line of bounded length."""
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


@cache
def _hints(cls: type) -> dict[str, Any]:
    """The types that a class's constructor declares for its arguments."""
    constructor = vars(cls)["__init__"]
    return {name: hint for name, hint in get_type_hints(constructor).items() if name != "return"}


def _check_call(
    kind: str,
    target: Any,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    **_others: Any,
) -> None:
    """Refuses a call of anything that is not in the tables; a function is given by name."""
    if not isinstance(target, str):
        raise Refusal("must be called by name")
    if kind == "function":
        known = target in FUNCTIONS
    else:
        known = kind != "method" or (target in METHODS and [type(a) for a in args[:1]] == [Value])
    if known and FUNCTIONS.get(target) is builtins.getattr and kind == "function":
        known = len(args) == 2 and args[1] in operations.SHAPE_ATTRIBUTES and not kwargs
    if not known:
        raise Refusal("is none of the operations that a file may hold")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has the annotated type; Any stands for anything that operations may take.

    >>> fits((1, "a"), tuple[int, ...]), fits((1, slice(None)), Any), fits(print, Any)
    (False, True, False)
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return _is_argument(value)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return type(value) is str and value in inner
    if origin is abc.Sequence:
        return type(value) in (list, tuple) and all(fits(part, inner[0]) for part in value)
    if origin is list or inner[1:] == (...,):
        return type(value) is origin and all(fits(part, inner[0]) for part in value)
    if origin is tuple:
        same = type(value) is tuple and len(value) == len(inner)
        return same and all(fits(part, one) for part, one in zip(value, inner, strict=True))
    if origin in (dict, abc.Mapping):
        return type(value) is dict and all(fits(part, inner[1]) for part in value.values())
    if origin is abc.Callable:
        return callable(value) and value in _NAMES
    return type(value) is hint or (hint is float and type(value) is int)


def _is_argument(value: Any) -> bool:
    """Whether an operation may take a value as an argument, which rules out steps and rules."""
    if isinstance(value, tuple | list):
        return all(_is_argument(part) for part in value)
    if isinstance(value, dict):
        return all(_is_argument(part) for part in value.values())
    if isinstance(value, slice):
        return all(_is_argument(part) for part in (value.start, value.stop, value.step))
    return type(value) in _LEAVES


def _chosen(table: Mapping[str, Any]) -> Callable[[Any], Any]:
    """A reader of names, which returns what a table holds under a name."""

    def choose(raw: Any) -> Any:
        if not isinstance(raw, str) or raw not in table:
            raise Refusal(f"{described(raw)} is none of {', '.join(table)}")
        return table[raw]

    return choose


def _parts(raw: Any) -> list[Any]:
    """The values of a JSON list."""
    if not isinstance(raw, list):
        raise Refusal(f"{described(raw)} must be a list")
    return [from_json(part) for part in raw]


def _size(raw: Any) -> torch.Size:
    """A size, from a JSON list of integers."""
    parts = _parts(raw)
    if not all(type(part) is int and abs(part) < 2**63 for part in parts):
        raise Refusal(f"{described(raw)} must be integers of 64 bits")
    return torch.Size(parts)


def _slice(raw: Any) -> slice:
    """A slice, from a JSON list of its start, stop and step."""
    parts = _parts(raw)
    if len(parts) != 3:
        raise Refusal(f"{described(raw)} must be a start, a stop and a step")
    return slice(*parts)


def _device(raw: Any) -> torch.device:
    """A device, from its name."""
    if not isinstance(raw, str):
        raise Refusal(f"{described(raw)} must be the name of a device")
    device: torch.device = made(torch.device, {}, raw)
    return device


_READERS: dict[str, Callable[[Any], Any]] = {
    "Size": _size,
    "device": _device,
    "dict": lambda raw: {key: from_json(part) for key, part in entries(raw, "a dict").items()},
    "dtype": _chosen(_DTYPES),
    "ellipsis": lambda _: ...,
    "float": _chosen({text: float(text) for text in ("inf", "-inf", "nan")}),
    "memory_format": _chosen(_MEMORY_FORMATS),
    "slice": _slice,
    "tuple": lambda raw: tuple(_parts(raw)),
}
"""What reads the content of a JSON object with one entry, by the name of that entry."""
