"""``snm report``: what a spiking network sends, costs and gets right, as tables and as a page."""

import argparse
import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..network.relu import relu_logits
from ..network.spiking import SpikingNetwork
from ..optional import check_installed
from .arguments import (
    add_conversion,
    add_data,
    add_model,
    add_work,
    calibration_of,
    conversion_of,
    data_of,
    positive,
    processes_of,
    request_of,
)
from .output import done_or_complained

if TYPE_CHECKING:
    from rich.table import Table

    from ..data.batches import Shards
    from ..models import Loaded
    from ..reports import Report
    from ..reports.page.sheets import Sheet

PACKAGES = ("rich",)
"""The packages that this command needs beside those of snm itself, as they are imported."""

_STEPS = 32
"""Time steps, where nobody says how many and the network is not tuned for some."""
_HIDDEN = {
    *("Spikes +", "Spikes −", "Synapses", "Saturated", "|v|/θ"),
    *("Mean activation", "Spiking, made up of"),
}
"""Columns that a terminal has no room for."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``snm report`` to the command line."""
    parser = commands.add_parser(
        "report", help="spikes, synaptic operations, energy, accuracy and speed, also as a page"
    )
    parser.set_defaults(run=run)
    add_model(parser)
    add_data(parser, required=False)
    parser.add_argument(
        "--timesteps",
        type=positive,
        metavar="T",
        help=f"default: what the network was tuned for, or {_STEPS}",
    )
    parser.add_argument(
        "--diagnose",
        action="store_true",
        help="say of each layer what is lost to what, which simulates all images once more",
    )
    parser.add_argument(
        "--out",
        type=_output,
        action="append",
        default=[],
        metavar="FILE",
        help="a page, such as report.html, or all numbers, such as report.json; may be given twice",
    )
    parser.add_argument("--title", help="of the page (default: names of model and data)")
    add_conversion(parser)
    add_work(parser)


def _output(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".html", ".json"):
        raise argparse.ArgumentTypeError(f"must end in .html or .json, got {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must lie in a folder that there is, got {text}")
    return path


def run(options: argparse.Namespace) -> int:
    """Runs ``snm report`` and returns its exit status.

    Raises:
        PackageError: rich is not installed.
    """
    check_installed("snm report", *PACKAGES, extra="evaluate")
    return done_or_complained(_report, options)


def _report(options: argparse.Namespace) -> None:
    from ..data.packaged import NAME
    from ..diagnosis import diagnose
    from ..evaluate.conversion import spiking_network
    from ..files.whole import write_whole
    from ..models import load_model
    from ..reports import report

    if options.data is None:
        if options.model != NAME:
            raise ValueError("data must name images, KIND:FOLDER, got none")
        options.data = NAME
    loaded = load_model(request_of(options))
    data = data_of(options, loaded)
    conversion = conversion_of(options, options.timesteps)
    with processes_of(options) as processes:
        calibration = calibration_of(options, loaded, options.data)
        net, _ = spiking_network(loaded, conversion, calibration, processes)
        steps = options.timesteps or net.tuned_for or _STEPS
        model = _relu_network(loaded, net)
        diagnosis = None
        if options.diagnose:
            batches = _batches(data, net, processes.device, "diagnosis")
            diagnosis = diagnose(net, model, (images for images, _ in batches), timesteps=steps)
        found = report(
            net,
            _batches(data, net, processes.device, "report"),
            timesteps=steps,
            model=model,
            diagnosis=diagnosis,
        )
        pages = [path for path in options.out if path.suffix == ".html"]
        page = _page(options, found, net, data, processes.device) if pages else ""
    _print(found)
    for left_out, what in ((data, ""), (calibration, " of calibration")):
        if left_out is not None and left_out.left_out:
            print(f"\n{len(left_out.left_out)} corrupt{what}, left out:")
            print("\n".join(f"  {image}" for image in sorted(left_out.left_out)))
    for path in options.out:
        if path in pages:
            write_whole(path, page.encode())
        else:
            found.save(path)
        print(path)


class _Rectified(nn.Module):
    """The ReLU network that a spiking network in a file was made of, as a module."""

    def __init__(self, net: SpikingNetwork) -> None:
        super().__init__()
        self._net = [net]

    def forward(self, images: Tensor) -> Tensor:
        return relu_logits(self._net[0], images)


def _relu_network(loaded: "Loaded", net: SpikingNetwork) -> nn.Module:
    """The ReLU network, in the dtype and on the device of the spiking one."""
    if isinstance(loaded.model, SpikingNetwork):
        return _Rectified(net).eval()
    device = net.device
    return copy.deepcopy(loaded.model).to(device, net.dtype)


def _batches(
    data: "Shards", net: SpikingNetwork, device: torch.device, what: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images as the network takes them, with their classes, and a bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    shards = data.read(range(len(data)))
    console = Console(file=sys.stderr)
    for batch in track(shards, f"batches, {what}", total=len(data), console=console):
        if len(batch.labels):
            yield batch.images.to(device, net.dtype), batch.labels


def _page(
    options: argparse.Namespace,
    found: "Report",
    net: SpikingNetwork,
    data: "Shards",
    device: torch.device,
) -> str:
    """The page, with what a few neurons do for the first image."""
    from ..reports.page.sampling import record_sample
    from ..reports.page.write import page

    shards = (batch.images for batch in data.read(range(len(data))) if len(batch.labels))
    image = next(shards)[:1].to(device, net.dtype)
    recording = record_sample(net, image, timesteps=found.timesteps)
    return page(found, title=options.title or _title(options), recording=recording)


def _title(options: argparse.Namespace) -> str:
    """Names of the model and of the data, without the folders that they lie in."""
    from ..data.packaged import NAME

    model = Path(options.model).name if Path(options.model).is_file() else options.model
    kind, _, folder = options.data.partition(":")
    data = Path(folder).resolve().name if kind == "folder" else kind
    if options.model == NAME:
        model = "SmallVGG"
    return f"{model} on {'Fashion-MNIST' if data == NAME else data}"


def _print(report: "Report") -> None:
    from rich.console import Console
    from rich.text import Text

    from ..reports.page import sheets, summary

    console = Console()
    console.print(Text(", ".join(f"{name}: {value}" for name, value in summary.facts(report))))
    console.print()
    for key in summary.key_figures(report):
        console.print(Text.assemble(f"{key.name}: ", (key.value, "bold"), f" ({key.beside})"))
    tables = [
        sheets.over_time(report),
        sheets.layers(report),
        sheets.errors(report.diagnosis),
        sheets.energy(report),
    ]
    for sheet in tables:
        if sheet.rows:
            console.print()
            console.print(Text(sheet.caption))
            console.print(_table(sheet))
    console.print()
    if report.diagnosis is not None:
        console.print(Text(report.diagnosis.advice))
    console.print(Text(report.verdict), style="bold")


def _table(sheet: "Sheet") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    shown = [column for column, head in enumerate(sheet.heads) if head not in _HIDDEN]
    for column in shown:
        head = Text(sheet.heads[column])
        table.add_column(head, justify="right" if column else "left", overflow="fold")
    for row in sheet.rows:
        table.add_row(*(Text(row[column].words) for column in shown))
    return table
