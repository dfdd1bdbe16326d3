"""Settings of the whole suite, and which packages it may do without."""

import importlib.util
from collections.abc import Generator

import pytest
import torch
from hypothesis import settings

# One thread a process: test processes run side by side, and tests that need more say so.
torch.set_num_threads(1)

settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without",
        default=[],
        type=lambda text: text.split(","),
        metavar="PACKAGES",
        help="packages, as they are imported, that may be missing: a,b; what needs one is skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(*packages): imports them in another process, or asks whether it could"
    )


def _reason(config: pytest.Config, package: str | None) -> str | None:
    """Why a test may be skipped that does not find a package."""
    name = (package or "").partition(".")[0]
    allowed = name in config.getoption("--without") and importlib.util.find_spec(name) is None
    return f"{name} is not installed" if allowed else None


def _skip_what_lacks(config: pytest.Config, error: ModuleNotFoundError) -> None:
    reason = _reason(config, error.name)
    if reason is not None:
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.failed:
        error = report.call.excinfo.value.__cause__
        reason = _reason(collector.config, getattr(error, "name", None))
        if isinstance(error, ModuleNotFoundError) and reason is not None:
            report.outcome = "skipped"
            report.longrepr = (str(collector.path), 0, f"Skipped: {reason}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    for mark in item.iter_markers("needs"):
        for package in mark.args:
            reason = _reason(item.config, package)
            if reason is not None:
                pytest.skip(reason)
    try:
        return (yield)
    except ModuleNotFoundError as error:
        _skip_what_lacks(item.config, error)
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    try:
        return (yield)
    except ModuleNotFoundError as error:
        _skip_what_lacks(item.config, error)
        raise


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws does not depend on the tests before it in the same process."""
    torch.manual_seed(0)
