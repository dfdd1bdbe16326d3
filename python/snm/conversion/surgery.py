"""Puts spiking layers into a model in the place of its ReLUs, for those who run it step by step."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from snm_kernels import SNMRule

from ..errors import refuse
from ..nn.layers import (
    SNM,
    AdaptiveRunningMaxPool1d,
    AdaptiveRunningMaxPool2d,
    AdaptiveRunningMaxPool3d,
    RunningMaxPool1d,
    RunningMaxPool2d,
    RunningMaxPool3d,
    StepMode,
)
from .analysis.analyse import analyse
from .analysis.domains import Domain, changes_over_time, domain_of
from .analysis.operations import clip_of_module
from .analysis.pooling import pooling_of_node
from .calibration import observe, open_images
from .inputs import Progress, rule_of
from .lowering.prepare import prepare
from .statistics import Norm, Statistic
from .thresholds import Choice, Dead, choose_thresholds
from .tracing.copies import copy_of
from .tracing.paths import path_of
from .tracing.trace import trace
from .tracing.traced_model import TracedModel

_POOLS: dict[type[nn.Module], type[RunningMaxPool2d]] = {
    nn.MaxPool1d: RunningMaxPool1d,
    nn.MaxPool2d: RunningMaxPool2d,
    nn.MaxPool3d: RunningMaxPool3d,
}
_ADAPTIVE_POOLS: dict[type[nn.Module], type[AdaptiveRunningMaxPool2d]] = {
    nn.AdaptiveMaxPool1d: AdaptiveRunningMaxPool1d,
    nn.AdaptiveMaxPool2d: AdaptiveRunningMaxPool2d,
    nn.AdaptiveMaxPool3d: AdaptiveRunningMaxPool3d,
}
_INSTEAD = "use snm.convert, which takes it as it is"


@torch.no_grad()
def replace_relu(
    model: nn.Module,
    calibration: Tensor | Iterable[Any],
    *,
    preset: str | SNMRule = "snm",
    norm: Norm = "neuron",
    statistic: Statistic = "max",
    percentile: float = 99.9,
    levels: int = 32,
    dead: Dead = "silent",
    step_mode: StepMode = "s",
    progress: Progress | None = None,
) -> nn.Module:
    """Replaces a model's ReLU modules by :class:`snm.nn.SNM`, in place, and its max pooling
    modules by running maxima.

    The model then takes a frame ``[B, ...]`` per call and goes on from its state; :func:`reset
    <snm.nn.reset>` starts afresh. The mean of its outputs over T calls is what
    :func:`snm.convert` gives, which runs faster and also converts what is not a module. Modules
    that are not called stay, and so do max poolings that no ReLU comes before.

    Args:
        model, calibration, preset, norm, statistic, percentile, levels, dead, progress: as of
            :func:`snm.convert`. The model is changed.
        step_mode: of the new layers. With ``"m"`` they take ``[T, B, ...]``, and the model has to
            see to the time in front of its other layers itself.

    Returns:
        The model.

    Raises:
        ConversionError: the model cannot be converted; or a ReLU or a max pooling is called as a
            function, or its module more than once, so that one state would not do. The model is
            then as it was.
        ValueError, TypeError: as :func:`snm.convert`.

    Warns:
        DeadNeuronWarning: neurons never fired in calibration.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> expected = model(images)
    >>> model = replace_relu(model, images, preset="snm-half")
    >>> with torch.no_grad():
    ...     logits = sum(model(images) for _ in range(64)) / 64
    >>> bool((logits - expected).abs().max() < 0.05)
    True
    """
    rule = rule_of(preset)
    choice = Choice(norm, statistic, percentile, levels, dead)
    choice.check()
    images = open_images(model, calibration, progress)
    _check_calls(model, images.first)
    prepared = prepare(model, images.first, "direct", "mean")
    statistics = observe(prepared, images, norm, statistic)
    found = choose_thresholds(
        prepared, statistics, choice, caps=prepared.caps, max_spikes=rule.max_spikes
    )
    layers: dict[str, nn.Module] = {}
    for node in _stateful(prepared.traced):
        path = path_of(node)
        if node in found:
            neurons = SNM(found[node].threshold, rule, step_mode=step_mode)
            layers[path] = neurons.to(prepared.example.dtype)
        else:
            layers[path] = _running_maximum(model.get_submodule(path), step_mode)
    for path, layer in layers.items():
        _replace_everywhere(model, path, layer.eval())
    return model


def _stateful(traced: TracedModel) -> list[fx.Node]:
    """The ReLUs that become neurons and the max poolings of spikes, in order of execution."""
    return [
        node
        for node in traced.graph.nodes
        if domain_of(node) is Domain.NEURON
        or (changes_over_time(node) and pooling_of_node(traced, node) is not None)
    ]


def _replace_everywhere(model: nn.Module, path: str, module: nn.Module) -> None:
    """Puts a module in the place of another, under each of its paths."""
    replaced = model.get_submodule(path)
    for other, known in list(model.named_modules(remove_duplicate=False)):
        if known is replaced:
            model.set_submodule(other, module)


def _running_maximum(module: nn.Module, step_mode: StepMode) -> nn.Module:
    """The layer that takes the place of a max pooling."""
    if isinstance(module, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d):
        return _POOLS[type(module)](
            module.kernel_size,
            module.stride,
            module.padding,
            module.dilation,
            module.ceil_mode,
            step_mode=step_mode,
        )
    return _ADAPTIVE_POOLS[type(module)](
        module.output_size,  # type: ignore[arg-type]
        step_mode=step_mode,
    )


class _Counted(nn.Module):
    """Stands in the place of a module and counts its calls."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.calls = 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return self.module(x)


def _check_calls(model: nn.Module, images: Tensor) -> None:
    """Refuses operations that cannot be converted, or not by replacing modules."""
    traced = trace(model, images)
    offences = analyse(traced, images, images_change=False)
    refuse(offences)
    nodes = _stateful(traced)
    calls = Counter(path_of(node) for node in nodes if node.op == "call_module")
    # The graph lacks calls whose result nothing reads, and sees modules that no path leads to.
    counted = copy_of(model)
    counters = {}
    for path in calls:
        counters[path] = _Counted(counted.get_submodule(path))
        _replace_everywhere(counted, path, counters[path])
    counted(images[[0, -1]])
    for node in nodes:
        path = path_of(node)
        reason = None
        if node.op != "call_module":
            reason = f"is called as a function; {_INSTEAD}"
            if not path and clip_of_module(model) is not None:
                reason = "is the model itself; put it into a torch.nn.Sequential"
        elif path in counters:
            reason = _why_it_stays(calls[path], counters.pop(path).calls)
        if reason is not None:
            offences.append(traced.offence(node, reason))
    refuse(offences)


def _why_it_stays(calls: int, counted: int) -> str | None:
    """Why a module cannot be replaced; None if it can.

    Args:
        calls: how often the graph calls it.
        counted: how often what was put in its place was called.
    """
    if counted < calls:
        return f"is called in another way than as a submodule of the model; {_INSTEAD}"
    if counted > 1:
        return f"is called {counted} times, but keeps one state; {_INSTEAD}"
    return None
