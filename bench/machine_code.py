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

from support.cuda_kernels import BYTES, Kernel  # noqa: E402
from support.machine_code import Measured, cuobjdump, kernels  # noqa: E402
from support.triton_build import Build, compiled  # noqa: E402

PAGE = ROOT / "docs" / "gpu.md"
RECORDS = ROOT / "bench" / "records" / "machine-code"
SPEED = ROOT / "bench" / "records" / "speed"
LIBRARY = Path(snm_kernels.__file__).parent / "libsnm_cuda.so"
MARKED = re.compile(r"(<!-- machine code: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)

LATENCY = 700e-9
"""Seconds from a load to its value on a busy device, which is assumed, not measured."""
SUSTAINED = 0.9
"""The share of the data sheet's bandwidth that large copies reach: 4.3 of 4.8 TB/s on an H200."""
TRITON_NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "i8", None: None}
VARIANTS = [
    ("float32", "float32", False),
    ("float32", "int8", False),
    ("float32", None, False),
    ("float16", "float16", False),
    ("float16", "int8", False),
    ("float16", None, False),
    ("bfloat16", "bfloat16", False),
    ("bfloat16", "int8", False),
    ("bfloat16", None, False),
    ("float32", "float32", True),
]
"""The variants of the kernel: dtypes of drive and spikes, and whether the rule is graded."""


@dataclass(frozen=True)
class Device:
    """What its data sheet says of a GPU."""

    target: int
    """The compute capability, times ten."""
    multiprocessors: int
    """How many multiprocessors it has."""
    bandwidth: float
    """How many bytes of memory it moves a second."""
    clock: float
    """How many cycles it has a second, boosted."""

    @property
    def sustained(self) -> float:
        """How many bytes a second large copies move."""
        return SUSTAINED * self.bandwidth

    @property
    def in_flight(self) -> float:
        """How many bytes must be under way to each multiprocessor for reads alone to reach the
        sustained bandwidth, by Little's law."""
        return self.sustained * LATENCY / self.multiprocessors

    def used(self, instructions: float, moved: float, lanes: int) -> float:
        """The share of its cycles that a multiprocessor spends on issuing some instructions.

        Args:
            instructions: for a neuron and step.
            moved: bytes for a neuron and step, at the sustained bandwidth.
            lanes: threads whose instructions it starts in a cycle.
        """
        neuron_steps = self.sustained / (moved * self.multiprocessors * self.clock)
        return neuron_steps * instructions / lanes

    def predicted(self, row: dict[str, Any]) -> float:
        """The share of the sustained bandwidth that a kernel of a record can reach."""
        moved = row["bytes_loaded"] + row["bytes_stored"]
        reads = row["bytes_loaded"] / moved
        return min(
            1.0,
            under_way(row) / (reads * self.in_flight),
            1 / self.used(row["instructions"], moved, ALL_LANES),
            1 / self.used(row["half_rate"], moved, HALF_RATE_LANES),
        )


ALL_LANES = 128
"""How many lanes a multiprocessor has since sm_80: those of four schedulers with 32 each."""
HALF_RATE_LANES = 64
"""How many lanes of a multiprocessor do comparisons and integers."""


def under_way(row: dict[str, Any]) -> float:
    """The fewest bytes of the drive that are under way to a multiprocessor at any time."""
    resident = row["threads"] * row["blocks"]
    return float(resident * row["neurons"] * BYTES[row["drive"]] * row["steps_ahead"])


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
    75: (1024, 16, 64),
    80: (2048, 32, 164),
    86: (1536, 16, 100),
    89: (1536, 24, 100),
    90: (2048, 32, 228),
    100: (2048, 32, 228),
    120: (1536, 24, 100),
}
"""The most threads, blocks and KB of shared memory of a multiprocessor, by compute capability."""


def resident_blocks(target: int, registers: int, threads: int, shared_bytes: int) -> int:
    """How many blocks of a kernel a multiprocessor has room for at once."""
    most_threads, most_blocks, most_shared = LIMITS[target]
    warps = 2**16 // (-(-registers // 8) * 8 * 32)
    # The system takes 1 KB of each block's.
    by_shared = most_shared * 1024 // (shared_bytes + 1024)
    return min(warps // (threads // 32), most_threads // threads, most_blocks, by_shared)


def record(target: int, library: Path) -> dict[str, Any]:
    """Makes a record of all variants of the kernel in both shapes, in CUDA and in Triton."""
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
                        (kernel.threads, kernel.shared_bytes, kernel.neurons, kernel.rows),
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
                        (
                            32 * build.shape.warps,
                            code.shared_bytes,
                            build.neurons,
                            build.ahead,
                        ),
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
    layout: tuple[int, int, int, int],
    found: Measured,
) -> dict[str, Any]:
    backend, shape, drive, spikes, graded = names
    threads, shared_bytes, neurons, rows = layout
    return {
        "backend": backend,
        "shape": shape,
        "drive": drive,
        "spikes": spikes,
        "graded": graded,
        "registers": registers,
        "threads": threads,
        "shared_bytes": shared_bytes,
        "blocks": resident_blocks(target, registers, threads, shared_bytes),
        "neurons": neurons,
        "rows": rows,
        **asdict(found),
    }


