"""How much memory a simulation may take."""

import os
from pathlib import Path

import torch

from snm_kernels.compiling import constant_result

_ENOUGH, _ENOUGH_ON_GPU = 2**26, 2**30
"""Bytes that one chunk of time steps may take. On the CPU convolutions are then as fast as they
get, and what a layer makes still comes from the heap, whose pages are mapped. On a GPU the
launches are few, as they are on either where images are gathered."""
_SHARE = 4
"""A simulation takes a quarter of what is free, so that several fit."""


@constant_result
def steps_that_fit(bytes_per_step: int, device: torch.device) -> int:
    """How many time steps of so many bytes to simulate at once, >= 1."""
    room = min(_enough(device), available_bytes(device) // _SHARE)
    return max(1, room // max(1, bytes_per_step))


def images_that_fit(bytes_per_image: int, device: torch.device) -> int:
    """How many images of so many bytes to have in memory at once, >= 1."""
    room = min(_ENOUGH_ON_GPU, available_bytes(device) // _SHARE)
    return max(1, room // max(1, bytes_per_image))


def steps_anywhere(bytes_per_step: int, device: torch.device) -> int:
    """As :func:`steps_that_fit` where enough memory is free: the same on every such machine."""
    return max(1, _enough(device) // max(1, bytes_per_step))


def _enough(device: torch.device) -> int:
    return _ENOUGH_ON_GPU if device.type == "cuda" else _ENOUGH


def available_bytes(device: torch.device) -> int:
    """Memory that is free on a device; on the CPU also within the process's control group.

    >>> available_bytes(torch.device("cpu")) > 0
    True
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    return min(_free_of_machine(), _free_of_group())


def _free_of_machine() -> int:
    table = Path("/proc/meminfo")
    if table.exists():
        for line in table.read_text().splitlines():
            name, _, amount = line.partition(":")
            if name == "MemAvailable":
                return int(amount.split()[0]) * 1024
    # Only Linux says what is free; half of what there is usually is.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _free_of_group() -> int:
    """What a container may still take; without a limit more than any machine has."""
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
        # What files are cached with is given up on demand.
        spare = sum(int(amount) for name, amount in lines if name == cached)
        return int(most) - int((group / used).read_text()) + spare
    return unlimited
