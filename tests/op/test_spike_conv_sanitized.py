"""The CPU's kernels of layers of spikes under AddressSanitizer and UndefinedBehaviorSanitizer."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.isa import NEEDED, USABLE, processor_flags
from support.sanitized import build_sanitized, run_sanitized

EVERY = 12
"""The n-th case is run."""


@pytest.mark.parametrize("isa", NEEDED)
def test_kernels_equal_reference(isa: str, tmp_path: Path) -> None:
    if isa not in USABLE:
        pytest.skip(f"this processor lacks {sorted(NEEDED[isa] - processor_flags())}")
    process = run_sanitized(build_sanitized(isa, tmp_path), f"--every={EVERY}")
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)
    assert summary["failures"] == []
    assert summary["cases"] > 80
    # It is this library that ran.
    assert str(tmp_path) in process.stderr


KERNEL, OPERATOR = "cpu/spike_conv_kernel.cpp", "cpu/spike_conv_op.cpp"
DENSE, NEURONS = "cpu/spike_dense_kernel.cpp", "cpu/spike_neurons.h"
ADDRESS = "ERROR: AddressSanitizer: "
BROKEN: dict[str, dict[str, Any]] = {
    "lists of spikes have nothing behind them": {
        "changes": {OPERATOR: ("+ 2 * kListPadding", "+ kListPadding")},
        "match": "1x1-density 1.0",
        "expected": ADDRESS,
    },
    "outputs behind a group's last are written": {
        "changes": {NEURONS: ("fire<kGraded, false>", "fire<kGraded, true>")},
        "match": "1x1-density 0.0",
        "expected": ADDRESS,
    },
    "products of matrices have no memory": {
        "changes": {OPERATOR: ("dense_buffers_of(plan, nullptr)", "dense_buffers_of({}, nullptr)")},
        "match": "1x1-density 1.0",
        "expected": ADDRESS,
    },
    "what lies outside of the input is not zero": {
        "changes": {DENSE: ("plan_.depth, kShift)", "plan_.depth, 1)")},
        "match": "3x3-density 0.0",
        "expected": "drive: ",
    },
    "sums of 16 bits are folded too late": {
        "changes": {KERNEL: ("kEventsPerWord = 255", "kEventsPerWord = 257")},
        "match": "spikes minus ones of weights least",
        "expected": "drive: ",
    },
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_kernel_is_noticed(name: str, tmp_path: Path) -> None:
    broken = BROKEN[name]
    library = build_sanitized(USABLE[0], tmp_path, broken["changes"])
    process = run_sanitized(library, f"--match={broken['match']}")
    assert broken["expected"] in process.stderr + process.stdout
