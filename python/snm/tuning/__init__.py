"""Few time steps without training: thresholds, starts and biases fitted to the ReLU network."""

import copy
import dataclasses
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import snm_kernels
from snm_kernels import SNMRule

from ..conversion import convert
from ..conversion.inputs import Progress, batches_of, check_model
from ..conversion.lowering.layout import reads
from ..frames import callers_level
from ..network.checks import check_count
from ..network.fitted import replace_layer, sharing_tensors
from ..network.memory import images_that_fit
from ..network.program import Call, Fire, Program
from ..network.relu import ReLUWalk, relu_logits
from ..network.rows import rows_of
from ..network.run import Run
from ..network.spiking import SpikingNetwork
from ..network.until import check_direct
from ..nn import SNMNeuron
from .neurons import LayerFit, Setting
from .result import FittedWeights, Score, Tuned, TunedLayer, best_of
from .weights import can_be_refitted, refitted

_MOST_IMAGES = 1000
_BATCH = 64
_SEEN_MOST, _SEEN_STEPS, _SEEN_LEAST, _SEEN_TIME = 128, 1024, 32, 0.2
"""Images that layers are fitted to: at most; times the time steps; at least; and what share of the
time one simulation of them takes at most."""
_HELD_STEPS, _HELD_LEAST, _HELD_TIME = 2048, 64, 0.1
"""Images held back, likewise."""
_PROBED = 8
"""Images whose simulation is timed to find that out."""
_ENOUGH = 16
"""Images below which what layers are fitted to says little."""
_WEIGHTS_TIME = 0.3
"""Share of the time that weights are fitted for, at most."""
_PRESETS_UNTIL, _SEARCH_UNTIL, _FIT_UNTIL = 0.3, 0.75, 0.85
"""Shares of the time after which no other preset is scored, no other setting tried, and layers
are left as they are."""


