"""Times the first result of a fresh process, from the end of its imports on, with the caches of
compilers empty."""

import json
import os
import subprocess
import sys
import tempfile
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from snm.bench.peers import PEERS
from snm.bench.scale import Scale
from snm.bench.workload import Workload, inputs_of
from snm_kernels import snm

OURS = "snm, amplitude"
COMPILERS_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


def cases(device: str, scale: Scale) -> list[str]:  # noqa: ARG001
    wanted = ("SpikingJelly FlexSN, compiled", "reference, compiled")
    return [OURS, *(name for name in wanted if scale.rivals is None or name in scale.rivals)]


def test_first_call(benchmark: BenchmarkFixture, case: str, device: str, scale: Scale) -> None:
    if case != OURS and (reason := PEERS[case].missing()):
        pytest.skip(reason)
    command = [sys.executable, "-m", "snm.bench.timed.first_call", case, device]
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, **dict.fromkeys(COMPILERS_CACHES, empty)}
        process = benchmark.pedantic(
            subprocess.run,
            args=([*command, *map(str, scale.features)],),
            kwargs={"env": environment, "check": True, "capture_output": True, "text": True},
        )
    benchmark.extra_info.update(
        suite="first call",
        contender=case,
        seconds=json.loads(process.stdout.splitlines()[-1]),
        spread=0.0,
        rounds=1,
        beside={},
        device=device,
        **Workload(device, features=scale.features).info(),
    )


def main(contender: str, device: str, *features: str) -> None:
    """Prints how many seconds it takes until a contender's first result is there."""
    workload = Workload(device, features=tuple(map(int, features)))
    inputs = inputs_of(workload)
    peer = None
    if contender != OURS:
        peer = PEERS[contender]
        peer.load()
        inputs = peer.inputs(inputs)
    start = time.perf_counter()
    result = snm(inputs.drive, inputs.threshold).spikes if peer is None else peer.build(inputs)()
    # Reading a number waits for a GPU.
    result[-1][0, 0, 0, 0].item()
    print(json.dumps(time.perf_counter() - start))


if __name__ == "__main__":
    main(*sys.argv[1:])
