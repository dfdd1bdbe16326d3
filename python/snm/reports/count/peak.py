"""Measures how much memory something takes at its peak."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")
"""Where Linux says how much memory this process takes."""


class Peak:
    """Measures by how much whatever runs within :meth:`measured` raises the memory in use.

    On a GPU that is the memory that torch has allocated. On the CPU it is the resident memory of
    the whole process, compared with what it was when all free memory had been given back to the
    system; only Linux tells it. Giving memory back takes time, so what is no larger than something
    measured before is not measured.

    >>> peak = Peak(torch.device("cpu"))
    >>> with peak.measured(1):
    ...     held = torch.ones(2**23)
    >>> peak.bytes == 0 or peak.bytes >= 2**24
    True
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._largest = 0
        self.bytes = 0
        """The largest rise of all that was measured, in bytes; 0 if the system does not tell."""

    @contextmanager
    def measured(self, size: int) -> Iterator[None]:
        """Measures what runs within the with statement.

        Args:
            size: how large it is, such as its number of images, > 0; only what is larger than all
                before is measured.
        """
        if size <= self._largest:
            yield
            return
        self._largest = size
        before = self._restart()
        yield
        self.bytes = max(self.bytes, self._highest() - before)

    def _restart(self) -> int:
        """Begins a new peak; returns how many bytes are in use."""
        # Memory that is found to be unused only later would hide some of the rise.
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        _give_back()
        if _resettable():
            (_PROCESS / "clear_refs").write_text("5")
        return _status("VmRSS")

    def _highest(self) -> int:
        """The most bytes in use since the peak began; 0 if the system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _status("VmHWM") if _resettable() else 0


def _resettable() -> bool:
    """Whether the system keeps a peak of memory that can be begun anew."""
    return (_PROCESS / "clear_refs").exists()


def _status(name: str) -> int:
    """A number of bytes from the system's status of this process; 0 if it has no such entry."""
    table = _PROCESS / "status"
    if not table.exists():
        return 0
    for line in table.read_text().splitlines():
        found, _, amount = line.partition(":")
        if found == name:
            return int(amount.split()[0]) * 1024
    return 0


def _give_back() -> None:
    """Gives unused memory of the heap back to the system, where the heap is glibc's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
