"""The cases that ``--triton subset`` leaves: few kernels, and no branch without one."""

import os
import select
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial
from itertools import combinations, groupby
from pathlib import Path

import pytest

from snm_kernels.triton.snm_kernel import snm_kernel
from support import triton_subset as subset
from support.cases import CASES, COUNTED, Case
from support.running_max_cases import POOL_CASES

TESTS = Path(__file__).resolve().parents[1]

COLLECT = """
import sys, pytest, torch
torch.cuda.is_available = lambda: True
for choice in ("all", "subset"):
    print("choice", choice)
    arguments = ["--collect-only", "-q", "-p", "no:cacheprovider", "gpu", "--triton", choice]
    if (status := pytest.main(arguments)) != 0:
        sys.exit(status)
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
    names = [parameter.name for parameter in snm_kernel.params]
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


def collected(hash_seed: str) -> dict[str, list[str]]:
    """The tests in order, as on a GPU, by the choice among those on Triton; none runs."""
    process = subprocess.run(
        [sys.executable, "-c", COLLECT],
        cwd=TESTS,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    tests: dict[str, list[str]] = {}
    for line in process.stdout.splitlines():
        if line.startswith("choice "):
            tests[line.removeprefix("choice ")] = of_choice = []
        elif "::" in line:
            of_choice.append(line)
    assert [*tests] == ["all", "subset"]
    return tests


def test_every_process_collects_the_same_in_the_same_order() -> None:
    counts = {}
    first, again = (collected(seed) for seed in ("0", "1"))
    assert first == again
    for choice, tests in first.items():
        assert len(tests) > 1000
        counts[choice] = Counter("triton" in test.partition("[")[2] for test in tests)
        counts[choice, "bulk"] = sum("in_bulk" in test for test in tests)
    assert counts["all"][False] == counts["subset"][False]
    assert counts["subset"][True] < counts["all"][True] / 4
    assert counts["all", "bulk"] == counts["subset", "bulk"]


def test_cases_of_one_kernel_are_neighbours(needed: list[frozenset[subset.Kernel]]) -> None:
    kept = [kernels for kernels, keep in zip(needed, subset.chosen(needed), strict=True) if keep]
    assert len([*groupby(sorted(kept, key=subset.sort_key))]) == len(set(kept))
    assert len([*groupby(kept)]) > len(set(kept))


def test_one_at_a_time(tmp_path: Path) -> None:
    """A lock's holder is the only one to go on, until it is gone, however it ends."""
    code = """
import sys
from pathlib import Path
from support.one_at_a_time import one_at_a_time

print("waits", flush=True)
with one_at_a_time(Path(sys.argv[1])):
    print("holds", flush=True)
    sys.stdin.readline()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    start = partial(
        *(subprocess.Popen, command),
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with start() as first:
        assert [first.stdout.readline() for _ in range(2)] == ["waits\n", "holds\n"]
        with start() as second:
            assert second.stdout.readline() == "waits\n"
            assert select.select([second.stdout], [], [], 0.5)[0] == []
            first.kill()
            assert second.communicate("\n")[0] == "holds\n"
            assert second.returncode == 0


MUCH_MEMORY = """
import os, pytest, time
from pathlib import Path

@pytest.mark.parametrize("turn", range(3))
def test_alone(much_memory, turn):
    held = Path(os.environ["HELD"])
    held.touch(exist_ok=False)
    time.sleep(0.1)
    held.unlink()
    time.sleep(0.05)
"""


def test_tests_of_much_memory_run_one_at_a_time(tmp_path: Path) -> None:
    """In processes whose folders are beside each other, as those of pytest-xdist's workers are."""
    shutil.copy(TESTS / "gpu" / "conftest.py", tmp_path)
    tmp_path.joinpath("test_it.py").write_text(MUCH_MEMORY)
    tmp_path.joinpath("shared").mkdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    processes = [
        subprocess.Popen(
            [*command, "--basetemp", str(tmp_path / "shared" / worker)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(TESTS), "HELD": str(tmp_path / "held")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for worker in ("a", "b")
    ]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    assert tmp_path.joinpath("shared", "much-memory.lock").exists()
