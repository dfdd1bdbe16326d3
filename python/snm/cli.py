"""The command ``snm``: demo and doctor."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import snm_kernels

_DEMO_PACKAGES = ("matplotlib", "rich")


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
    commands.add_parser("doctor", help="say which backends run here and how this copy was built")
    options = parser.parse_args(arguments)
    if options.command == "demo":
        return _demo(options.picture)
    return _doctor()


def _demo(picture: Path) -> int:
    missing = [name for name in _DEMO_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"snm demo needs {', '.join(missing)}: pip install 'snm-kernels[demo]'",
            file=sys.stderr,
        )
        return 1
    from rich.console import Console

    from snm.demo.run import run

    run(Console(), picture)
    return 0


def _doctor() -> int:
    info = snm_kernels.build_info()
    print(f"snm-kernels {info.version}")
    print(f"  built with    {info.cxx_compiler}, for torch {info.oldest_torch} and newer")
    if info.cuda_compiler:
        print(f"  CUDA library  {info.cuda_compiler}, targets {info.cuda_architectures}")
    else:
        print("  CUDA library  none in this build")
    print(f"  instructions  {info.isa}")
    print(f"  running on    torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("backends")
    for name, status in snm_kernels.backends().items():
        print(f"  {name:<10} {'available' if status.available else f'no: {status.reason}'}")
    return 0
