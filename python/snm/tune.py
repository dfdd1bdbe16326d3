"""Few time steps without training: thresholds, starts and biases fitted to the ReLU network."""

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import snm_kernels
from snm_kernels import SNMRule

from .checks import check_count
from .convert import convert
from .convert.inputs import Progress, batches_of, check_model
from .engine import Run
from .fit import LayerFit, Setting
from .nn import SNMNeuron
from .program import Fire
from .relu_walk import ReLUWalk, relu_pass
from .simulate import SpikingNetwork
from .tuned import Score, Tuned, TunedLayer, best_of

_MOST_IMAGES = 1000
_ELEMENTS = 2**25
"""That a layer is fitted to at most, over all images and time steps: 128 MiB."""
_PRESETS_UNTIL, _SEARCH_UNTIL, _FIT_UNTIL = 0.3, 0.75, 0.85
"""Shares of the time after which no other preset is scored, no other setting tried, and layers
are left as they are."""
_BATCH = 64
_SEEN_MOST, _SEEN_STEPS, _SEEN_LEAST = 128, 1024, 32
"""Images that layers are fitted to: at most, times the time steps, and at least."""
_HELD_STEPS, _HELD_LEAST = 2048, 64
"""Images held back: times the time steps, and at least."""


@torch.no_grad()
def tune(
    net: SpikingNetwork | nn.Module,
    calibration: Tensor | Iterable[Any],
    timesteps: int,
    *,
    max_spikes: int = 1,
    budget: float = 60.0,
    progress: Progress | None = None,
    seed: int = 0,
) -> Tuned:
    r"""Makes a spiking network answer as its ReLU network in few time steps, without training.

    Layer by layer, front to back, candidates run on the drive that the layer has in the spiking
    network, and what they send on average, θ·m(T) / T, is held against the activations of the
    ReLU network, so that a layer also makes up for what those before it lost. For each channel
    the threshold of least squared error; then, per channel and in closed form, a bias that takes
    out the mean error (T times the bias is what a shift of the channel's starting membrane would
    add); the start of the membrane, the negative threshold, a common stretch of
    the thresholds and a dither of neighbouring neurons (a spread of their biases over up to one
    threshold, so that what rounding costs them averages out) such that the logits are closest to
    the ReLU network's if all later layers were ReLUs. In the end the network is compared with
    all presets on images held back, by how far their logits are from the ReLU network's, and the
    best one is returned, so that tuning never loses there.

    Args:
        net: a converted network with encoder="direct"; or a ReLU network, which is converted as
            :func:`snm.convert` does by default. It stays as it is.
        calibration: unlabelled images ``[N, ...]`` or batches of them, as for
            :func:`snm.convert`, two at least; 1,000 are used at most.
        timesteps: T, for which the network is tuned, >= 1.
        max_spikes: Γ, the most spikes that a neuron may send in one step, 1 to 127.
        budget: about how long it may take; when time is short, fewer candidates are tried.
        progress: wraps the layers of neurons, as ``tqdm`` does.
        seed: which images are used, and for what. The same seed gives the same network unless
            time was short.

    Returns:
        :class:`Tuned`: the network and what was chosen for each layer; ``print`` shows a table,
        which the network keeps as ``tuning`` and files hold.

    Raises:
        ValueError: net has another encoder than "direct"; there are fewer than two images, or
            they are not as the network takes them; timesteps, max_spikes or budget is out of
            range.
        TypeError: an argument is of the wrong type.
        ConversionError: the ReLU network cannot be converted.

    Source: the bias from the mean error: Li, Deng, Dong, Gong, Gu, "A Free Lunch From ANN: Towards
    Efficient, Accurate Spiking Neural Networks Calibration", ICML 2021. The start of the
    membrane: Deng and Gu, "Optimal Conversion of Conventional Artificial Neural Networks to
    Spiking Neural Networks", ICLR 2021; Bu et al., "Optimal ANN-SNN Conversion for High-accuracy
    and Ultra-low-latency Spiking Neural Networks", ICLR 2022. Thresholds of channels scaled on
    data: Bu, Li, Yu, "Inference-Scale Complexity in ANN-SNN Conversion for High-Performance and
    Low-Power Applications", CVPR 2025. Ordered dither: Bayer, "An Optimum Method for Two-Level
    Rendition of Continuous-Tone Pictures", ICC 1973.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    >>> tuned = tune(model, torch.rand(64, 4), timesteps=2)
    >>> tuned.net(torch.rand(2, 4), timesteps=2).shape
    torch.Size([2, 3])
    >>> tuned.scores[tuned.chosen] == max(tuned.scores.values())
    True
    """
    steps = check_count("snm.tune", "timesteps", timesteps)
    _check_numbers(max_spikes, budget, seed)
    clock = _Clock(budget)
    if not isinstance(net, SpikingNetwork):
        device, dtype = check_model(net)
        images = _images(calibration, device, dtype, seed)
        net = convert(net, images)
    else:
        _check_network(net)
        device = next(iter(net.layers.values())).threshold.device
        images = _images(calibration, device, net.dtype, seed)
    _check_size(net, images)
    held, seen = _shared_out(net, images, steps)
    candidates = _presets(net, max_spikes)
    scores = _scores(candidates, held, steps, lambda: clock.share() < _PRESETS_UNTIL)
    best = best_of(scores)
    fitting = _Fitting(candidates[best], seen, max_spikes, clock, progress)
    tuned, layers = fitting.run(steps)
    scores |= _scores({"tuned": tuned}, held, steps, lambda: True)
    candidates["tuned"] = tuned
    chosen = best_of(scores)
    complete = len(scores) == len(candidates) and fitting.complete
    made = copy.deepcopy(candidates[chosen])
    result = Tuned(made, steps, chosen, scores, layers, complete)
    made.tuning = str(result)
    return result


