"""The report as one page of HTML that needs nothing else."""

from .write import page, read

__all__ = ["page", "read"]
