"""Finds out how layers of spikes are computed faster: spike by spike, or densely."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from snm_kernels import Emit

from ..network.integer import IntegerRun, Waiting
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
    took: dict[Path, float] = {"events": math.inf, "dense": math.inf}
    for turn in range(_TURNS + 1):
        for path in took:
            layer.path = path
            seconds = _seconds(run)
            if turn > 0:
                took[path] = min(took[path], seconds)
    layer.seconds = took
    return "events" if took["events"] <= took["dense"] else "dense"


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def choose_paths(net: SpikingNetwork, images: Tensor) -> None:
    """Chooses for each layer of spikes how it is computed, from the spikes that images cause."""
    run = _Timing(net.program, net.model, images, readout=net.readout)
    frames = images.repeat(_STEPS, *[1] * (images.dim() - 1)) if net.encoder != "direct" else None
    run.advance(_STEPS, frames)
