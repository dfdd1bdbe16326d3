"""Draws ``docs/rule.svg``: what three rules send under one drive, as the op computes it.

python docs/site/figure.py            writes it
python docs/site/figure.py --check    fails if it shows anything else than the op computes
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from snm_kernels import SNMState, preset, snm

PICTURE = Path(__file__).resolve().parent.parent / "rule.svg"
DRIVE = [0.5625] * 9 + [-0.40625] * 7 + [0.15625] * 8
"""In thresholds; all sums of these are exact in float32."""
RULES = {
    "if": "sends +1 at θ",
    "snm": "−1 at −θ, if m > 0",
    "snm-zero": "starts at ½ θ, −1 below 0, if m > 0",
}
MARGIN, LEFT, STEP, RIGHT = 6, 176, 22, 96
WIDTH = STEP * len(DRIVE)
DRIVE_HEIGHT, ABOVE, SPIKES, GAP = 74, 46, 44, 14
"""Of the drive; of what lies above 0 in a panel; of its spikes; between panels."""
PIXELS = 24
"""Of a threshold."""
STYLE = """
.rule { --ink: #24292f; --soft: #6e7781; --up: #0067a8; --down: #b94a00; }
@media (prefers-color-scheme: dark) {
  .rule { --ink: #e6e6e6; --soft: #9aa4b0; --up: #5db8f0; --down: #ff9d5c; }
}
[data-md-color-scheme="default"] .rule {
  --ink: #24292f; --soft: #6e7781; --up: #0067a8; --down: #b94a00;
}
[data-md-color-scheme="slate"] .rule {
  --ink: #e6e6e6; --soft: #9aa4b0; --up: #5db8f0; --down: #ff9d5c;
}
.rule text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.rule .name { font-weight: 600; font-size: 13px; }
.rule .soft { fill: var(--soft); }
.rule .line { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.rule .axis { stroke: var(--soft); stroke-width: 0.7; }
.rule .up { stroke: var(--up); fill: none; }
.rule .down { stroke: var(--down); fill: none; }
.rule .level { stroke-dasharray: 4 3; }
.rule .spike { stroke-width: 3; }
"""


class Train(NamedTuple):
    """What a neuron does, step by step, in thresholds."""

    charged: list[float]
    membrane: list[float]
    spikes: list[int]
    start: float


def simulated(name: str) -> Train:
    """The op, one time step at a time."""
    rule = preset(name)
    state = SNMState(torch.tensor(rule.v_init), torch.tensor(0, dtype=torch.int32))
    train = Train([], [], [], rule.v_init)
    for drive in DRIVE:
        before = state.v.item()
        spikes, state = snm(torch.tensor([drive]), 1.0, rule=rule, state=state, emit="spike")
        assert spikes is not None
        train.charged.append(before + drive)
        train.membrane.append(state.v.item())
        train.spikes.append(int(spikes.item()))
    return train


def drawn() -> str:
    """The picture, as SVG that follows the reader's light or dark colours."""
    parts, top = list(_drive(0)), DRIVE_HEIGHT + GAP
    for name, text in RULES.items():
        train = simulated(name)
        below = PIXELS * max(1.2, -min(train.charged))
        parts += _panel(name, text, train, top + ABOVE, top + ABOVE + below + SPIKES / 2)
        top += ABOVE + below + SPIKES + GAP
    height = top + 8
    parts.append(_text(LEFT, top, "time steps →", "soft"))
    width, body = LEFT + WIDTH + RIGHT, "\n".join(parts)
    return (
        '<svg class="rule" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'width="{width}" height="{height:g}" viewBox="0 0 {width} {height:g}">\n'
        f"<title>Membranes and spikes of {', '.join(RULES)} under one drive</title>\n"
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def _x(step: float) -> float:
    return LEFT + STEP * step


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{text}</text>'


def _line(kind: str, *points: tuple[float, float]) -> str:
    path = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    return f'<polyline class="{kind}" points="{path}"/>'


def _drive(top: float) -> Iterator[str]:
    zero = top + 0.62 * DRIVE_HEIGHT
    yield _text(MARGIN, zero - 8, "drive", "name")
    yield _text(MARGIN, zero + 8, f"in all {sum(DRIVE):.2f} θ", "soft")
    yield _line("axis", (LEFT, zero), (LEFT + WIDTH, zero))
    steps = [(_x(t + side), zero - 60 * c) for t, c in enumerate(DRIVE) for side in (0, 1)]
    yield _line("line", *steps)


def _panel(name: str, text: str, train: Train, zero: float, foot: float) -> Iterator[str]:
    """A rule's membrane around ``zero``, and its spikes around ``foot``."""
    rule = preset(name)

    def y(v: float) -> float:
        return zero - PIXELS * v

    yield _text(MARGIN, zero - 8, name, "name")
    yield from (
        _text(MARGIN, zero + 8 + 15 * i, part, "soft") for i, part in enumerate(_broken(text))
    )
    yield _line("axis", (LEFT, zero), (LEFT + WIDTH, zero))
    yield _line("up level", (LEFT, y(1)), (LEFT + WIDTH, y(1)))
    yield _text(LEFT - 14, y(1) + 4, "θ", "soft")
    yield _text(LEFT - 14, zero + 4, "0", "soft")
    if rule.negative_threshold:
        yield _line("down level", (LEFT, y(-1)), (LEFT + WIDTH, y(-1)))
        yield _text(LEFT - 22, y(-1) + 4, "−θ", "soft")
    elif rule.negative_threshold is not None:
        yield _line("down level", (LEFT, zero), (LEFT + WIDTH, zero))
    membrane = [(_x(0), y(train.start))]
    for t, (charged, after, spike) in enumerate(zip(*train[:3], strict=True), start=1):
        if spike:
            kind = "up" if spike > 0 else "down"
            yield _line("line", *membrane, (_x(t), y(charged)))
            yield _line(f"{kind} level", (_x(t), y(charged)), (_x(t), y(after)))
            yield _line(f"{kind} spike", (_x(t), foot), (_x(t), foot - 14 * spike))
            membrane = [(_x(t), y(after))]
        else:
            membrane.append((_x(t), y(charged)))
    yield _line("line", *membrane)
    yield _line("axis", (LEFT, foot), (LEFT + WIDTH, foot))
    yield _text(LEFT + WIDTH + 10, foot + 4, f"m = {sum(train.spikes)}")
    yield _text(LEFT + WIDTH + 10, zero + 4, f"v = {_signed(train.membrane[-1])} θ", "soft")


def _signed(number: float) -> str:
    return f"{number:.2f}".replace("-", "−")


def _broken(text: str) -> list[str]:
    first, _, rest = text.partition(", ")
    return [f"{first},", rest] if rest else [first]


def main() -> int:
    parser = argparse.ArgumentParser(description="Draws docs/rule.svg from what the op computes.")
    parser.add_argument("--check", action="store_true", help="fail if it differs")
    check = parser.parse_args().check
    if not check:
        PICTURE.write_text(drawn(), encoding="utf-8")
    elif not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != drawn():
        print(f"{PICTURE.name} differs from what the op computes: run docs/site/figure.py")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
