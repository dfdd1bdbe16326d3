"""The tables of a made-up record of few time steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snm.bench import few_steps_tables as tables
from snm.bench import render
from support.bench_records import record

NETWORK = {
    "suite": "network",
    "network": "a network",
    "about": "some images",
    "images": 4000,
    "calibration": 1000,
    "parameters": 1234,
    "accuracy": 0.95,
    "agreement": 1.0,
}
UNTIL = {"suite": "until", "network": "a network", "method": "snm-zero", "asked": 0.995}
UNTIL["agreeing_with"] = "ReLU network"
DIAGNOSIS = {
    "suite": "diagnosis",
    "network": "a network",
    "method": "snm",
    "timesteps": 8,
    "images": 500,
    "layer": "1",
    "activation": 0.5,
    "error": 0.1,
    "parts": {
        "inherited": 0.05,
        "correction": -0.05,
        "clipping": 0.025,
        "quantisation": 0.05,
        "order": 0.025,
    },
    "saturated": 0.125,
    "negative": 0.25,
    "advice": "do this",
}
PHOTOS = {
    "suite": "photos",
    "network": "another",
    "photos": 20,
    "ann": 17,
    "timesteps": 8,
    "right": {"snm-zero": 3, "tuned": 12},
    "seconds": 61.24,
    "chosen": ["tuned", "snm-zero"],
    "complete": False,
}


def accuracy(method: str, timesteps: int, share: float, **others: Any) -> dict[str, Any]:
    return {
        "suite": "accuracy",
        "network": "a network",
        "method": method,
        "norm": "neuron",
        "timesteps": timesteps,
        "accuracy": share,
        "agreement": share - 0.01,
        **others,
    }


def tuned(timesteps: int, share: float, max_spikes: int = 1, **others: Any) -> dict[str, Any]:
    chosen = {"seconds": 12.345, "chosen": "tuned", "fitted_to": 128, "complete": True}
    others.setdefault("weights", True)
    return accuracy("tuned", timesteps, share, max_spikes=max_spikes, **chosen, **others)


def folder(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    made = replace(record(rows, threads=1), versions={"snm-kernels": "1.2.3", "torch": "2.0"})
    (tmp_path / "few-steps").mkdir()
    made.write(tmp_path / "few-steps" / "machine.json")
    return tmp_path


def cells(table: str) -> list[list[str]]:
    """The rows under the heads of Markdown tables."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


def test_accuracy(tmp_path: Path) -> None:
    rows = [
        NETWORK,
        accuracy("snm", 2, 0.5),
        accuracy("snm", 4, 0.75),
        {**accuracy("snm", 4, 0.5), "norm": "layer"},
        accuracy("if-half", 4, 0.5, first_pass="srp"),
        tuned(2, 0.9),
        tuned(2, 1, 4),
        tuned(2, 0.8, weights=False),
    ]
    table = tables.accuracy_table(folder(tmp_path, rows))
    assert "**A processor, 1 thread, avx512**; snm-kernels 1.2.3, torch 2.0; 2026-01-02" in table
    assert (
        "`a network`, 1,234 parameters, on some images, made with 1,000 others; the ReLU network: "
        "95.00." in table
    )
    assert "|  | T = 2 | T = 4 |" in table
    assert cells(table) == [
        ["`snm`", "50.00 (49.00)", "75.00 (74.00)"],
        ["`snm`, norm `layer`", "–", "50.00 (49.00)"],
        ["`if-half`, T steps of SRP before", "–", "50.00 (49.00)"],
        ["tuned", "90.00 (89.00)", "–"],
        ["tuned, up to 4 spikes a step", "100.00 (99.00)", "–"],
        ["tuned, weights kept", "80.00 (79.00)", "–"],
    ]


def test_the_figure_of_all_images(tmp_path: Path) -> None:
    rows = [{**NETWORK, "accuracy_of_all": 0.96}, tuned(8, 0.94, accuracy_of_all=0.9575)]
    path = folder(tmp_path, rows)
    assert "the ReLU network: 95.00, of all 5,000: 96.00." in tables.accuracy_table(path)
    assert cells(tables.tuning_table(path))[0][-1] == "1.00, of all images 0.25"


def test_tuning(tmp_path: Path) -> None:
    cut = {**tuned(4, 0.955, 4, weights=False), "chosen": "snm-zero", "complete": False}
    assert cells(tables.tuning_table(folder(tmp_path, [NETWORK, tuned(2, 0.925), cut]))) == [
        ["a network", "2", "1", "fitted", "128", "`tuned`", "yes", "12.3", "2.50"],
        ["a network", "4", "4", "kept", "128", "`snm-zero`", "no", "12.3", "-0.50"],
    ]


def test_until(tmp_path: Path) -> None:
    found = {
        "agreement": 0.9951,
        "mean_steps": 8.0,
        "fixed_steps": 32,
        "fixed_agreement": 0.9955,
        "time_over_fixed": 0.504,
    }
    refused = {**UNTIL, "method": "tuned", "agreeing_with": "T = 8", "refused": 8}
    assert cells(tables.until_table(folder(tmp_path, [{**UNTIL, **found}, refused]))) == [
        [
            *("a network", "`snm-zero`", "ReLU network", "99.5 %", "99.51 %"),
            *("8.00", "32", "99.55 %", "0.25", "0.50"),
        ],
        ["a network", "tuned", "T = 8", "99.5 %", "refused", *("–",) * 5],
    ]


def test_diagnosis(tmp_path: Path) -> None:
    table = tables.diagnosis_table(folder(tmp_path, [DIAGNOSIS]))
    assert "`a network`, T = 8, 500 images" in table
    assert "- `snm`: do this\n" in table
    assert cells(table) == [
        ["`snm`", "1", "20.00", "10.00", "-10.00", "5.00", "10.00", "5.00", "12.5 %", "25.0 %"]
    ]


def test_photos(tmp_path: Path) -> None:
    table = tables.photos_table(folder(tmp_path, [PHOTOS]))
    assert table.startswith("Right of 20; the ReLU network: 17.\n")
    assert cells(table) == [["8", "3", "12", "`tuned`, `snm-zero`", "no", "61.2"]]


@pytest.mark.parametrize("name", ["tuning", "until", "diagnosis", "few-steps-photos"])
def test_what_was_not_measured_is_said(name: str, tmp_path: Path) -> None:
    assert render.TABLES[name](folder(tmp_path, [NETWORK])) == "Not measured.\n"


@pytest.mark.parametrize("name", ["few-steps", "tuning", "until", "diagnosis", "few-steps-photos"])
def test_no_record_no_table(name: str, tmp_path: Path) -> None:
    assert render.TABLES[name](tmp_path) == ""