class _Clock:
    """How much of the time is gone."""

    def __init__(self, budget: float) -> None:
        self.start = time.monotonic()
        self.budget = budget

    def share(self) -> float:
        return (time.monotonic() - self.start) / self.budget


class _Fitting(Run):
    """A simulation in which each layer of neurons is fitted when its drive is known."""

    def __init__(
        self,
        net: SpikingNetwork,
        images: Tensor,
        max_spikes: int,
        clock: _Clock,
        progress: Progress | None,
    ) -> None:
        self.net = _variant(net, net.layers)
        super().__init__(self.net.program, self.net.model, images)
        self.max_spikes = max_spikes
        self.clock = clock
        self.complete = True
        """All layers were searched to the end."""
        self._exact, self._mixed = (ReLUWalk(self.program, self.model, images) for _ in range(2))
        _, self._logits = relu_pass(self.net, images)
        self._found: list[TunedLayer] = []
        neurons = self.program.neurons
        self._layers: Iterator[Any] = iter(neurons if progress is None else progress(neurons))

    def run(self, steps: int) -> tuple[SpikingNetwork, tuple[TunedLayer, ...]]:
        """The fitted network, and what was chosen."""
        self.advance(steps, None)
        next(self._layers, None)
        return self.net, tuple(self._found)

    def _fire(
        self, fire: Fire, values: dict[str, Any], steps: int, counted: dict[str, Tensor] | None
    ) -> None:
        next(self._layers, None)
        self._fit(fire, *self.drive_of(fire, values, steps))
        super()._fire(fire, values, steps, counted)

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
            shared=fire.name == self.program.output,
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
        threshold = torch.where(given.threshold.isinf(), 1.0, given.threshold)
        finite = torch.where(given.threshold.isinf(), 1.0, found.neuron.threshold)
        assert found.neuron.bias is not None
        self._found.append(
            TunedLayer(
                path=fire.path,
                scale=(finite / threshold).mean().item(),
                rule=found.neuron.rule,
                dither=found.setting.dither,
                bias=(len(drive) * found.neuron.bias / finite).abs().mean().item(),
                error=_error(found.rate, target),
                before=_error(before, target),
            )
        )

    def _may_search(self) -> bool:
        going = self.clock.share() < _SEARCH_UNTIL
        self.complete &= going
        return going


