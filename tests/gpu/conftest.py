"""Options, marks, order and fixtures of the tests on a GPU."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from support.one_at_a_time import one_at_a_time


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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sorts cases on Triton by the kernels they share, before all others; leaves the chosen ones.

    Workers of pytest-xdist begin with neighbouring tests each, and must all find the same order.
    """
    cases = [item for item in items if _launches(item) is not None]
    if not cases:
        return
    from support.triton_subset import chosen, kernels_of, sort_key

    needed = {item: kernels_of(_launches(item)) for item in cases}
    dropped = set()
    if config.getoption("--triton", "all") == "subset":
        kept = chosen([*needed.values()])
        dropped = {item for item, keep in zip(cases, kept, strict=True) if not keep}
    first = [item for item in cases if item not in dropped]
    first.sort(key=lambda item: sort_key(needed[item]))
    items[:] = [*first, *(item for item in items if item not in needed)]
    config.hook.pytest_deselected(items=[*dropped])


@pytest.fixture
def much_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For a test that needs much of the GPU's memory: no two of them run at once."""
    shared = tmp_path_factory.getbasetemp().parent
    with one_at_a_time(shared / "much-memory.lock"):
        yield
        # Another process takes what this one would keep for its next tensors.
        torch.cuda.empty_cache()


def _launches(item: pytest.Item):
    """What launches as a test does on Triton; None for one that is always run."""
    mark, call = item.get_closest_marker("launches"), getattr(item, "callspec", None)
    if mark is None or call is None or call.params.get("backend") != "triton":
        return None
    parameters = {name: value for name, value in call.params.items() if name != "backend"}
    return partial(mark.kwargs["of"], **parameters)
