"""Checks that rivals send the spikes that snm_kernels sends, so that the same work is timed."""

import pytest
import torch

from snm.bench.peers import PEERS
from snm.bench.workload import Workload, inputs_of
from snm_kernels import snm


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.needs(*peer.needs)) for name, peer in PEERS.items()],
)
def test_same_spikes(name: str, device: str) -> None:
    peer = PEERS[name]
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    inputs = peer.inputs(inputs_of(Workload(device, timesteps=16, features=(8, 8, 8))))
    expected = snm(inputs.drive, inputs.threshold, rule=peer.rule).spikes
    assert expected is not None
    assert expected.count_nonzero() > 0.1 * expected.numel()
    run = peer.build(inputs)
    for _ in range(2):
        assert torch.equal(torch.stack([*run()]), expected)
    print(run.implementation)
