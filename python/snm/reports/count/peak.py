"""How much memory something takes at its peak."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


class Peak:
    """How far what runs within :meth:`measured` raises the memory in use.

    On a GPU that is what torch has allocated. On the CPU it is the resident memory of the whole
    process, above what it was when all that was free had been given back to the system; only Linux
    says it. Giving it back takes time, so what is no larger than before is not measured.

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
        """The most of all times; 0 if the system does not say."""

    @contextmanager
    def measured(self, size: int) -> Iterator[None]:
        """Measures what runs within.

        Args:
            size: > 0, such as the number of images; only what is larger than before is measured.
        """
        if size <= self._largest:
            yield
            return
        self._largest = size
        before = self._restart()
        yield
        self.bytes = max(self.bytes, self._highest() - before)

    def _restart(self) -> int:
        """Begins a new peak; returns what is in use."""
        # What is only found to be unused within would hide some of it.
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        _give_back()
        if _resettable():
            (_PROCESS / "clear_refs").write_text("5")
        return _status("VmRSS")

    def _highest(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _status("VmHWM") if _resettable() else 0


def _resettable() -> bool:
    """Whether the system keeps a peak that begins anew on demand."""
    return (_PROCESS / "clear_refs").exists()


def _status(name: str) -> int:
    """A number of bytes that the system has of this process; 0 if it has none."""
    table = _PROCESS / "status"
    if not table.exists():
        return 0
    for line in table.read_text().splitlines():
        found, _, amount = line.partition(":")
        if found == name:
            return int(amount.split()[0]) * 1024
    return 0


def _give_back() -> None:
    """Returns to the system what the heap holds and nothing uses, where the heap is glibc's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
