"""Decides how many time steps or images fit in the memory that a simulation may take."""

import os
from pathlib import Path

import torch

from snm_kernels.compiling import constant_result

_ENOUGH = 2**26
"""How many bytes one chunk of time steps may take on the CPU. Convolutions are then as fast as
they get, and what a layer makes still comes from the heap, whose pages are mapped."""
_ENOUGH_ON_GPU = 2**30
"""How many bytes one chunk of time steps may take on a GPU, where launches are then few; and how
many bytes images may take on any device."""
_SHARE = 4
"""A simulation takes one part in so many of the free memory, so that several simulations fit."""


@constant_result
def steps_that_fit(bytes_per_step: int, device: torch.device) -> int:
    """How many time steps of ``bytes_per_step`` each to simulate at once, >= 1."""
    room = min(_enough(device), available_bytes(device) // _SHARE)
    return max(1, room // max(1, bytes_per_step))


def images_that_fit(bytes_per_image: int, device: torch.device) -> int:
    """How many images of ``bytes_per_image`` each to have in memory at once, >= 1."""
    room = min(_ENOUGH_ON_GPU, available_bytes(device) // _SHARE)
    return max(1, room // max(1, bytes_per_image))


def images_with_all_steps(bytes_per_image: int, device: torch.device) -> int:
    """How many images, whose time steps take so many bytes all together, to simulate at once, >= 1.

    Half of what a chunk of time steps may take: the rest of what is simulated is then in a cache.
    """
    return max(1, _enough(device) // 2 // max(1, bytes_per_image))


def steps_anywhere(bytes_per_step: int, device: torch.device) -> int:
    """What :func:`steps_that_fit` returns where enough memory is free, on whatever machine."""
    return max(1, _enough(device) // max(1, bytes_per_step))


def _enough(device: torch.device) -> int:
    """How many bytes one chunk of time steps may take on a device."""
    return _ENOUGH_ON_GPU if device.type == "cuda" else _ENOUGH


def available_bytes(device: torch.device) -> int:
    """Bytes that are free on a device; on the CPU also within the process's control group.

    >>> available_bytes(torch.device("cpu")) > 0
    True
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    return min(_free_of_machine(), _free_of_group())


def _free_of_machine() -> int:
    """Bytes of memory that the machine has free."""
    table = Path("/proc/meminfo")
    if table.exists():
        for line in table.read_text().splitlines():
            name, _, amount = line.partition(":")
            if name == "MemAvailable":
                return int(amount.split()[0]) * 1024
    # Only Linux says what is free; elsewhere half of all memory usually is.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _free_of_group() -> int:
    """Bytes that a container may still take; without a limit, more than any machine has."""
    unlimited = 2**63
    for folder, limit, used, cached in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        (
            "/sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ):
        group = Path(folder)
        if not all((group / name).exists() for name in (limit, used, "memory.stat")):
            continue
        most = (group / limit).read_text().strip()
        if most == "max":
            return unlimited
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        # Memory that caches files is given up on demand.
        spare = sum(int(amount) for name, amount in lines if name == cached)
        return int(most) - int((group / used).read_text()) + spare
    return unlimited
