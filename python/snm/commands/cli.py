"""The command ``snm``: reads the command line and runs the command that it names."""

import argparse
import sys
from collections.abc import Sequence

from ..optional import PackageError
from . import bench, convert, demo, doctor, evaluate, report, run

_COMMANDS = (demo, doctor, bench, evaluate, convert, run, report)
"""Each has ``add``, which adds it to the command line, and ``run``, which runs it."""


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
    for command in _COMMANDS:
        command.add(commands)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except PackageError as error:
        print(error, file=sys.stderr)
        return 1
    return status
