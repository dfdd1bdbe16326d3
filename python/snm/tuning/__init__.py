"""Tunes a network for few time steps without training: layers are fitted to the ReLU network."""

import copy
import math
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..conversion import convert
from ..conversion.inputs import Progress, check_model
from ..frames import callers_level
from ..network.checks import check_count
from ..network.inputs import check_direct, check_floating
from ..network.spiking import SpikingNetwork
from .candidates import expected_logits, preset_candidates, scores_of, seconds_per_image
from .fitting import Clock, FittingRun
from .images import affordable, check_size, held_back, images_in_random_order, most_seen
from .result import Tuned, best_of

_SEEN_TIME = 0.2
"""The largest share of the budget that simulating the images that layers are fitted to once may
take."""
_HELD_TIME = 0.1
"""The largest share of the budget that simulating the images held back once may take."""
_PROBED = 8
"""How many images are simulated to find out how long a simulation takes."""
_ENOUGH = 16
"""How many images layers should be fitted to at least; fewer say little."""
_PRESETS_UNTIL = 0.3
"""The share of the budget after which no other preset is scored."""


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

    Layers are fitted one by one, front to back. Candidates for a layer run on the drive that the
    layer has in the spiking network, and what they send on average, θ·m(T) / T, is compared with
    the activations of the ReLU network, so that a layer also makes up for what those before it
    lost. Each channel gets the threshold of least squared error; then, in closed form, a bias that
    takes out the channel's mean error (T times the bias is what a shift of the channel's starting
    membrane would add). The start of the membrane, the negative threshold, a common stretch of
    the thresholds and a dither of neighbouring neurons (biases that differ by up to one threshold,
    so that what rounding costs the neurons averages out) are chosen such that the logits would be
    closest to the ReLU network's if all later layers were ReLUs. The weights between neurons follow
    by least squares: what a convolution or linear layer makes of mean spikes is compared with what
    it makes of activations. In the end the network is compared with all presets on images held
    back. Of those whose answers agree with the ReLU network's most often, within one standard
    error, the one whose logits are closest is returned, which may be a preset.

    Args:
        net: a converted network with encoder="direct"; or a ReLU network, which is converted as
            :func:`snm.convert` does by default. It is not changed.
        calibration: at least two unlabelled images ``[N, ...]``, or batches of them, as for
            :func:`snm.convert`; at most 1,000 are used.
        timesteps: T, the number of time steps that the network is tuned for, >= 1.
        max_spikes: Γ, the most spikes that a neuron may send in one step, 1 to 127.
        weights: whether to fit the weights of layers that are called once, as modules, too. The
            network keeps the weights from before, for :func:`snm.diagnose`.
        budget: about how many seconds it may take; when time is short, fewer candidates are tried.
        progress: wraps the layers of neurons, as ``tqdm`` does.
        seed: decides which images are used, and for what. The same seed gives the same network
            unless time was short.

    Returns:
        :class:`Tuned`: the network and what was chosen for each layer. ``print`` shows it as a
        table, which the network keeps as ``tuning`` and files hold too.

    Raises:
        ValueError: net has another encoder than "direct", is tuned already or is one of integers;
            there are fewer than two images, or the network cannot take them; timesteps, max_spikes
            or budget is out of range.
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
    clock = Clock(budget)
    device: torch.device | None
    if isinstance(net, SpikingNetwork):
        _check_network(net)
        device = net.device
        images = images_in_random_order(calibration, device, net.dtype, seed)
        held, others = held_back(images, steps)
    else:
        device, dtype = check_model(net, "snm.tune")
        images = images_in_random_order(calibration, device, dtype, seed)
        held, others = held_back(images, steps)
        net = convert(net, others)
    check_size(net, images)
    candidates = preset_candidates(net, max_spikes)
    count = clock.seconds / seconds_per_image(candidates, others[:_PROBED], steps)
    held, complete = affordable(held, count * _HELD_TIME)
    seen, fully = affordable(others[: most_seen(net, others, steps)], count * _SEEN_TIME)
    if len(seen) < min(_ENOUGH, len(others)):
        warnings.warn(
            f"snm.tune: layers are fitted to {len(seen)} images, for which there is memory and "
            "time; smaller ones, fewer timesteps or a larger budget make it more",
            stacklevel=callers_level(),
        )
    expected = expected_logits(net, held)
    scores = scores_of(candidates, held, expected, steps, lambda: clock.share() < _PRESETS_UNTIL)
    complete = complete and fully and len(scores) == len(candidates)
    best = best_of(scores, len(held))
    fitting = FittingRun(candidates[best], seen, max_spikes, weights, clock, progress)
    fitted, layers, fitted_weights = fitting.fit_all(steps)
    if layers or fitted_weights:
        fitted.tuned_for = steps
        candidates["tuned"] = fitted
        scores |= scores_of({"tuned": fitted}, held, expected, steps, lambda: True)
    chosen = best_of(scores, len(held))
    made = copy.deepcopy(candidates[chosen])
    complete = complete and fitting.complete
    result = Tuned(
        made, steps, chosen, scores, layers, fitted_weights, len(seen), len(held), complete
    )
    made.tuning = str(result)
    return result


def _check_numbers(max_spikes: object, budget: object, seed: object) -> None:
    """Refuses numbers of the wrong type or out of range."""
    if check_count("snm.tune", "max_spikes", max_spikes) > 127:
        raise ValueError(f"snm.tune: max_spikes must be 1 to 127, got {max_spikes}")
    if isinstance(budget, bool) or not isinstance(budget, int | float):
        raise TypeError(f"snm.tune: budget must be a number, got {budget!r}")
    if not (budget > 0 and math.isfinite(budget)):
        raise ValueError(f"snm.tune: budget must be > 0 and finite, got {budget}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"snm.tune: seed must be an integer, got {seed!r}")


def _check_network(net: SpikingNetwork) -> None:
    """Refuses a network whose images are not constant in time, or that is tuned already."""
    check_direct("snm.tune", net.encoder)
    check_floating("snm.tune", net.integers, "tune")
    if net.tuned_for is not None:
        raise ValueError(
            f"snm.tune: net must not be tuned yet, got one tuned for {net.tuned_for} time steps; "
            "give the network that it was made of"
        )
