"""Finds out how layers of spikes are computed faster: spike by spike, or densely."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from snm_kernels import Emit

from ..network.events import EventRun, plan_of, readers_of
from ..network.fused import Waiting
from ..network.integer import IntegerRun
from ..network.interpret import Values
from ..network.observer import Ask
from ..network.program import Call, Fire
from ..network.run import Launched
from ..network.spiking import SpikingNetwork
from ..nn.integer import IntegerConv, Path

_TURNS = 3
"""How often a layer is timed each way, in turn, after a first time that does not count."""
_STEPS = 8
"""How many time steps show how many spikes there are."""


class _Timing(IntegerRun):
    """A simulation that computes each layer of spikes both ways, and leaves it with the faster."""

    def call(self, call: Call, values: Values) -> Any:
        """Runs an operation; a layer that does not wait for its neurons is timed by itself."""
        result = super().call(call, values)
        if self.part == "temporal" and call.kind == "module":
            layer = self.model.get_submodule(str(call.target))
            x = values[call.reads[0]]
            is_run = isinstance(result, Tensor) and x.dtype == torch.int8
            if isinstance(layer, IntegerConv) and is_run:
                self._choose(layer, lambda: layer(x))
        return result

    def launch(self, fire: Fire, values: Values, emit: Emit, asks: set[Ask]) -> Launched:
        """Runs a layer of neurons; one that runs along with its layer is timed with it."""
        waiting = values[fire.drive]
        launched = super().launch(fire, values, emit, asks)
        if isinstance(waiting, Waiting):
            run = super().launch
            assert isinstance(waiting.layer, IntegerConv)
            self._choose(waiting.layer, lambda: run(fire, values, emit, asks))
        return launched

    def _choose(self, layer: IntegerConv, run: Callable[[], Any]) -> None:
        """Times a layer both ways, which have to give the same."""
        made: dict[Path, list[Tensor | None]] = {"events": [], "dense": []}
        for path, tensors in made.items():
            layer.path = path
            result = run()
            if isinstance(result, Launched):
                tensors += [result.sent, *result.state]
            else:
                tensors.append(result)
        pairs = zip(*made.values(), strict=True)
        same = all(a is b is None or torch.equal(a, b) for a, b in pairs)
        if not same:
            raise RuntimeError(
                f"quantize: a layer of {list(layer.weight.shape)} is not the same by events and "
                "densely on this machine; please report it"
            )
        layer.path = faster_path(layer, run)
        layer.forget()


def faster_path(layer: IntegerConv, run: Callable[[], Any]) -> Path:
    """How a layer of spikes is computed faster, on this machine.

    Args:
        layer: is computed in either way; afterwards in the one that was tried last. What each took
            is in its ``seconds``.
        run: computes the layer, with its neurons, on the spikes that it is to be fast on.
    """
    if not layer.can_be_dense:
        return "events"

    def on(path: Path) -> Callable[[], Any]:
        def computed() -> None:
            layer.path = path
            run()

        return computed

    ways: dict[Path, Callable[[], Any]] = {"events": on("events"), "dense": on("dense")}
    layer.seconds = _times(ways)
    return "events" if layer.seconds["events"] <= layer.seconds["dense"] else "dense"


_Way = TypeVar("_Way")


def _times(ways: Mapping[_Way, Callable[[], Any]]) -> dict[_Way, float]:
    """The seconds that the fastest turn of each way takes."""
    took = dict.fromkeys(ways, math.inf)
    for turn in range(_TURNS + 1):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            if turn > 0:
                took[way] = min(took[way], time.perf_counter() - start)
    return took


class _EventTiming(EventRun):
    """A simulation that computes each layer of spikes both ways, and notes where events win."""

    def __init__(self, net: SpikingNetwork, images: Tensor) -> None:
        self.readers = readers_of(net.program, net.model)
        self.faster: list[str] = []
        """The layers that are faster spike by spike, by the names of their steps."""
        plan = plan_of(net.program, net.model, self.readers)
        super().__init__(plan, net.model, images, readout=net.readout)

    def call(self, call: Call, values: Values) -> Any:
        """Runs an operation; a layer that does not wait for its neurons is timed by itself."""
        result = super().call(call, values)
        layer = self.plan.layers.get(call.name)
        if layer is not None and not isinstance(result, Waiting):
            x = values[call.reads[0]]
            self._choose(call.name, lambda: layer(x), x, lambda drive: drive)
        return result

    def launch(self, fire: Fire, values: Values, emit: Emit, asks: set[Ask]) -> Launched:
        """Runs a layer of neurons; one that runs along with its layer is timed with it."""
        waiting = values[fire.drive]
        launched = super().launch(fire, values, emit, asks)
        if not isinstance(waiting, Waiting):
            return launched
        run, neuron, before = super().launch, self.neuron(fire), self.states.get(fire.name)
        residual = None
        if fire.residual is not None:
            residual = self.over_time(values[fire.residual], constant=fire.constant_residual)

        def by_events() -> Any:
            values[fire.drive] = waiting
            return run(fire, values, emit, asks)

        def behind(drive: Tensor) -> Any:
            drive = self.over_time(drive, constant=False)
            sends: Emit = "none" if emit == "none" else "amplitude"
            return neuron(drive, before, residual=residual, emit=sends)

        self._choose(fire.drive, by_events, waiting.x, behind)
        return launched

    def _choose(
        self, name: str, events: Callable[[], Any], x: Tensor, behind: Callable[[Tensor], Any]
    ) -> None:
        """Times a layer both ways.

        Args:
            name: that of its step.
            events: runs it spike by spike.
            x: the spikes that it reads, int8 ``[T*B, ...]``.
            behind: runs what follows on what the layer makes densely.
        """
        reader = self.readers[name]
        amplitudes = self.neuron(reader.source).amplitude(x)
        ways: dict[Path, Callable[[], Any]] = {
            "events": events,
            "dense": lambda: behind(reader.densely(self.model, amplitudes)),
        }
        took = _times(ways)
        if took["events"] <= took["dense"]:
            self.faster.append(name)


@torch.no_grad()
def by_events(net: SpikingNetwork, images: Tensor) -> SpikingNetwork:
    """A copy of a network that computes layers spike by spike on the CPU where that is faster.

    A layer then adds up the weights of the spikes that reach it, in a fixed order, and its neurons
    run in the same pass; its time grows with their number. Each convolution of one or two
    dimensions and each linear layer that reads spikes, directly or averaged over windows side by
    side, is timed both ways here, on this machine and on these images; the thresholds of the
    neurons that it reads must not differ within a channel of a convolution. What was chosen is in
    ``events``, and saved with the network.

    Sums round otherwise than in a dense layer, so a neuron at its threshold may send a spike more
    or less. They do not depend on the batch, the number of threads or of time steps at once.
    Elsewhere than on the CPU in float32, and in graphs of ``torch.compile``, the copy computes as
    ``net`` does.

    Args:
        net: in float32 on the CPU; it is not changed.
        images: ``[B, ...]``, as a call takes them: they cause the spikes that are timed.

    Returns:
        The copy; it takes memory for the weights of such layers three times.

    Raises:
        ValueError: the network is one of integers, is not in float32 on the CPU, or has no layer
            that reads spikes so; or images are not such as a call takes.
        TypeError: net is not a SpikingNetwork, or images are of another dtype.

    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()).eval()
    >>> net, images = convert(model, torch.rand(32, 4)), torch.rand(2, 4)
    >>> faster = by_events(net, images)
    >>> set(faster.events) <= {"model_2"}
    True
    >>> torch.allclose(faster(images, timesteps=8), net(images, timesteps=8), atol=0.5)
    True
    """
    if type(net) is not SpikingNetwork:
        raise TypeError(f"by_events: net must be a SpikingNetwork, got {type(net).__name__}")
    if net.integers:
        raise ValueError("by_events: net is a network of integers, which chose when it was made")
    if net.device.type != "cpu" or net.dtype != torch.float32:
        raise ValueError(
            f"by_events: net must be in float32 on the CPU, got {net.dtype} on {net.device}"
        )
    net.inputs.check(images)
    if not readers_of(net.program, net.model):
        raise ValueError(
            "by_events: net must have layers that read spikes of neurons whose thresholds are "
            "shared within a channel; convert with norm='channel' or 'layer'"
        )
    made = copy.deepcopy(net)
    run = _EventTiming(made, images)
    run.advance(_STEPS, _frames(net, images))
    made.events = tuple(run.faster)
    return made


def choose_paths(net: SpikingNetwork, images: Tensor) -> None:
    """Chooses for each layer of spikes how it is computed, from the spikes that images cause."""
    run = _Timing(net.program, net.model, images, readout=net.readout)
    run.advance(_STEPS, _frames(net, images))


def _frames(net: SpikingNetwork, images: Tensor) -> Tensor | None:
    """Images as the frames of the steps that are timed; None if they are constant in time."""
    return images.repeat(_STEPS, *[1] * (images.dim() - 1)) if net.encoder != "direct" else None
