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
from .neurons import LayerFit, Setting
from .result import FittedWeights, TunedLayer
from .weights import can_be_fitted, fit_weights

_WEIGHTS_TIME = 0.3
"""Share of the time that weights are fitted for, at most."""
_SEARCH_UNTIL = 0.75
"""Share of the time after which no other setting is tried."""
_FIT_UNTIL = 0.85
"""Share of the time after which layers are left as they are."""


class Clock:
    """How much of the time is gone."""

    def __init__(self, seconds: float) -> None:
        self.start = time.monotonic()
        self.seconds = seconds

    def share(self) -> float:
        """The share of the time that is gone; more than 1 once it is over."""
        return (time.monotonic() - self.start) / self.seconds


class Fitting(Run):
    """A simulation in which each layer of neurons is fitted when its drive is known."""

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
        self._to_refit: frozenset[str] = frozenset()
        super().__init__(self.net.program, self.net.model, images)
        self.max_spikes = max_spikes
        self.clock = clock
        self.complete = True
        """All layers were searched to the end."""
        self._exact, self._mixed = (ReLUWalk(self.program, self.model, images) for _ in range(2))
        self._logits = relu_logits(self.net, images)
        self._found: list[TunedLayer] = []
        self._refits: dict[str, FittedWeights] = {}
        self._to_refit = _calls_to_fit(self.program, self.model) if weights else frozenset()
        neurons = self.program.neurons
        self._layers: Iterator[Any] = iter(neurons if progress is None else progress(neurons))

    def fit(
        self, steps: int
    ) -> tuple[SpikingNetwork, tuple[TunedLayer, ...], dict[str, FittedWeights]]:
        """Simulates so many time steps.

        Returns:
            The fitted network; what was chosen for its layers of neurons; and what fitting the
            weights of layers gave, by their paths.
        """
        self.advance(steps, None)
        next(self._layers, None)
        self._tail = self._exact.tail()
        self.execute_tail(self.means(self.counts(), steps))
        return self.net, tuple(self._found), self._refits

    def call(self, call: Call, values: Values) -> Any:
        """Runs an operation of the model, with weights fitted first if they can be."""
        if call.name in self._to_refit:
            inputs: Tensor = values[call.args[0].name]
            if self.part == "tail":
                self._refit(call, inputs, self._tail[call.name])
            else:
                steps = len(inputs) // self.batch
                over_time = inputs.view(steps, self.batch, *inputs.shape[1:])
                mean = over_time.mean(0, dtype=torch.float32)
                self._refit(call, mean, self._exact.result_of(call))
        return super().call(call, values)

    def _refit(self, call: Call, inputs: Tensor, wanted: Tensor) -> None:
        """Fits the weights of the layer that a call calls."""
        path = str(call.target)
        until = self.clock.share() + _WEIGHTS_TIME / len(self._to_refit)

        def go_on() -> bool:
            going = self.clock.share() < min(until, _FIT_UNTIL)
            self.complete &= going
            return going

        found = fit_weights(self.model.get_submodule(path), inputs, wanted, go_on)
        if found is not None:
            replace_layer(self.model, path, found.layer)
            self._refits[path] = FittedWeights(found.change, found.error, found.before)

    def fire(self, fire: Fire, values: Values) -> None:
        """Runs a layer of neurons once it is fitted to its drive."""
        next(self._layers, None)
        self._fit(fire, *self.drive_of(fire, values))
        super().fire(fire, values)

    def _fit(self, fire: Fire, drive: Tensor, residual: Tensor | None) -> None:
        target = self._exact.halt_at(fire)
        self._exact.go_on(fire, target)
        self._mixed.halt_at(fire)
        given = self.neuron(fire)
        fit = LayerFit(
            given,
            drive,
            residual,
            target,
            per_neuron=fire.per_neuron,
            shared=self.net.readout == "count" and fire.name == self.program.output,
        )
        before = fit.rate(given)
        if self.clock.share() >= _FIT_UNTIL:
            self.complete = False
            self._mixed.go_on(fire, before.to(target.dtype))
            return

        def distance(rate: Tensor) -> float:
            logits = self._mixed.logits(fire, rate.to(target.dtype))
            return (logits - self._logits).float().square().mean().item()

        start = Setting(max_spikes=self.max_spikes)
        found = fit.searched(start, distance, self._may_search)
        self.model.set_submodule(fire.path, found.neuron)
        self._mixed.go_on(fire, found.rate.to(target.dtype))
        assert found.neuron.bias is not None
        fires = found.neuron.threshold.isfinite()
        scale = (found.neuron.threshold / given.threshold)[fires]
        bias = (len(drive) * found.neuron.bias / found.neuron.threshold)[fires]
        self._found.append(
            TunedLayer(
                path=fire.path,
                scale=scale.mean().nan_to_num(1.0).item(),
                rule=found.neuron.rule,
                dither=found.setting.dither,
                bias=bias.abs().mean().nan_to_num(0.0).item(),
                error=_error(found.rate, target),
                before=_error(before, target),
            )
        )

    def _may_search(self) -> bool:
        going = self.clock.share() < _SEARCH_UNTIL
        self.complete &= going
        return going


def _calls_to_fit(program: Program, model: nn.Module) -> frozenset[str]:
    """The names of the calls of layers whose weights can be fitted to what neurons send."""
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
    """Mean squared error, in mean squares of the target."""
    power = target.float().square().mean().clamp(min=torch.finfo(torch.float32).tiny)
    return ((rate - target).square().mean() / power).item()
