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


@pytest.mark.parametrize("name", [name for package in PACKAGES for name in modules(package)])
def test_examples_run(name: str) -> None:
    runner = doctest.DocTestRunner()
    for test in examples(name):
        runner.run(test)
    print(f"{name}: {runner.tries} examples")
    assert runner.failures == 0


@pytest.mark.parametrize("package", PACKAGES)
def test_there_are_examples(package: str) -> None:
    counts = {name: sum(len(t.examples) for t in examples(name)) for name in modules(package)}
    print(counts)
    assert sum(counts.values()) > 0


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
            own = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
            assert own, f"{package}.{name} has no docstring"
