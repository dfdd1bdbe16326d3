"""The cases that ``--triton subset`` leaves: few kernels, and no branch without one."""

import subprocess
import sys
from collections import Counter
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest

GPU = Path(__file__).parent / "gpu"
pytest.importorskip("triton")
sys.path.insert(0, str(GPU))

import triton_subset as subset  # noqa: E402

from cases import CASES, COUNTED, Case  # noqa: E402
from running_max_cases import POOL_CASES  # noqa: E402

COLLECT = """
import sys, pytest, torch
torch.cuda.is_available = lambda: True
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def needed() -> list[frozenset[subset.Kernel]]:
    launches = [
        *(partial(subset.launch_case, case) for case in CASES),
        *(partial(subset.launch_counted, case) for case in COUNTED),
        *(partial(subset.launch_pool, case) for case in POOL_CASES),
    ]
    return [subset.kernels_of(launch) for launch in launches]


def test_kernels_are_those_of_a_case() -> None:
    case = Case("seven", 4, (7,), threshold="last", bias="last", state="given")
    [(name, *values)] = subset.kernels_of(partial(subset.launch_case, case))
    names = [parameter.name for parameter in subset.snm_kernels.triton.snm_kernel.params]
    of = dict(zip(names, values, strict=True))
    assert name == "snm_kernel"
    assert str(of["drive"][0]) == "torch.float32"
    assert of["residual"] == (("constant", None), False)
    assert of["GRADED"] == (("constant", False), False)
    assert of["neurons"] == ("int32", False)
    assert of["threshold_inner"] == (("constant", 1), False)
    assert of["count_max"] == ("int", False)


def test_no_case_is_run_or_compiled() -> None:
    assert subset.kernels_of(partial(subset.launch_case, Case("none", 4, (0,)))) == frozenset()
    assert len(subset.kernels_of(partial(subset.launch_counted, COUNTED[0]))) == 2


def test_every_branch_and_every_two_are_compiled(
    needed: list[frozenset[subset.Kernel]],
) -> None:
    kept = subset.chosen(needed)
    every = frozenset().union(*needed)
    compiled = frozenset().union(*(k for k, keep in zip(needed, kept, strict=True) if keep))
    for kernel in every:
        alike = [other for other in compiled if other[0] == kernel[0]]
        for place, value in enumerate(kernel[1:], 1):
            assert any(other[place] == value for other in alike)
    for name in {kernel[0] for kernel in every}:
        pairs, found = (
            {
                two
                for kernel in kernels
                if kernel[0] == name
                for two in combinations(((i, v[0]) for i, v in enumerate(kernel[1:])), 2)
            }
            for kernels in (every, compiled)
        )
        assert pairs == found
    assert len(compiled) < len(every) / 4


def test_all_cases_of_compiled_kernels_are_kept() -> None:
    a, b, c = (("kernel", (value, False)) for value in "abc")
    needed = [frozenset(kernels) for kernels in ([a], [a, b], [c], [b], [], [a, c])]
    assert subset.chosen(needed) == [True] * 6
    several = ("kernel", ("a", False), ("b", False))
    others = (("kernel", ("a", False), ("c", False)), ("kernel", ("d", False), ("b", False)))
    assert subset.chosen([frozenset([k]) for k in (several, *others)]) == [True] * 3


def test_collected() -> None:
    """As on a GPU; no test runs."""
    counts = {}
    for choice in ("all", "subset"):
        process = subprocess.run(
            [sys.executable, "-c", COLLECT, str(GPU), "--triton", choice],
            cwd=GPU.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stdout + process.stderr
        tests = [line for line in process.stdout.splitlines() if "::" in line]
        counts[choice] = Counter("triton" in test.partition("[")[2] for test in tests)
        counts[choice, "bulk"] = sum("in_bulk" in test for test in tests)
    assert counts["all"][False] == counts["subset"][False]
    assert counts["subset"][True] < counts["all"][True] / 4
    assert counts["all", "bulk"] == counts["subset", "bulk"]
