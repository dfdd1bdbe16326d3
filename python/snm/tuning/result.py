"""What tuning reports: how networks compare, and what was chosen for each layer."""

from collections.abc import Mapping
from typing import NamedTuple

from snm_kernels import SNMRule

from ..network.spiking import SpikingNetwork
from ..table import table


class Score(NamedTuple):
    """How close a spiking network comes to its ReLU network on held-back images."""

    error: float
    """The mean squared difference of the logits, in units of the variance of the ReLU network's."""
    agreement: float
    """The share of answers whose largest logit is that of the ReLU network."""


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
    """The layer's path in the ReLU network."""
    scale: float
    """The factor on the thresholds that it had before, on average over neurons that can fire."""
    rule: SNMRule
    """The rule that its neurons follow."""
    dither: float
    """Over how many thresholds the totals of neighbouring neurons are spread."""
    bias: float
    """The size of what the bias adds in all time steps together, in thresholds, on average over
    neurons that can fire."""
    error: float
    """The mean squared error of what it sends, in units of the mean square of the ReLU network's
    activations."""
    before: float
    """The error that it had on the same drive before, with the best preset's rule and untuned
    thresholds."""


class FittedWeights(NamedTuple):
    """What fitting the weights of a layer achieved, on images that they were not fitted to."""

    change: float
    """The norm of the change of the weights, over the norm of the weights before."""
    error: float
    """The mean squared error of the layer's output, in units of the variance of the ReLU network's
    output."""
    before: float
    """The error that the layer had with the weights before, in the same units."""


_HEAD = (
    *("layer", "threshold ×", "start θ", "negative θ", "spikes", "dither θ", "bias θ"),
    *("error %", "preset's error %"),
)
"""The head of the table of layers of neurons."""


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
    """The network that answers best."""
    timesteps: int
    """The number of time steps that it was made for."""
    chosen: str
    """Which network that is: ``"tuned"``, ``"as given"`` or the name of a preset."""
    scores: dict[str, Score]
    """The scores of all networks that were compared, on held-back images."""
    layers: tuple[TunedLayer, ...]
    """What the search chose for each layer of neurons, even if another network was chosen in the
    end; layers for which there was no time are missing."""
    weights: dict[str, FittedWeights]
    """What fitting weights achieved, for each layer whose weights were fitted, by path."""
    fitted_to: int
    """How many images the layers were fitted to."""
    held_back: int
    """How many held-back images the networks were compared on."""
    complete: bool
    """Whether nothing was left out for lack of time."""

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
    """The name of the network with the best score; of several, the first.

    What matters is how often answers agree, but few images tell that only roughly. So of all
    networks within one standard error of the best agreement, the one with the smallest error is
    taken.

    Args:
        scores: the scores of the networks by name.
        images: how many images the scores were found on.

    >>> scores = {"a": Score(0.2, 0.90), "b": Score(0.1, 0.89), "c": Score(0.0, 0.5)}
    >>> best_of(scores, 100), best_of(scores, 10_000)
    ('b', 'a')
    """
    most = max(score.agreement for score in scores.values())
    least = most - (most * (1 - most) / images) ** 0.5
    near = [name for name, score in scores.items() if score.agreement >= least]
    return min(near, key=lambda name: scores[name].error)


def _row(layer: TunedLayer) -> tuple[str, ...]:
    """A layer's row of the printed table."""
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
