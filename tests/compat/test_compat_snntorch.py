"""The neuron for snnTorch in loops and networks that are written for snnTorch's own."""

from collections.abc import Callable

import pytest
import snntorch
import torch
from snntorch import spikegen, utils
from torch import Tensor, nn

import snm_kernels
from snm.compat.snntorch import SNM
from snm_kernels import PRESETS, SNMRule, SNMState

T = 30
THRESHOLDS = torch.tensor([0.5, 0.9, torch.inf])


def drive(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.2 + 0.7 * torch.rand(T, *shape, generator=generator) - 0.3


def test_without_a_leak_it_is_their_neuron() -> None:
    # Sums of these are exact, in whatever order, and never the threshold itself, which fires here.
    x, threshold = (64 * drive(0, 64)).round() / 64, 0.875 + 2**-12
    theirs = snntorch.Leaky(beta=1.0, threshold=threshold, reset_delay=False)
    ours = SNM(threshold, preset="if")
    their_mem, mem = theirs.reset_mem(), ours.reset_mem()
    fired = 0.0
    for cur in x:
        expected, their_mem = theirs(cur, their_mem)
        spk, mem = ours(cur, mem)
        assert torch.equal(spk, expected)
        assert torch.equal(mem.v, their_mem)
        fired += spk.mean().item()
    assert 0.1 < fired / T < 0.9


@pytest.mark.parametrize("threshold", [0.7, THRESHOLDS], ids=["number", "neurons"])
@pytest.mark.parametrize("rule", [*PRESETS, SNMRule(v_init=0.3, count_max=3)], ids=str)
def test_a_spikegen_loop_sends_what_the_op_sends(
    rule: str | SNMRule, threshold: Tensor | float
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    frames = spikegen.rate(torch.rand(4, 5), num_steps=T)
    chosen = rule if isinstance(rule, SNMRule) else snm_kernels.preset(rule)
    neuron = SNM(threshold, preset=rule)
    mem, sent = neuron.reset_mem(), []
    with torch.no_grad():
        for frame in frames:
            spk, mem = neuron(layer(frame), mem)
            sent.append(spk)
        drives = torch.stack([layer(frame) for frame in frames])
    expected, state = snm_kernels.snm(drives, threshold, rule=chosen, emit="spike")
    assert torch.equal(torch.stack(sent), expected.float())
    assert torch.equal(mem.v, state.v)
    assert torch.equal(mem.m, state.m)


class Net(nn.Module):
    """A network as snnTorch's tutorials write one."""

    def __init__(self, neuron: Callable[[], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc1 = nn.Linear(6, 16)
        self.lif1 = neuron()
        self.fc2 = nn.Linear(16, 4)
        self.lif2 = neuron()

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        sent = []
        for step in range(T):
            spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            sent.append(spk2)
        return torch.stack(sent)


@torch.no_grad()
def test_it_takes_their_place_in_a_network() -> None:
    # No step drives a neuron by more than a threshold.
    x = 1.5 * drive(1, 8, 6)
    theirs = Net(lambda: snntorch.Leaky(beta=1.0, reset_delay=False))
    ours = Net(lambda: SNM(preset="if"))
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours(x), ours(x))
    assert torch.equal(ours(x), theirs(x))
    assert ours(x).any()
    signed = Net(SNM)
    assert signed(4 * torch.randn(T, 8, 6)).unique().tolist() == [-1, 0, 1]


def test_a_network_of_leaky_neurons_does_not_load() -> None:
    for theirs, message in (
        (snntorch.Leaky(beta=0.5), "0.beta must be 1, got 0.5"),
        (snntorch.Leaky(beta=1.0, reset_mechanism="zero"), "0.reset_mechanism_val must be 0"),
    ):
        with pytest.raises(RuntimeError, match=message):
            nn.Sequential(SNM()).load_state_dict(nn.Sequential(theirs).state_dict())


@pytest.mark.parametrize("preset", ["snm", "snm-half"])
@torch.no_grad()
def test_their_reset_starts_afresh(preset: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 16),
        SNM(preset=preset, init_hidden=True),
        nn.Linear(16, 4),
        SNM(preset=preset, init_hidden=True, output=True),
    )
    x = 3 * drive(2, 8, 6)

    def run() -> Tensor:
        return torch.stack([net(step)[0] for step in x])

    first, second = run(), run()
    utils.reset(net)
    assert net[1].mem.numel() == 0
    assert torch.equal(run(), first)
    assert not torch.equal(first, second)
    net.half().float()
    assert torch.equal(net(x[0])[0], first[0])
    # Fewer images than before.
    assert torch.equal(net(x[0, :3])[0], first[0, :3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_graded_spikes_carry_thresholds(dtype: torch.dtype) -> None:
    x = drive(3, 8, 3).to(dtype)
    threshold = torch.tensor([0.5, 0.75, 0.5])
    neuron = SNM(threshold, graded_spikes_factor=threshold)
    sent = torch.stack([neuron(cur)[0] for cur in x])
    assert torch.equal(sent, snm_kernels.snm(x, threshold).spikes)
    assert sent.dtype == dtype
    assert sent.any()


def test_misuse_is_refused() -> None:
    x = drive(4, 3)
    with pytest.raises(RuntimeError, match=r"x requires grad.*torch\.no_grad"):
        SNM()(x[0].requires_grad_())
    with pytest.raises(TypeError, match="mem must not be given with init_hidden"):
        SNM(init_hidden=True)(x[0], SNMState(x[0], x[0].int()))
    with pytest.raises(TypeError, match="mem must be what a step or reset_mem"):
        SNM()(x[0], torch.zeros(3))
    with pytest.raises(ValueError, match="mem must be zeros"):
        SNM().mem = torch.ones(3)
    with pytest.raises(ValueError, match="threshold must be > 0"):
        SNM(0.0)
    with pytest.raises(ValueError, match="unknown preset"):
        SNM(preset="lif")
    with pytest.raises(TypeError, match="beta"):
        SNM(beta=0.9)
