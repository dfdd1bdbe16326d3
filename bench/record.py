"""The record of a run of the benchmark: its machine, and every row that was measured."""

import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from cpuinfo import get_cpu_info

import snm_kernels

Row = dict[str, Any]
"""One measurement: what ``timing.time_beside`` notes, and what the module of timings adds."""

ROOT = Path(__file__).resolve().parent.parent
"""The repository, if this runs from a checkout."""

PACKAGES = ("spikingjelly", "triton")
"""The packages whose versions are noted, besides torch."""
UNKNOWN = "unknown"
"""Stands for a commit or a driver that no program here tells."""
IDENTITY = (
    *("suite", "contender", "network", "rule", "backend", "device", "dtype"),
    *("layer", "density", "timesteps", "neurons", "images", "chunk_mebibytes", "isa", "heap"),
)


@dataclass(frozen=True)
class Record:
    """All that one run of the benchmark measured, and where.

    No path, host or user name is in it, so that it can be shown to others.
    """

    machine: dict[str, Any]
    versions: dict[str, str]
    commit: str
    date: str
    scale: str
    device: str
    environment: dict[str, str]
    """The variables that were set, of those that change figures, with their values."""
    load_average: float
    """The load of the last minute before the run, as other work on these cores spoils figures."""
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """What did not run, and why; mostly rivals that are not installed."""
    failed: list[str] = field(default_factory=list)

    def of_suite(self, *suites: str, **wanted: object) -> list[Row]:
        """The rows of suites that have these values, in the order in which they ran."""
        return [
            row
            for row in self.rows
            if row["suite"] in suites and all(row.get(k) == v for k, v in wanted.items())
        ]

    def heading(self) -> str:
        """The machine, the versions, the date and the commit, in one line of Markdown."""
        machine = self.machine
        where = f"{machine['cpu']}, {machine['cores']} cores"
        if self.device == "cuda":
            gpu = machine["gpu"]
            where = f"{gpu['name']}, driver {gpu['driver']}, CUDA {gpu['cuda']}"
        else:
            where += f", {machine['threads']} threads, {machine['isa']}"
        load = f"load average {self.load_average:.1f} before it"
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        figures = "medians, but first calls ran once"
        parts = [load, *settings, versions, f"{self.date}, {self.commit}", figures]
        return f"**{where}**; {'; '.join(parts)}."

    def write(self, path: Path) -> None:
        """Writes the record to a file as JSON, with a line for every row."""
        content = asdict(self)
        rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in content.pop("rows"))
        head = json.dumps(content, indent=1, ensure_ascii=False).removesuffix("\n}")
        path.write_text(f'{head},\n "rows": [\n{rows}\n ]\n}}\n', encoding="utf-8")


def read(path: Path) -> Record:
    """Reads a record that :meth:`Record.write` wrote.

    Raises:
        ValueError: the file is not a record.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    try:
        return Record(**content)
    except TypeError as error:
        raise ValueError(f"{path.name} is no record of snm bench: {error}") from None


def read_all(folder: Path) -> dict[str, Record]:
    """All records of a folder, by file name without its ending."""
    return {path.stem: read(path) for path in sorted(folder.glob("*.json"))}


def identity(row: Row) -> tuple[tuple[str, object], ...]:
    """What a row measures; rows of two records that agree in it are compared."""
    return tuple((name, row[name]) for name in IDENTITY if name in row)


def begin(scale: str, device: str) -> Record:
    """A new record of this machine, without rows."""
    info = snm_kernels.build_info()
    machine = {
        "cpu": get_cpu_info().get("brand_raw", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "isa": info.isa,
        "system": platform.system(),
        "gpu": _gpu() if torch.cuda.is_available() else None,
    }
    versions = {
        "snm-kernels": info.version,
        "torch": torch.__version__,
        **{name: version(name) for name in PACKAGES if find_spec(name) is not None},
        "Python": platform.python_version(),
        "compiler": info.cxx_compiler,
    }
    watched = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "SNM_CPU_ISA")
    return Record(
        machine=machine,
        versions=versions,
        commit=_commit(),
        date=date.today().isoformat(),
        scale=scale,
        device=device,
        environment={name: os.environ[name] for name in watched if name in os.environ},
        load_average=os.getloadavg()[0],
    )


def _commit() -> str:
    """The commit of the checkout; an installed copy only has a version."""
    if not (ROOT / ".git").exists():
        return "an installed copy"
    git = ("git", "-C", str(ROOT))
    head = _output(*git, "rev-parse", "HEAD")
    changes = _output(*git, "status", "--porcelain", "--untracked-files=no")
    if head is None or changes is None:
        return f"commit {UNKNOWN}"
    return f"commit {head[:10]}{' with changes' if changes else ''}"


def _output(program: str, *arguments: str) -> str | None:
    """What a program prints; None if it is missing or fails."""
    if shutil.which(program) is None:
        return None
    process = subprocess.run([program, *arguments], check=False, capture_output=True, text=True)
    return process.stdout.strip() if process.returncode == 0 else None


def _gpu() -> dict[str, str]:
    query = ("--query-gpu=driver_version", "--format=csv,noheader", "--id=0")
    driver = _output("nvidia-smi", *query) or UNKNOWN
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    name = torch.cuda.get_device_name()
    return {"name": name, "capability": capability, "driver": driver, "cuda": torch.version.cuda}
