"""Fits a network to its ReLU network layer by layer, front to back."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..conversion.inputs import Progress
from ..network.fitted import replace_layer
from ..network.interpret import Values
from ..network.program import Call, Fire, Program
from ..network.relu import ReLUWalk, relu_logits
from ..network.run import Run
from ..network.spiking import SpikingNetwork
from .candidates import with_rules
from .neurons import NeuronSearch, Setting
from .result import FittedWeights, TunedLayer
from .weights import can_be_fitted, fit_weights

_WEIGHTS_TIME = 0.3
"""The largest share of the budget that fitting weights may take, of all layers together."""
_SEARCH_UNTIL = 0.75
"""The share of the budget after which no other setting of neurons is tried."""
_FIT_UNTIL = 0.85
"""The share of the budget after which layers are left as they are."""


class Clock:
    """Tells how much of a time budget, in seconds, has been used since the clock was made."""

    def __init__(self, seconds: float) -> None:
        self.start = time.monotonic()
        self.seconds = seconds

    def share(self) -> float:
        """The share of the budget that has been used; more than 1 once it is exceeded."""
        return (time.monotonic() - self.start) / self.seconds


class FittingRun(Run):
    """A simulation in which each layer is fitted as soon as what it reads is known.

    Args:
        net: the network to fit; it is not changed.
        images: ``[B, ...]``, those to fit layers to.
        max_spikes: Γ, the most spikes that a neuron may send in one step.
        weights: whether to fit weights too, not only neurons.
        clock: says how much time is left.
        progress: wraps the layers of neurons, as ``tqdm`` does; None for no such wrapper.
    """

    def __init__(
        self,
        net: SpikingNetwork,
        images: Tensor,
        max_spikes: int,
        weights: bool,
        clock: Clock,
        progress: Progress | None,
    ) -> None:
        self.net = with_rules(net, {path: neuron.rule for path, neuron in net.layers.items()})
        self._tail: Values = {}
        self._weight_calls: frozenset[str] = frozenset()
        super().__init__(self.net.program, self.net.model, images)
        self.max_spikes = max_spikes
        self.clock = clock
        self.complete = True
        """Whether every layer was searched to the end."""
        # One pass as the ReLU network alone, one with the rates of the neurons fitted so far.
        self._exact, self._mixed = (ReLUWalk(self.program, self.model, images) for _ in range(2))
        self._logits = relu_logits(self.net, images)
        self._tuned_layers: list[TunedLayer] = []
        self._fitted_weights: dict[str, FittedWeights] = {}
        self._weight_calls = _calls_to_fit(self.program, self.model) if weights else frozenset()
        neurons = self.program.neurons
        self._layers: Iterator[Any] = iter(neurons if progress is None else progress(neurons))

    def fit_all(
        self, steps: int
    ) -> tuple[SpikingNetwork, tuple[TunedLayer, ...], dict[str, FittedWeights]]:
        """Fits all layers, in a simulation of T = ``steps`` time steps.

        Returns:
            The fitted network; what was chosen for its layers of neurons; and, by their paths, what
            fitting the weights of layers achieved.
        """
        self.advance(steps, None)
        next(self._layers, None)
        self._tail = self._exact.tail()
        self.execute_tail(self.means(self.counts(), steps))
        return self.net, tuple(self._tuned_layers), self._fitted_weights

    def call(self, call: Call, values: Values) -> Any:
        """Computes an operation of the model, after fitting its weights if they can be fitted."""
        if call.name in self._weight_calls:
            inputs: Tensor = values[call.args[0].name]
            if self.part == "tail":
                self._fit_weights_of(call, inputs, self._tail[call.name])
            else:
                steps = len(inputs) // self.batch
                over_time = inputs.view(steps, self.batch, *inputs.shape[1:])
                mean = over_time.mean(0, dtype=torch.float32)
                self._fit_weights_of(call, mean, self._exact.result_of(call))
        return super().call(call, values)

    def _fit_weights_of(self, call: Call, inputs: Tensor, wanted: Tensor) -> None:
        """Fits the weights of the layer that is called, and replaces the layer if they are better.

        Args:
            call: the call of the layer.
            inputs: ``[B, ...]``, what the layer reads in the spiking network, on average.
            wanted: ``[B, ...]``, what it makes in the ReLU network.
        """
        path = str(call.target)
        until = self.clock.share() + _WEIGHTS_TIME / len(self._weight_calls)

        def go_on() -> bool:
            going = self.clock.share() < min(until, _FIT_UNTIL)
            self.complete &= going
            return going

        found = fit_weights(self.model.get_submodule(path), inputs, wanted, go_on)
        if found is not None:
            replace_layer(self.model, path, found.layer)
            self._fitted_weights[path] = FittedWeights(found.change, found.error, found.before)

    def fire(self, fire: Fire, values: Values) -> None:
        """Fits a layer of neurons to its drive, then runs it."""
        next(self._layers, None)
        self._fit_neurons(fire, *self.drive_of(fire, values))
        super().fire(fire, values)

    def _fit_neurons(self, fire: Fire, drive: Tensor, residual: Tensor | None) -> None:
        """Replaces a layer of neurons by the best that a search finds, unless time is up."""
        target = self._exact.halt_at(fire)
        self._exact.go_on(fire, target)
        self._mixed.halt_at(fire)
        untuned = self.neuron(fire)
        search = NeuronSearch(
            untuned,
            drive,
            residual,
            target,
            per_neuron=fire.per_neuron,
            shared=self.net.readout == "count" and fire.name == self.program.output,
        )
        untuned_rate = search.rate(untuned)
        if self.clock.share() >= _FIT_UNTIL:
            self.complete = False
            self._mixed.go_on(fire, untuned_rate.to(target.dtype))
            return

        def distance(rate: Tensor) -> float:
            logits = self._mixed.logits(fire, rate.to(target.dtype))
            return (logits - self._logits).float().square().mean().item()

        start = Setting(max_spikes=self.max_spikes)
        found = search.search(start, distance, self._may_search)
        self.model.set_submodule(fire.path, found.neuron)
        self._mixed.go_on(fire, found.rate.to(target.dtype))
        assert found.neuron.bias is not None
        fires = found.neuron.threshold.isfinite()
        scale = (found.neuron.threshold / untuned.threshold)[fires]
        bias = (len(drive) * found.neuron.bias / found.neuron.threshold)[fires]
        self._tuned_layers.append(
            TunedLayer(
                path=fire.path,
                scale=scale.mean().nan_to_num(1.0).item(),
                rule=found.neuron.rule,
                dither=found.setting.dither,
                bias=bias.abs().mean().nan_to_num(0.0).item(),
                error=_error(found.rate, target),
                before=_error(untuned_rate, target),
            )
        )

    def _may_search(self) -> bool:
        """Whether there is time to try another setting; notes it if there is not."""
        going = self.clock.share() < _SEARCH_UNTIL
        self.complete &= going
        return going


def _calls_to_fit(program: Program, model: nn.Module) -> frozenset[str]:
    """The names of the calls whose layer has weights that can be fitted to what neurons send."""
    calls = [step for step in (*program.static, *program.temporal) if isinstance(step, Call)]
    modules = Counter(call.target for call in (*calls, *program.tail) if call.kind == "module")
    changing = {step.name for step in program.temporal}
    for call in program.tail:
        if changing.intersection(call.reads):
            changing.add(call.name)
    return frozenset(
        call.name
        for call in (*calls, *program.tail)
        if call.kind == "module"
        and modules[call.target] == 1
        and len(call.args) == 1
        and not call.kwargs
        and changing.intersection(call.reads)
        and can_be_fitted(model.get_submodule(str(call.target)))
    )


def _error(rate: Tensor, target: Tensor) -> float:
    """The mean squared error of a rate, in units of the target's mean square."""
    power = target.float().square().mean().clamp(min=torch.finfo(torch.float32).tiny)
    return ((rate - target).square().mean() / power).item()