@torch.no_grad()
def tune(
    net: SpikingNetwork | nn.Module,
    calibration: Tensor | Iterable[Any],
    timesteps: int,
    *,
    max_spikes: int = 1,
    weights: bool = True,
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
    the ReLU network's if all later layers were ReLUs. The weights between neurons follow by least
    squares: what a convolution or linear layer makes of mean spikes is held against what it makes
    of activations. In the end the network is compared with all presets on images held back. Of
    those whose answers agree with the ReLU network's most often, within one standard error, the
    one whose logits are closest is returned, which may be a preset.

    Args:
        net: a converted network with encoder="direct"; or a ReLU network, which is converted as
            :func:`snm.convert` does by default. It stays as it is.
        calibration: unlabelled images ``[N, ...]`` or batches of them, as for
            :func:`snm.convert`, two at least; 1,000 are used at most.
        timesteps: T, for which the network is tuned, >= 1.
        max_spikes: Γ, the most spikes that a neuron may send in one step, 1 to 127.
        weights: fit those of layers that are called once, as modules; False leaves all weights as
            they are. The network keeps what they were, for :func:`snm.diagnose`.
        budget: about how long it may take; when time is short, fewer candidates are tried.
        progress: wraps the layers of neurons, as ``tqdm`` does.
        seed: which images are used, and for what. The same seed gives the same network unless
            time was short.

    Returns:
        :class:`Tuned`: the network and what was chosen for each layer; ``print`` shows a table,
        which the network keeps as ``tuning`` and files hold.

    Raises:
        ValueError: net has another encoder than "direct", or is tuned; there are fewer than two
            images, or they are not as the network takes them; timesteps, max_spikes or budget is
            out of range.
        TypeError: an argument is of the wrong type.
        ConversionError: the ReLU network cannot be converted.

    Warns:
        UserWarning: there is memory or time for fewer than 16 images to fit layers to.

    Source: the bias from the mean error: Li, Deng, Dong, Gong, Gu, "A Free Lunch From ANN: Towards
    Efficient, Accurate Spiking Neural Networks Calibration", ICML 2021. The start of the
    membrane: Deng and Gu, "Optimal Conversion of Conventional Artificial Neural Networks to
    Spiking Neural Networks", ICLR 2021; Bu et al., "Optimal ANN-SNN Conversion for High-accuracy
    and Ultra-low-latency Spiking Neural Networks", ICLR 2022. Thresholds of channels scaled on
    data: Bu, Li, Yu, "Inference-Scale Complexity in ANN-SNN Conversion for High-Performance and
    Low-Power Applications", CVPR 2025. Weights by least squares: Hubara et al., "Accurate Post
    Training Quantization With Small Calibration Sets", ICML 2021, for quantised ReLU networks.
    Ordered dither: Bayer, "An Optimum Method for Two-Level
    Rendition of Continuous-Tone Pictures", ICC 1973.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    >>> tuned = tune(model, torch.rand(64, 4), timesteps=2)
    >>> tuned.net(torch.rand(2, 4), timesteps=2).shape
    torch.Size([2, 3])
    >>> tuned.chosen in tuned.scores, tuned.fitted_to, tuned.held_back
    (True, 43, 21)
    """
    steps = check_count("snm.tune", "timesteps", timesteps)
    _check_numbers(max_spikes, budget, seed)
    clock = _Clock(budget)
    device: torch.device | None
    if isinstance(net, SpikingNetwork):
        _check_network(net)
        device = next(iter(net.layers.values())).threshold.device
        images = _images(calibration, device, net.dtype, seed)
        held, others = _shared_out(images, steps)
    else:
        device, dtype = check_model(net, "snm.tune")
        images = _images(calibration, device, dtype, seed)
        held, others = _shared_out(images, steps)
        net = convert(net, others)
    _check_size(net, images)
    candidates = _presets(net, max_spikes)
    affordable = clock.seconds / _seconds_per_image(candidates, others[:_PROBED], steps)
    held, complete = _first(held, affordable * _HELD_TIME)
    seen, fully = _first(others[: _most_seen(net, others, steps)], affordable * _SEEN_TIME)
    if len(seen) < min(_ENOUGH, len(others)):
        warnings.warn(
            f"snm.tune: layers are fitted to {len(seen)} images, for which there is memory and "
            "time; smaller ones, fewer timesteps or a larger budget make it more",
            stacklevel=callers_level(),
        )
    expected = _expected(net, held)
    scores = _scores(candidates, held, expected, steps, lambda: clock.share() < _PRESETS_UNTIL)
    complete = complete and fully and len(scores) == len(candidates)
    best = best_of(scores, len(held))
    fitting = _Fitting(candidates[best], seen, max_spikes, weights, clock, progress)
    tuned, layers, refits = fitting.run(steps)
    if layers or refits:
        tuned.tuned_for = steps
        candidates["tuned"] = tuned
        scores |= _scores({"tuned": tuned}, held, expected, steps, lambda: True)
    chosen = best_of(scores, len(held))
    made = copy.deepcopy(candidates[chosen])
    complete = complete and fitting.complete
    result = Tuned(made, steps, chosen, scores, layers, refits, len(seen), len(held), complete)
    made.tuning = str(result)
    return result


class _Clock:
    """How much of the time is gone."""

    def __init__(self, seconds: float) -> None:
        self.start = time.monotonic()
        self.seconds = seconds

    def share(self) -> float:
        return (time.monotonic() - self.start) / self.seconds


class _Fitting(Run):
    """A simulation in which each layer of neurons is fitted when its drive is known."""

    def __init__(
        self,
        net: SpikingNetwork,
        images: Tensor,
        max_spikes: int,
        weights: bool,
        clock: _Clock,
        progress: Progress | None,
    ) -> None:
        self.net = _variant(net, {path: neuron.rule for path, neuron in net.layers.items()})
        super().__init__(self.net.program, self.net.model, images)
        self.max_spikes = max_spikes
        self.clock = clock
        self.complete = True
        """All layers were searched to the end."""
        self._exact, self._mixed = (ReLUWalk(self.program, self.model, images) for _ in range(2))
        self._logits = relu_logits(self.net, images)
        self._found: list[TunedLayer] = []
        self._refits: dict[str, FittedWeights] = {}
        self._to_refit = _calls_to_refit(self.program, self.model) if weights else frozenset()
        neurons = self.program.neurons
        self._layers: Iterator[Any] = iter(neurons if progress is None else progress(neurons))

    def run(
        self, steps: int
    ) -> tuple[SpikingNetwork, tuple[TunedLayer, ...], dict[str, FittedWeights]]:
        """The fitted network, and what was chosen and fitted."""
        self.advance(steps, None)
        next(self._layers, None)
        exact, values = self._exact.tail(), self.means(self.counts(), steps)
        for call in self.program.tail:
            if call.name in self._to_refit:
                self._refit(call, values[call.args[0].name], exact[call.name])
            values[call.name] = call.run(self.model, values)
        return self.net, tuple(self._found), self._refits

    def _call(self, call: Call, values: dict[str, Any]) -> Any:
        if call.name in self._to_refit:
            inputs: Tensor = values[call.args[0].name]
            over_time = self._over_time(inputs, len(inputs) // self.batch, constant=False)
            mean = over_time.mean(0, dtype=torch.float32)
            self._refit(call, mean, self._exact.result_of(call))
        return super()._call(call, values)

    def _refit(self, call: Call, inputs: Tensor, wanted: Tensor) -> None:
        """Fits the weights of the layer that a call calls."""
        path = str(call.target)
        until = self.clock.share() + _WEIGHTS_TIME / len(self._to_refit)

        def go_on() -> bool:
            going = self.clock.share() < min(until, _FIT_UNTIL)
            self.complete &= going
            return going

        found = refitted(self.model.get_submodule(path), inputs, wanted, go_on)
        if found is not None:
            replace_layer(self.model, path, found.layer)
            self._refits[path] = FittedWeights(found.change, found.error, found.before)

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


def _calls_to_refit(program: Program, model: nn.Module) -> frozenset[str]:
    """The names of the calls of layers whose weights can be fitted to what neurons send."""
    calls = [step for step in (*program.static, *program.temporal) if isinstance(step, Call)]
    modules = Counter(call.target for call in (*calls, *program.tail) if call.kind == "module")
    changing = {step.name for step in program.temporal}
    for call in program.tail:
        if changing.intersection(reads(call)):
            changing.add(call.name)
    return frozenset(
        call.name
        for call in (*calls, *program.tail)
        if call.kind == "module"
        and modules[call.target] == 1
        and len(call.args) == 1
        and not call.kwargs
        and changing.intersection(reads(call))
        and can_be_refitted(model.get_submodule(str(call.target)))
    )


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
    check_direct("snm.tune", net)
    if net.tuned_for is not None:
        raise ValueError(
            f"snm.tune: net must not be tuned yet, got one tuned for {net.tuned_for} time steps; "
            "give the network that it was made of"
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
        order = torch.randperm(len(calibration), generator=generator)
        calibration = rows_of(calibration, order[:_MOST_IMAGES])
        for images in batches_of((calibration,), None, device, dtype, "snm.tune"):
            return _checked(images)
        return _checked(calibration)
    found: list[Tensor] = []
    for batch in batches_of(calibration, None, device, dtype, "snm.tune"):
        found.append(batch)
        if batch.shape[1:] != found[0].shape[1:]:
            raise ValueError(
                f"snm.tune: calibration must be images of one size, got {list(batch.shape[1:])} "
                f"after {list(found[0].shape[1:])}"
            )
        if sum(map(len, found)) >= _MOST_IMAGES:
            break
    if not found:
        return _checked(torch.empty(0))
    images = torch.cat(found)[:_MOST_IMAGES]
    return _checked(rows_of(images, torch.randperm(len(images), generator=generator)))


def _checked(images: Tensor) -> Tensor:
    if len(images) < 2:
        raise ValueError(f"snm.tune: calibration must hold at least two images, got {len(images)}")
    return images


def _shared_out(images: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The images that are held back, and the others."""
    held = min(len(images) // 3 or 1, max(_HELD_STEPS // steps, _HELD_LEAST))
    return images[:held], images[held:]


def _most_seen(net: SpikingNetwork, images: Tensor, steps: int) -> int:
    """How many images layers are fitted to, if there is time."""
    bytes_per_image = images.element_size() * steps * net._elements_per_step(images)
    wanted = min(_SEEN_MOST, max(_SEEN_STEPS // steps, _SEEN_LEAST))
    return int(min(wanted, images_that_fit(bytes_per_image, images.device)))


def _first(images: Tensor, affordable: float) -> tuple[Tensor, bool]:
    """As many images as there is time for, and whether these are all."""
    count = max(1, int(min(affordable, len(images))))
    return images[:count], count == len(images)


def _seconds_per_image(
    candidates: Mapping[str, SpikingNetwork], images: Tensor, steps: int
) -> float:
    """What a simulation takes, once libraries are warm."""
    net = next(iter(candidates.values()))
    seconds = []
    for _ in range(2):
        start = time.monotonic()
        _answer(net, images, steps)
        seconds.append(time.monotonic() - start)
    return min(seconds) / len(images)


def _presets(net: SpikingNetwork, max_spikes: int) -> dict[str, SpikingNetwork]:
    """The network with each preset that sends no more spikes, and as it was given."""
    rules: dict[str, SNMRule] = {}
    for name in ("snm-zero", *snm_kernels.PRESETS):
        options = {"max_spikes": max_spikes} if name == "burst" else {}
        rule = snm_kernels.preset(name, **options)
        graded = dataclasses.replace(rule, max_spikes=max_spikes)
        for title, one in ((name, rule), (f"{name}, {max_spikes} spikes", graded)):
            if one not in rules.values():
                rules[title] = one
    found = {name: _variant(net, dict.fromkeys(net.layers, rule)) for name, rule in rules.items()}
    own = {path: neuron.rule for path, neuron in net.layers.items()}
    new = len(set(own.values())) > 1 or not set(own.values()).issubset(rules.values())
    if new and all(rule.max_spikes <= max_spikes for rule in own.values()):
        found["as given"] = _variant(net, own)
    return found


def _variant(net: SpikingNetwork, rules: Mapping[str, SNMRule]) -> SpikingNetwork:
    """A network with neurons of other rules, and no hooks on them, that shares all else."""
    layers = net.layers
    made = sharing_tensors(net)
    made.reset()
    for path, rule in rules.items():
        given = layers[path]
        neuron = SNMNeuron(given.threshold, rule, bias=given.bias, backend=given.backend)
        made.model.set_submodule(path, neuron.to(net.dtype).eval())
    return made


def _expected(net: SpikingNetwork, images: Tensor) -> Tensor:
    """The ReLU network's logits, float32."""
    return torch.cat([relu_logits(net, part) for part in images.split(_BATCH)]).float()


def _scores(
    candidates: Mapping[str, SpikingNetwork],
    images: Tensor,
    expected: Tensor,
    steps: int,
    go_on: Callable[[], bool],
) -> dict[str, Score]:
    """How candidates compare; of the first in any case, of the others while there is time."""
    variance = expected.var(correction=0).clamp(min=torch.finfo(torch.float32).tiny)
    scores: dict[str, Score] = {}
    for name, net in candidates.items():
        if scores and not go_on():
            break
        answers = torch.cat([_answer(net, part, steps) for part in images.split(_BATCH)])
        error = ((answers - expected).square().mean() / variance).item()
        scores[name] = Score(error, _agreement(answers, expected))
    return scores


def _agreement(answers: Tensor, expected: Tensor) -> float:
    """Share of the answers of the same class; 1 where there are no classes."""
    if answers.dim() < 2:
        return 1.0
    return (answers.argmax(1) == expected.argmax(1)).float().mean().item()


def _answer(net: SpikingNetwork, images: Tensor, steps: int) -> Tensor:
    """Logits, of counted spikes too, float32."""
    with warnings.catch_warnings():
        # That a preset bounds counts below T is what the score says.
        warnings.simplefilter("ignore", UserWarning)
        answer: Tensor = net(images, timesteps=steps)
    if net.readout == "count":
        answer = next(reversed(net.layers.values())).amplitude(answer) / steps
    return answer.float()


def _error(rate: Tensor, target: Tensor) -> float:
    """Mean squared error, in mean squares of the target."""
    power = target.float().square().mean().clamp(min=torch.finfo(torch.float32).tiny)
    return ((rate - target).square().mean() / power).item()
