"""Renders the tables from the records, so that no number is typed by hand.

    python bench/render.py                  prints all tables
    python bench/render.py neuron sizes     prints these
    python bench/render.py --update         writes them between the markers of README.md and docs/
    python bench/render.py --check          fails if a page differs from its records

A table stands between ``<!-- benchmarks: NAME -->`` and ``<!-- end -->``.
"""

import argparse
import difflib
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MARKED = re.compile(r"(<!-- benchmarks: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)

TIME_STEPS, NEURONS = 32, 2**20
"""The size that the table ``neuron`` shows; ``sizes`` shows the others."""

OURS = "snm, amplitude"


@dataclass(frozen=True)
class Record:
    """One file of pytest-benchmark's JSON."""

    machine: dict[str, Any]
    commit: dict[str, Any]
    date: str
    results: tuple[dict[str, Any], ...]
    """What ``bench/timing.py`` noted of each benchmark."""

    def of_suite(self, suite: str, device: str) -> list[dict[str, Any]]:
        """The results of a suite on a device, fastest first."""
        found = [r for r in self.results if (r["suite"], r["device"]) == (suite, device)]
        return sorted(found, key=lambda result: result["seconds"])

    def heading(self, device: str) -> str:
        """The machine, the versions, the date and the commit, in one line."""
        machine, snm = self.machine, self.machine["snm"]
        cpu = machine["cpu"]
        host = f"{cpu['brand_raw']}, {cpu['cores']} cores"
        if device == "cuda":
            gpu = machine["gpu"]
            where = f"{gpu['name']}, driver {gpu['driver']}, CUDA {gpu['cuda']}"
        else:
            where = f"{host}, {machine['threads']} threads, {snm['isa']}, {machine['heap']}"
        packages = {"snm-kernels": snm["version"], "torch": machine["torch"], **machine["packages"]}
        versions = ", ".join(f"{name} {version}" for name, version in packages.items())
        commit = self.commit.get("id", "unversioned")[:10]
        dirty = " with changes" if self.commit.get("dirty") else ""
        load = f"load average {machine['load_average']:.1f} before the run"
        if policy := machine["environment"]["OMP_WAIT_POLICY"]:
            load += f", threads wait {policy.lower()}"
        return f"**{where}**; {load}; {versions}; {self.date}, commit {commit}{dirty}; medians."


def read_records(folder: Path) -> list[Record]:
    """All records of a folder, by file name."""
    records = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        results = tuple(b["extra_info"] for b in content["benchmarks"] if b["extra_info"])
        records.append(
            Record(
                content["machine_info"], content["commit_info"], content["datetime"][:10], results
            )
        )
    return records


def neuron_table(folder: Path) -> str:
    """A layer of 2²⁰ neurons over 32 steps: every contender."""
    return _neurons(read_records(folder), lambda size: size == (TIME_STEPS, NEURONS))


def sizes_table(folder: Path) -> str:
    """Fewer and more time steps, and a layer that fits into the cache."""
    return _neurons(read_records(folder), lambda size: size != (TIME_STEPS, NEURONS))


def network_table(folder: Path) -> str:
    """Whole networks."""
    head = ("contender", "dtype", "ms per image", "time / snm", "time / ReLU network")
    sections = []
    for record, device in _pairs(read_records(folder)):
        results = record.of_suite("network", device)
        if results:
            sections += [record.heading(device), ""]
        for network in sorted({result["network"] for result in results}):
            group = [result for result in results if result["network"] == network]
            rows = [_network_row(result, group) for result in group]
            sections += [f"{network}, T = {group[0]['timesteps']}:", ""]
            sections += [*_table(head, rows, words=2), ""]
    return "\n".join(sections)


def _network_row(result: dict[str, Any], group: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    peers = {
        peer["contender"]: peer["seconds"] for peer in group if peer["dtype"] == result["dtype"]
    }
    relu = [seconds for name, seconds in peers.items() if name.startswith("ReLU")]
    return (
        result["contender"],
        result["dtype"],
        _number(1e3 * result["seconds"] / result["images"]),
        _ratio(result["seconds"], peers.get("snm")),
        _ratio(result["seconds"], relu[0] if relu else None),
    )


def _neurons(records: Iterable[Record], wanted: Callable[[tuple[int, int]], bool]) -> str:
    head = (
        "contender",
        "runs on",
        "rule",
        "ns per neuron-step",
        "bytes",
        "of `copy_` bandwidth",
        "time / snm",
    )
    sections = []
    for record, device in _pairs(records):
        results = [
            result
            for result in record.of_suite("neuron", device)
            if wanted((result["timesteps"], result["neurons"]))
        ]
        if results:
            sections += [record.heading(device), ""]
        for steps, neurons, dtype in sorted({_workload(result) for result in results}):
            group = [result for result in results if _workload(result) == (steps, neurons, dtype)]
            rows = [*map(_neuron_row(group), group)]
            sections += [f"{dtype}, T = {steps}, {neurons:,} neurons:", ""]
            sections += [*_table(head, rows, words=3), ""]
    return "\n".join(sections)


def _workload(result: dict[str, Any]) -> tuple[int, int, str]:
    return result["timesteps"], result["neurons"], result["dtype"]


def _neuron_row(group: Sequence[dict[str, Any]]) -> Callable[[dict[str, Any]], tuple[str, ...]]:
    """Makes rows of a group's results, fastest first, compared with others of the group."""
    copies = [r for r in group if r["contender"] == "copy_"]
    # Of several backends, the fastest is what a rival is compared with.
    ours: dict[str, float] = {}
    for result in group:
        if result["contender"] == OURS:
            ours.setdefault(result["rule"], result["seconds"])

    def row(result: dict[str, Any]) -> tuple[str, ...]:
        share = "–"
        if copies:
            bandwidth, yardstick = (
                r["bytes_per_neuron_step"] / r["seconds"] for r in (result, copies[0])
            )
            share = f"{bandwidth / yardstick:.2f}"
        return (
            result["contender"],
            result.get("backend") or result.get("implementation", "–"),
            result["rule"] or "–",
            _number(result["ns_per_neuron_step"]),
            str(result["bytes_per_neuron_step"]),
            share,
            _ratio(result["seconds"], ours.get(result["rule"])),
        )

    return row


def _pairs(records: Iterable[Record]) -> list[tuple[Record, str]]:
    return [(record, device) for record in records for device in ("cpu", "cuda")]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> list[str]:
    """A table whose first columns hold words and the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


def _number(value: float) -> str:
    """Three significant digits.

    >>> _number(0.2174), _number(12.345), _number(1234.5)
    ('0.217', '12.3', '1,234')
    """
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def _ratio(seconds: float, reference: float | None) -> str:
    return "–" if reference is None else f"{seconds / reference:.2f}"


def conversions_table(folder: Path) -> str:
    """Published models, converted."""
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
                _number(row["seconds"]),
                _number(row["activation"]),
                _number(row["difference"]),
            )
            for row in record["models"]
        ]
        sections += [
            f"T = {record['timesteps']}, preset `{record['preset']}`, norm `{record['norm']}`, "
            f"{record['images']} random images, on which it was calibrated too; weights drawn at "
            f"random, but for EfficientNet-Lite0's. {_versions(record)}",
            "",
            *_table(head, rows, words=3),
            "",
        ]
    return "\n".join(sections)


def refused_table(folder: Path) -> str:
    """Published models that are refused, and for which operations."""
    sections = []
    for record in _conversions(folder):
        rows = [
            (row["model"], ", ".join(f"`{name}`" for name in row["operations"]), str(row["count"]))
            for row in record["refused"]
        ]
        sections += [*_table(("model", "what is refused", "times"), rows, words=2), ""]
    return "\n".join(sections)


def photos_table(folder: Path) -> str:
    """EfficientNet-Lite0 on labelled photos."""
    sections = []
    for record in _conversions(folder):
        found = record["photos"]
        head = ("preset", *(f"T = {steps}" for steps in found["steps"]))
        rows = [(f"`{name}`", *map(str, right)) for name, right in found["right"].items()]
        sections += [
            f"Right of {found['photos']}; the ReLU network: {found['ann']}. {_versions(record)}",
            "",
            *_table(head, rows, words=1),
            "",
        ]
    return "\n".join(sections)


def drift_table(folder: Path) -> str:
    """What a float memory does to the spike counts."""
    sections = []
    for record in _conversions(folder):
        rows = [(steps, f"{100 * share:.1f} %") for steps, share in record["drift"].items()]
        sections += [*_table(("T", "neurons whose count differs"), rows, words=0), ""]
    return "\n".join(sections)


def _conversions(folder: Path) -> list[dict[str, Any]]:
    """The records of bench/conversions.py, by file name."""
    return [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((folder / "conversions").glob("*.json"))
    ]


def _versions(record: dict[str, Any]) -> str:
    return (
        f"snm-kernels {record['snm']}, torch {record['torch']}, {record['threads']} threads, "
        f"{record['date']}."
    )


TABLES: dict[str, Callable[[Path], str]] = {
    "neuron": neuron_table,
    "sizes": sizes_table,
    "network": network_table,
    "conversions": conversions_table,
    "refused": refused_table,
    "photos": photos_table,
    "drift": drift_table,
}


def fill(text: str, folder: Path) -> str:
    """The text with every marked table rendered anew."""

    def rendered(match: re.Match[str]) -> str:
        start, name, end = match.groups()
        if name not in TABLES:
            raise SystemExit(f"render: no table {name!r}; there are {', '.join(TABLES)}")
        return f"{start}{TABLES[name](folder)}{end}"

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
        names = options.tables or TABLES
        print("\n".join(TABLES[name](options.records) for name in names))
        return 0
    differ = False
    pages = options.page or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    texts = {path: path.read_text(encoding="utf-8") for path in pages}
    if not any(MARKED.search(text) for text in texts.values()):
        parser.error("no page has a table between benchmark markers")
    for path, text in texts.items():
        filled = fill(text, options.records)
        differ = differ or filled != text
        if options.update:
            path.write_text(filled, encoding="utf-8")
            continue
        difference = difflib.unified_diff(
            text.splitlines(keepends=True),
            filled.splitlines(keepends=True),
            path.name,
            "rendered from the records",
        )
        sys.stdout.writelines(difference)
    return int(options.check and differ)


if __name__ == "__main__":
    raise SystemExit(main())
