"""Reads the machine code of CUDA kernels with the tools that the triton package brings."""

import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import triton

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def cuobjdump(*arguments: object) -> str:
    """What cuobjdump prints."""
    command = [str(CUOBJDUMP), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def kernels(listing: str) -> dict[str, str]:
    """Mangled name -> listing of each function in the output of ``cuobjdump -sass``."""
    parts = re.split(r"Function : (\S+)", listing)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def count(pattern: str, listing: str) -> int:
    """How many instructions of a listing match."""
    return len(re.findall(pattern, listing))


LOAD_16_BYTES = r"\bLDG\.E\S*\.128\b"
STORE_16_BYTES = r"\bSTG\.E\S*\.128\b"
FUSED_MULTIPLY_ADD = r"\bFFMA\b"
LOCAL_MEMORY = r"\b(?:LDL|STL)\b"


class Instruction(NamedTuple):
    """One line of a listing."""

    address: int
    predicate: str
    """``@P0`` or alike; empty if it always runs."""
    opcode: str
    operands: str

    @property
    def target(self) -> int | None:
        """Where a branch goes."""
        branches = self.opcode.split(".")[0] == "BRA"
        found = re.search(r"0x([0-9a-f]+)", self.operands) if branches else None
        return int(found[1], 16) if found else None

    @property
    def may_go_on(self) -> bool:
        """Whether the next instruction can follow."""
        return self.target is None or bool(self.predicate) or bool(re.search(r"P\d", self.operands))

    @property
    def bytes(self) -> int:
        """What a thread moves from or to global memory."""
        if not self.opcode.startswith(("LDG.", "LDGSTS.", "STG.")):
            return 0
        widths = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
        return next((widths[p] for p in self.opcode.split(".") if p in widths), 4)

    @property
    def written(self) -> set[str]:
        """The registers that a load fills."""
        first = re.match(r"R(\d+)", self.operands)
        return {f"R{int(first[1]) + i}" for i in range(max(1, self.bytes // 4))} if first else set()

    @property
    def read(self) -> set[str]:
        """The registers that it reads, among others it may read."""
        pairs = re.sub(r"R(\d+)\.64", lambda r: f"R{r[1]} R{int(r[1]) + 1}", self.operands)
        found = re.findall(r"\bR\d+\b", pairs)
        stores = self.opcode.startswith("ST") or not re.match(r"R\d", self.operands)
        return set(found if stores else found[1:])


def instructions(listing: str) -> list[Instruction]:
    """The instructions of one function."""
    line = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?(\S+) ?(.*?) ?;", re.M)
    return [Instruction(int(r[1], 16), r[2] or "", r[3], r[4]) for r in line.finditer(listing)]


def main_loop(code: list[Instruction]) -> list[Instruction]:
    """The instructions that run again and again: of several loops, those of the longest."""
    loops = [(i.target, i.address) for i in code if i.target is not None and i.target < i.address]
    start, end = max(loops, key=lambda ends: ends[1] - ends[0])
    return [i for i in code if start <= i.address <= end]


def accesses(code: list[Instruction], opcode: str, width: int) -> set[Instruction]:
    """The ``LDG`` or ``STG`` of so many bytes; those under a predicate only if all are."""
    found = {i for i in code if i.opcode.startswith(opcode) and i.bytes == width}
    return {i for i in found if not i.predicate} or found


def hot_path(
    loop: list[Instruction], rows: set[Instruction], loads: int, sent: set[Instruction], stores: int
) -> list[Instruction]:
    """The shortest way through a loop with so many loads of ``rows`` and stores of ``sent``.

    What takes longer serves a residual, the end of a slice, or the slow cases of a division.
    """
    places = {i.address: at for at, i in enumerate(loop)}
    # By place: for each number of loads and stores so far, the shortest way there.
    ways: list[dict[tuple[int, int], list[Instruction]]] = [{} for _ in range(len(loop) + 1)]
    ways[0] = {(0, 0): []}
    for at, i in enumerate(loop):
        after = [at + 1] if i.may_go_on else []
        if i.target in places:
            target = places[i.target]
            after += [target] if target > at else [len(loop)] if target == 0 else []
        for (loaded, stored), way in ways[at].items():
            now = (loaded + (i in rows), stored + (i in sent))
            for place in after:
                best = ways[place].get(now)
                if best is None or len(way) + 1 < len(best):
                    ways[place][now] = [*way, i]
    return ways[-1][loads, stores]


def steps_ahead(path: list[Instruction], rows: set[Instruction], ahead: int) -> float:
    """By how many time steps the loads of rows precede their first use, at least.

    ``path`` leads through ``ahead`` time steps. Less than those means that it waits for some row
    before that row's turn.
    """
    size = len(path)
    shortest = size
    for at, load in enumerate(path):
        if load in rows:
            later = (d for d in range(1, size) if _reads(path[(at + d) % size], load))
            shortest = min(shortest, next(later, size))
    return ahead * shortest / size


def _reads(instruction: Instruction, load: Instruction) -> bool:
    return bool(instruction.read & load.written)


@dataclass(frozen=True)
class Measured:
    """What a kernel's loop over time does for one neuron and step."""

    load_width: int
    """Bytes of one load."""
    bytes_loaded: float
    bytes_stored: float
    instructions: float
    """Issued without residual, those that a predicate turns off included."""
    steps_ahead: float
    """By how many steps a load precedes its use, at least."""


@cache
def measure(listing: str, *, neurons: int, ahead: int, drive: int, spikes: int) -> Measured:
    """Measures the machine code of a kernel of the neuron.

    Args:
        listing: of one function.
        neurons: of one thread.
        ahead: time steps in one pass of the loop.
        drive, spikes: bytes of one element; 0 for no spikes.
    """
    loop = main_loop(instructions(listing))
    load_width, store_width = (min(16, neurons * size) for size in (drive, spikes))
    rows, sent = accesses(loop, "LDG", load_width), accesses(loop, "STG", store_width)
    loads = ahead * neurons * drive // load_width
    stores = ahead * neurons * spikes // max(1, store_width)
    path = hot_path(loop, rows, loads, sent, stores)
    per = ahead * neurons
    return Measured(
        load_width,
        sum(i.bytes for i in path if i in rows) / per,
        sum(i.bytes for i in path if i.opcode.startswith("STG")) / per,
        len(path) / per,
        steps_ahead(path, rows, ahead),
    )
