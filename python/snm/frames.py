"""Which frames of the stack are neither snm's nor torch's."""

import os
import sys

import torch

_LIBRARIES = tuple(os.path.dirname(file) + os.sep for file in (torch.__file__, __file__))


def is_users_file(file: str) -> bool:
    """Whether a frame's file is that of a model or of a caller; generated code has none."""
    return not file.startswith((*_LIBRARIES, "<"))


def callers_level() -> int:
    """The ``stacklevel`` with which a warning names the line that called into snm.

    For ``warnings.warn`` in the function that calls this.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        level, frame = level + 1, frame.f_back
    return level
