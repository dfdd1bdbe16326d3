"""Executes a program as the ReLU network that it was made of, one layer of neurons at a time."""

import torch
from torch import Tensor, nn

from ..nn.integer import IntegerNeuron
from .fitted import before_tuning
from .interpret import Interpreter, Values
from .program import STEPS, Call, Fire, Program, RunningMax
from .spiking import SpikingNetwork


def relu_pass(net: SpikingNetwork, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What the ReLU network that a spiking network was made of computes.

    Args:
        net: a network with encoder="direct".
        images: ``[B, ...]``, as a call takes them.

    Returns:
        The activations ``[B, ...]`` by the path of the layer, in the units of the spiking
        network's weights; and the logits. Weights that tuning fitted are taken as they were before.
        Of a network of integers it is the ReLU network with its weights, which are rounded, and
        fitted if they were; its activations are in spikes per time step, float64.

    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> activations, logits = relu_pass(convert(model, images), images)
    >>> torch.equal(activations["1"], model[:2](images)), torch.equal(logits, model(images))
    (True, True)
    """
    walk = ReLUWalk(net.program, before_tuning(net.model), images)
    activations = {}
    for fire in net.program.neurons:
        activations[fire.path] = walk.halt_at(fire)
        walk.go_on(fire, activations[fire.path])
    return activations, walk.answer()


def relu_logits(net: SpikingNetwork, images: Tensor) -> Tensor:
    """The ReLU network's logits alone, which takes less memory than :func:`relu_pass`.

    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> torch.equal(relu_logits(convert(model, images), images), model(images))
    True
    """
    walk = ReLUWalk(net.program, before_tuning(net.model), images)
    first = net.program.neurons[0]
    return walk.logits(first, walk.halt_at(first))


class ReLUWalk(Interpreter):
    """Takes images through a program and halts at each layer of neurons.

    Between neurons everything is affine or a running maximum, so one time step is enough to compute
    the values of a ReLU network, or the mean values of a spiking network from its neurons' rates.

    Args:
        program: that of a network with encoder="direct".
        model: the modules that it calls.
        images: ``[B, ...]``.
    """

    def __init__(self, program: Program, model: nn.Module, images: Tensor) -> None:
        super().__init__(program, model)
        self._values = self.execute_static({program.batch: len(images), program.images: images})
        self._constant = dict(self._values)
        self._place = 0

    def halt_at(self, fire: Fire) -> Tensor:
        """Computes everything up to a layer; returns its ReLU's activations ``[B, ...]``."""
        self._go_to(self.program.temporal.index(fire))
        return self._activations(fire, self._values)

    def result_of(self, call: Call) -> Tensor:
        """Computes everything up to an operation; returns the operation's result ``[B, ...]``."""
        self._go_to(self.program.temporal.index(call) + 1)
        result: Tensor = self._values[call.name]
        return result

    def go_on(self, fire: Fire, sent: Tensor) -> None:
        """Goes past the layer that it halted at, which passes on ``sent`` ``[B, ...]``."""
        self._leave(fire, sent, self._values)
        self._place += 1

    def logits(self, fire: Fire, sent: Tensor) -> Tensor:
        """What the ReLU network would answer if the layer halted at sent this, ``[B, ...]``."""
        values = dict(self._values)
        self._leave(fire, sent, values)
        self.execute_temporal(values, self._place + 1)
        logits: Tensor = self._behind(values)[self.program.output]
        return logits

    def answer(self) -> Tensor:
        """What the ReLU network answers, once the last layer has been passed."""
        logits: Tensor = self.tail()[self.program.output]
        return logits

    def tail(self) -> Values:
        """The values behind the last layer, once that layer has been passed."""
        return self._behind(self._values)

    def pool(self, step: RunningMax, values: Values) -> Tensor:
        """The maximum over windows of ``[B, C, ...]``."""
        parts = [values[name] for name in step.reads]
        dtype = parts[0].dtype
        # Spikes per time step of integer networks are float64, which no pooling takes.
        x = torch.cat(parts, dim=1).unsqueeze(0)
        x = x.float() if dtype == torch.float64 else x
        pooled, _ = step.pooling.running_max(x, None, None, x.dtype)
        return pooled.flatten(0, 1).to(dtype)

    def fire(self, fire: Fire, values: Values) -> None:
        """Passes on what the ReLU that a layer of neurons replaces makes of the drive."""
        self._pass_on(fire, self._activations(fire, values), values)

    def _activations(self, fire: Fire, values: Values) -> Tensor:
        """The activations of the ReLU that a layer replaces, for the drive among these values."""
        activations = _relu(fire, values)
        neuron = self.model.get_submodule(fire.path)
        if not isinstance(neuron, IntegerNeuron):
            return activations
        return torch.where(neuron.silent, 0.0, activations / neuron.threshold.double())

    def _go_to(self, place: int) -> None:
        """Executes the steps before the one of that number."""
        self.execute_temporal(self._values, self._place, place)
        self._place = place

    def _leave(self, fire: Fire, sent: Tensor, values: Values) -> None:
        """Passes on what a layer sends, and frees what no later step reads."""
        self._pass_on(fire, sent, values)
        self.free(fire, values)

    def _pass_on(self, fire: Fire, sent: Tensor, values: Values) -> None:
        """Stores what a layer sends under all names by which it is read."""
        values[fire.name] = values[fire.spikes] = sent
        if fire.read_out:
            values[_mean_of(fire)] = sent

    def _behind(self, values: Values) -> Values:
        """The values of the tail, given what the layers that it reads have sent."""
        means = {
            fire.name: values[_mean_of(fire)] for fire in self.program.neurons if fire.read_out
        }
        return self.execute_tail({**self._constant, **means, STEPS: 1})


def _mean_of(fire: Fire) -> str:
    """Name under which what a layer sends is kept for the tail, as no step frees it."""
    return f"{fire.name} mean"


def rectified(fire: Fire, drive: Tensor) -> Tensor:
    """The activations of the ReLU that a layer of neurons replaces, for a drive ``[B, ...]``."""
    activation = drive.relu()
    if not fire.cap:
        return activation
    cap = activation.new_tensor(fire.cap)
    return activation.minimum(cap.reshape(-1, *(1,) * (activation.dim() - 2)))


def _relu(fire: Fire, values: Values) -> Tensor:
    """The activations of the ReLU that a layer replaces, for the drive among these values."""
    drive: Tensor = values[fire.drive]
    if fire.residual is not None:
        drive = drive + values[fire.residual]
    return rectified(fire, drive)
