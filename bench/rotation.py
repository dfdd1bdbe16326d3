"""A kernel's time alone, on a GPU: without a call's dispatch, and with its buffers in memory.

A layer of under 2¹⁸ neurons takes less time than the call that launches it, and fits into the
second-level cache, where a network's layers do not find their drive. So the calls go over several
sets of buffers in turn, results included, recorded in one CUDA graph, and what is timed is the
graph's replay.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch

from snm.bench.workload import Inputs, Workload, inputs_of

Call = Callable[[], object]

CACHES = 4
"""How many times the cache the drives in turn take, so that nothing of a drive is left in the cache
when its turn comes again."""
MOST_SETS = 2048
"""How many sets of buffers there are at most, as recording takes tens of microseconds a call; very
small drives then take less than that many caches."""


class Turns:
    """A call that replays the calls on all sets of buffers from one CUDA graph."""

    def __init__(self, calls: Sequence[Call]) -> None:
        # The graph has the buffers' addresses alone.
        self._calls = list(calls)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Kernels are compiled and loaded by a first call, which can't be recorded.
            self._calls[0]()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            # Memory of a result let go would be the next one's, and be in the cache each time.
            self.results = [call() for call in self._calls]

    def __call__(self) -> None:
        self._graph.replay()


def sets_needed(drive_bytes: int, cache_bytes: int) -> int:
    """How many sets of buffers to use in turn.

    >>> sets_needed(2**20, 60 * 2**20), sets_needed(2**27, 60 * 2**20), sets_needed(2**27, 0)
    (240, 2, 1)
    """
    return min(MOST_SETS, max(1, math.ceil(CACHES * cache_bytes / drive_bytes)))


def cache_bytes(device: str) -> int:
    """The size of a GPU's second-level cache; 0 on a CPU, where one set of buffers is timed."""
    return 0 if device == "cpu" else int(torch.cuda.get_device_properties(device).L2_cache_size)


# As inputs_of: workloads come one after another.
@lru_cache(maxsize=1)
def sets_of(workload: Workload) -> tuple[Inputs, ...]:
    """The sets of a workload's tensors: on a GPU as many as its cache calls for, on a CPU one."""
    first = inputs_of(workload)
    more = range(1, sets_needed(first.drive.nbytes, cache_bytes(workload.device)))
    copies = (first._replace(drive=first.drive.clone(), out=first.out.clone()) for _ in more)
    return first, *copies


def in_turn(workload: Workload, call_of: Callable[[Inputs], Call]) -> Call:
    """A call that runs on each set of the workload's tensors in turn; on a CPU there is one set."""
    calls = [call_of(inputs) for inputs in sets_of(workload)]
    return calls[0] if workload.device == "cpu" else Turns(calls)
