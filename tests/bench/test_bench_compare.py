"""Records compared: what counts as a regression, and what does not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snm.bench.compare import FLOOR, main
from support.bench_records import beside, op_row, record


def rows(ratio: float, spread: float = 0.0, **others: Any) -> list[dict[str, Any]]:
    """``copy_``, and the op at that multiple of its time."""
    compared = {"copy_": beside(1e-3, ratio, spread)}
    return [
        op_row("copy_", 1e-3, 8, backend=""),
        op_row("snm, amplitude", 1e-3 * ratio, 8, beside=compared, **others),
    ]


def compare(
    folder: Path, old: list[dict[str, Any]], new: list[dict[str, Any]], **machine: Any
) -> int:
    record(old).write(folder / "old.json")
    record(new, **machine).write(folder / "new.json")
    return main([str(folder / "old.json"), str(folder / "new.json")])


def test_no_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(tmp_path, rows(0.8), rows(0.8)) == 0
    assert "1 compared, 0 slower" in capsys.readouterr().out


@pytest.mark.parametrize(("grown", "status"), [(0.98, 0), (1.02, 1)])
def test_the_floor_is_noise(tmp_path: Path, grown: float, status: int) -> None:
    assert compare(tmp_path, rows(0.8), rows(0.8 * (1 + FLOOR) * grown)) == status


def test_spread_is_noise(tmp_path: Path) -> None:
    """Half of a spread of 20 % on both sides allows 20 % more than the floor."""
    old, slower = rows(0.5, spread=0.1), rows(0.6, spread=0.12)
    assert compare(tmp_path, old, slower) == 0
    assert compare(tmp_path, rows(0.5, spread=0.01), rows(0.6, spread=0.012)) == 1


def test_regression_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(tmp_path, rows(0.8), rows(1.6)) == 1
    out = capsys.readouterr().out
    assert "1 compared, 1 slower" in out
    [line] = [line for line in out.splitlines() if "snm, amplitude" in line]
    assert line.split()[-5:] == ["slower", "0.800", "1.60", "2.00", f"{FLOOR:.2f}"]


def test_a_failed_part_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(rows(0.8)).write(tmp_path / "old.json")
    replace(record(rows(0.8)), failed=["sweep: no result"]).write(tmp_path / "new.json")
    old, new = str(tmp_path / "old.json"), str(tmp_path / "new.json")
    assert main([old, new]) == 1
    assert "failed in the new record: sweep: no result" in capsys.readouterr().out
    assert main([new, old]) == 0


def test_gain_is_no_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(tmp_path, rows(1.6), rows(0.8)) == 0
    assert "faster" in capsys.readouterr().out


def test_a_slower_machine_is_no_regression(tmp_path: Path) -> None:
    """All times doubled, the ratio as it was."""
    slow = [{**row, "seconds": 2 * row["seconds"]} for row in rows(0.8)]
    assert compare(tmp_path, rows(0.8), slow) == 0


def test_a_slower_rival_is_no_regression(tmp_path: Path) -> None:
    def with_rival(ratio: float) -> list[dict[str, Any]]:
        compared = {"copy_": beside(1e-3, ratio)}
        return [*rows(0.8), op_row("SpikingJelly", ratio, 8, suite="rivals", beside=compared)]

    assert compare(tmp_path, with_rival(3), with_rival(9)) == 0


def test_missing_rows_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common, half = rows(0.8), {"dtype": "float16"}
    gone, added = rows(0.5, timesteps=3)[1:], rows(0.7, **half)[1:]
    assert compare(tmp_path, [*common, *gone], [*common, *added]) == 0
    out = capsys.readouterr().out
    assert "not in the new record: op, snm, amplitude, cpu, cpu, float32, 3, 1024, avx512" in out
    assert "not in the old record: op, snm, amplitude, cpu, cpu, float16, 10, 1024, avx512" in out
    assert "1 compared, 0 slower" in out


def test_nothing_in_common_fails(tmp_path: Path) -> None:
    assert compare(tmp_path, rows(0.5, timesteps=3), rows(0.5, timesteps=4)) == 1


def test_another_machine_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(tmp_path, rows(0.8), rows(0.8), cpu="Another processor") == 0
    out = capsys.readouterr().out
    assert "different machines" in out
    assert "**Another processor, 2 cores" in out


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"benchmarks": []}')
    with pytest.raises(ValueError, match=r"other\.json is no record of snm bench"):
        main([str(tmp_path / "other.json")] * 2)
