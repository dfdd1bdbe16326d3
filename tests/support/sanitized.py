"""Compiles the CPU's kernels of layers of spikes with sanitizers, for one instruction set."""

import shutil
import subprocess
import sys
from pathlib import Path

from support.emulation import COMPILER, CSRC, FLAGS, TESTS, TORCH, sanitizing
from support.isa import processor_flags

HERE = TESTS / "op" / "sanitized"
MARCH = {"avx512": ["-march=x86-64-v4"], "avx2": ["-march=x86-64-v3"], "baseline": []}
MATRIX = {"avx512_vnni": "-mavx512vnni"}
"""What a processor may have beside an instruction set, to multiply matrices."""
SOURCES = ("cpu/spike_conv_kernel.cpp", "cpu/spike_dense_kernel.cpp", "cpu/spike_conv_op.cpp")


def build_sanitized(
    isa: str, folder: Path, changes: dict[str, tuple[str, str]] | None = None
) -> Path:
    """Builds a library that takes the place of the CPU's kernels of layers.

    Args:
        isa: the instruction set.
        folder: where the library goes, and changed sources.
        changes: for each file of csrc/ to change, by its path, a text that it has once, and the
            text that replaces it; None for none.
    """
    # Beside it lies what isa.cpp includes.
    ours = folder / "tests" / "op" / "sanitized"
    shutil.copytree(CSRC, folder / "csrc")
    shutil.copytree(HERE, ours)
    for name, (old, new) in (changes or {}).items():
        path = folder / "csrc" / name
        text = path.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{name} must have {old!r} once, got {text.count(old)} times")
        path.write_text(text.replace(old, new))
    library = folder / "libsnm_sanitized.so"
    flags = [*FLAGS, "-fno-math-errno", "-fno-trapping-math", f"-DSNM_ISA={isa}_sanitized"]
    flags += ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-isystem", str(TORCH / "include")]
    sources = [*(folder / "csrc" / name for name in SOURCES), ours / "isa.cpp"]
    link = ["-shared", "-Wl,-Bsymbolic", "-L", str(TORCH / "lib"), "-ltorch_cpu", "-lc10"]
    if isa == "avx512":
        flags += [flag for name, flag in MATRIX.items() if name in processor_flags()]
    command = [COMPILER, *flags, *MARCH[isa], *map(str, sources), *link, "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return library


def run_sanitized(library: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs cases of layers on a library that is built with sanitizers."""
    command = [sys.executable, str(HERE / "run.py"), str(library), *arguments]
    return subprocess.run(command, env=sanitizing(), capture_output=True, text=True)
