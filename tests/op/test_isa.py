"""Each instruction set of the CPU kernels against the reference, in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

from support.cases import CASES, COUNTED
from support.isa import NEEDED, USABLE, processor_flags, run_with_isa
from support.parity import BULKS, NEURON_STEPS


# The best one is what test_parity.py runs.
@pytest.mark.parametrize("isa", [isa for isa in NEEDED if isa != USABLE[0]])
def test_isa_equals_reference(isa: str) -> None:
    if isa not in USABLE:
        pytest.skip(f"this processor lacks {sorted(NEEDED[isa] - processor_flags())}")
    process = run_with_isa(isa, "-m", "support.parity", "--backend", "cpu", "--bulk")
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)
    assert summary["failures"] == []
    assert summary["isa"] == isa
    assert summary["cases"] == len(CASES) + len(COUNTED) + len(BULKS)
    assert summary["neuron_steps"] >= NEURON_STEPS


@pytest.mark.parametrize("isa", USABLE)
def test_streamed_spikes_equal_reference(isa: str) -> None:
    code = "from support import isa; [isa.compare_streamed(sent) for sent in isa.SENT]"
    process = run_with_isa(isa, "-c", code)
    assert process.returncode == 0, process.stderr


def test_best_isa_is_chosen() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "SNM_CPU_ISA"}
    code = "import snm_kernels; print(snm_kernels.build_info().isa)"
    process = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == USABLE[0]


@pytest.mark.parametrize("isa", ["avx", "AVX2", ""])
def test_unknown_isa_is_refused(isa: str) -> None:
    process = run_with_isa(isa, "-c", "import snm_kernels")
    names = ", ".join(USABLE)
    assert process.returncode != 0
    last = process.stderr.strip().splitlines()[-1]
    assert last == f"RuntimeError: snm: SNM_CPU_ISA must be one of {names} here, got {isa}".strip()
