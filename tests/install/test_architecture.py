"""What packages may not know of each other; tests/docs/test_contributing.py has their order."""

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.imports import Module, circles, is_private, modules_in, modules_of

ROOT = Path(__file__).resolve().parents[2]
SNM = modules_in(ROOT / "python" / "snm")
KERNELS = modules_in(ROOT / "snm_kernels")


def is_within(module: Module, package: str) -> bool:
    """Whether a module is in a package or in one of its own packages."""
    return f"{module.package}.".startswith(f"{package}.")


def trespasses(modules: Mapping[str, Module], others: Mapping[str, Module]) -> list[str]:
    """Names with an underscore that one package takes from another.

    Args:
        others: modules whose names may be taken too, such as those of another distribution.
    """
    known = {**others, **modules}
    owners: dict[str, set[str]] = {}
    for module in known.values():
        for private in module.private:
            owners.setdefault(private, set()).add(module.package)
    imported = [
        f"{module.name} imports {name} of {target}"
        for module in modules.values()
        for target, names in module.imports.items()
        for name in sorted(names | {target.rpartition(".")[2]})
        if target in known and is_private(name) and not is_within(module, known[target].package)
    ]
    reached = [
        f"{module.name} takes {name} of {', '.join(sorted(owners[name]))}"
        for module in modules.values()
        for name in sorted(module.reaches)
        if name in owners and not any(is_within(module, owner) for owner in owners[name])
    ]
    return imported + reached


@pytest.mark.parametrize("modules", [SNM, KERNELS], ids=["snm", "snm_kernels"])
def test_no_modules_import_each_other_in_a_circle(modules: dict[str, Module]) -> None:
    assert len(modules) > 15
    assert circles(modules) == []


def test_no_private_name_crosses_a_package() -> None:
    assert trespasses(SNM, KERNELS) == []
    assert trespasses(KERNELS, {}) == []


def test_the_op_layer_knows_nothing_of_networks() -> None:
    for module in KERNELS.values():
        assert not [name for name in module.imports if name.partition(".")[0] == "snm"]


def test_kernels_know_neither_torch_nor_python() -> None:
    csrc = ROOT / "csrc"
    names = ("rule.h", "running_max_rule.h", "arguments.h", "layout.h", "spike_conv.h")
    rules = [*(csrc / name for name in names), csrc / "cpu" / "spike_conv.h"]
    free = [*rules, *csrc.glob("cpu/*_kernel.cpp"), *csrc.glob("cuda/*_kernel.cuh")]
    assert len(free) > 7
    for path in free:
        assert not re.findall(r"#include\s*<(torch|pybind11|Python)", path.read_text()), path
    for path in csrc.rglob("*.*"):
        if "bindings" not in path.parts:
            assert not re.findall(r"#include\s*<(pybind11|Python|ATen)", path.read_text()), path


def test_no_name_hides_a_module() -> None:
    for name in {**SNM, **KERNELS}:
        if name.endswith("__main__"):
            continue
        module = importlib.import_module(name)
        package, _, own = name.rpartition(".")
        if package:
            assert getattr(sys.modules[package], own) is module, f"{name} is hidden"


def test_what_is_forbidden_is_noticed() -> None:
    made_up = modules_of(
        {
            "snm": ("", True),
            "snm.errors": ("from .network.run import Run", False),
            "snm.network": ("", True),
            "snm.network.run": ("class Run:\n    def _go(self): self._place = 0", False),
            "snm.network.walk": ("def walk():\n    from .run import Run\n    Run()._go()", False),
            "snm.tuning": ("from ..network.run import _hidden\ndef f(run): run._place", True),
            "snm.files": ("from .blueprint import build", True),
            "snm.files.blueprint": ("from typing import Any\nfrom . import load", False),
        }
    )
    assert circles(made_up) == [["snm.files", "snm.files.blueprint"]]
    assert trespasses(made_up, {}) == [
        "snm.tuning imports _hidden of snm.network.run",
        "snm.tuning takes _place of snm.network",
    ]
