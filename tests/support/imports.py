"""Which module of a package imports what of which, read from the source."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch import nn


@dataclass
class Module:
    """A module and what its source says."""

    name: str
    """With dots, from the top package on."""
    is_package: bool
    imports: dict[str, set[str]] = field(default_factory=dict)
    """The names that it imports, by the module that they are from; wherever the import stands."""
    private: set[str] = field(default_factory=set)
    """Names with an underscore that it defines: functions, classes, methods, attributes of self."""
    reaches: set[str] = field(default_factory=set)
    """Names with an underscore that it takes from anything but ``self`` and ``cls``."""

    @property
    def package(self) -> str:
        """The package that it is in, or that it is."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


def modules_in(folder: Path) -> dict[str, Module]:
    """The modules of a package, by name.

    Args:
        folder: of the package; its name is that of the package.
    """
    sources = {}
    # Stubs stand for compiled modules.
    for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.pyi")]):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        sources[name] = (path.read_text(encoding="utf-8"), is_package)
    return modules_of(sources)


def modules_of(sources: Mapping[str, tuple[str, bool]]) -> dict[str, Module]:
    """Modules by name, of their sources and whether they are packages."""
    found = {}
    for name, (text, is_package) in sources.items():
        module = Module(name, is_package)
        for node in ast.walk(ast.parse(text)):
            for source, imported in _imported(node, module.package):
                whole = f"{source}.{imported}"
                if whole in sources:
                    module.imports.setdefault(whole, set())
                else:
                    module.imports.setdefault(source, set()).add(imported)
            _note_private(node, module)
        found[name] = module
    return found


def _imported(node: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """The names that a statement imports, each behind the module that it is from."""
    if isinstance(node, ast.Import):
        yield from (tuple(alias.name.rpartition(".")[::2]) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        source = ".".join([*(above if node.level else []), *([node.module] if node.module else [])])
        yield from ((source, alias.name) for alias in node.names)


def _note_private(node: ast.AST, module: Module) -> None:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        names, own = [node.name], True
    elif isinstance(node, ast.Attribute):
        names = [node.attr]
        own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    else:
        return
    private = {name for name in names if is_private(name)}
    (module.private if own else module.reaches).update(private)


def is_private(name: str) -> bool:
    """Whether a name is its package's own business; what every named tuple or module has is not."""
    underscored = name.startswith("_") and not name.endswith("__")
    return underscored and not any(hasattr(kind, name) for kind in (_Tuple, nn.Module))


class _Tuple(NamedTuple):
    """A named tuple, for the names that they all have."""


def circles(modules: Mapping[str, Module]) -> list[list[str]]:
    """The groups of modules that import each other in a loop."""
    reached = {name: _reached(name, modules) for name in modules}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in modules
        if name in reached[name]
    }
    return sorted(map(list, groups))


def _reached(start: str, modules: Mapping[str, Module]) -> set[str]:
    """The modules that one imports, straight or through others."""
    found: set[str] = set()
    ahead = [start]
    while ahead:
        for name in modules[ahead.pop()].imports:
            if name in modules and name not in found:
                found.add(name)
                ahead.append(name)
    return found
