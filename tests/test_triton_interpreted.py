"""The Triton kernel in Triton's interpreter, on the CPU, against the reference."""

import json
import os
import subprocess
import sys
from pathlib import Path

from cases import CASES

MOST_NEURON_STEPS = 25_000


def test_interpreted_triton_equals_reference() -> None:
    process = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("parity.py")),
            "--backend=triton",
            f"--most-neuron-steps={MOST_NEURON_STEPS}",
        ],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)
    assert summary["failures"] == []
    assert summary["cases"] == sum(case.neuron_steps <= MOST_NEURON_STEPS for case in CASES)
    assert summary["cases"] > len(CASES) / 2
