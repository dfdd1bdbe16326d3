"""What a report says: numbers, a table, a verdict, JSON."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snm_kernels import SNMRule

from ..diagnosis.result import Diagnosis
from ..table import table
from .energy import Energy
from .typed_json import plain, typed

_HEAD = (
    *("layer", "neurons", "+ per step", "- per step", "dead %", "saturated %", "|v|/θ"),
    *("synapses each", "operations an image"),
)
RATE_BINS = 20
"""Of a histogram of rates between 0 and 1; one more holds those above."""


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What a layer of neurons, or a max pooling, sends; totals over images and time steps.

    A max pooling's spikes are events: steps at which one of its outputs sends anything.

    >>> layer = LayerReport("1", "neurons", neurons=2, neuron_steps=8, positive=4, negative=2,
    ...     connections=6, synaptic_operations=18, dead=0.0, saturated=0.0, residual=0.25,
    ...     rates=(0,) * 15 + (2,) + (0,) * 5)
    >>> layer.positive_rate, layer.negative_rate
    (0.5, 0.25)
    """

    path: str
    """Of the layer in the ReLU network."""
    kind: Literal["neurons", "max pooling"]
    neurons: int
    """How many there are per image; outputs of a max pooling."""
    neuron_steps: int
    """Neurons times images times time steps."""
    positive: int
    """Positive spikes; a graded spike of size s counts as s."""
    negative: int
    """Negative spikes."""
    connections: int
    """Synapses that leave all its neurons, per image."""
    synaptic_operations: int
    """Over all its neurons, spikes times synapses that leave the neuron."""
    dead: float
    """Share of neurons that sent nothing for any image; NaN of a max pooling, as those below."""
    saturated: float
    """Share of counts, one per neuron and image, that are the largest there can be."""
    residual: float
    """Mean of abs(v)/θ after the last step where the mean drive is above 0; of neurons that are not
    silent."""
    rates: tuple[int, ...]
    """Histogram of spikes per step of either sign, one rate per neuron and image: 20 bins of equal
    width from 0 to 1, the last with the 1, and one for rates above."""

    @property
    def positive_rate(self) -> float:
        """Positive spikes per neuron and step."""
        return self.positive / self.neuron_steps

    @property
    def negative_rate(self) -> float:
        """Negative spikes per neuron and step."""
        return self.negative / self.neuron_steps


@dataclass(frozen=True, slots=True)
class Macs:
    """Multiply-accumulates per image, each a weight that is not 0 times a value that is there.

    >>> Macs(first=10, steps=0, readout=2, relu=30).snn
    12
    """

    first: int
    """Before the first neurons: once with encoder="direct", else in all time steps."""
    steps: int
    """In all time steps, of layers that read what weighted layers compute without neurons in
    between."""
    readout: int
    """Behind the last neurons, once, on their mean output."""
    relu: int
    """Of the whole ReLU network."""

    @property
    def snn(self) -> int:
        """Of the spiking network, beside its synaptic operations."""
        return self.first + self.steps + self.readout


