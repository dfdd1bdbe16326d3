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
    """What cuobjdump prints when called with these arguments."""
    command = [str(CUOBJDUMP), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def disassembled(cubin: Path) -> tuple[str, int]:
    """The listing of a file of one kernel, and how many registers a thread of it takes."""
    usage, _, listing = cuobjdump("-sass", "-res-usage", cubin).partition("\tcode for ")
    return listing, int(re.search(r"REG:(\d+)", usage)[1])


def kernels(listing: str) -> dict[str, str]:
    """The listing of each function in the output of ``cuobjdump -sass``, by its mangled name."""
    parts = re.split(r"Function : (\S+)", listing)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def count(pattern: str, listing: str) -> int:
    """How many instructions of a listing match a pattern."""
    return len(re.findall(pattern, listing))


LOAD_16_BYTES = r"\bLDG\.E\S*\.128\b"
STORE_16_BYTES = r"\bSTG\.E\S*\.128\b"
FUSED_MULTIPLY_ADD = r"\bFFMA\b"
LOCAL_MEMORY = r"\b(?:LDL|STL)\b"


class Instruction(NamedTuple):
    """An instruction, which is one line of a listing."""

    address: int
    predicate: str
    """``@P0`` or alike; empty if it always runs."""
    opcode: str
    operands: str
    scoreboard: int | None
    """What counts it until its result is there; for a copy to shared memory ``LDGDEPBAR`` says."""
    waits_for: frozenset[int]
    """Scoreboards that have to be at zero first."""

    @property
    def target(self) -> int | None:
        """The address that a branch goes to."""
        branches = self.opcode.split(".")[0] == "BRA"
        found = re.search(r"0x([0-9a-f]+)", self.operands) if branches else None
        return int(found[1], 16) if found else None

    @property
    def may_go_on(self) -> bool:
        """Whether execution can go on with the next instruction."""
        return self.target is None or bool(self.predicate) or bool(re.search(r"P\d", self.operands))

    @property
    def bytes(self) -> int:
        """How many bytes a thread moves from or to global memory."""
        if not self.opcode.startswith(("LDG.", "LDGSTS.", "STG.")):
            return 0
        widths = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
        return next((widths[p] for p in self.opcode.split(".") if p in widths), 4)

    @property
    def shared_offset(self) -> int:
        """The offset, from the register that says where, at which a copy to shared memory goes."""
        found = re.match(r"\[R\d+\+0x([0-9a-f]+)\]", self.operands)
        return int(found[1], 16) if found else 0

    @property
    def half_rate(self) -> bool:
        """Whether a multiprocessor does 64 of it a cycle, not 128: comparisons, choices, integers.

        It does not hold for those that share lanes with the others, as a product of integers does.

        From "Throughput of Native Arithmetic Instructions" in NVIDIA's CUDA C++ programming guide.
        """
        return self.opcode.split(".")[0] in HALF_RATE


HALF_RATE = {
    *("FSETP", "FSET", "FSEL", "FMNMX", "ISETP", "SEL", "IMNMX", "VIMNMX", "PLOP3", "P2R", "R2P"),
    *("IADD3", "VIADD", "LEA", "LOP3", "SHF", "PRMT", "SGXT", "F2FP", "IABS", "LOP", "BMSK"),
}


def instructions(listing: str) -> list[Instruction]:
    """The instructions of one function.

    The upper half of each, on the line below, holds what it waits for and what it is counted by.
    """
    line = re.compile(
        r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?(\S+) ?(.*?) ?;.*\n"
        r"\s+/\* 0x([0-9a-f]{16}) \*/",
        re.M,
    )
    found = []
    for r in line.finditer(listing):
        upper = int(r[5], 16)
        scoreboard, waits = upper >> 46 & 7, upper >> 52 & 63
        found.append(
            Instruction(
                int(r[1], 16),
                r[2] or "",
                r[3],
                r[4],
                None if scoreboard == 7 else scoreboard,
                frozenset(n for n in range(6) if waits >> n & 1),
            )
        )
    return found


def main_loop(code: list[Instruction]) -> list[Instruction]:
    """The instructions of the loop that a function has; of several loops, those of the longest."""
    loops = [(i.target, i.address) for i in code if i.target is not None and i.target < i.address]
    start, end = max(loops, key=lambda ends: ends[1] - ends[0])
    return [i for i in code if start <= i.address <= end]


def accesses(code: list[Instruction], opcode: str, width: int) -> set[Instruction]:
    """The ``LDG`` or ``STG`` with a number of bytes; those under a predicate only if all are."""
    found = {i for i in code if i.opcode.startswith(opcode) and i.bytes == width}
    return {i for i in found if not i.predicate} or found


def hot_path(
    loop: list[Instruction], wanted: list[tuple[set[Instruction], int]]
) -> list[Instruction]:
    """The shortest way through a loop that has the given number of instructions of each set.

    Longer ways are for a residual, the end of a slice, or the slow cases of a division.
    """
    places = {i.address: at for at, i in enumerate(loop)}
    counts = tuple(count for _, count in wanted)
    # For each place, the shortest way there for each number of counted instructions so far.
    ways: list[dict[tuple[int, ...], list[Instruction]]] = [{} for _ in range(len(loop) + 1)]
    ways[0] = {(0,) * len(wanted): []}
    for at, i in enumerate(loop):
        after = [at + 1] if i.may_go_on else []
        if i.target in places:
            target = places[i.target]
            after += [target] if target > at else [len(loop)] if target == 0 else []
        for so_far, way in ways[at].items():
            now = tuple(n + (i in of) for n, (of, _) in zip(so_far, wanted, strict=True))
            if any(n > most for n, most in zip(now, counts, strict=True)):
                continue
            for place in after:
                best = ways[place].get(now)
                if best is None or len(way) + 1 < len(best):
                    ways[place][now] = [*way, i]
    return ways[-1][counts]


def least_under_way(path: list[Instruction], rows: set[Instruction]) -> int:
    """How many of the loads of rows are under way at any time of a loop's pass, at least.

    What an instruction waits for is there. A scoreboard at zero means all that it counts; only
    ``DEPBAR.LE`` waits until so many groups of copies, the youngest, are left.
    """
    loads: dict[int, int] = {}
    copies: dict[int, list[int]] = {}
    open_group = 0
    least = 0
    # More passes than rows can be under way: the last one is as all later ones.
    for _ in range(64):
        least = len(path) * len(rows)
        for each in path:
            for scoreboard in each.waits_for:
                loads[scoreboard] = 0
                copies[scoreboard] = []
            if each.opcode == "DEPBAR.LE":
                scoreboard, left = re.match(r"SB(\d), 0x([0-9a-f]+)", each.operands).groups()
                groups = copies.get(int(scoreboard), [])
                copies[int(scoreboard)] = groups[max(0, len(groups) - int(left, 16)) :]
            if each.opcode == "LDGDEPBAR":
                copies.setdefault(each.scoreboard or 0, []).append(open_group)
                open_group = 0
            elif each in rows and each.opcode.startswith("LDGSTS"):
                open_group += 1
            elif each in rows:
                loads[each.scoreboard] = loads.get(each.scoreboard, 0) + 1
            least = min(least, sum(loads.values()) + sum(map(sum, copies.values())) + open_group)
    return least


@dataclass(frozen=True)
class Measured:
    """What the loop over time of a kernel does for one neuron and step."""

    load_width: int
    """How many bytes one load has."""
    bytes_loaded: float
    """How many bytes are loaded."""
    bytes_stored: float
    """How many bytes are stored."""
    instructions: float
    """How many instructions are issued without a residual, those that a predicate turns off too."""
    half_rate: float
    """How many of these instructions run at half the rate."""
    steps_ahead: float
    """The fewest later steps of which rows are under way at any time."""


@cache
def measure(
    listing: str,
    *,
    neurons: int,
    steps: int,
    drive: int,
    spikes: int,
    once: str = "",
    ring: float = float("inf"),
) -> Measured:
    """Measures the machine code of a kernel of the neuron.

    Args:
        listing: that of one function.
        neurons: how many neurons one thread has.
        steps: how many time steps one pass of the loop does.
        drive, spikes: how many bytes one element has; 0 for no spikes.
        once: an opcode that a neuron's step has once, so that no path can leave out a step.
        ring: how many bytes of shared memory the drive's rows take, behind which are other rows.
    """
    loop = main_loop(instructions(listing))
    load_width, store_width = (min(16, neurons * size) for size in (drive, spikes))
    copies = any(i.opcode.startswith("LDGSTS") for i in loop)
    rows = accesses(loop, "LDGSTS" if copies else "LDG.", load_width)
    rows = {i for i in rows if i.shared_offset < ring}
    sent = accesses(loop, "STG", store_width)
    loads = steps * neurons * drive // load_width
    stores = steps * neurons * spikes // max(1, store_width)
    per = steps * neurons
    marks = {i for i in loop if once and i.opcode.startswith(once)}
    path = hot_path(loop, [(rows, loads), (sent, stores), (marks, per if once else 0)])
    return Measured(
        load_width,
        sum(i.bytes for i in path if i in rows) / per,
        sum(i.bytes for i in path if i.opcode.startswith("STG")) / per,
        len(path) / per,
        sum(i.half_rate for i in path) / per,
        steps * least_under_way(path, rows) / loads,
    )
