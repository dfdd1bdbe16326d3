"""Renders the tables and pictures of the pages from the records: no number is typed by hand.

    python bench/render.py --update         writes them into README.md and docs/
    python bench/render.py --check          fails if a page differs or lacks a table
    python bench/render.py op sweep         prints these tables of all records

A table stands between ``<!-- benchmarks: NAME -->`` and ``<!-- end -->``. Records lie in
``bench/records/speed/`` (of ``snm bench``), ``bench/records/conversions/``,
``bench/records/few-steps/``, ``bench/records/integers/`` and ``bench/records/scaling/``.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from snm.bench import (
    conversion_tables,
    few_steps_tables,
    integers_tables,
    picture,
    scaling,
    tables,
)
from snm.bench.record import Record, read_all

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
MARKED = re.compile(r"(<!-- benchmarks: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def speed_table(name: str, records: Path) -> str:
    """One of the tables of ``tables.TABLES`` for each record that has it, under its heading."""
    found = [(each, tables.TABLES[name](each)) for each in read_all(records / "speed").values()]
    sections = [f"{each.heading()}\n\n{text}" for each, text in found if text != tables.NOTHING]
    return "\n".join(sections) or "Not yet measured.\n"


def pictures(records: Path) -> str:
    """Links to the pictures of all machines; :func:`draw_pictures` writes the files."""
    return "\n".join(
        f"![Bandwidth of {record.machine['cpu']}]({_picture(name).name})\n"
        for name, record in _with_pictures(records).items()
    )


def draw_pictures(records: Path) -> None:
    for name, record in _with_pictures(records).items():
        picture.draw(record, _picture(name))


def stale_pictures(records: Path) -> list[str]:
    """The pictures that are missing, or that show another record."""
    return [
        _picture(name).name
        for name, record in _with_pictures(records).items()
        if not _picture(name).exists()
        or picture.digest(record) not in _picture(name).read_text(encoding="utf-8")
    ]


def _with_pictures(records: Path) -> dict[str, Record]:
    """The records of the op, by name; others may be of some suites alone."""
    found = read_all(records / "speed")
    return {name: record for name, record in found.items() if record.of_suite("op")}


def _picture(name: str) -> Path:
    return DOCS / f"benchmarks-{name}.svg"


TABLES: dict[str, Callable[[Path], str]] = {
    **{name: partial(speed_table, name) for name in tables.TABLES},
    "pictures": pictures,
    "conversions": conversion_tables.conversions_table,
    "refused": conversion_tables.refused_table,
    "photos": conversion_tables.photos_table,
    "drift": conversion_tables.drift_table,
    "few-steps": few_steps_tables.accuracy_table,
    "tuning": few_steps_tables.tuning_table,
    "until": few_steps_tables.until_table,
    "diagnosis": few_steps_tables.diagnosis_table,
    "few-steps-photos": few_steps_tables.photos_table,
    "integers": integers_tables.networks_table,
    "integer-accuracy": integers_tables.accuracy_table,
    "scaling": scaling.scaling_tables,
}


EXPECTED = {
    "README.md": {"short-op", "short-network"},
    "benchmarks.md": {"pictures", "op", "rivals", "sweep", "layouts", "network", "calls"},
    "cluster.md": {"scaling"},
    "conversion.md": {"conversions", "refused", "photos", "drift"},
    "integers.md": {"integers", "density", "integer-accuracy"},
    "few-steps.md": {"few-steps", "tuning", "until", "diagnosis", "few-steps-photos"},
}
"""The tables that a page has, so that lost markers are noticed."""


def lost(page: str, text: str) -> set[str]:
    """The tables that a page should have, but has no markers for."""
    return EXPECTED.get(page, set()) - {found[2] for found in MARKED.finditer(text)}


def fill(text: str, records: Path) -> str:
    """A text with every marked table rendered anew."""

    def rendered(match: re.Match[str]) -> str:
        start, name, end = match.groups()
        if name not in TABLES:
            raise SystemExit(f"render: no table {name!r}; there are {', '.join(TABLES)}")
        return f"{start}{TABLES[name](records)}{end}"

    return MARKED.sub(rendered, text)


def main() -> int:
    parser = argparse.ArgumentParser(description="Renders the benchmark tables from the records.")
    parser.add_argument("tables", nargs="*", metavar="table", help=f"{', '.join(TABLES)}; all")
    parser.add_argument("--records", type=Path, default=ROOT / "bench" / "records")
    parser.add_argument(
        "--page", type=Path, nargs="*", help="files with tables (default: README.md and docs/)"
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--update", action="store_true", help="write the tables into the pages")
    mode.add_argument("--check", action="store_true", help="fail if the pages' tables differ")
    options = parser.parse_args()
    unknown = [name for name in options.tables if name not in TABLES]
    if unknown:
        parser.error(f"no table {', '.join(unknown)}; there are {', '.join(TABLES)}")
    if not (options.update or options.check):
        print("\n".join(TABLES[name](options.records) for name in options.tables or TABLES))
        return 0
    pages = options.page or [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
    texts = {path: path.read_text(encoding="utf-8") for path in pages}
    if not any(MARKED.search(text) for text in texts.values()):
        parser.error("no page has a table between benchmark markers")
    missing = [(path.name, name) for path, text in texts.items() for name in lost(path.name, text)]
    for page, name in sorted(missing):
        print(f"{page} has no markers for {name}")
    filled = {path: fill(text, options.records) for path, text in texts.items()}
    if options.update:
        for path, text in filled.items():
            path.write_text(text, encoding="utf-8")
        draw_pictures(options.records)
        return int(bool(missing))
    for path, text in texts.items():
        difference = difflib.unified_diff(
            text.splitlines(keepends=True),
            filled[path].splitlines(keepends=True),
            path.name,
            "rendered from the records",
        )
        sys.stdout.writelines(difference)
    stale = stale_pictures(options.records)
    for name in stale:
        print(f"{name} differs from its record")
    return int(filled != texts or bool(stale or missing))


if __name__ == "__main__":
    raise SystemExit(main())
