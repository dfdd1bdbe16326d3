"""How machine code is read: what is under way, on listings made up for it."""

import pytest

from support.machine_code import Instruction, instructions, least_under_way

DONE = 7


def line(
    address: int, text: str, scoreboard: int = DONE, waits: frozenset[int] = frozenset()
) -> str:
    """One instruction as ``cuobjdump -sass`` prints it, with its control bits."""
    control = scoreboard << 46 | 7 << 49 | sum(1 << (52 + n) for n in waits)
    padding = " " * 40
    return (
        f"        /*{address:04x}*/ {text} ;{padding}/* 0x{0:016x} */\n"
        f"        {padding}/* 0x{control:016x} */\n"
    )


def loop(*rows: tuple[str, int, set[int]]) -> list[Instruction]:
    texts = [line(16 * n, text, sb, frozenset(waits)) for n, (text, sb, waits) in enumerate(rows)]
    return instructions("".join(texts))


LOAD = "LDG.E.128 R4, desc[UR4][R2.64]"
COPY = "LDGSTS.E.BYPASS.128 [R4], desc[UR4][R2.64]"
USE = "FADD R0, R4, R5"


def under_way(code: list[Instruction]) -> int:
    return least_under_way(code, {i for i in code if i.opcode.startswith("LDG") and i.bytes})


def test_control_bits_are_read() -> None:
    load, use = loop((LOAD, 3, set()), (USE, DONE, {0, 3}))
    assert (load.scoreboard, load.waits_for) == (3, frozenset())
    assert (use.scoreboard, use.waits_for) == (None, {0, 3})
    assert (load.bytes, load.half_rate, use.half_rate) == (16, False, False)


def test_loads_of_one_scoreboard_are_waited_for_together() -> None:
    four = [(LOAD, 2, set())] * 4
    # However late the youngest is read.
    assert under_way(loop((USE, DONE, {2}), *four)) == 0
    assert under_way(loop((USE, DONE, {1}), *four)) > 4


def test_scoreboards_of_their_own_are_waited_for_one_by_one() -> None:
    code = loop(
        (USE, DONE, {0}), (LOAD, 0, set()), (USE, DONE, {1}), (LOAD, 1, set()),
    )  # fmt: skip
    assert under_way(code) == 1


@pytest.mark.parametrize(("left", "expected"), [(0, 0), (1, 2), (3, 6)])
def test_groups_of_copies_are_waited_for_from_the_oldest_on(left: int, expected: int) -> None:
    code = loop(
        (f"DEPBAR.LE SB0, 0x{left:x}", DONE, set()),
        (COPY, DONE, set()),
        (COPY, DONE, set()),
        ("LDGDEPBAR", 0, set()),
    )
    assert under_way(code) == expected


def test_a_wait_for_the_scoreboard_itself_takes_all_groups() -> None:
    code = loop(
        ("DEPBAR.LE SB0, 0x3", DONE, set()),
        (COPY, DONE, set()),
        ("LDGDEPBAR", 0, set()),
        (USE, DONE, {0}),
    )
    assert under_way(code) == 0
