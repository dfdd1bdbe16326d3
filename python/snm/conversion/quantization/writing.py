"""Writes down the program and the modules of a network of integers."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import nn

from ...module_paths import put_at_path
from ...network.interpret import Part
from ...network.program import Call, Program, Step, Value, last_reads, replaced


class Writer:
    """The steps and the modules of a new network.

    Args:
        program: that of the network that it is made of.
        model: its modules, whose paths what is new has to leave free.
        source: the name that a value of that network has in the new program.
    """

    def __init__(self, program: Program, model: nn.Module, source: Callable[[str], str]) -> None:
        self.program = program
        self.model = model
        self.source = source
        self.layers = nn.Module()
        self._steps: dict[Part, list[Any]] = defaultdict(list)
        self._used: set[str] = {fire.path for fire in program.neurons}
        self._reserved = {path for path, _ in model.named_modules()}

    def emit(self, part: Part, step: Step) -> None:
        """Adds a step to a part of the program."""
        self._steps[part].append(step)

    def emit_as_is(self, part: Part, call: Call) -> None:
        """Adds an operation that integers take as numbers do."""
        if call.kind == "module":
            path = str(call.target)
            self.put(path, copy.deepcopy(self.model.get_submodule(path)))
        if call.kind == "method" and call.target == "view":
            # Layers may give sums in another memory format than the model's.
            call = replace(call, target="reshape")
        kwargs = None if call.kwargs is None else self.renamed(dict(call.kwargs))
        self.emit(part, replace(call, args=self.renamed(call.args), kwargs=kwargs))

    def emit_module(self, part: Part, name: str, path: str, *reads: str) -> None:
        """Adds the call of a module."""
        self.emit(part, Call(name, "module", path, tuple(Value(read) for read in reads)))

    def put(self, path: str, module: nn.Module) -> None:
        """Puts a module at a path."""
        put_at_path(self.layers, path, module)

    def renamed(self, arguments: Any) -> Any:
        """A call's arguments with the names that values have in the new program."""

        def rename(part: Any) -> Any:
            return Value(self.source(part.name)) if isinstance(part, Value) else part

        return replaced(arguments, rename)

    def free_path(self, path: str, *, own: bool = False) -> str:
        """A path that no module has yet, with nothing at it so far.

        Args:
            path: the one that is taken if it is free.
            own: whether it is that of the module in the model.
        """
        path, number = path.replace(" ", "_"), 1
        found = path
        while found in self._used or (found in self._reserved and not (own and found == path)):
            number += 1
            found = f"{path}_{number}"
        self._used.add(found)
        # Keeps modules in the order of execution, whenever their weights are known.
        self.put(found, nn.Identity())
        return found

    def written(self, output: str) -> Program:
        """The new program; ``output`` is the name of what it gives."""
        static, temporal, tail = (self._steps[part] for part in ("static", "temporal", "tail"))
        kept = {name for step in _all(temporal, tail) for name in step.reads}
        return replace(
            self.program,
            static=tuple(static),
            temporal=tuple(temporal),
            tail=tuple(tail),
            output=output,
            frees=last_reads(static, kept) | last_reads(temporal, set()),
        )


def _all(*parts: Iterable[Step]) -> list[Step]:
    return [step for part in parts for step in part]
