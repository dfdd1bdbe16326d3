"""What commands say on standard error: why they cannot be done, and how far they are."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..optional import PackageError

REFUSALS = (ValueError, TypeError, OSError, PackageError)
"""Errors whose message is all that a user needs, without a trace."""


def complain(command: str, error: Exception, who: str = "") -> None:
    """Prints why a command cannot be done.

    Args:
        command: its name.
        error: what it failed with.
        who: which of several processes says so.
    """
    print(f"snm {command}: {f'{who}: ' if who else ''}{error}", file=sys.stderr, flush=True)


def done_or_complained(
    work: Callable[[argparse.Namespace], None], options: argparse.Namespace
) -> int:
    """Does a command's work, or prints why it cannot be done.

    Args:
        work: what is to be done with the options.
        options: the command line, whose ``command`` is the command's name.

    Returns:
        The exit status: 0, or 1 where it cannot be done.
    """
    try:
        work(options)
    except REFUSALS as error:
        complain(options.command, error)
        return 1
    return 0


def layers_told(layers: Iterable[Any]) -> Iterator[Any]:
    """Hands layers on, and prints of each, when its turn comes, that it is being tuned."""
    every = list(layers)
    for number, layer in enumerate(every, start=1):
        print(f"tuning layer {number} of {len(every)}: {layer.path}", file=sys.stderr, flush=True)
        yield layer
