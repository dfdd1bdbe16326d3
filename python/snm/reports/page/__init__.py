"""Reports as pages of HTML that need nothing else, written and read again."""

from .reader import read
from .write import page

__all__ = ["page", "read"]
