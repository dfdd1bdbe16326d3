"""The tables, the page and the picture of a made-up record."""

import doctest
import importlib
import json
from pathlib import Path

import pytest

from snm.bench import picture, render, tables
from snm.bench.record import Record, read
from support.bench_records import beside, op_row, record

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


CHUNKS = [
    op_row(
        "snm",
        seconds,
        0,
        suite="chunks",
        network="A network",
        images=8,
        chunk_mebibytes=mebibytes,
        chunk_steps=steps,
        yardstick="1024 MiB",
        beside=others,
    )
    for mebibytes, steps, seconds, others in (
        (1024, 10, 0.08, {}),
        (32, 2, 0.06, {"1024 MiB": beside(0.08, 0.75)}),
    )
]


def test_chunks() -> None:
    assert cells(tables.chunks_table(record(CHUNKS))) == [
        ["snm", "1024", "10", "10.0", "1.00"],
        ["snm", "32", "2", "7.50", "0.75"],
    ]


def density_row(way: str, density: float, alone: float, **others: float) -> dict[str, object]:
    """A row of a layer of spikes.

    Args:
        way: the contender.
        density: the share of neurons that send.
        alone: its time over that of the convolution, which takes 20 ms.
        others: under ``events`` its time over that of the layer spike by spike.
    """
    compared = {"float32 convolution": beside(0.02, alone)}
    if others:
        compared["snm, spike by spike"] = beside(0.02 * alone / others["events"], others["events"])
    own = {"suite": "density", "layer": "A layer", "density": density, "images": 8}
    return op_row(way, 0.02 * alone, 0, yardstick="float32 convolution", beside=compared, **own)


def test_density() -> None:
    rows = [
        density_row("snm, spike by spike", 0.1, 0.25),
        density_row("snm, densely", 0.1, 0.5, events=2.0),
        density_row("snm, spike by spike", 0.3, 1.5),
        density_row("snm, densely", 0.3, 0.75, events=0.5),
        density_row("snm, spike by spike", 0.5, 2.0),
    ]
    table = tables.density_table(record(rows))
    assert "time at 50 % / at 10 %" in table
    assert cells(table)[:3] == [
        ["A layer", "10", "5.00", "10.0", "20.0"],
        ["A layer", "30", "30.0", "15.0", "20.0"],
        ["A layer", "50", "40.0", "–", "20.0"],
    ]
    # A ratio of 1 lies two thirds of the way from 2 at 10 % to 0.5 at 30 %.
    assert cells(table)[-1] == ["A layer", "8.00", "1.50", "23.3"]


def test_density_with_one_way() -> None:
    rows = [density_row("snm", density, alone) for density, alone in ((0.1, 0.5), (0.5, 0.5))]
    table = tables.density_table(record(rows))
    assert "faster from" not in table
    assert cells(table)[-1] == ["A layer", "1.00"]


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [((2.0, 1.5), "none"), ((0.9, 0.8), "≤ 10"), ((0.9, 1.5, 0.5), "40")],
    ids=["never", "always", "for good"],
)
def test_where_the_dense_way_is_faster(ratios: tuple[float, ...], expected: str) -> None:
    rows = [
        density_row("snm, densely", density, 0.5, events=ratio)
        for density, ratio in zip((0.1, 0.3, 0.5), ratios, strict=False)
    ]
    assert cells(tables.density_table(record(rows)))[-1][-1] == expected


def test_other_sizes_of_the_op_have_their_own_tables() -> None:
    larger = op_row("snm, amplitude", 1e-3, 8, timesteps=32, beside=OURS["beside"])
    both = record([COPY, OURS, larger])
    assert tables.op_table(both).count("| contender |") == 2
    assert tables.usual_op(both) == [COPY, OURS]
    assert len(cells(tables.short_op_table(both))) == 2


def test_short_tables() -> None:
    assert cells(tables.short_op_table(made_up()))[-1] == ["A rival cpu", "8.00", "0.12", "10.0"]
    assert cells(tables.short_network_table(made_up())) == [
        ["A network", "float32", "11.0", "1.10", "2.00"]
    ]


@pytest.mark.parametrize(
    ("relu", "rival", "expected"),
    [(1.0, 1.5, ["1.10", "1.50"]), (0.5, 3.0, ["2.00", "2.00"])],
    ids=["contiguous is slower for ReLU", "contiguous is faster for ReLU"],
)
def test_the_faster_memory_format_counts(relu: float, rival: float, expected: list[str]) -> None:
    """snm takes 1.1 of the ReLU network's time in channels_last, the rival 2 of snm's."""
    others = [
        op_row(
            f"{name}, contiguous",
            0.088 * over_snm,
            0,
            suite="network",
            network="A network",
            images=8,
            yardstick="ReLU network",
            beside={"snm": beside(0.088, over_snm)},
        )
        for name, over_snm in (("ReLU network", relu), ("A rival", rival))
    ]
    [row] = cells(tables.short_network_table(record([*NETWORK, *others])))
    assert row[3:] == expected


def test_networks_of_integers_have_a_column() -> None:
    integers = op_row(
        "snm, integers",
        0.022,
        0,
        suite="network",
        network="A network",
        images=8,
        yardstick="ReLU network",
        beside={"ReLU network": beside(0.08, 0.25), "snm": beside(0.088, 0.25)},
    )
    found = record([*NETWORK, integers])
    assert cells(tables.network_table(found))[0] == [
        *("snm, integers", "float32", "2.75", "0.25", "0.25")
    ]
    short = tables.short_network_table(found)
    assert "| A rival / snm | snm, integers / snm |" in short
    assert cells(short) == [["A network", "float32", "11.0", "1.10", "2.00", "0.25"]]


