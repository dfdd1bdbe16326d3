"""What tuning reports: how networks compare, and what was chosen for each layer."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from snm_kernels import SNMRule

from .simulate import SpikingNetwork


class Score(NamedTuple):
    """How close a spiking network comes to its ReLU network; the larger tuple is the better."""

    closeness: float
    """Minus the mean squared difference of the logits, in variances of the ReLU network's."""
    agreement: float
    """Share of the answers whose largest logit is that of the ReLU network: of few images a rough
    number, so it decides where closeness does not."""


class TunedLayer(NamedTuple):
    """What was chosen for a layer of neurons."""

    path: str
    scale: float
    """Its thresholds, in those that it was converted with, on average."""
    rule: SNMRule
    dither: float
    """How many thresholds the totals of neighbouring neurons are spread over."""
    bias: float
    """What the bias adds in all time steps, in thresholds: the mean size."""
    error: float
    """Mean squared error of what it sends, in mean squares of the ReLU network's activations."""
    before: float
    """The same with the best preset's rule and the converted thresholds, on the same drive."""


_HEAD = (
    *("layer", "threshold ×", "start θ", "negative θ", "spikes", "dither θ", "bias θ"),
    *("error %", "preset's error %"),
)


class Tuned(NamedTuple):
    """A network made for a number of time steps; see :func:`snm.tune`.

    >>> import torch
    >>> from torch import nn
    >>> from snm import tune
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> tuned = tune(model, torch.rand(32, 4), timesteps=2)
    >>> [layer.path for layer in tuned.layers], tuned.complete, str(tuned) == tuned.net.tuning
    (['1'], True, True)
    """

    net: SpikingNetwork
    timesteps: int
    chosen: str
    """``"tuned"``, ``"as given"`` or the preset that was better."""
    scores: dict[str, Score]
    """Of all that was compared, on held-back images."""
    layers: tuple[TunedLayer, ...]
    """What the search chose, whether it is what was chosen in the end or not."""
    complete: bool
    """Nothing was left out for want of time."""

    def __str__(self) -> str:
        text = _table([_HEAD, *(_row(layer) for layer in self.layers)])
        text += f"\n\n{self.timesteps} time steps, on held-back images (* chosen)\n"
        scores = [("", "agreement %", "logit error %")]
        for name, score in self.scores.items():
            mark = " *" if name == self.chosen else ""
            numbers = (f"{100 * score.agreement:.1f}", f"{-100 * score.closeness:.2f}")
            scores.append((name + mark, *numbers))
        text += _table(scores)
        return text if self.complete else f"{text}\ncut short: the time was up"


def best_of(scores: Mapping[str, Score]) -> str:
    """The name of the best score; of equal ones the first.

    >>> best_of({"snm": Score(-0.2, 0.9), "tuned": Score(-0.1, 0.9)})
    'tuned'
    """
    return max(scores, key=scores.__getitem__)


def _row(layer: TunedLayer) -> tuple[str, ...]:
    rule = layer.rule
    ratio = rule.negative_threshold or 0.0
    return (
        layer.path,
        f"{layer.scale:.2f}",
        f"{rule.v_init:.2f}",
        f"{'<' if rule.strict else '<='} {-ratio if ratio else 0.0:.2f}",
        f"{rule.max_spikes}",
        f"{layer.dither:.2f}",
        f"{layer.bias:.2f}",
        f"{100 * layer.error:.2f}",
        f"{100 * layer.before:.2f}",
    )


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as lines, the first column flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]))
    return "\n".join(lines)
