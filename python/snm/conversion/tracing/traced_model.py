"""A traced model, and what runs its graph."""

from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

from torch import fx, nn

from ...errors import Offence
from .paths import path_of

Tracer = Literal["torch.fx", "torch.export"]


@dataclass(frozen=True, slots=True)
class TracedModel:
    """A model's copy and the graph of what it does to one batch of images."""

    root: nn.Module
    graph: fx.Graph
    tracer: Tracer = "torch.fx"
    fixed_size: tuple[int, ...] | None = None
    """The size of the only images that the graph is right for; None if it takes what the model
    takes."""

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls; None if it calls none."""
        if node.op != "call_module":
            return None
        return self.root.get_submodule(str(node.target))

    def attribute(self, node: fx.Node) -> Any:
        """The parameter, buffer or constant that a ``get_attr`` node reads."""
        return reduce(getattr, str(node.target).split("."), self.root)

    def operation(self, node: fx.Node) -> str:
        """What a node does, by the name people call it."""
        module = self.module(node)
        if module is not None:
            return type(module).__name__
        if node.op == "call_method":
            return f"Tensor.{node.target}"
        return str(getattr(node.target, "__name__", node.target))

    def offence(self, node: fx.Node, reason: str) -> Offence:
        """The refusal of a node, for this reason."""
        return Offence(path_of(node), self.operation(node), reason, node.meta.get("line", ""))


class Runner(fx.Interpreter):
    """Runs a traced graph; errors are raised as they are, without torch.fx's remarks."""

    def __init__(self, traced: TracedModel) -> None:
        super().__init__(traced.root, graph=traced.graph)
        self.extra_traceback = False