@pytest.mark.parametrize("lost", ["short-op", "short-network"])
def test_lost_markers_are_noticed(lost: str) -> None:
    marked = "".join(
        f"<!-- benchmarks: {name} -->\n<!-- end -->\n"
        for name in ("short-op", "short-network")
        if name != lost
    )
    assert render.lost("README.md", marked) == {lost}


def test_lost_machine_code_markers_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine_code = importlib.import_module("snm.bench.machine_code")
    text = machine_code.PAGE.read_text(encoding="utf-8")
    page = tmp_path / "gpu.md"
    page.write_text(text.replace("<!-- machine code: devices -->\n", ""), encoding="utf-8")
    monkeypatch.setattr(machine_code, "PAGE", page)
    monkeypatch.setattr("sys.argv", ["machine_code.py", "--check"])
    assert machine_code.main() == 1
    assert capsys.readouterr().out == "gpu.md has no markers for devices\n"


def test_prediction_beside_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine_code = importlib.import_module("snm.bench.machine_code")
    monkeypatch.setattr(machine_code, "SPEED", tmp_path)
    kernel = {
        "backend": "cuda",
        "shape": "wide",
        "drive": "float32",
        "spikes": "int8",
        "graded": False,
        "threads": 128,
        "blocks": 8,
        "neurons": 4,
        "bytes_loaded": 4.0,
        "bytes_stored": 1.0,
        "steps_ahead": 6.0,
        "instructions": 21.0,
        "half_rate": 9.0,
    }
    records = [{"target": 90, "kernels": [kernel]}]
    assert machine_code.measured_table(records) == "No GPU has been measured yet.\n"

    neurons, timesteps = 2**22, 32
    at_half = 5 * neurons * timesteps / (0.5 * 0.9 * 4800e9)
    row = {"suite": "op", "device": "cuda", "backend": "cuda", "dtype": "float32"}
    row |= {"neurons": neurons, "timesteps": timesteps, "bytes_per_neuron_step": 5}
    rows = [
        row | {"contender": "snm, spike", "seconds": at_half},
        row | {"contender": "snm, spike", "seconds": at_half, "neurons": 4096},
        row | {"contender": "copy_", "backend": "", "seconds": at_half},
    ]
    (tmp_path / "a-gpu.json").write_text(json.dumps({"rows": rows}))
    [cells_of_row] = cells(machine_code.measured_table(records))
    assert cells_of_row == ["cuda", "float32 → int8", "4,194,304", "32", "1.00", "0.50"]


@pytest.mark.parametrize(
    ("changed", "predicted"),
    [
        ({}, 1.0),
        ({"steps_ahead": 0.0}, 0.0),
        # Two blocks of 128 threads of 4 float32 neurons have 8 KB under way; 18.3 are wanted.
        ({"blocks": 2, "steps_ahead": 2.0}, 0.45),
        ({"instructions": 72.0}, 0.49),
        ({"half_rate": 36.0}, 0.50),
    ],
)
def test_the_scarcest_of_three_is_predicted(changed: dict[str, float], predicted: float) -> None:
    machine_code = importlib.import_module("snm.bench.machine_code")
    row = {"threads": 128, "blocks": 8, "neurons": 4, "drive": "float32", "steps_ahead": 6.0}
    row |= {"bytes_loaded": 4.0, "bytes_stored": 1.0, "instructions": 21.0, "half_rate": 9.0}
    assert machine_code.DEVICES["H200"].predicted(row | changed) == pytest.approx(
        predicted, abs=0.01
    )


def test_records_of_some_suites_stand_beside_others(tmp_path: Path) -> None:
    (tmp_path / "speed").mkdir()
    made_up().write(tmp_path / "speed" / "a.json")
    record([density_row("snm", 0.1, 0.5)]).write(tmp_path / "speed" / "a-density.json")
    assert render.TABLES["op"](tmp_path).count("**A processor") == 1
    assert render.TABLES["density"](tmp_path).count("**A processor") == 1
    assert render.TABLES["chunks"](tmp_path) == "Not yet measured.\n"
    assert render.pictures(tmp_path).count("benchmarks-") == 1


def test_every_page_with_tables_is_expected() -> None:
    pages = [render.ROOT / "README.md", *render.DOCS.glob("*.md")]
    texts = {page.name: page.read_text(encoding="utf-8") for page in pages}
    marked = {
        name: {found[2] for found in render.MARKED.finditer(text)} for name, text in texts.items()
    }
    assert {name: found for name, found in marked.items() if found} == render.EXPECTED


@pytest.mark.parametrize("name", tables.TABLES)
def test_what_was_not_measured_is_said(name: str) -> None:
    assert tables.TABLES[name](record([])) == "Not measured.\n"


def test_the_page_has_it_all() -> None:
    page = tables.every_table(made_up())
    assert page.startswith(
        "**A processor, 2 cores, 2 threads, avx512**; load average 0.5 before it"
    )
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


@pytest.mark.parametrize("name", ["markdown", "tables", "timing"])
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"snm.bench.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
