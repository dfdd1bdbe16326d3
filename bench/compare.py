"""Compares two records of the benchmark and fails if anything of ours got slower.

    python -m snm.bench.compare OLD.json NEW.json
    python bench/compare.py OLD.json NEW.json       in a checkout

Only ratios are compared: each figure is a contender's time over that of the yardstick that ran in
turn with it (``copy_``, a pure read, the plain layer or the ReLU network), so records of two
machines, or of a busy and a quiet one, can be compared, if with care. A figure that grew by more
than ``FLOOR`` plus half the relative interquartile ranges of both records has regressed. Only rows
of snm_kernels and snm that ran in turn with a yardstick count: a rival that got slower is no
regression of ours, and "first call", which has no yardstick, is not compared. A new record with
parts that failed is a failure too.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from snm.bench.markdown import aligned, number, table
from snm.bench.record import Record, Row, identity, read

FLOOR = 0.15
"""By how much a ratio may grow by chance. On a shared machine with 2 cores one record had the same
kernel, float32 to amplitude, at 0.693 to 0.877 of ``copy_``'s time: 12 % to either side of the
middle. From one extreme to the other it is 27 %, so measure again before believing a regression."""


@dataclass(frozen=True)
class Change:
    """A figure that both records have, which is a contender's time over its yardstick's."""

    name: str
    """What was measured, in words."""
    old: float
    """The figure in the old record."""
    new: float
    """The figure in the new record."""
    noise: float
    """The share by which the figure may grow by chance."""

    @property
    def growth(self) -> float:
        """The new figure over the old one."""
        return self.new / self.old

    @property
    def verdict(self) -> str:
        """Whether the contender got ``"slower"``, ``"faster"`` or neither, ``"same"``."""
        if self.growth > 1 + self.noise:
            return "slower"
        return "faster" if self.growth * (1 + self.noise) < 1 else "same"


def changes(old: Record, new: Record) -> Iterator[Change]:
    """All figures of ours that both records have."""
    before, after = _figures(old), _figures(new)
    for key in before.keys() & after.keys():
        (old_ratio, old_spread), (new_ratio, new_spread) = before[key], after[key]
        noise = FLOOR + (old_spread / old_ratio + new_spread / new_ratio) / 2
        yield Change(key, old_ratio, new_ratio, noise)


def absent(old: Record, new: Record) -> tuple[list[str], list[str]]:
    """The names of figures that the new record lacks, and of those that the old one lacks."""
    before, after = _figures(old), _figures(new)
    return sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())


def _figures(record: Record) -> dict[str, tuple[float, float]]:
    """The ratio and its spread of every row of ours that ran in turn with its yardstick."""
    found = {}
    for row in record.rows:
        beside = row["beside"].get(row.get("yardstick"))
        if row["contender"].startswith("snm") and beside is not None:
            found[_name(row)] = beside["ratio"], beside["spread"]
    return found


def _name(row: Row) -> str:
    """What a row measures, in words."""
    return ", ".join(f"{value}" for _, value in identity(row) if value != "")


def main(arguments: list[str] | None = None) -> int:
    """Prints the comparison; returns 1 if a figure got slower, a part failed or nothing could be
    compared, else 0."""
    parser = argparse.ArgumentParser(description="Compares two records; fails on a regression.")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args(arguments)
    old, new = read(options.old), read(options.new)
    if old.machine != new.machine:
        print("The records are of different machines or settings:")
        for record in (old, new):
            print(f"  {record.heading()}")
    found = sorted(changes(old, new), key=lambda change: -change.growth)
    head = ("figure", "verdict", "old", "new", "new / old", "noise")
    cells = [
        (
            change.name,
            change.verdict,
            number(change.old),
            number(change.new),
            f"{change.growth:.2f}",
            f"{change.noise:.2f}",
        )
        for change in found
    ]
    print(aligned(table(head, cells, words=2)))
    gone, added = absent(old, new)
    for names, where in ((gone, "new"), (added, "old")):
        for name in names:
            print(f"not in the {where} record: {name}")
    for name in new.failed:
        print(f"failed in the new record: {name}")
    regressed = [change for change in found if change.verdict == "slower"]
    print(f"{len(found)} compared, {len(regressed)} slower")
    return int(bool(regressed or new.failed) or not found)


if __name__ == "__main__":
    raise SystemExit(main())
