"""A report as one page of HTML, for people: nothing is loaded, all of it is in the file."""

import re
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from ...network.recording import Recording
from ..result import Result
from . import report_figures, sheets, spike_figures
from .formatting import quantity
from .summary import facts, key_figures


def page(
    report: Result,
    *,
    title: str = "A spiking network of signed neurons",
    recording: Recording | None = None,
    neuron: tuple[str, int] | None = None,
) -> str:
    """A report as a page of HTML that needs nothing else, and works without scripts and colours.

    Args:
        report: what :func:`snm.report` found.
        title: what the network is called.
        recording: of :meth:`snm.SpikingNetwork.record`; its first image's spikes and, if they were
            recorded, one neuron's membrane are drawn.
        neuron: whose membrane: the layer's path and the neuron's number in it; None for the one
            that sends most negative spikes.

    Returns:
        The page; :func:`snm.reports.page.read` gives the report back.

    Raises:
        ValueError: the neuron's spikes and membrane were not recorded.

    >>> import torch
    >>> from torch import nn
    >>> from snm import convert, report
    >>> from snm.reports.page import read
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> found = report(convert(model, images), images, timesteps=8, model=model)
    >>> read(page(found, title="mine")).to_json() == found.to_json()
    True
    """
    drawn = [
        report_figures.accuracy(report),
        report_figures.layers(report),
        report_figures.energy(report),
        report_figures.errors(report.diagnosis),
    ]
    if recording is not None:
        drawn += [spike_figures.raster(recording), spike_figures.membrane(recording, neuron)]
    html = _template().render(
        report=report,
        title=title,
        facts=facts(report),
        keyfigures=key_figures(report),
        figures=[figure for figure in drawn if figure is not None],
        tables=sheets.every_sheet(report),
        notes=_notes(report),
        linked=_linked,
        # Within a script element nothing ends it but a tag.
        json=Markup(report.to_json().replace("<", "\\u003c")),
        css=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
    )
    return f"{html.strip()}\n"


@cache
def _template() -> Template:
    """The page without its contents."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_asset("page.html.jinja"))


def _asset(name: str) -> str:
    """A file that lies beside this one, as text."""
    return (files(__package__ or "") / name).read_text(encoding="utf-8")


def _notes(report: Result) -> list[str]:
    """How the numbers were counted and measured, a paragraph each."""
    macs = report.macs
    return [
        "A synaptic operation is a spike that arrives over one synapse: a weight that is not 0, at "
        "a position that there is. Beside them the spiking network computes "
        f"{quantity(macs.snn)} multiply-accumulates per image: {quantity(macs.first)} before its "
        f"first neurons, {quantity(macs.steps)} in layers that read what is no spike, "
        f"{quantity(macs.readout)} behind its last ones. The ReLU network computes "
        f"{quantity(macs.relu)}.",
        "Energies are operations and memory accesses times what a source says that one costs. Time "
        f"and memory were measured on {report.device}, counting included.",
    ]


_ADDRESSES = {
    re.compile(r"https://[^\s,;)]*[^\s,;).]"): "{}",
    re.compile(r"(?<=arXiv:)\d{4}\.\d{4,5}"): "https://arxiv.org/abs/{}",
    re.compile(r"(?<=doi:)10\.[^\s,;)]*[^\s,;).]"): "https://doi.org/{}",
}
"""What becomes a link, and the address that it leads to."""


def _linked(source: str) -> Markup:
    """The words of a source, in which addresses, DOIs and arXiv numbers become links.

    >>> print(_linked("A & B, 2022, arXiv:2210.13107."))
    A &amp; B, 2022, arXiv:<a href="https://arxiv.org/abs/2210.13107">2210.13107</a>.
    """
    found = sorted(
        (match.span(), address)
        for pattern, address in _ADDRESSES.items()
        for match in pattern.finditer(source)
    )
    parts, end = [], 0
    for (start, stop), address in found:
        # An address may hold a DOI.
        if start < end:
            continue
        words = source[start:stop]
        link = Markup('<a href="{}">{}</a>').format(address.format(words), words)
        parts += [escape(source[end:start]), link]
        end = stop
    return Markup("").join([*parts, escape(source[end:])])
