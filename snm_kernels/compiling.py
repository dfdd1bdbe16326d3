"""What ``torch.compile`` has to be told, without importing the compiler, which takes a second."""

from collections.abc import Callable
from typing import TypeVar

_Function = TypeVar("_Function", bound=Callable[..., object])


def constant_result(function: _Function) -> _Function:
    """Marks a function whose result is a constant of the graph in which it is traced.

    Does what :func:`torch.compiler.assume_constant_result` does.

    >>> @constant_result
    ... def answer() -> int:
    ...     return 42
    >>> answer()
    42
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function
