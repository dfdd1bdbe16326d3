"""Puts spiking layers into a model in the place of its ReLUs, for those who run it step by step."""

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from snm_kernels import SNMRule

from .convert.calibrate import Choice, Dead, threshold_of, warn_of_the_dead
from .convert.inputs import Progress, batches_of, check_model, rule_of
from .convert.operations import Clip, clip_of_module
from .convert.statistics import Norm, Statistic, Statistics
from .errors import ConversionError, Offence
from .nn.layers import (
    SNM,
    AdaptiveRunningMaxPool1d,
    AdaptiveRunningMaxPool2d,
    AdaptiveRunningMaxPool3d,
    RunningMaxPool1d,
    RunningMaxPool2d,
    RunningMaxPool3d,
    StepMode,
)

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
_RELU_FUNCTIONS = (
    *(F.relu, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.hardtanh),
)
_POOL_FUNCTIONS = (
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d),
    *(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
)


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
    :func:`snm.convert` gives, which runs faster and also converts what is not a module.

    Args:
        model, calibration, preset, norm, statistic, percentile, levels, dead, progress: as of
            :func:`snm.convert`. The model is changed.
        step_mode: of the new layers. With ``"m"`` they take ``[T, B, ...]``, and the model has to
            see to the time in front of its other layers itself.

    Returns:
        The model.

    Raises:
        ConversionError: a ReLU or a max pooling is called as a function, or its module more than
            once, so that one state would not do; the model is then as it was.
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
    device, dtype = check_model(model)
    batches = batches_of(calibration, progress, device, dtype)
    first = next(batches, None)
    if first is None:
        raise ValueError("convert: calibration must hold at least one image, got none")
    clips = {path: clip_of_module(module) for path, module in model.named_modules()}
    relus = {path: clip for path, clip in clips.items() if clip is not None and clip.is_neuron}
    _check_calls(model, relus, first)

    statistics = Statistics(norm, statistic, first[:1])
    hooks = [
        model.get_submodule(path).register_forward_hook(
            partial(lambda path, _module, _inputs, out: statistics.update(path, out), path)
        )
        for path in relus
    ]
    model(first)
    for images in batches:
        model(images)
    for hook in hooks:
        hook.remove()

    found = {}
    for path, clip in relus.items():
        cap = torch.inf if clip.high is None else float(clip.high)
        found[path] = threshold_of(
            statistics.layers[path], choice, cap=cap, max_spikes=rule.max_spikes
        )
    warn_of_the_dead(found.items(), choice)
    for path, layer in found.items():
        neurons = SNM(layer.threshold, rule, step_mode=step_mode)
        model.set_submodule(path, neurons.to(first.dtype).eval())
    for path, module in list(model.named_modules()):
        pool = _running(module, step_mode)
        if pool is not None:
            model.set_submodule(path, pool.eval())
    return model


def _running(module: nn.Module, step_mode: StepMode) -> nn.Module | None:
    """The running maximum that takes a max pooling's place; None for anything else."""
    if type(module) in _POOLS:
        assert isinstance(module, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d)
        return _POOLS[type(module)](
            module.kernel_size,
            module.stride,
            module.padding,
            module.dilation,
            module.ceil_mode,
            step_mode=step_mode,
        )
    if type(module) in _ADAPTIVE_POOLS:
        return _ADAPTIVE_POOLS[type(module)](
            module.output_size,  # type: ignore[arg-type]
            step_mode=step_mode,
        )
    return None


class _Calls(TorchFunctionMode):
    """Counts calls of ReLUs and of max poolings, as functions or from modules."""

    def __init__(self) -> None:
        super().__init__()
        self.relus = self.pools = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.relus += func in _RELU_FUNCTIONS
        self.pools += func in _POOL_FUNCTIONS
        return func(*args, **(kwargs or {}))


def _check_calls(model: nn.Module, relus: dict[str, Clip], images: Tensor) -> None:
    """Refuses a model of which replaced modules would not do all the work."""
    pools = [path for path, module in model.named_modules() if _running(module, "s") is not None]
    calls: Counter[str] = Counter()
    hooks = [
        model.get_submodule(path).register_forward_hook(
            partial(lambda path, *_: calls.update([path]), path)
        )
        for path in (*relus, *pools)
    ]
    with _Calls() as functions:
        model(images)
    for hook in hooks:
        hook.remove()
    help = "use snm.convert, which takes it as it is"
    offences = [
        Offence(
            path,
            type(model.get_submodule(path)).__name__,
            f"is called {calls[path]} times, but keeps one state; {help}",
        )
        for path in (*relus, *pools)
        if calls[path] != 1
    ]
    if functions.relus > sum(calls[path] for path in relus):
        offences.append(Offence("", "relu", f"is called as a function; {help}"))
    if functions.pools > sum(calls[path] for path in pools):
        offences.append(Offence("", "max_pool", f"is called as a function; {help}"))
    if not relus:
        offences.append(Offence("", "forward", "has no ReLU module to replace"))
    if offences:
        raise ConversionError(offences)