def kernels_table(records: list[dict[str, Any]]) -> str:
    """The table of what each kernel does for one neuron and step."""
    head = (
        "kernel",
        "shape",
        "drive → spikes",
        "registers",
        "blocks × threads per SM",
        "bytes read + written",
        "rows under way",
        "KB under way per SM",
        "instructions",
        "of half rate",
        "issue slots",
        "half-rate lanes",
        "predicted",
    )
    sections = []
    for content in records:
        name, device = device_of(content)
        rows = [_cells(row, device) for row in content["kernels"]]
        sections += [
            f"sm_{content['target']}, for {name}; {content['nvcc']}, triton {content['triton']}, "
            f"snm-kernels {content['snm']}, {content['date']}. Per neuron and step:",
            "",
            *_table(head, rows, words=3),
            "",
        ]
    return "\n".join(sections)


def device_of(content: dict[str, Any]) -> tuple[str, Device]:
    """The fastest device, and its name, that runs a record's machine code."""
    fitting = [(n, d) for n, d in DEVICES.items() if d.target == content["target"]]
    return max(fitting, key=lambda pair: pair[1].bandwidth)


def _cells(row: dict[str, Any], device: Device) -> tuple[str, ...]:
    moved = row["bytes_loaded"] + row["bytes_stored"]
    issued = device.used(row["instructions"], moved, ALL_LANES)
    half = device.used(row["half_rate"], moved, HALF_RATE_LANES)
    return (
        row["backend"],
        row["shape"],
        _kind(row),
        str(row["registers"]),
        f"{row['blocks']} × {row['threads']}",
        f"{row['bytes_loaded']:g} + {row['bytes_stored']:g}",
        f"{row['steps_ahead']:g} of {row['rows']}",
        f"{under_way(row) / 1e3:.0f}",
        f"{row['instructions']:.1f}",
        f"{row['half_rate']:.1f}",
        f"{100 * issued:.0f} %",
        f"{100 * half:.0f} %",
        f"{device.predicted(row):.2f}",
    )


def _kind(row: dict[str, Any]) -> str:
    graded = ", graded" if row["graded"] else ""
    return f"{row['drive']} → {row['spikes'] or 'none'}{graded}"


SENT = {"snm, amplitude": lambda drive: drive, "snm, spike": lambda _: "int8"}
"""What a contender of the benchmark sends, given its drive's dtype."""


def measured_table(records: list[dict[str, Any]]) -> str:
    """The table of what was predicted beside what the benchmark of a GPU measured, as shares of the
    speed of a copy."""
    head = ("kernel", "drive → spikes", "neurons", "steps", "predicted", "measured")
    sections = []
    for content in records:
        _, device = device_of(content)
        kernels = {
            (row["backend"], row["shape"], row["drive"], row["spikes"]): row
            for row in content["kernels"]
            if not row["graded"]
        }
        for path in sorted(SPEED.glob("*.json")):
            measured = json.loads(path.read_text(encoding="utf-8"))
            rows = [
                _beside(kernels, row, device)
                for row in measured["rows"]
                if (row["suite"], row.get("device")) == ("op", "cuda") and row["backend"]
            ]
            found = [row for row in rows if row is not None]
            if found:
                sections += [f"{path.stem}:", "", *_table(head, found, words=2), ""]
    return "\n".join(sections or ["No GPU has been measured yet.", ""])


def _beside(
    kernels: dict[tuple[Any, ...], dict[str, Any]], row: dict[str, Any], device: Device
) -> tuple[str, ...] | None:
    if not row["contender"].startswith("snm, "):
        return None
    spikes = SENT.get(row["contender"], lambda _: None)(row["dtype"])
    kernel = kernels.get((row["backend"], "wide", row["dtype"], spikes))
    # The other shape makes no claim to the bandwidth.
    if kernel is None or row["neurons"] < 2**20:
        return None
    moved = row["bytes_per_neuron_step"] * row["timesteps"] * row["neurons"]
    return (
        row["backend"],
        _kind(kernel),
        f"{row['neurons']:,}",
        str(row["timesteps"]),
        f"{device.predicted(kernel):.2f}",
        f"{moved / row['seconds'] / device.sustained:.2f}",
    )


def devices_table(_records: list[dict[str, Any]]) -> str:
    """The table of how much must be under way on each device, and of the number of neurons up to
    which the narrow shape is taken."""
    head = ("GPU", "SMs", "TB/s", "KB per SM", "float32 neurons, wide from", "float16, wide from")
    rows = [
        (
            name,
            str(device.multiprocessors),
            f"{device.bandwidth / 1e12:.2f}",
            f"{device.in_flight / 1e3:.1f}",
            *(f"{(2 * device.multiprocessors - 1) * 128 * n + 1:,}" for n in (4, 8)),
        )
        for name, device in DEVICES.items()
    ]
    return "\n".join([*_table(head, rows, words=1), ""])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], words: int) -> list[str]:
    rule = ("---",) * words + ("---:",) * (len(head) - words)
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


TABLES = {"kernels": kernels_table, "devices": devices_table, "measured": measured_table}


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
