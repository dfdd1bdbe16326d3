"""The Triton kernel in Triton's interpreter, on the CPU, against the reference."""

import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from support.cases import CASES, COUNTED, Case
from support.pairwise import pairwise
from support.parity import compare_counted, small_runs

RUN = """
import sys
sys.path.insert(0, {folder!r})
from support import parity
from snm_kernels.triton import snm
# So many that no layer is wide enough for them, or none.
snm.multiprocessors = lambda device: {multiprocessors}
parity.main()
"""


@pytest.mark.parametrize(
    ("multiprocessors", "most_neuron_steps", "chosen"),
    # Narrow blocks are many, and what is in them is computed as in wide ones.
    [(0, 25_000, ["--pairs"]), (10**9, 1_000, ["--every=7"])],
    ids=["wide", "narrow"],
)
def test_interpreted_triton_equals_reference(
    multiprocessors: int, most_neuron_steps: int, chosen: list[str]
) -> None:
    run = RUN.format(folder=str(Path(__file__).parents[1]), multiprocessors=multiprocessors)
    options = ["--backend=triton", f"--most-neuron-steps={most_neuron_steps}", *chosen]
    process = subprocess.run(
        [sys.executable, "-c", run, *options],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)
    assert summary["failures"] == []
    small = small_runs(most_neuron_steps)
    assert summary["cases"] == expected_cases(small, chosen)
    assert len(small) > len(CASES + COUNTED) / 2


def expected_cases(small: list[tuple[object, Case]], chosen: list[str]) -> int:
    return len(pairwise(small)) if chosen == ["--pairs"] else len(small[::7])


def words(case: Case) -> dict[str, object]:
    return {name: value for name, value in vars(case).items() if name != "name"}


def test_pairs_are_all_that_any_case_has() -> None:
    small = small_runs(25_000)
    kept = pairwise(small)
    every, found = (
        {pair for _, case in runs for pair in combinations(words(case).items(), 2)}
        for runs in (small, kept)
    )
    assert found == every
    for name in vars(COUNTED[0]).keys() - {"name"}:
        counted, left = (
            {getattr(case, name) for run, case in runs if run is compare_counted}
            for runs in (small, kept)
        )
        assert left == counted
    assert len(kept) < len(small) / 2
