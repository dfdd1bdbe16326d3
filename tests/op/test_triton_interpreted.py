"""The Triton kernel in Triton's interpreter, on the CPU, against the reference."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.cases import CASES, COUNTED

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
    ("multiprocessors", "most_neuron_steps", "every"),
    # Narrow blocks are many, and what is in them is computed as in wide ones.
    [(0, 25_000, 1), (10**9, 1_000, 7)],
    ids=["wide", "narrow"],
)
def test_interpreted_triton_equals_reference(
    multiprocessors: int, most_neuron_steps: int, every: int
) -> None:
    run = RUN.format(folder=str(Path(__file__).parents[1]), multiprocessors=multiprocessors)
    options = ["--backend=triton", f"--most-neuron-steps={most_neuron_steps}", f"--every={every}"]
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
    cases = CASES + COUNTED
    small = sum(case.neuron_steps <= most_neuron_steps for case in cases)
    assert summary["cases"] == math.ceil(small / every)
    assert small > len(cases) / 2
