"""What ``snm doctor`` prints, and that it notices a backend that is wrong."""

import math
import time
from typing import Any

import pytest

import snm_kernels
from snm.commands import cli
from snm.commands.self_test import self_test
from snm_kernels import BackendStatus, SNMOutput, backends


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def one_spike_off(call: Any) -> Any:
    """The op, but for one spike of backend cpu."""

    def run(*arguments: Any, backend: str, **keywords: Any) -> SNMOutput:
        run = call(*arguments, backend=backend, **keywords)
        if backend == "cpu":
            run.spikes.view(-1)[7] += 1
        return run

    return run


def fails_on_the_cpu(call: Any) -> Any:
    def run(*arguments: Any, backend: str, **keywords: Any) -> SNMOutput:
        if backend == "cpu":
            raise RuntimeError("no kernel image is available")
        return call(*arguments, backend=backend, **keywords)

    return run


def test_names_every_backend_and_tests_those_that_run(capsys: pytest.CaptureFixture[str]) -> None:
    # Of this process alone, whatever else the machine does.
    start = time.process_time()
    assert cli.main(["doctor"]) == 0
    assert time.process_time() - start < 10
    lines = lines_of(capsys)
    told = lines[lines.index("backends") + 1 :]
    for (name, status), line in zip(backends().items(), told[: len(backends())], strict=True):
        assert line.split(maxsplit=1) == [
            name,
            "available" if status.available else f"no: {status.reason}",
        ]
    tested = told[len(backends()) + 1 :]
    expected = [n for n, status in backends().items() if status.available and n != "reference"]
    assert [line.split()[0] for line in tested] == expected
    assert all("equal in 3 cases" in line for line in tested)
    assert " GB/s, " in tested[0]


def test_says_what_keeps_a_backend_from_running(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {**backends(), "cuda": BackendStatus(False, "the driver is too old; get another")}
    monkeypatch.setattr(snm_kernels, "backends", lambda: said)
    assert cli.main(["doctor"]) == 0
    lines = lines_of(capsys)
    assert "  cuda       no: the driver is too old; get another" in lines
    assert [line for line in lines if line.startswith("  cuda")][1:] == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (one_spike_off, "WRONG: snm, rule 'snm', float32 differs from the reference"),
        (
            fails_on_the_cpu,
            "WRONG: snm, rule 'snm', float32 fails: no kernel image is available",
        ),
    ],
)
def test_a_wrong_backend_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: Any, said: str
) -> None:
    monkeypatch.setattr(snm_kernels, "snm", broken(snm_kernels.snm))
    assert cli.main(["doctor"]) == 1
    assert f"  cpu        {said}" in lines_of(capsys)


def test_a_wrong_pooling_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    call = snm_kernels.running_max_pool

    def run(*arguments: Any, backend: str, **keywords: Any) -> Any:
        pooled, total = call(*arguments, backend=backend, **keywords)
        return pooled, total + (backend == "cpu")

    monkeypatch.setattr(snm_kernels, "running_max_pool", run)
    assert self_test("cpu").wrong == "running_max_pool, int8 differs from the reference"


def test_bandwidths_are_those_of_memory() -> None:
    result = self_test("cpu")
    assert not math.isnan(result.bandwidth)
    # No kernel of this op is a hundred times slower, or ten times faster, than a copy.
    assert 0.01 < result.bandwidth / result.copy_bandwidth < 10