@dataclass(frozen=True, slots=True)
class Report:
    """What a spiking network does and costs; see :func:`snm.report`. Print it for a table.

    >>> import torch
    >>> from torch import nn
    >>> from snm import convert, report
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> found = report(convert(model, images), images, timesteps=8, model=model)
    >>> Report.from_json(found.to_json()).to_json() == found.to_json()
    True
    """

    timesteps: int
    images: int
    layers: Mapping[str, LayerReport]
    """Layers of neurons and max poolings, in order of execution, by path; poolings are numbered
    where their path is another's too."""
    macs: Macs
    energy: tuple[Energy, ...]
    """Of one image, under each convention."""
    seconds: float
    """That the simulation of all images took, counting and reading out included."""
    relu_seconds: float
    """That the ReLU network took for the same images; NaN without it."""
    peak_bytes: int
    """How far the simulation raised the peak of the memory in use."""
    device: str
    threads: int
    """Of torch on the CPU."""
    dtype: str
    encoder: str
    rule: SNMRule
    """Of the first layer."""
    tuned_for: int | None
    """The number of time steps that the network was tuned for."""
    accuracy: tuple[float, ...]
    """Share of right answers after each step; empty without labels."""
    agreement: tuple[float, ...]
    """Share of the ReLU network's answers after each step; empty without it."""
    relu_accuracy: float
    """Of the ReLU network; NaN without it or labels."""
    diagnosis: Diagnosis | None
    version: str
    """Of this library."""

    @property
    def bits(self) -> int:
        """Of the quantised network: ceil(log2(n + 1)), which tell as many levels apart as counts of
        spikes from 0 to n do, the largest that the rule allows in T time steps: T, or T times as
        many as a step may send, and no more than the rule's bound."""
        return self.rule.largest_count(self.timesteps).bit_length()

    @property
    def spikes(self) -> int:
        """That all layers of neurons sent, of either sign."""
        layers = [layer for layer in self.layers.values() if layer.kind == "neurons"]
        return sum(layer.positive + layer.negative for layer in layers)

    @property
    def synaptic_operations(self) -> int:
        """Of all layers."""
        return sum(layer.synaptic_operations for layer in self.layers.values())

    @property
    def verdict(self) -> str:
        """Whether the spiking network spends less than the quantised network, in one sentence."""
        against = f"the ReLU network quantised to {self.bits} bits"
        wins = [_share(energy) for energy in self.energy if energy.ratio < 1]
        losses = [_share(energy) for energy in self.energy if energy.ratio >= 1]
        if not losses:
            return f"The spiking network spends less than {against}: {', '.join(wins)}."
        if not wins:
            return f"The spiking network does not spend less than {against}: {', '.join(losses)}."
        return (
            f"The spiking network spends less than {against} by some conventions, "
            f"{', '.join(wins)}, and does not by others, {', '.join(losses)}."
        )

    def __str__(self) -> str:
        rows = [_HEAD, *(_row(layer, self.images) for layer in self.layers.values())]
        energy: list[tuple[str, ...]] = [
            ("mJ an image", "spiking", "ReLU", f"{self.bits} bits", "spiking / that")
        ]
        for one in self.energy:
            costs = (f"{1e3 * joules:.4g}" for joules in (one.snn, one.ann, one.quantised))
            energy.append((one.convention, *costs, f"{one.ratio:.2f}"))
        macs = self.macs
        return "\n".join(
            [
                self._title,
                table(rows),
                "",
                f"synaptic operations an image: {self.synaptic_operations / self.images:.4g}; "
                f"multiply-accumulates: {macs.first:.4g} before the first neurons, "
                f"{macs.steps:.4g} in layers without spikes, {macs.readout:.4g} in the readout; "
                f"{macs.relu:.4g} in the ReLU network",
                "",
                table(energy),
                self.verdict,
            ]
        )

    @property
    def _title(self) -> str:
        parts = [f"T = {self.timesteps}, {self.images} images, {self.dtype} on {self.device}"]
        if self.accuracy:
            relu = (
                ""
                if math.isnan(self.relu_accuracy)
                else f" (ReLU {100 * self.relu_accuracy:.2f} %)"
            )
            parts.append(f"{100 * self.accuracy[-1]:.2f} % right{relu}")
        if self.agreement:
            parts.append(f"{100 * self.agreement[-1]:.2f} % as the ReLU network")
        took = "" if math.isnan(self.relu_seconds) else f" (ReLU {self.relu_seconds:.3g} s)"
        parts.append(f"{self.seconds:.3g} s{took}")
        return "; ".join(parts)

    def to_json(self) -> str:
        """All of it as JSON; NaN is null, an infinity "inf" or "-inf".

        >>> import json
        >>> import torch
        >>> from torch import nn
        >>> from snm import convert, report
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> found = report(convert(model, torch.rand(32, 4)), torch.rand(8, 4), timesteps=16)
        >>> json.loads(found.to_json())["timesteps"]
        16
        """
        return json.dumps(plain(self), indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """The report that :meth:`to_json` wrote.

        Raises:
            ValueError: it is none.

        >>> import torch
        >>> from torch import nn
        >>> from snm import convert, report
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> found = report(convert(model, torch.rand(32, 4)), torch.rand(8, 4), timesteps=16)
        >>> Report.from_json(found.to_json()).macs == found.macs
        True
        """
        try:
            report: Report = typed(cls, json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"Report: text must be a report's JSON: {error}") from error
        return report

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a file: as JSON, or as a page for people.

        Args:
            path: its ending says which, ``.json`` or ``.html``.

        Raises:
            ValueError: it ends otherwise.

        >>> import tempfile
        >>> import torch
        >>> from torch import nn
        >>> from snm import convert, report
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> found = report(convert(model, torch.rand(32, 4)), torch.rand(8, 4), timesteps=16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "report.json")
        ...     found.save(path)
        ...     Report.from_json(path.read_text(encoding="utf-8")).timesteps
        16
        """
        ending = Path(path).suffix
        if ending == ".html":
            from .page.write import page

            text = page(self)
        elif ending == ".json":
            text = self.to_json() + "\n"
        else:
            raise ValueError(f"Report: path must end in .json or .html, got {os.fspath(path)!r}")
        Path(path).write_text(text, encoding="utf-8")


def _share(energy: Energy) -> str:
    return f"{energy.ratio:.2g} times as much by {energy.convention}"


def _row(layer: LayerReport, images: int) -> tuple[str, ...]:
    def shown(value: float, form: str) -> str:
        return "" if math.isnan(value) else format(value, form)

    return (
        layer.path if layer.kind == "neurons" else f"{layer.path} (max)",
        f"{layer.neurons}",
        f"{layer.positive_rate:.4f}",
        f"{layer.negative_rate:.4f}",
        shown(100 * layer.dead, ".1f"),
        shown(100 * layer.saturated, ".1f"),
        shown(layer.residual, ".3f"),
        f"{layer.connections / layer.neurons:.1f}",
        f"{layer.synaptic_operations / images:.4g}",
    )
