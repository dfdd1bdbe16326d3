"""What tuning reports: how networks compare, and what was chosen for each layer."""

from collections.abc import Mapping
from typing import NamedTuple

from snm_kernels import SNMRule

from ..network.spiking import SpikingNetwork
from ..table import table


class Score(NamedTuple):
    """How close a spiking network comes to its ReLU network on held-back images."""

    error: float
    """The mean squared difference of the logits, in variances of the ReLU network's."""
    agreement: float
    """Share of the answers whose largest logit is that of the ReLU network."""


class TunedLayer(NamedTuple):
    """What was chosen for a layer of neurons.

    >>> import torch
    >>> from torch import nn
    >>> from snm import tune
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> [layer] = tune(model, torch.rand(32, 4), timesteps=2).layers
    >>> layer.path, layer.scale > 0, layer.rule.max_spikes
    ('1', True, 1)
    """

    path: str
    scale: float
    """Its thresholds, in those that it was given with, on average over neurons that fire."""
    rule: SNMRule
    dither: float
    """How many thresholds the totals of neighbouring neurons are spread over."""
    bias: float
    """What the bias adds in all time steps, in thresholds: the mean size over such neurons."""
    error: float
    """Mean squared error of what it sends, in mean squares of the ReLU network's activations."""
    before: float
    """The same with the best preset's rule and the given thresholds, on the same drive."""


class FittedWeights(NamedTuple):
    """What fitting the weights of a layer gave, on images that they were not fitted to."""

    change: float
    """Of the weights, in their norms."""
    error: float
    """Mean squared error of the layer's output, in variances of that in the ReLU network."""
    before: float
    """The same with the weights that it had."""


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
    """What the search chose, whether it is what was chosen in the end or not; without the layers
    for which there was no time."""
    weights: dict[str, FittedWeights]
    """Of the layers whose weights were fitted, by path."""
    fitted_to: int
    """How many images the layers were fitted to."""
    held_back: int
    """How many images networks were compared on."""
    complete: bool
    """Nothing was left out for want of time."""

    def __str__(self) -> str:
        used = "" if self.chosen == "tuned" else f"; not used, {self.chosen} is better"
        text = f"{self.timesteps} time steps, layers fitted to {self.fitted_to} images{used}\n"
        text += table([_HEAD, *(_row(layer) for layer in self.layers)])
        if self.weights:
            rows = ((path, *(f"{100 * n:.2f}" for n in own)) for path, own in self.weights.items())
            head = ("weights of", "changed %", "output's error %", "before %")
            text += f"\n\n{table([head, *rows])}"
        text += f"\n\non {self.held_back} images held back (* chosen)\n"
        scores = [("", "agreement %", "logit error %")]
        for name, score in self.scores.items():
            mark = " *" if name == self.chosen else ""
            scores.append((name + mark, f"{100 * score.agreement:.1f}", f"{100 * score.error:.2f}"))
        text += table(scores)
        return text if self.complete else f"{text}\ncut short: the time was up"


def best_of(scores: Mapping[str, Score], images: int) -> str:
    """The name of the best score; of equal ones the first.

    Which answers agree is what matters, but of few images a rough number: of all networks that are
    within one standard error of the most agreement, the one with the smallest error is taken.

    Args:
        images: how many the scores are of.

    >>> scores = {"a": Score(0.2, 0.90), "b": Score(0.1, 0.89), "c": Score(0.0, 0.5)}
    >>> best_of(scores, 100), best_of(scores, 10_000)
    ('b', 'a')
    """
    most = max(score.agreement for score in scores.values())
    least = most - (most * (1 - most) / images) ** 0.5
    near = [name for name, score in scores.items() if score.agreement >= least]
    return min(near, key=lambda name: scores[name].error)


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
