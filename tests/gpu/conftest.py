"""Options and marks of the tests on a GPU."""

from functools import partial

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--triton",
        choices=["all", "subset"],
        default="all",
        help="on Triton, run all cases, or those that triton_subset.py chooses",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "launches(of): makes the Triton launches of a test from its parameters"
    )
    config.addinivalue_line("markers", "xdist_group(name): pytest-xdist's, which may be missing")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the chosen cases, first, those that share kernels in one process with loadgroup."""
    if config.getoption("--triton", "all") == "all":
        return
    from triton_subset import chosen, group_name, kernels_of

    cases = [item for item in items if _launches(item) is not None]
    needed = [kernels_of(_launches(item)) for item in cases]
    numbers = {}
    kept, dropped = [], []
    for item, kernels, keep in zip(cases, needed, chosen(needed), strict=True):
        (kept if keep else dropped).append(item)
        if keep and kernels:
            item.add_marker(pytest.mark.xdist_group(group_name(kernels, numbers)))
    others = set(items) - set(cases)
    items[:] = [*kept, *(item for item in items if item in others)]
    config.hook.pytest_deselected(items=dropped)


def _launches(item: pytest.Item):
    """What launches as a test does on Triton; None for one that is always run."""
    mark, call = item.get_closest_marker("launches"), getattr(item, "callspec", None)
    if mark is None or call is None or call.params.get("backend") != "triton":
        return None
    parameters = {name: value for name, value in call.params.items() if name != "backend"}
    return partial(mark.kwargs["of"], **parameters)
