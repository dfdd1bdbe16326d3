"""The CPU's kernels of layers of spikes under AddressSanitizer and UndefinedBehaviorSanitizer."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.isa import NEEDED, USABLE, processor_flags
from support.sanitized import build_sanitized, run_sanitized

EVERY = 3
"""The n-th case is run."""


@pytest.mark.parametrize("isa", NEEDED)
def test_kernels_equal_reference(isa: str, tmp_path: Path) -> None:
    if isa not in USABLE:
        pytest.skip(f"this processor lacks {sorted(NEEDED[isa] - processor_flags())}")
    process = run_sanitized(build_sanitized(isa, tmp_path), f"--every={EVERY}")
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)
    assert summary["failures"] == []
    assert summary["cases"] > 150
    # It is this library that ran.
    assert str(tmp_path) in process.stderr


KERNEL, OPERATOR = "cpu/spike_conv_kernel.cpp", "cpu/spike_conv_op.cpp"
BROKEN: dict[str, dict[str, Any]] = {
    "lists of spikes have nothing behind them": {
        "changes": {OPERATOR: ("+ 2 * kListPadding", "+ kListPadding")},
        "match": "1x1-density 1.0",
        "expected": "AddressSanitizer: heap-",
    },
    "columns right of the last one are read": {
        "changes": {KERNEL: ("std::min(w.pooled, left + w.kernel)", "left + w.kernel")},
        "match": "3x3-density 1.0",
        "expected": "AddressSanitizer: heap-",
    },
    "outputs behind a group's last are written": {
        "changes": {KERNEL: ("if (j < count_) fire<false>", "if (j < count_) fire<true>")},
        "match": "1x1-density 0.0",
        "expected": "AddressSanitizer: heap-",
    },
    "sums of 16 bits are folded too late": {
        "changes": {KERNEL: ("kEventsPerWord = 255", "kEventsPerWord = 257")},
        "match": "spikes minus ones of weights least",
        "expected": "drive: ",
    },
    "weights of the other half of a block are taken": {
        "changes": {KERNEL: ("(k / 2) * (kWeightBlock / 2)", "(1 - k / 2) * (kWeightBlock / 2)")},
        "match": "64 to 64 channels",
        "expected": "drive: ",
    },
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_kernel_is_noticed(name: str, tmp_path: Path) -> None:
    broken = BROKEN[name]
    library = build_sanitized(USABLE[0], tmp_path, broken["changes"])
    process = run_sanitized(library, f"--match={broken['match']}")
    assert broken["expected"] in process.stderr + process.stdout
