"""The CUDA kernels' own source, run on the host against the reference, bit for bit."""

import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.cases import CASES, COUNTED, IN_PLACE
from support.cuda_kernels import Kernel
from support.emulation import HERE, build, build_changed, build_program, sanitizing
from support.running_max_cases import POOL_CASES

MANY, NONE = 132, 0
"""Multiprocessors: of a GPU that the cases don't fill, and so few that they all do."""
OF_NEURONS = ("neuron", "counted", "in place")
WIDE_THREADS = str(Kernel("float32", None).threads)


def run_cases(
    library: Path, multiprocessors: int, *, match: str = "", kinds: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "run.py"), str(library), f"--match={match}"]
    # Other sources, another order; the same ones, the same order.
    seed = zlib.crc32(library.parent.name.encode()) + multiprocessors
    command += [f"--multiprocessors={multiprocessors}", f"--seed={seed}", "--kinds", *kinds]
    return subprocess.run(command, env=sanitizing(), capture_output=True, text=True)


@pytest.mark.parametrize("multiprocessors", [MANY, NONE])
def test_kernels_equal_reference(multiprocessors: int) -> None:
    # Pooling is launched alike on all devices.
    pool_cases = POOL_CASES if multiprocessors == MANY else []
    kinds = (*OF_NEURONS, "pooling") if pool_cases else OF_NEURONS
    process = run_cases(build(), multiprocessors, kinds=kinds)
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)
    print(summary["cases"], summary["launches"])
    assert summary["failures"] == []
    listed = {"neuron": CASES, "counted": COUNTED, "in place": IN_PLACE, "pooling": POOL_CASES}
    assert summary["cases"] == {kind: len(listed[kind]) for kind in kinds}
    # It is these kernels that ran: a case is at least one launch, but for empty ones.
    run_once = [case for case in (*CASES, *COUNTED, *COUNTED, *IN_PLACE) if case.neurons > 0]
    pooled = [case for case in pool_cases if case.input_steps > 0]
    assert sum(summary["launches"].values()) >= len(run_once) + len(pooled)
    assert (WIDE_THREADS in summary["launches"]) == (multiprocessors == NONE)


ONE_KERNEL = ("launch_spikes<float>", "launch_rule<float, float>")
"""Of a file of them, those that send float32 amplitudes: enough for these cases."""
BROKEN: dict[str, dict[str, Any]] = {
    "a row past the last one is read": {
        "source": "running_max_float32.cu",
        "changes": {"running_max_kernel.cuh": ("k + kAhead < steps", "k + kAhead <= steps")},
        "match": "2x2/2-float32",
        "expected": "AddressSanitizer: heap-",
    },
    "a drive that starts between words is taken for aligned": {
        "source": "snm_float32.cu",
        "changes": {
            "snm_float32.cu": ONE_KERNEL,
            "snm_kernel.cuh": ("reinterpret_cast<uintptr_t>(pointer) % word == 0 &&", ""),
        },
        "match": "unaligned drive-float32-None",
        "expected": "of 16 bytes at the misaligned address",
    },
    "a group of rows too few is waited for": {
        "source": "snm_float32.cu",
        "changes": {
            "snm_float32.cu": ONE_KERNEL,
            "snm_kernel.cuh": ("wait_prior(Shape::kGroups - 1)", "wait_prior(Shape::kGroups)"),
        },
        "match": "ring-float32-amplitude",
        "expected": '"failures": ["ring-float32-amplitude',
    },
    "words of spikes are read wherever they start": {
        "source": "running_max_int8.cu",
        "changes": {
            "running_max_packed.cuh": ("reinterpret_cast<uintptr_t>(a.input) % 4 != 0 || ", "")
        },
        "match": "words 2x2/2-unaligned",
        "expected": "misaligned address",
    },
    "windows take another byte of a word": {
        "source": "running_max_int8.cu",
        "changes": {"running_max_packed.cuh": ("1 << (8 * x)", "1 << (8 * (3 - x))")},
        "match": "words 2x2/2-contiguous",
        "expected": "spikes: ",
    },
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_kernel_is_noticed(name: str, tmp_path: Path) -> None:
    broken = BROKEN[name]
    library = build_changed(build(), tmp_path, broken["changes"], broken["source"])
    process = run_cases(library, NONE, match=broken["match"])
    assert broken["expected"] in process.stderr + process.stdout


def test_rows_that_cannot_be_copied_asynchronously(tmp_path: Path) -> None:
    """As before sm_80."""
    changes = {"snm_kernel.cuh": ("= true;\n#endif", "= false;\n#endif")}
    library = build_changed(build(), tmp_path, changes, "snm_float32.cu")
    for multiprocessors in (MANY, NONE):
        process = run_cases(library, multiprocessors, match="float32", kinds=OF_NEURONS)
        assert json.loads(process.stdout)["failures"] == []


def test_what_a_launch_is_too_short_for_goes_on_in_the_next(tmp_path: Path) -> None:
    changes = {
        "snm_float32.cu": ONE_KERNEL,
        "ternary.cuh": ("int64_t{1} << 22", "int64_t{1} << 4"),
    }
    library = build_changed(build(), tmp_path, changes, "snm_float32.cu")
    process = run_cases(library, MANY, match="ring-float32-amplitude")
    summary = json.loads(process.stdout)
    assert summary["failures"] == []
    # 70 steps by 16.
    cases = [case for case in (*CASES, *IN_PLACE) if "ring-float32-amplitude" in case.name]
    assert sum(summary["launches"].values()) == 5 * len(cases) > 0


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    program = build_program(HERE / "ring.cu", tmp_path_factory.mktemp("ring") / "ring")

    def run(mistake: str) -> str:
        done = subprocess.run([program, mistake], capture_output=True, text=True)
        return done.stdout + done.stderr

    return run


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("none", "right"),
        ("waits for one row too few", "wrong"),
        ("refills a place before it is read", "wrong"),
        ("writes over a row that is asked for", "wrong"),
        ("takes another thread's place", "of shared memory, which is thread "),
        ("asks past the ring", "a copy to byte 2"),
        ("asks for misaligned bytes", "a copy of 16 bytes at the misaligned address"),
        ("leaves a row under way", "ends with 1 copies under way"),
        ("reads past the ring", "use-after-poison"),
    ],
)
def test_mistake_with_copies_under_way_is_noticed(
    ring: Callable[[str], str], mistake: str, said: str
) -> None:
    assert said in ring(mistake)
