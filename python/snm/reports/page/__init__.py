"""The report as one page of HTML that needs nothing else."""

from .reader import read
from .write import page

__all__ = ["page", "read"]
