"""Makes the tables of what ``bench/conversions.py`` recorded."""

import json
from pathlib import Path
from typing import Any

from snm.bench.markdown import number, table


def conversions_table(folder: Path) -> str:
    """A table of the published models that were converted."""
    head = (
        "model",
        "image",
        "traced by",
        "layers of neurons",
        "neurons",
        "seconds to convert",
        "mean activation",
        "mean \\|rate − activation\\|",
    )
    sections = []
    for record in _conversions(folder):
        rows = [
            (
                row["model"],
                "×".join(map(str, row["image"])),
                row["tracer"],
                str(row["layers"]),
                f"{row['neurons']:,}",
                number(row["seconds"]),
                number(row["activation"]),
                number(row["difference"]),
            )
            for row in record["models"]
        ]
        sections += [
            f"T = {record['timesteps']}, preset `{record['preset']}`, norm `{record['norm']}`, "
            f"{record['images']} random images, on which it was calibrated too; weights drawn at "
            f"random, but for EfficientNet-Lite0's. {_versions(record)}",
            "",
            table(head, rows, words=3),
        ]
    return "\n".join(sections)


def refused_table(folder: Path) -> str:
    """A table of the published models that are refused, and of the operations that are why."""
    sections = []
    for record in _conversions(folder):
        rows = [
            (row["model"], ", ".join(f"`{name}`" for name in row["operations"]), str(row["count"]))
            for row in record["refused"]
        ]
        sections += [table(("model", "what is refused", "times"), rows, words=2)]
    return "\n".join(sections)


def photos_table(folder: Path) -> str:
    """A table of how many labelled photos EfficientNet-Lite0 gets right."""
    sections = []
    for record in _conversions(folder):
        found = record["photos"]
        head = ("preset", *(f"T = {steps}" for steps in found["steps"]))
        rows = [(f"`{name}`", *map(str, right)) for name, right in found["right"].items()]
        sections += [
            f"Right of {found['photos']}; the ReLU network: {found['ann']}. {_versions(record)}",
            "",
            table(head, rows, words=1),
        ]
    return "\n".join(sections)


def drift_table(folder: Path) -> str:
    """A table of how many neurons send another number of spikes if their memory is a float."""
    sections = []
    for record in _conversions(folder):
        rows = [(steps, f"{100 * share:.1f} %") for steps, share in record["drift"].items()]
        sections += [table(("T", "neurons whose count differs"), rows, words=0)]
    return "\n".join(sections)


def _conversions(folder: Path) -> list[dict[str, Any]]:
    """The records of bench/conversions.py, in the order of their file names."""
    return [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((folder / "conversions").glob("*.json"))
    ]


def _versions(record: dict[str, Any]) -> str:
    return (
        f"snm-kernels {record['snm']}, torch {record['torch']}, {record['threads']} threads, "
        f"{record['date']}."
    )
