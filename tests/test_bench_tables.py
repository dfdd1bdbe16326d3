"""The tables, the page and the picture of a made-up record."""

import doctest
import importlib
from pathlib import Path

import pytest

from bench_records import beside, op_row, record
from snm.bench import picture, tables
from snm.bench.record import Record, read

COPY = op_row("copy_", 10240e-9, 8, backend="")
READ = op_row("sum, a pure read", 5120e-9, 4, backend="")
OURS = op_row("snm, amplitude", 8192e-9, 8, beside={"copy_": beside(10240e-9, 0.8)})
NONE = op_row(
    "snm, none",
    6400e-9,
    4,
    beside={"copy_": beside(10240e-9, 0.625), "sum, a pure read": beside(5120e-9, 1.25)},
)
RIVAL = op_row(
    "A rival",
    81920e-9,
    8,
    suite="rivals",
    rule="snm",
    heap="warm",
    implementation="eager",
    beside={"copy_": beside(10240e-9, 8.0), "snm, amplitude": beside(8192e-9, 10.0)},
)
SWEEP = [
    op_row("snm, amplitude", 1e-3, 8, suite="sweep", timesteps=t, beside={"copy_": beside(1e-3, r)})
    for t, r in ((4, 1.25), (32, 0.5))
]
NETWORK = [
    op_row(
        name,
        seconds,
        0,
        suite="network",
        network="A network",
        images=8,
        yardstick="ReLU network",
        beside=others,
    )
    for name, seconds, others in (
        ("ReLU network", 0.08, {}),
        ("snm", 0.088, {"ReLU network": beside(0.08, 1.1)}),
        ("A rival", 0.176, {"ReLU network": beside(0.08, 2.2), "snm": beside(0.088, 2.0)}),
    )
]


def made_up() -> Record:
    return record([COPY, READ, OURS, NONE, RIVAL, *SWEEP, *NETWORK])


def cells(table: str) -> list[list[str]]:
    """The rows under the head of a Markdown table."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


def test_op() -> None:
    assert cells(tables.op_table(made_up())) == [
        ["copy_", "float32", "–", "1.00", "8", "8.00", "1.00", "–"],
        ["sum, a pure read", "float32", "–", "0.500", "4", "8.00", "–", "1.00"],
        ["snm, amplitude", "float32", "cpu", "0.800", "8", "10.0", "1.25", "–"],
        ["snm, none", "float32", "cpu", "0.625", "4", "6.40", "0.80", "0.80"],
    ]


def test_rivals() -> None:
    table = tables.rivals_table(made_up())
    assert "warm heap" in table
    assert cells(table) == [["A rival", "eager", "snm", "8.00", "0.12", "10.0"]]


def test_sweep() -> None:
    table = tables.sweep_table(made_up())
    assert "| neurons | T = 4 | T = 32 |" in table
    assert cells(table) == [["1,024", "0.80", "2.00"]]


def test_network() -> None:
    assert cells(tables.network_table(made_up())) == [
        ["ReLU network", "float32", "10.0", "1.00", "–"],
        ["snm", "float32", "11.0", "1.10", "1.00"],
        ["A rival", "float32", "22.0", "2.20", "2.00"],
    ]


def test_short_tables() -> None:
    assert cells(tables.short_op_table(made_up()))[-1] == ["A rival cpu", "8.00", "0.12", "10.0"]
    assert cells(tables.short_network_table(made_up())) == [
        ["A network", "float32", "11.0", "1.10", "2.00"]
    ]


@pytest.mark.parametrize("name", tables.TABLES)
def test_what_was_not_measured_is_said(name: str) -> None:
    assert tables.TABLES[name](record([])) == "Not measured.\n"


def test_the_page_has_it_all() -> None:
    page = tables.every_table(made_up())
    assert page.startswith("**A processor, 2 cores, 2 threads, avx512**; load average 0.5 to 1.2")
    for name in tables.LONG:
        assert tables.TABLES[name](made_up()) in page


def test_a_record_comes_back(tmp_path: Path) -> None:
    made_up().write(tmp_path / "record.json")
    assert read(tmp_path / "record.json") == made_up()


def test_picture(tmp_path: Path) -> None:
    path = tmp_path / "roofline.svg"
    picture.draw(made_up(), path)
    text = path.read_text(encoding="utf-8")
    assert picture.digest(made_up()) in text
    assert picture.digest(record([OURS])) not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("name", ["markdown", "timing"])
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"snm.bench.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
