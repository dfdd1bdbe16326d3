"""Counts what the neuron's GPU kernels do, from their machine code; needs no GPU.

    python bench/machine_code.py                  prints the tables of docs/gpu.md
    python bench/machine_code.py --record         compiles, measures, writes the records anew
    python bench/machine_code.py --record --target 80 90
    python bench/machine_code.py --update         writes the tables into docs/gpu.md
    python bench/machine_code.py --check          fails if the page differs or lacks a table

The CUDA kernels are read from the library of this build, Triton's are compiled. A table stands
between ``<!-- machine code: NAME -->`` and ``<!-- end -->``.
"""

import argparse
import datetime
import json
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton

import snm_kernels

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from cuda_kernels import BYTES, Kernel  # noqa: E402
from machine_code import Measured, cuobjdump, kernels  # noqa: E402
from triton_build import Build, compiled  # noqa: E402

PAGE = ROOT / "docs" / "gpu.md"
RECORDS = ROOT / "bench" / "records" / "machine-code"
LIBRARY = Path(snm_kernels.__file__).parent / "libsnm_cuda.so"
MARKED = re.compile(r"(<!-- machine code: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)

LATENCY = 700e-9
"""Seconds from a load to its value on a busy device: what is assumed, not measured."""
THREADS = {"wide": 256, "narrow": 32}
"""Of a CUDA block."""
TRITON_NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "i8", None: None}
VARIANTS = [
    ("float32", "float32", False),
    ("float32", "int8", False),
    ("float32", None, False),
    ("float16", "float16", False),
    ("float16", "int8", False),
    ("float16", None, False),
    ("bfloat16", "bfloat16", False),
    ("float32", "float32", True),
]
"""Dtypes of drive and spikes, and whether the rule is graded."""


@dataclass(frozen=True)
class Device:
    """What a data sheet says of a GPU."""

    target: int
    multiprocessors: int
    bandwidth: float
    """Bytes a second."""
    clock: float
    """Cycles a second, boosted."""

    @property
    def in_flight(self) -> float:
        """Bytes that have to be on their way to each multiprocessor, by Little's law."""
        return self.bandwidth * LATENCY / self.multiprocessors

    def issue(self, instructions: float, moved: float) -> float:
        """Share of the issue slots, of which there are four, that full bandwidth takes."""
        neuron_steps = self.bandwidth / (moved * self.multiprocessors * self.clock)
        return neuron_steps * instructions / 32 / 4


DEVICES = {
    "T4": Device(75, 40, 320e9, 1.59e9),
    "A100 80 GB": Device(80, 108, 2039e9, 1.41e9),
    "RTX 3090": Device(86, 82, 936e9, 1.695e9),
    "RTX 4090": Device(89, 128, 1008e9, 2.52e9),
    "H100 SXM": Device(90, 132, 3350e9, 1.83e9),
    "H200": Device(90, 132, 4800e9, 1.83e9),
    "B200": Device(100, 148, 8000e9, 1.85e9),
    "RTX 5090": Device(120, 170, 1792e9, 2.41e9),
}
LIMITS = {
    75: (1024, 16),
    80: (2048, 32),
    86: (1536, 16),
    89: (1536, 24),
    90: (2048, 32),
    100: (2048, 32),
    120: (1536, 24),
}
"""Threads and blocks of a multiprocessor, at most."""


