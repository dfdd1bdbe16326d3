"""Every example in a docstring runs, and everything public has a docstring."""

import doctest
import importlib.util
import inspect
import pkgutil

import pytest

PACKAGES = ("snm_kernels", "snm")


def modules(package: str) -> list[str]:
    """A package and its modules in Python, but for those that run as programs."""
    folder = importlib.import_module(package).__path__
    found = [module.name for module in pkgutil.walk_packages(folder, f"{package}.")]
    return [
        name
        for name in (package, *found)
        if importlib.util.find_spec(name).origin.endswith(".py") and not name.endswith("__main__")
    ]


def examples(name: str) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder().find(importlib.import_module(name))
    return [test for test in found if test.examples]


# Packages that only the examples of a module import.
NEEDED = {
    "snm.compat.nir": ("nir", "h5py"),
    "snm.compat.onnx": ("onnx", "onnxscript", "onnxruntime"),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.needs(*NEEDED.get(name, ())))
        for package in PACKAGES
        for name in modules(package)
    ],
)
def test_examples_run(name: str) -> None:
    runner = doctest.DocTestRunner()
    for test in examples(name):
        runner.run(test)
    print(f"{name}: {runner.tries} examples")
    assert runner.failures == 0


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
            own = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
            assert own, f"{package}.{name} has no docstring"


def public_members(value: object) -> dict[str, object]:
    """A function, or a class and the methods that it defines itself."""
    found = {"": value}
    if inspect.isclass(value):
        found |= {
            f".{name}": getattr(value, name)
            for name, member in vars(value).items()
            if (not name.startswith("_") and isinstance(member, staticmethod | classmethod))
            or (inspect.isfunction(member) and not name.startswith("_"))
        }
    return found


# What is raised, returned in passing or refuses; a call of it shows nothing.
NO_EXAMPLE = {"Offence", "DeadNeuronWarning", "SpikingNetwork.train", "SpikingNetwork.extra_repr"}
# Types of arguments, which their members say in full.
NO_EXAMPLE |= {"Backend", "Emit"}


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_have_examples(package: str) -> None:
    module = importlib.import_module(package)
    members = {
        name + suffix: member
        for name in module.__all__
        for suffix, member in public_members(getattr(module, name)).items()
        if inspect.isclass(member) or callable(member)
    }
    without = {
        name
        for name, member in members.items()
        if name not in NO_EXAMPLE and ">>> " not in (inspect.getdoc(member) or "")
    }
    assert len(members) > 5
    assert without == set()
