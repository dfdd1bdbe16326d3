"""Runs a program as the ReLU network that it was made of, from one layer of neurons to the next."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .fitted import as_given
from .program import Call, Fire, Program, Repeat, RunningMax, Step, spikes_of

if TYPE_CHECKING:
    from .spiking import SpikingNetwork


def relu_pass(net: "SpikingNetwork", images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What the ReLU network that a spiking network was made of computes.

    Args:
        net: with encoder="direct".
        images: ``[B, ...]``, as a call takes them.

    Returns:
        The activations ``[B, ...]`` by the path of the layer, in the units that the spiking
        network's weights have; and the logits. Weights that tuning fitted count as they were.

    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> activations, logits = relu_pass(convert(model, images), images)
    >>> torch.equal(activations["1"], model[:2](images)), torch.equal(logits, model(images))
    (True, True)
    """
    walk = ReLUWalk(net.program, as_given(net.model), images)
    activations = {}
    for fire in net.program.neurons:
        activations[fire.path] = walk.halt_at(fire)
        walk.go_on(fire, activations[fire.path])
    return activations, walk.answer()


def relu_logits(net: "SpikingNetwork", images: Tensor) -> Tensor:
    """The logits alone, which takes less memory; see :func:`relu_pass`.

    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> torch.equal(relu_logits(convert(model, images), images), model(images))
    True
    """
    walk = ReLUWalk(net.program, as_given(net.model), images)
    first = net.program.neurons[0]
    return walk.logits(first, walk.halt_at(first))


class ReLUWalk:
    """A pass of images through a program, halting at each layer of neurons.

    Between neurons everything is affine or a running maximum, so that the values of a ReLU network
    follow from one time step, and mean values from the mean rates of neurons.

    Args:
        program: of a network with encoder="direct".
        model: the modules that it calls.
        images: ``[B, ...]``.
    """

    def __init__(self, program: Program, model: nn.Module, images: Tensor) -> None:
        self.program = program
        self.model = model
        self._values: dict[str, Any] = {program.batch: len(images), program.images: images}
        for call in program.static:
            self._values[call.name] = call.run(model, self._values)
        self._constant = dict(self._values)
        self._read_out: dict[str, Tensor] = {}
        self._place = 0

    def halt_at(self, fire: Fire) -> Tensor:
        """Computes what comes before a layer; returns its ReLU's activation ``[B, ...]``."""
        self._execute(self._values, self._read_out, self.program.temporal.index(fire))
        self._place = self.program.temporal.index(fire)
        return _relu(fire, self._values)

    def result_of(self, call: Call) -> Tensor:
        """Computes an operation and what comes before it; returns its result ``[B, ...]``."""
        end = self.program.temporal.index(call) + 1
        self._execute(self._values, self._read_out, end)
        self._place = end
        result: Tensor = self._values[call.name]
        return result

    def go_on(self, fire: Fire, sent: Tensor) -> None:
        """Leaves the layer that it halted at, which passes on ``sent`` ``[B, ...]``."""
        self._leave(fire, sent, self._values, self._read_out)
        self._place += 1

    def logits(self, fire: Fire, sent: Tensor) -> Tensor:
        """What the ReLU network would answer, were this all that the layer it halted at sends."""
        values, read_out = dict(self._values), dict(self._read_out)
        self._leave(fire, sent, values, read_out)
        self._execute(values, read_out, len(self.program.temporal), self._place + 1)
        logits: Tensor = self._tail(read_out)[self.program.output]
        return logits

    def answer(self) -> Tensor:
        """What the ReLU network answers, once it has left its last layer."""
        logits: Tensor = self.tail()[self.program.output]
        return logits

    def tail(self) -> dict[str, Any]:
        """The values behind the last layer, once it has left that."""
        return self._tail(self._read_out)

    def _tail(self, read_out: dict[str, Tensor]) -> dict[str, Any]:
        values = {**self._constant, **read_out}
        for call in self.program.tail:
            values[call.name] = call.run(self.model, values)
        return values

    def _execute(
        self,
        values: dict[str, Any],
        read_out: dict[str, Tensor],
        end: int,
        start: int | None = None,
    ) -> None:
        for step in self.program.temporal[self._place if start is None else start : end]:
            if isinstance(step, Fire):
                self._leave(step, _relu(step, values), values, read_out)
                continue
            if isinstance(step, Call):
                values[step.name] = step.run(self.model, values)
            elif isinstance(step, Repeat):
                values[step.name] = values[step.value]
            else:
                values[step.name] = _pooled(step, values)
            self._free(values, step)

    def _leave(
        self, fire: Fire, sent: Tensor, values: dict[str, Any], read_out: dict[str, Tensor]
    ) -> None:
        values[fire.name] = values[fire.spikes] = sent
        if fire.read_out:
            read_out[fire.name] = sent
        self._free(values, fire)

    def _free(self, values: dict[str, Any], step: Step) -> None:
        for name in self.program.frees[step.name]:
            values.pop(name, None)


def rectified(fire: Fire, drive: Tensor) -> Tensor:
    """The activation of the ReLU in whose place neurons are, for a drive ``[B, ...]``."""
    activation = drive.relu()
    if not fire.cap:
        return activation
    cap = activation.new_tensor(fire.cap)
    return activation.minimum(cap.reshape(-1, *(1,) * (activation.dim() - 2)))


def _relu(fire: Fire, values: dict[str, Any]) -> Tensor:
    drive: Tensor = values[fire.drive]
    if fire.residual is not None:
        drive = drive + values[fire.residual]
    return rectified(fire, drive)


def _pooled(step: RunningMax, values: dict[str, Any]) -> Tensor:
    """The maximum over windows of ``[B, C, ...]``."""
    parts = [values[spikes_of(fire)] for fire in step.fires] or [values[step.value]]
    pooled, _ = step.pooling.run(torch.cat(parts, dim=1).unsqueeze(0), None, None, parts[0].dtype)
    return pooled.flatten(0, 1)
