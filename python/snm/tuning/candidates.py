"""The networks that tuning compares, and how well they answer."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

import snm_kernels
from snm_kernels import SNMRule

from ..network.fitted import sharing_tensors
from ..network.relu import relu_logits
from ..network.spiking import SpikingNetwork
from ..nn import SNMNeuron
from .result import Score

_BATCH = 64


def preset_candidates(net: SpikingNetwork, max_spikes: int) -> dict[str, SpikingNetwork]:
    """The network with each preset that sends no more spikes, and as it was given."""
    rules: dict[str, SNMRule] = {}
    for name in ("snm-zero", *snm_kernels.PRESETS):
        options = {"max_spikes": max_spikes} if name == "burst" else {}
        rule = snm_kernels.preset(name, **options)
        graded = dataclasses.replace(rule, max_spikes=max_spikes)
        for title, one in ((name, rule), (f"{name}, {max_spikes} spikes", graded)):
            if one not in rules.values():
                rules[title] = one
    found = {name: with_rules(net, dict.fromkeys(net.layers, rule)) for name, rule in rules.items()}
    own = {path: neuron.rule for path, neuron in net.layers.items()}
    new = len(set(own.values())) > 1 or not set(own.values()).issubset(rules.values())
    if new and all(rule.max_spikes <= max_spikes for rule in own.values()):
        found["as given"] = with_rules(net, own)
    return found


def with_rules(net: SpikingNetwork, rules: Mapping[str, SNMRule]) -> SpikingNetwork:
    """A network with neurons of other rules, and no hooks on them, that shares all else."""
    layers = net.layers
    made = sharing_tensors(net)
    made.reset()
    for path, rule in rules.items():
        given = layers[path]
        neuron = SNMNeuron(given.threshold, rule, bias=given.bias, backend=given.backend)
        made.model.set_submodule(path, neuron.to(net.dtype).eval())
    return made


def seconds_per_image(
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


def expected_logits(net: SpikingNetwork, images: Tensor) -> Tensor:
    """The ReLU network's logits, float32."""
    return torch.cat([relu_logits(net, part) for part in images.split(_BATCH)]).float()


def scores_of(
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
