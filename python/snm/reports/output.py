"""The report that users get: a result that prints as a table, and is saved and read again."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from ..table import table
from .result import LayerReport, Result
from .typed_json import typed

_HEAD = (
    *("layer", "neurons", "+ per step", "- per step", "dead %", "saturated %", "|v|/θ"),
    *("synapses each", "operations an image"),
)
"""The heads of the printed table of layers."""


@dataclass(frozen=True, slots=True)
class Report(Result):
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
                *self._integers_shown,
                *self._events_shown,
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
    def _integers_shown(self) -> list[str]:
        """How layers of integers are computed, and the widths of numbers; nothing of others."""
        if not self.integers:
            return []
        layers = [
            (
                *("layer of integers", "computed", "time by events"),
                *("operations, % of dense", "bits of a sum"),
            )
        ]
        for layer in self.integers.values():
            time = layer.time_by_events
            took = "" if math.isnan(time) else f"{time:.2f} of dense"
            share = f"{100 * layer.operations:.1f}"
            layers.append((layer.path, layer.computed, took, share, str(layer.sum_bits)))
        widths = [("layer of neurons", "bits of a membrane", "observed")]
        for path, bits in self.membrane_bits.items():
            widths.append((path, str(bits), str(self.observed_membrane_bits.get(path, ""))))
        return ["", table(layers), "", table(widths)]

    @property
    def _events_shown(self) -> list[str]:
        """Which layers in floating point are computed spike by spike; nothing if none is."""
        if not self.events:
            return []
        layers = [("layer", "computed", "operations, % of dense")]
        for path, share in self.events.items():
            layers.append((path, "by events", f"{100 * share:.1f}"))
        return ["", table(layers)]

    @property
    def _title(self) -> str:
        """What was run and how it went, the line above the printed tables."""
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

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """The report that :meth:`to_json` wrote.

        Raises:
            ValueError: the text is not the JSON of a report.

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
        """Writes the report to a file: as JSON, or as a page for people.

        Args:
            path: of the file; its ending says which, ``.json`` or ``.html``.

        Raises:
            ValueError: the path ends otherwise.

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
            # The package of pages also reads them, which makes reports.
            from .page.write import page

            text = page(self)
        elif ending == ".json":
            text = self.to_json() + "\n"
        else:
            raise ValueError(f"Report: path must end in .json or .html, got {os.fspath(path)!r}")
        Path(path).write_text(text, encoding="utf-8")


def _row(layer: LayerReport, images: int) -> tuple[str, ...]:
    """A layer's row of the printed table."""

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