def _check_numbers(max_spikes: object, budget: object, seed: object) -> None:
    if check_count("snm.tune", "max_spikes", max_spikes) > 127:
        raise ValueError(f"snm.tune: max_spikes must be 1 to 127, got {max_spikes}")
    if isinstance(budget, bool) or not isinstance(budget, int | float):
        raise TypeError(f"snm.tune: budget must be a number, got {budget!r}")
    if not (budget > 0 and math.isfinite(budget)):
        raise ValueError(f"snm.tune: budget must be > 0 and finite, got {budget}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"snm.tune: seed must be an integer, got {seed!r}")


def _check_network(net: SpikingNetwork) -> None:
    if net.encoder != "direct":
        raise ValueError(
            "snm.tune: net must have encoder='direct', whose images are constant in time, got "
            f"encoder={net.encoder!r}"
        )


def _check_size(net: SpikingNetwork, images: Tensor) -> None:
    net._check_images(images)
    bound = net.fixed_size or any(fire.per_neuron for fire in net.program.neurons)
    if bound and tuple(images.shape[1:]) != net.image_shape:
        raise ValueError(
            f"snm.tune: calibration must be images of {list(net.image_shape)} each, got "
            f"{list(images.shape[1:])}"
        )


def _images(
    calibration: Tensor | Iterable[Any],
    device: torch.device | None,
    dtype: torch.dtype | None,
    seed: int,
) -> Tensor:
    """The images to use, in random order."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(calibration, Tensor) and calibration.dim() > 1:
        calibration = _rows(calibration, _order(len(calibration), generator)[:_MOST_IMAGES])
    found: list[Tensor] = []
    for batch in batches_of(calibration, None, device, dtype):
        found.append(batch)
        if sum(map(len, found)) >= _MOST_IMAGES:
            break
    if sum(map(len, found)) < 2:
        raise ValueError(
            f"snm.tune: calibration must hold at least two images, got {sum(map(len, found))}"
        )
    images = torch.cat(found)[:_MOST_IMAGES]
    return _rows(images, _order(len(images), generator))


def _order(count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=generator)


def _rows(images: Tensor, order: Tensor) -> Tensor:
    """Images in another order, in the same memory format."""
    picked = images[order.to(images.device)]
    if images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last):
        return picked.contiguous(memory_format=torch.channels_last)
    return picked


def _shared_out(net: SpikingNetwork, images: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The images that are held back, and those that layers are fitted to."""
    held = min(len(images) // 3 or 1, max(_HELD_STEPS // steps, _HELD_LEAST))
    fitting = _ELEMENTS // (steps * max(1, net.program.elements_per_step))
    seen = min(_SEEN_MOST, max(_SEEN_STEPS // steps, _SEEN_LEAST), max(1, fitting))
    return images[:held], images[held : held + seen]


def _presets(net: SpikingNetwork, max_spikes: int) -> dict[str, SpikingNetwork]:
    """The network with each preset that sends no more spikes, and as it was given."""
    rules: dict[str, SNMRule] = {}
    for name in ("snm-zero", *snm_kernels.PRESETS):
        options = {"max_spikes": max_spikes} if name == "burst" else {}
        rule = snm_kernels.preset(name, **options)
        if rule not in rules.values():
            rules[name] = rule
    found = {
        name: _variant(
            net,
            {path: _neuron(neuron, rule, net.dtype) for path, neuron in net.layers.items()},
        )
        for name, rule in rules.items()
    }
    own = {neuron.rule for neuron in net.layers.values()}
    if len(own) > 1 or not own.issubset(rules.values()):
        found["as given"] = _variant(net, net.layers)
    return found


def _neuron(neuron: SNMNeuron, rule: SNMRule, dtype: torch.dtype) -> SNMNeuron:
    """Neurons of another rule."""
    made = SNMNeuron(neuron.threshold, rule, bias=neuron.bias, backend=neuron.backend)
    return made.to(dtype).eval()


def _variant(net: SpikingNetwork, layers: Mapping[str, SNMNeuron]) -> SpikingNetwork:
    """A network with other neurons that shares all else with a network."""
    shared = [*net.parameters(), *net.buffers()]
    made = copy.deepcopy(net, {id(tensor): tensor for tensor in shared})
    made.reset()
    for path, neuron in layers.items():
        made.model.set_submodule(path, neuron)
    return made


def _scores(
    candidates: Mapping[str, SpikingNetwork],
    images: Tensor,
    steps: int,
    go_on: Callable[[], bool],
) -> dict[str, Score]:
    """How candidates compare; of the first in any case, of the others while there is time."""
    first = next(iter(candidates.values()))
    expected = torch.cat([relu_pass(first, part)[1] for part in images.split(_BATCH)]).float()
    variance = expected.var(correction=0).clamp(min=torch.finfo(torch.float32).tiny)
    scores: dict[str, Score] = {}
    for name, net in candidates.items():
        if scores and not go_on():
            break
        with warnings.catch_warnings():
            # That a preset bounds counts below T is what the score says.
            warnings.simplefilter("ignore", UserWarning)
            answers = torch.cat([_answer(net, part, steps) for part in images.split(_BATCH)])
        same = (answers.argmax(1) == expected.argmax(1)).float().mean().item()
        closeness = -((answers - expected).square().mean() / variance).item()
        scores[name] = Score(closeness, same)
    return scores


def _answer(net: SpikingNetwork, images: Tensor, steps: int) -> Tensor:
    """Logits, of counted spikes too, float32."""
    answer: Tensor = net(images, timesteps=steps)
    if net.readout == "count":
        answer = next(reversed(net.layers.values())).amplitude(answer) / steps
    return answer.float()


def _error(rate: Tensor, target: Tensor) -> float:
    """Mean squared error, in mean squares of the target."""
    power = target.float().square().mean().clamp(min=torch.finfo(torch.float32).tiny)
    return ((rate - target).square().mean() / power).item()
