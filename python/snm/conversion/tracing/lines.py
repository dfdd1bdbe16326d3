"""Finds the line of a model's source in which something happens."""

import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from types import CodeType

from ...frames import is_users_file

_FRAME = re.compile(r'File "(.+)", line (\d+)')


def line_running(outermost: CodeType) -> str:
    """The line of the model that is being run; empty if there is none.

    Args:
        outermost: what runs the model.
    """
    return _innermost(_running(outermost))


def line_of_error(error: BaseException) -> str:
    """The line of the model that raised an error; empty if there is none."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return _innermost((frame.filename, frame.lineno or 0) for frame in frames)


def line_in(stack_trace: str) -> str:
    """The line of the model in a stack trace, the innermost frame last; empty if there is none.

    >>> line_in('File "/home/me/resnet.py", line 102, in forward')
    'resnet.py:102'
    """
    frames = reversed(_FRAME.findall(stack_trace))
    return _innermost((file, int(number)) for file, number in frames)


def _running(outermost: CodeType) -> Iterator[tuple[str, int]]:
    frame = sys._getframe()
    while frame.f_code is not outermost and frame.f_back is not None:
        yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back


def _innermost(frames: Iterable[tuple[str, int]]) -> str:
    """The file and line of the first frame that is the model's own; empty if none is."""
    for file, number in frames:
        if is_users_file(file):
            return f"{os.path.basename(file)}:{number}"
    return ""
