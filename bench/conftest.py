"""Takes the options that ``snm bench`` passes to pytest, and reports to it what was measured."""

from typing import Any

import pytest
import torch

import snm_kernels
from snm.bench.scale import SCALES, Scale
from snm.bench.timing import HEAP

WHY: dict[str, list[str]] = {"skipped": [], "failed": []}
"""The tests that were skipped, each with its reason, and those that failed."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options for the device and the scale."""
    group = parser.getgroup("snm bench")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    group.addoption("--bench-device", choices=["cpu", "cuda"], default=device)
    group.addoption("--bench-scale", choices=[*SCALES], default="full")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that takes a ``case`` on each that its module's ``cases(device, scale)`` has."""
    if "case" in metafunc.fixturenames:
        device = metafunc.config.getoption("bench_device")
        cases = metafunc.module.cases(device, _scale(metafunc.config))
        metafunc.parametrize("case", cases, ids=str)


@pytest.fixture
def device(pytestconfig: pytest.Config) -> str:
    """The device that is timed, ``"cpu"`` or ``"cuda"``."""
    return str(pytestconfig.getoption("bench_device"))


@pytest.fixture
def scale(pytestconfig: pytest.Config) -> Scale:
    """How much of the benchmark is run."""
    return _scale(pytestconfig)


def _scale(config: pytest.Config) -> Scale:
    return SCALES[config.getoption("bench_scale")]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Notes tests that did not run; messages of failures are left out, as they may have paths."""
    test = report.nodeid.partition("::")[2]
    name = test.partition("[")[2].removesuffix("]") or test
    if report.skipped and isinstance(report.longrepr, tuple):
        WHY["skipped"].append(f"{name}: {report.longrepr[2].removeprefix('Skipped: ')}")
    if report.failed:
        WHY["failed"].append(name)


def pytest_benchmark_update_json(
    config: pytest.Config,  # noqa: ARG001
    benchmarks: list[Any],  # noqa: ARG001
    output_json: dict[str, Any],
) -> None:
    """Replaces pytest-benchmark's report by the rows, and what ``snm bench`` needs to know."""
    rows = [b["extra_info"] for b in output_json["benchmarks"] if "seconds" in b["extra_info"]]
    output_json.clear()
    output_json.update(
        rows=rows,
        heap=HEAP,
        isa=snm_kernels.build_info().isa,
        **WHY,
    )
