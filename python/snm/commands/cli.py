"""The command ``snm``: demo, doctor, bench, and those of ``snm.commands``."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import convert, evaluate, report, run

_DEMO_PACKAGES = ("matplotlib", "rich")
_BENCH_PACKAGES = ("matplotlib", "pytest", "pytest_benchmark")
_EVALUATE_PACKAGES = ("rich",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    Args:
        arguments: the command line; None for the process's own.

    >>> main(["doctor"])  # doctest: +ELLIPSIS
    snm-kernels ...
    0
    """
    parser = argparse.ArgumentParser(
        prog="snm", description="Spiking networks of signed neurons with memory."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo", help="convert a packaged network, show accuracy over time steps and speed"
    )
    demo.add_argument(
        "--picture",
        type=Path,
        default=Path("snm-demo.png"),
        help="PNG file for the curve (default: %(default)s)",
    )
    commands.add_parser(
        "doctor", help="say which backends run here and, of the others, why not; test those that do"
    )
    _add_bench(commands)
    for command in (evaluate, convert, run, report):
        command.add(commands)
    options = parser.parse_args(arguments)
    if options.command == "demo":
        return _demo(options.picture)
    if options.command == "bench":
        return _bench(options)
    if options.command == "evaluate":
        return 1 if _lacks("evaluate", _EVALUATE_PACKAGES) else evaluate.run(options)
    if options.command == "report":
        lacking = _lacks("report", _EVALUATE_PACKAGES, extra="evaluate")
        return 1 if lacking else report.run(options)
    if options.command == "convert":
        return convert.run(options)
    if options.command == "run":
        return run.run(options)
    from .doctor import examine

    return examine()


def _add_bench(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    bench = commands.add_parser(
        "bench", help="time the op and whole networks beside copy_ and their rivals"
    )
    bench.add_argument(
        "--out",
        type=Path,
        default=Path("snm-bench"),
        metavar="FOLDER",
        help="for record.json, tables.md and roofline.svg (default: %(default)s)",
    )
    scale = bench.add_mutually_exclusive_group()
    scale.add_argument(
        "--quick",
        dest="scale",
        action="store_const",
        const="quick",
        help="a first look in about two minutes; everything takes 10 to 15",
    )
    scale.add_argument(
        "--tiny",
        dest="scale",
        action="store_const",
        const="tiny",
        help="that it runs at all; the figures mean nothing",
    )
    bench.add_argument(
        "--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU, else cpu"
    )
    bench.add_argument(
        "--limit",
        type=float,
        default=float("inf"),
        metavar="SECONDS",
        help="write down what is measured by then (default: no limit)",
    )
    bench.add_argument(
        "--suites",
        nargs="+",
        default=(),
        metavar="SUITE",
        help="these alone, in this order: op, sweep, rivals, network, layouts, calls, and on a GPU "
        "chunks (default: all)",
    )
    bench.set_defaults(scale="full")


def _lacks(command: str, packages: Sequence[str], extra: str = "") -> bool:
    """Says which of a command's packages are not installed, if any, and what installs them: the
    extra of that name, or of the command's."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        install = f"pip install 'snm-kernels[{extra or command}]'"
        print(f"snm {command} needs {', '.join(missing)}: {install}", file=sys.stderr)
    return bool(missing)


def _bench(options: argparse.Namespace) -> int:
    if _lacks("bench", _BENCH_PACKAGES):
        return 1
    if options.device == "cuda" and not torch.cuda.is_available():
        print("snm bench: --device cuda needs an NVIDIA GPU, found none", file=sys.stderr)
        return 1
    from ..bench.suite import run, unknown

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if names := unknown(device, options.scale, options.suites):
        print(f"snm bench: --suites must be of this run, got {' '.join(names)}", file=sys.stderr)
        return 1
    return int(run(device, options.scale, options.out, options.limit, options.suites))


def _demo(picture: Path) -> int:
    if _lacks("demo", _DEMO_PACKAGES):
        return 1
    from rich.console import Console

    from .demo import run

    run(Console(), picture)
    return 0