def resident_threads(target: int, registers: int, threads: int) -> int:
    """How many threads, in blocks of so many, a multiprocessor has room for at once."""
    most_threads, most_blocks = LIMITS[target]
    warps = 2**16 // (-(-registers // 8) * 8 * 32)
    return threads * min(warps // (threads // 32), most_threads // threads, most_blocks)


def record(target: int, library: Path) -> dict[str, Any]:
    """Measures all variants of both shapes, in CUDA and in Triton."""
    listings = kernels(cuobjdump("-sass", "-arch", f"sm_{target}", library))
    usage = cuobjdump("-res-usage", "-arch", f"sm_{target}", library)
    registers = {
        name: int(number) for name, number in re.findall(r"Function (\S+):\s+REG:(\d+)", usage)
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for drive, spikes, graded in VARIANTS:
            for shape in ("wide", "narrow"):
                kernel = Kernel(drive, spikes, graded, shape == "wide")
                rows.append(
                    _row(
                        target,
                        ("cuda", shape, drive, spikes, graded),
                        registers[kernel.name(listings)],
                        (THREADS[shape], kernel.neurons, kernel.ahead),
                        kernel.measure(listings),
                    )
                )
                build = Build(
                    target, TRITON_NAMES[drive], TRITON_NAMES[spikes], graded, shape == "wide"
                )
                code = compiled(build, Path(folder))
                rows.append(
                    _row(
                        target,
                        ("triton", shape, drive, spikes, graded),
                        code.registers,
                        (32 * build.shape.warps, build.neurons, build.shape.ahead),
                        code.measure(build),
                    )
                )
    info = snm_kernels.build_info()
    return {
        "target": target,
        "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        "snm": info.version,
        "nvcc": info.cuda_compiler,
        "triton": triton.__version__,
        "kernels": rows,
    }


def _row(
    target: int,
    names: tuple[str, str, str, str | None, bool],
    registers: int,
    layout: tuple[int, int, int],
    found: Measured,
) -> dict[str, Any]:
    backend, shape, drive, spikes, graded = names
    threads, neurons, ahead = layout
    return {
        "backend": backend,
        "shape": shape,
        "drive": drive,
        "spikes": spikes,
        "graded": graded,
        "registers": registers,
        "threads": threads,
        "resident": resident_threads(target, registers, threads),
        "neurons": neurons,
        "ahead": ahead,
        **asdict(found),
    }


def kernels_table(records: list[dict[str, Any]]) -> str:
    """What each kernel does for one neuron and step."""
    head = (
        "kernel",
        "shape",
        "drive → spikes",
        "registers",
        "threads per SM",
        "bytes read",
        "bytes written",
        "width of a load",
        "steps ahead",
        "KB on their way per SM",
        "instructions",
        "issue slots at full bandwidth",
    )
    sections = []
    for content in records:
        name, device = next((n, d) for n, d in DEVICES.items() if d.target == content["target"])
        rows = [_cells(row, device) for row in content["kernels"]]
        sections += [
            f"sm_{content['target']}, for {name}; {content['nvcc']}, triton {content['triton']}, "
            f"snm-kernels {content['snm']}, {content['date']}. Per neuron and step:",
            "",
            *_table(head, rows, words=3),
            "",
        ]
    return "\n".join(sections)


def _cells(row: dict[str, Any], device: Device) -> tuple[str, ...]:
    moved = row["bytes_loaded"] + row["bytes_stored"]
    on_their_way = row["resident"] * row["neurons"] * BYTES[row["drive"]] * row["steps_ahead"]
    graded = ", graded" if row["graded"] else ""
    return (
        row["backend"],
        row["shape"],
        f"{row['drive']} → {row['spikes'] or 'none'}{graded}",
        str(row["registers"]),
        str(row["resident"]),
        f"{row['bytes_loaded']:g}",
        f"{row['bytes_stored']:g}",
        str(row["load_width"]),
        f"{row['steps_ahead']:.1f} of {row['ahead']}",
        f"{on_their_way / 1e3:.0f}",
        f"{row['instructions']:.1f}",
        f"{100 * device.issue(row['instructions'], moved):.0f} %",
    )


def devices_table(_records: list[dict[str, Any]]) -> str:
    """What must be on its way, and up to how many neurons the narrow shape is taken."""
    head = ("GPU", "SMs", "TB/s", "KB per SM", "float32 neurons, wide from", "float16, wide from")
    rows = [
        (
            name,
            str(device.multiprocessors),
            f"{device.bandwidth / 1e12:.2f}",
            f"{device.in_flight / 1e3:.1f}",
            *(f"{(device.multiprocessors - 1) * 256 * n + 1:,}" for n in (4, 8)),
        )
        for name, device in DEVICES.items()
    ]
    return "\n".join([*_table(head, rows, words=1), ""])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], words: int) -> list[str]:
    rule = ("---",) * words + ("---:",) * (len(head) - words)
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


TABLES = {"kernels": kernels_table, "devices": devices_table}


def main() -> int:
    parser = argparse.ArgumentParser(description="Counts what the GPU kernels do.")
    parser.add_argument("--record", action="store_true", help="measure and write the records")
    parser.add_argument("--target", type=int, nargs="*", default=[90], help="default: 90")
    parser.add_argument("--library", type=Path, default=LIBRARY, help="default: of this build")
    parser.add_argument("--records", type=Path, default=RECORDS)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--update", action="store_true", help="write the tables into the page")
    mode.add_argument("--check", action="store_true", help="fail if the page differs")
    options = parser.parse_args()
    if options.record:
        options.records.mkdir(parents=True, exist_ok=True)
        for target in options.target:
            text = json.dumps(record(target, options.library), indent=1) + "\n"
            (options.records / f"sm_{target}.json").write_text(text, encoding="utf-8")
    paths = sorted(options.records.glob("*.json"))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    tables = {name: table(records) for name, table in TABLES.items()}
    if not (options.update or options.check):
        print("\n".join(tables.values()))
        return 0
    text = PAGE.read_text(encoding="utf-8")
    if lost := {*TABLES} - {found[2] for found in MARKED.finditer(text)}:
        print(f"{PAGE.name} has no markers for {', '.join(sorted(lost))}")
        return 1
    filled = MARKED.sub(lambda found: f"{found[1]}{tables[found[2]]}{found[3]}", text)
    if options.update:
        PAGE.write_text(filled, encoding="utf-8")
    elif filled != text:
        print(f"{PAGE.name} differs from its records: python bench/machine_code.py --update")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
