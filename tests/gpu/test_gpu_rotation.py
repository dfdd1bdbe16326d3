"""What the benchmark times on a GPU does the op's work, on every set of buffers."""

from functools import partial
from itertools import pairwise

import pytest
import torch

from snm_kernels import backends, snm

if not torch.cuda.is_available():
    pytest.skip(backends()["cuda"].reason, allow_module_level=True)

from snm.bench import rotation
from snm.bench.timed.neuron import neuron
from snm.bench.workload import Workload


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_a_replay_runs_on_every_set(backend: str) -> None:
    workload = Workload("cuda", timesteps=256, batch=1, features=(4096,))
    sets = rotation.sets_of(workload)
    cache = rotation.cache_bytes("cuda")
    assert sum(inputs.drive.nbytes for inputs in sets) >= rotation.CACHES * cache > 0
    turns = rotation.in_turn(workload, partial(neuron, "amplitude", backend))
    for inputs in sets:
        inputs.out.fill_(float("nan"))
    turns()
    expected = snm(sets[0].drive, sets[0].threshold, backend="reference").spikes
    assert all(torch.equal(inputs.out, expected) for inputs in sets)


@pytest.mark.parametrize("emit", ["amplitude", "spike", "none"])
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_every_set_has_results_of_its_own(backend: str, emit: str) -> None:
    workload = Workload("cuda", timesteps=256, batch=1, features=(4096,))
    results = rotation.in_turn(workload, partial(neuron, emit, backend)).results
    sent = [tensor for result in results for tensor in (result.spikes, *result.state)]
    written = [tensor for tensor in sent if tensor is not None]
    starts = sorted((tensor.data_ptr(), tensor.nbytes) for tensor in written)
    assert all(start + size <= after for (start, size), (after, _) in pairwise(starts))
