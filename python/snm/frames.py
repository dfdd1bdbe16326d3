"""Tells frames of the call stack that belong to a user from those of snm and torch."""

import os
import sys

import torch

_LIBRARIES = tuple(os.path.dirname(file) + os.sep for file in (torch.__file__, __file__))
"""The folders of torch and of snm."""


def is_users_file(file: str) -> bool:
    """Whether a file belongs to neither snm nor torch; code without a file belongs to no user."""
    return not file.startswith((*_LIBRARIES, "<"))


def callers_level() -> int:
    """The ``stacklevel`` with which a warning names the user's line that called into snm.

    It is right for a ``warnings.warn`` in the function that calls this one.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        level, frame = level + 1, frame.f_back
    return level
