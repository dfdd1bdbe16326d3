"""Counts how many synapses leave each neuron, and what is multiplied without spikes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...network.interpret import Interpreter, Values
from ...network.program import Call, Fire, RunningMax
from ...network.spiking import SpikingNetwork
from .integers import on_numbers
from .traces import Traces
from .windows import pooling_windows, window_sums


@dataclass(frozen=True, slots=True)
class Synapses:
    """The synapses over which the spikes of one layer reach one operation."""

    sender: str
    """Name of the step of the layer of neurons or the max pooling that sends."""
    fan_out: Tensor
    """How many of these synapses leave each neuron, int64 in the layer's shape."""


@dataclass(slots=True)
class Target:
    """An operation with weights, a max pooling or a layer of neurons, as a reader of values."""

    path: str
    """Path of its module, or name of its step."""
    weights: int
    """How many weights it has; 0 if it reads values as they are."""
    inputs: int
    """How many values it reads per image."""
    outputs: int
    """How many values it computes per image."""
    analog: int = 0
    """How many multiply-accumulates with analog values it does each time that it is computed for an
    image: for every time step, or once."""
    relu: int = 0
    """How many multiply-accumulates it does per image in the ReLU network."""
    part: str = "steps"
    """Where it is: ``"first"`` before the first neurons, ``"readout"`` behind the last ones,
    ``"steps"`` in between."""
    synapses: tuple[Synapses, ...] = ()
    """The synapses over which spikes reach it, of each sender."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """All connections of a network."""

    targets: tuple[Target, ...]
    """All that reads values, in order of execution."""
    shapes: dict[str, tuple[int, ...]]
    """The shape of what each layer of neurons and each max pooling sends for an image, by its
    step."""


def wiring(net: SpikingNetwork, size: tuple[int, ...]) -> Wiring:
    """Finds all connections of a network, by following one time step of one image.

    A synapse is a weight other than 0 between a neuron and a value that an operation computes. The
    sums, views, padding and average pooling through which a spike gets there do not matter. To
    count the synapses that leave a neuron, every weight is replaced by 1: their number is the
    derivative of the sum of all values that the operation computes with respect to what the neuron
    sends. Neurons or a max pooling that read a spike without weights take one synapse each.

    Args:
        net: the network.
        size: the shape of an image.

    Raises:
        ValueError: there is an operation that cannot be counted; the message names it.

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
    """Takes traces through a program; see :class:`snm.reports.count.traces.Traces`."""

    def __init__(self, net: SpikingNetwork, size: tuple[int, ...]) -> None:
        super().__init__(net.program, net.model)
        self.size = size
        self.device = net.device
        self.targets: list[Target] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.senders: dict[str, Tensor] = {}
        """What each layer sends, by its step: ones, with respect to which derivatives are taken."""
        self.path = ""
        """Path or name of the step that is being executed."""
        self.counted: set[str] = set()
        """The names of the calls that are counted for the ReLU network."""
        self.new = True
        """Whether the call that is being executed is not counted for the ReLU network yet."""

    def follow(self) -> None:
        """Follows all three parts of the program."""
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
        """Notes an operation, or another reader of values, as a :class:`Target`.

        Args:
            sums: for each row of traces, the sum of all that it computes with weights of 1.
            weights, inputs, outputs: as for :class:`Target`.
            after: whether neurons come before it.
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
        """The synapses of each sender, from the sum of all that its spikes cause."""
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
        """What an operation makes of traces; one with weights is noted."""
        self.path = str(call.target) if call.kind == "module" else call.name
        # What the tail computes again, on the mean, the ReLU network computes only once.
        self.new = call.name not in self.counted
        self.counted.add(call.name)
        if call.kind == "module":
            made = on_numbers(self.model.get_submodule(self.path), values[call.reads[0]])
            if made is not None:
                return made
        return super().call(call, values)

    def fire(self, fire: Fire, values: Values) -> None:
        """Notes that a layer of neurons reads its drive, and sends one spike from every neuron."""
        self.path = fire.path
        operands = [values[name] for name in fire.reads]
        for operand in operands:
            self._as_they_are(operand.rows)
        sent = self._sender(fire.name, operands[0].rows[:1].detach())
        traces = self._stacked(sent, torch.zeros_like(sent), after=True)
        values[fire.name] = values[fire.spikes] = traces

    def pool(self, step: RunningMax, values: Values) -> Tensor:
        """Notes what a max pooling reads, and sends one spike from each output that reads one."""
        self.path = step.path or step.name
        parts = [values[name] for name in step.reads]
        rows = torch.cat([part.rows for part in parts], dim=1)
        read = window_sums(rows, pooling_windows(step.pooling, tuple(rows.shape[2:])))
        self._as_they_are(read)
        analog = (read[1:2] != 0).to(read.dtype)
        sent = self._sender(step.name, analog) * (1 - analog)
        return self._stacked(sent, analog, after=any(part.after for part in parts))

    def _as_they_are(self, rows: Tensor) -> None:
        """Notes that spikes are read as they are, without weights."""
        sums = rows.flatten(1).sum(1)
        if sums[0].requires_grad:
            size = rows[0].numel()
            self.weigh(
                sums * sums.new_tensor([1, 0, 0]), weights=0, inputs=size, outputs=size, after=True
            )

    def _sender(self, name: str, like: Tensor) -> Tensor:
        """What a sender sends: ones, with respect to which derivatives can be taken."""
        sent = torch.ones_like(like).requires_grad_()
        self.senders[name] = sent
        self.shapes[name] = tuple(like.shape[1:])
        return sent

    def _traces(self, spikes: Tensor, *, analog: float, after: bool) -> Tensor:
        """Traces with these spikes, with an analog value everywhere or nowhere."""
        spikes = spikes.to(self.device, torch.float64)
        return self._stacked(spikes, torch.full_like(spikes, analog), after=after)

    def _stacked(self, spikes: Tensor, analog: Tensor, *, after: bool) -> Traces:
        """Traces with these spikes and analog values, and the ReLU network's values everywhere."""
        return Traces.of(torch.cat((spikes, analog, torch.ones_like(analog))), after, self)
