"""Reads what a shared library says of itself, by readelf."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple


class Symbol(NamedTuple):
    """A symbol that a library expects other libraries to have."""

    name: str
    version: str
    """The version node it has to come from, as in ``GLIBC_2.34``; empty for those without one."""
    weak: bool
    """Whether the library loads without it."""


def readelf(*arguments: str) -> str:
    program = shutil.which("readelf")
    assert program is not None, "readelf comes with the compiler's binutils"
    return subprocess.run(
        [program, "--wide", *arguments], capture_output=True, text=True, check=True
    ).stdout


def undefined_symbols(library: Path) -> list[Symbol]:
    rows = [line.split() for line in readelf("--dyn-syms", str(library)).splitlines()]
    found = []
    for row in rows:
        if len(row) > 7 and row[6] == "UND":
            name, _, version = row[7].partition("@")
            found.append(Symbol(name, version, row[4] == "WEAK"))
    return found


def needed_libraries(library: Path) -> list[str]:
    lines = readelf("--dynamic", str(library)).splitlines()
    return [line.split("[")[1].rstrip("]") for line in lines if "(NEEDED)" in line]
