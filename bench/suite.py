"""Runs the benchmark: a process for each part of it, and one record, written after every part.

Processes of their own, because a heap's or an instruction set's setting is read once a process, and
because what one part leaves behind, torch.compile above all, slows down the next.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import snm_kernels
from snm.bench import picture, record, tables
from snm.bench.markdown import aligned
from snm.bench.record import Record
from snm.bench.scale import SCALES
from snm.bench.timing import HEAP_VARIABLES

FOLDER = Path(__file__).resolve().parent
ISAS = ("avx512", "avx2", "baseline")
NOTED = {"op": ("isa",), "rivals": ("heap",)}
"""The settings that tell rows of a suite apart if it ran in several processes."""


class Part(NamedTuple):
    """The part of a run that one process does."""

    suite: str
    module: str
    heap: str = "warm"
    isa: str = ""
    """The instruction set; empty for the processor's best."""

    def __str__(self) -> str:
        settings = [self.isa or "", "" if self.heap == "warm" else f"{self.heap} heap"]
        return ", ".join([self.module.removesuffix(".py"), *filter(None, settings)])

    def environment(self) -> dict[str, str]:
        """The environment of this process, with the heap and the instruction set of the part."""
        kept = {
            name: value
            for name, value in os.environ.items()
            # What steers a pytest around this one, its plugins and workers, is not for this one.
            if name not in HEAP_VARIABLES and not name.startswith("PYTEST_")
        }
        heap = HEAP_VARIABLES if self.heap == "warm" else {}
        isa = {"SNM_CPU_ISA": self.isa} if self.isa else {}
        return {**kept, **heap, **isa, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def unknown(device: str, scale: str, suites: Sequence[str]) -> list[str]:
    """The names among these that are not suites of the run."""
    return [suite for suite in suites if suite not in SCALES[scale].suites[device]]


def parts(device: str, scale: str, suites: Sequence[str] = ()) -> Iterator[Part]:
    """The parts of a run in order, of all suites or of the given ones.

    A GPU needs neither heaps nor instruction sets.
    """
    wanted, on_cpu = SCALES[scale], device == "cpu"
    best = ISAS.index(snm_kernels.build_info().isa)
    older = ISAS[best + 1 :] if on_cpu and wanted.every_isa else ()
    networks = ["network.py", "compiled_network.py"][: 1 + wanted.compiled_networks]
    of_suite = {
        "op": [Part("op", "neuron.py", isa=isa) for isa in ("", *older)],
        "rivals": [
            Part("rivals", "rivals.py", heap)
            for heap in (wanted.heaps if on_cpu else wanted.heaps[:1])
        ],
        "sweep": [Part("sweep", "sweep.py")],
        "layouts": [Part("layouts", "layouts.py")],
        "network": [Part("network", module) for module in networks],
        "density": [Part("density", "density.py")],
        "chunks": [Part("chunks", "chunks.py")],
        "calls": [Part("calls", module) for module in ("calls.py", "first_call.py")],
    }
    for suite in suites or wanted.suites[device]:
        yield from of_suite[suite]


def run(
    device: str,
    scale: str,
    folder: Path,
    limit: float = float("inf"),
    suites: Sequence[str] = (),
) -> int:
    """Runs all parts, prints each table when it is complete, and writes all results.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        scale: a name in ``scale.SCALES``.
        folder: for ``record.json``, ``tables.md`` and ``roofline.svg``; it is made.
        limit: seconds after which the part that runs is ended, and no other begun.
        suites: of those of the scale, in the order in which to run them; none for all.

    Returns:
        0 if every part ran to its end, else 1. The record is written either way.
    """
    end = time.monotonic() + limit
    found = record.begin(scale, device)
    folder.mkdir(parents=True, exist_ok=True)
    queue = [*parts(device, scale, suites)]
    for part, following in zip(queue, [*queue[1:], None], strict=True):
        _run_part(part, found, end - time.monotonic())
        # Should this process be ended, what it has measured is there.
        found.write(folder / "record.json")
        (folder / "tables.md").write_text(tables.every_table(found), encoding="utf-8")
        ended = following is None or following.suite != part.suite
        if ended and found.of_suite(part.suite):
            print(f"\n{aligned(tables.TABLES[part.suite](found))}\n", flush=True)
    picture.draw(found, folder / "roofline.svg")
    print(found.heading())
    for reason in found.skipped:
        print(f"not run: {reason}")
    for name in found.failed:
        print(f"failed: {name}")
    print(f"{len(found.rows)} rows in {folder / 'record.json'}")
    return int(bool(found.failed))


def _run_part(part: Part, found: Record, seconds: float) -> None:
    """Runs a part in a process of its own and adds what it measures to the record."""
    if seconds <= 0:
        found.failed.append(f"{part}: no time left")
        return
    print(f"{part} ...", end=" ", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        result, log = Path(scratch) / "rows.json", Path(scratch) / "log"
        command = [sys.executable, "-m", "pytest", str(FOLDER / "timed" / part.module), "-q"]
        # A project around this folder may have settings and a conftest.py of its own.
        command += ["-c", os.devnull, f"--rootdir={FOLDER}", f"--confcutdir={FOLDER}"]
        command += ["-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider"]
        command += [f"--benchmark-json={result}", "--benchmark-quiet"]
        command += [f"--bench-device={found.device}", f"--bench-scale={found.scale}"]
        with log.open("w") as output:
            process = subprocess.Popen(
                command, env=part.environment(), cwd=scratch, stdout=output, stderr=output
            )
            try:
                status = process.wait(None if seconds == float("inf") else seconds)
            except subprocess.TimeoutExpired:
                found.failed.append(f"{part}: out of time")
                status = _end(process)
        print(f"{time.monotonic() - start:.0f} s", flush=True)
        if status:
            print(log.read_text(errors="replace")[-3000:])
        if not result.exists():
            found.failed.append(f"{part}: no result")
            return
        content = json.loads(result.read_text(encoding="utf-8"))
    noted = {name: content[name] for name in NOTED.get(part.suite, ()) if found.device == "cpu"}
    found.rows.extend({**row, **noted} for row in content["rows"])
    found.skipped.extend(reason for reason in content["skipped"] if reason not in found.skipped)
    found.failed.extend(content["failed"])


def _end(process: subprocess.Popen[bytes]) -> int:
    """Interrupts pytest, which then writes the rows that it has; returns its exit status."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
