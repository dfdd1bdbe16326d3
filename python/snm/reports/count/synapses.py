"""How many synapses leave each neuron, and what is multiplied without spikes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...network.interpret import Interpreter, Values
from ...network.program import Call, Fire, RunningMax
from ...network.spiking import SpikingNetwork
from .traces import Traces
from .windows import pooling_windows, window_sums


@dataclass(frozen=True, slots=True)
class Synapses:
    """Those over which the spikes of a layer reach an operation."""

    sender: str
    """The step of the layer of neurons or the max pooling."""
    fan_out: Tensor
    """How many leave each of its neurons, int64 of the layer's shape."""


@dataclass(slots=True)
class Target:
    """What reads spikes or analog values: a weighted operation, a max pooling, neurons."""

    path: str
    weights: int
    """How many it has; 0 if it reads values as they are."""
    inputs: int
    """Values that it reads, per image."""
    outputs: int
    """Values that it computes, per image."""
    analog: int = 0
    """Multiply-accumulates with analog values, per image and time step, or of one pass over the
    images, or of the mean."""
    relu: int = 0
    """Multiply-accumulates in the ReLU network, per image."""
    part: str = "steps"
    """``"first"`` before the first neurons, ``"steps"`` between, ``"readout"`` behind the last."""
    synapses: tuple[Synapses, ...] = ()


@dataclass(frozen=True, slots=True)
class Wiring:
    """All that a network's operations read."""

    targets: tuple[Target, ...]
    shapes: dict[str, tuple[int, ...]]
    """Of what layers of neurons and max poolings send per image, by their steps."""


def wiring(net: SpikingNetwork, size: tuple[int, ...]) -> Wiring:
    """Follows what one time step of one image reads.

    A synapse is a weight that is not 0 between a neuron and what an operation computes; what a
    neuron's spike reaches by sums, views, padding and average pooling on the way does not matter.
    The number of those that leave a neuron is the derivative, by what it sends, of the sum of
    all that the operation computes with every weight replaced by 1. Neurons or a max pooling that
    read a spike without weights take one synapse each.

    Args:
        size: of an image.

    Raises:
        ValueError: an operation is none that can be counted; it is named.

    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Conv1d(2, 4, 3), nn.ReLU()).eval()
    >>> net = convert(model, torch.rand(4, 1, 8))
    >>> first, second = wiring(net, (1, 8)).targets
    >>> first.part, first.analog, second.synapses[0].fan_out[0].tolist()
    ('first', 36, [4, 8, 12, 12, 8, 4])
    """
    with torch.enable_grad():
        walk = _Walk(net, size)
        walk.follow()
    return Wiring(tuple(walk.targets), walk.shapes)


class _Walk(Interpreter):
    """A pass of traces through a program; see :class:`snm.reports.count.traces.Traces`."""

    def __init__(self, net: SpikingNetwork, size: tuple[int, ...]) -> None:
        super().__init__(net.program, net.model)
        self.size = size
        self.device = net.device
        self.targets: list[Target] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.senders: dict[str, Tensor] = {}
        """What each layer sends: ones, of which derivatives are taken."""
        self.path = ""
        self.counted: set[str] = set()
        """The calls that are in the ReLU network's sum."""
        self.new = True

    def follow(self) -> None:
        """Follows all three parts."""
        images = self._traces(torch.zeros(1, *self.size), analog=1.0, after=False)
        constant = self.execute_static(
            {self.program.batch: len(images), self.program.images: images}
        )
        self.execute_temporal(dict(constant))
        means = {
            fire.name: self._traces(torch.zeros(1, *self.shapes[fire.name]), analog=1.0, after=True)
            for fire in self.program.neurons
        }
        self.execute_tail({**constant, **means})

    def weigh(self, sums: Tensor, *, weights: int, inputs: int, outputs: int, after: bool) -> None:
        """Notes an operation.

        Args:
            sums: the rows of traces, summed over all that it computes with weights of 1.
            after: neurons come before it.
        """
        spikes, analog, relu = sums.unbind()
        part = "first"
        if self.part == "tail":
            part = "readout"
        elif after:
            part = "steps"
        self.targets.append(
            Target(
                path=self.path,
                weights=weights,
                inputs=inputs,
                outputs=outputs,
                analog=round(analog.item()),
                relu=round(relu.item()) if self.new and weights else 0,
                part=part,
                synapses=self._synapses(spikes),
            )
        )

    def _synapses(self, spikes: Tensor) -> tuple[Synapses, ...]:
        if not spikes.requires_grad:
            return ()
        by = torch.autograd.grad(
            spikes, list(self.senders.values()), retain_graph=True, allow_unused=True
        )
        return tuple(
            Synapses(sender, fan_out[0].round().to(torch.int64))
            for sender, fan_out in zip(self.senders, by, strict=True)
            if fan_out is not None
        )

    def call(self, call: Call, values: Values) -> Any:
        """What an operation makes of traces; the ledger gets what it costs."""
        self.path = str(call.target) if call.kind == "module" else call.name
        # What the tail computes once more on the mean, the ReLU network computes once.
        self.new = call.name not in self.counted
        self.counted.add(call.name)
        return super().call(call, values)

    def fire(self, fire: Fire, values: Values) -> None:
        """Sends one spike of every neuron."""
        self.path = fire.path
        operands = [values[name] for name in fire.reads]
        for operand in operands:
            self._as_they_are(operand.rows)
        sent = self._sender(fire.name, operands[0].rows[:1].detach())
        traces = self._stacked(sent, torch.zeros_like(sent), after=True)
        values[fire.name] = values[fire.spikes] = traces

    def pool(self, step: RunningMax, values: Values) -> Tensor:
        """Sends one spike of every output that reads a spike."""
        self.path = step.path or step.name
        parts = [values[name] for name in step.reads]
        rows = torch.cat([part.rows for part in parts], dim=1)
        read = window_sums(rows, pooling_windows(step.pooling, tuple(rows.shape[2:])))
        self._as_they_are(read)
        analog = (read[1:2] != 0).to(read.dtype)
        sent = self._sender(step.name, analog) * (1 - analog)
        return self._stacked(sent, analog, after=any(part.after for part in parts))

    def _as_they_are(self, rows: Tensor) -> None:
        """Notes spikes that are read without weights."""
        sums = rows.flatten(1).sum(1)
        if sums[0].requires_grad:
            size = rows[0].numel()
            self.weigh(
                sums * sums.new_tensor([1, 0, 0]), weights=0, inputs=size, outputs=size, after=True
            )

    def _sender(self, name: str, like: Tensor) -> Tensor:
        sent = torch.ones_like(like).requires_grad_()
        self.senders[name] = sent
        self.shapes[name] = tuple(like.shape[1:])
        return sent

    def _traces(self, spikes: Tensor, *, analog: float, after: bool) -> Tensor:
        spikes = spikes.to(self.device, torch.float64)
        return self._stacked(spikes, torch.full_like(spikes, analog), after=after)

    def _stacked(self, spikes: Tensor, analog: Tensor, *, after: bool) -> Traces:
        return Traces.of(torch.cat((spikes, analog, torch.ones_like(analog))), after, self)
