"""Makes the tables of what ``bench/integers.py`` recorded."""

from pathlib import Path

from snm.bench.markdown import table
from snm.bench.record import Record, Row, read_all

NOT_MEASURED = "Not measured.\n"
MIB = 2**20


def networks_table(folder: Path) -> str:
    """A table of how long whole networks take, beside their network of integers."""
    sections = []
    for record in _records(folder):
        rows = [
            (
                row["network"],
                str(row["timesteps"]),
                _contender(row),
                f"{1e3 * row['seconds']:.1f}",
                f"{row['integers_of_it']:.3f}",
            )
            for row in record.of_suite("network")
        ]
        head = ("network", "T", "", "ms", "integers take")
        notes = {
            row["network"]: f"{row['network']}: {row['images']} images, neurons send at "
            f"{100 * row['densities'][0]:.1f} to {100 * row['densities'][1]:.1f} % of steps, "
            f"{row['dense']} of its layers were computed densely."
            for row in record.of_suite("network", contender="integers")
        }
        memory = [
            f"Peak of the memory that a call takes, {row['network']}, T = {row['timesteps']}, "
            f"{_contender(row)}: {row['bytes'] / MIB:.0f} MiB, and {row['weights'] / MIB:.0f} MiB "
            "of weights and their packed forms."
            for row in record.of_suite("memory")
        ]
        packaged = [
            f"All {row['images']:,} test images of the packaged network at T = {row['timesteps']}, "
            f"{_contender(row)}: {row['seconds']:.2f} s; integers take {row['integers_of_it']:.2f} "
            "of that."
            for row in record.of_suite("packaged")
        ]
        sections += [_heading(record), table(head, rows, words=3), *notes.values()]
        sections += [*memory, *packaged, ""]
    return "\n".join(sections) or NOT_MEASURED


def accuracy_table(folder: Path) -> str:
    """A table of how many answers are right, in floating point and in integers."""
    sections = []
    for record in _records(folder):
        rows = record.of_suite("accuracy")
        kinds = list(dict.fromkeys(row["contender"] for row in rows))
        found: dict[tuple[str, str, int], dict[str, str]] = {}
        for row in rows:
            key = row["network"], row["method"], row["timesteps"]
            right = f"{100 * row['right'] / row['images']:.2f}"
            found.setdefault(key, {})[row["contender"]] = right
        cells = [
            (network, method, str(steps), *(by.get(kind, "–") for kind in kinds))
            for (network, method, steps), by in found.items()
        ]
        shown = ["float32" if kind == "snm" else kind for kind in kinds]
        if cells:
            sections += [
                f"{_heading(record)} Percent right.\n",
                table(("network", "", "T", *shown), cells, words=2),
            ]
    return "\n".join(sections) or NOT_MEASURED


def _contender(row: Row) -> str:
    """A contender in words."""
    names = {
        "snm": "the spiking network, float32",
        "snm, by events": "the spiking network, float32, by events",
        "integers": "the network of integers",
        "ReLU, all steps": "the ReLU network on T batches",
        "ReLU, one pass": "the ReLU network on one batch",
        "SpikingJelly": "SpikingJelly's conversion",
        "published": "the published step code",
    }
    return names[row["contender"]]


def _heading(record: Record) -> str:
    return f"{record.heading()}\n"


def _records(folder: Path) -> list[Record]:
    return list(read_all(folder / "integers").values())
