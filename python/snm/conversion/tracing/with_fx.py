"""Traces a model with torch.fx, which sees what does not depend on the values of tensors."""

import operator
import threading
from collections.abc import Callable
from types import CodeType
from typing import Any

from torch import fx, nn

from .lines import line_running
from .paths import PREFIX, own_path

IN_PLACE_OPERATORS: dict[Callable[..., Any], Callable[..., Any]] = {
    getattr(operator, f"i{name.rstrip('_')}"): getattr(operator, name)
    for name in (
        *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"),
        *("and_", "or_", "xor", "lshift", "rshift"),
    )
}
"""Operators that write into their left operand, and what does the same out of place."""


class TracingError(Exception):
    """torch.fx, or the model under it, has failed.

    Args:
        path: of the module that it fails in.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def trace_with_fx(root: nn.Module, outermost: CodeType) -> fx.Graph:
    """The graph of what a model does; its nodes know their module's path and their line.

    Args:
        root: keeps the model under :data:`PREFIX`.
        outermost: of its ``forward``.

    Raises:
        TracingError: from the error that torch.fx or the model raises.
    """
    tracer = _Tracer(outermost)
    try:
        return tracer.trace(root)
    except Exception as error:
        raise TracingError(tracer.failed_in) from error


class _Proxy(fx.Proxy):
    """Records ``x += y`` as a write in place; fx's own proxy records an addition out of place."""


def _recorder(function: Callable[..., Any]) -> Callable[..., Any]:
    def record(self: _Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return record


for _operator in IN_PLACE_OPERATORS:
    setattr(_Proxy, f"__{_operator.__name__}__", _recorder(_operator))


class _Tracer(fx.Tracer):
    # Else what forward does to buffers alone would happen now and not be recorded.
    proxy_buffer_attributes = True

    def __init__(self, outermost: CodeType) -> None:
        super().__init__()
        self.outermost = outermost
        self.failed_in = ""
        self.thread = threading.get_ident()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        inside = module_qualified_name != PREFIX
        return inside and super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        # While it traces, torch.fx is called for every module of the process.
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed_in = self.failed_in or own_path(self.path_of_module(m))
            raise

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta["path"] = own_path(self.scope.module_path)
        node.meta["line"] = line_running(self.outermost)
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)
