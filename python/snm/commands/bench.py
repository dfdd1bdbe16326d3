"""``snm bench``: times the op and whole networks beside ``copy_`` and their rivals."""

import argparse
import sys
from pathlib import Path

import torch

from ..optional import check_installed

PACKAGES = ("matplotlib", "pytest", "pytest_benchmark")
"""The packages that this command needs beside those of snm itself, as they are imported."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``snm bench`` to the command line."""
    parser = commands.add_parser(
        "bench", help="time the op and whole networks beside copy_ and their rivals"
    )
    parser.set_defaults(run=run, scale="full")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("snm-bench"),
        metavar="FOLDER",
        help="for record.json, tables.md and roofline.svg (default: %(default)s)",
    )
    scale = parser.add_mutually_exclusive_group()
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
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU, else cpu"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=float("inf"),
        metavar="SECONDS",
        help="write down what is measured by then (default: no limit)",
    )
    parser.add_argument(
        "--suites",
        nargs="+",
        default=(),
        metavar="SUITE",
        help="these alone, in this order: op, sweep, rivals, network, density, layouts, calls, and "
        "on a GPU chunks (default: all)",
    )


def run(options: argparse.Namespace) -> int:
    """Runs ``snm bench``.

    Returns:
        The exit status: 0, or 1 where there is no such GPU or suite, or a suite fails.

    Raises:
        PackageError: matplotlib, pytest or pytest-benchmark is not installed.
    """
    check_installed("snm bench", *PACKAGES, extra="bench")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("snm bench: --device cuda needs an NVIDIA GPU, found none", file=sys.stderr)
        return 1
    from ..bench.suite import run as run_suites
    from ..bench.suite import unknown

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if names := unknown(device, options.scale, options.suites):
        print(f"snm bench: --suites must be of this run, got {' '.join(names)}", file=sys.stderr)
        return 1
    return int(run_suites(device, options.scale, options.out, options.limit, options.suites))
