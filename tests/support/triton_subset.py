"""Which cases run on Triton with ``--triton subset``: every branch, and every two of them.

Triton compiles a kernel for each combination of dtypes, absent tensors, constants and
divisibilities of its arguments, for seconds: more than 800 for all cases. Two kernels that share a
branch rarely differ in what it does, and Triton's interpreter runs every case that is not too large
for it. So the subset takes cases, the one with most that is new first, until

- every value of every argument that any kernel is specialised on, and
- every two values, of different arguments, that any kernel has together, divisibility apart,

occur in a kernel that is compiled. All other cases that need no further kernel then cost none, and
run as well. What isn't marked ``launches``, such as the runs in bulk, always runs.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch

from snm_kernels import _load, snm, snm_counted, triton
from support.cases import Case
from support.running_max_cases import PoolCase

Kernel = tuple[Hashable, ...]
"""The name of a kernel, and for each argument what the kernel is specialised on."""

SOME_MULTIPROCESSORS = 132
"""The number of multiprocessors that is assumed, as there is no GPU to ask."""


def launch_case(case: Case) -> None:
    snm(**_cheap(case), backend="triton")


def launch_counted(case: Case) -> None:
    snm_counted(**_cheap(case), negative=case.negative(), backend="triton")
    launch_case(case)


def launch_in_two_calls(case: Case) -> None:
    inputs = _cheap(case)
    x, residual, state = (inputs.pop(name, None) for name in ("x", "residual", "state"))
    for steps in (slice(0, 2), slice(2, None)):
        added = None if residual is None else residual[steps]
        _, state = snm(x[steps], residual=added, state=state, backend="triton", **inputs)


def launch_pool(case: PoolCase) -> None:
    case.run(case.inputs(), backend="triton")


def _cheap(case: Case) -> dict[str, Any]:
    """Inputs that look like the case's: its drive is what takes long to make."""
    return replace(case, drive="negative zero").inputs()


def kernels_of(launch: Callable[[], None]) -> frozenset[Kernel]:
    """The kernels that a call on CPU tensors would launch on a GPU; nothing is compiled or run."""
    found: list[Kernel] = []
    with _recording(found):
        launch()
    return frozenset(found)


def chosen(needed: Sequence[frozenset[Kernel]]) -> list[bool]:
    """Which cases are in the subset, by the kernels that each of them needs."""
    compiled = cover([*dict.fromkeys(needed)])
    return [kernels <= compiled for kernels in needed]


def cover(candidates: Sequence[frozenset[Kernel]]) -> frozenset[Kernel]:
    """The kernels of few candidates that have every aspect together, chosen greedily."""
    left = [{aspect for kernel in each for aspect in aspects(kernel)} for each in candidates]
    taken: frozenset[Kernel] = frozenset()
    while any(left):
        best = max(range(len(candidates)), key=lambda place: len(left[place]))
        taken |= candidates[best]
        found = left[best].copy()
        for each in left:
            each -= found
    return taken


def aspects(kernel: Kernel) -> Iterator[Hashable]:
    """The aspects of a kernel that another may lack: each value, and each two values without their
    divisibilities."""
    name, *values = kernel
    for place, value in enumerate(values):
        yield name, place, value
    undivided = [(place, kind) for place, (kind, _) in enumerate(values)]
    for two in combinations(undivided, 2):
        yield name, *two


def _specialised(parameter: Any, value: Any) -> tuple[Hashable, bool]:
    """What Triton specialises an argument on, and whether it can be divided by 16."""
    if parameter.is_constexpr or value is None:
        return ("constant", value), False
    if isinstance(value, torch.Tensor):
        return value.dtype, value.data_ptr() % 16 == 0
    if not isinstance(value, int) or parameter.do_not_specialize:
        return type(value).__name__, False
    if value == 1:
        return ("constant", 1), False
    return "int64" if value >= 2**31 else "int32", value % 16 == 0


class _Recorder:
    """Stands for a kernel, and records how it would be launched."""

    def __init__(self, kernel: Any, found: list[Kernel]) -> None:
        self.kernel, self.found = kernel, found

    def __getitem__(self, _grid: object) -> Callable[..., None]:
        def launch(*arguments: object, **named: object) -> None:
            parameters = self.kernel.params
            given = dict(zip((p.name for p in parameters), arguments, strict=False)) | named
            values = (_specialised(p, given[p.name]) for p in parameters)
            self.found.append((self.kernel.__name__, *values))

        return launch


@contextmanager
def _recording(found: list[Kernel]) -> Iterator[None]:
    modules = (triton.snm, triton.running_max)
    count = SOME_MULTIPROCESSORS
    if torch.cuda.device_count():
        count = triton.snm.multiprocessors(torch.device("cuda", 0))
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "wrap_triton", lambda kernel: _Recorder(kernel, found))
        patch.setattr(triton.snm, "multiprocessors", lambda _: count)
        patch.setattr(_load, "choose", lambda *_: "triton")
        yield


def sort_key(kernels: Iterable[Kernel]) -> list[str]:
    """Sorts cases that share kernels next to each other, in every process alike."""
    return sorted(map(repr, kernels))
