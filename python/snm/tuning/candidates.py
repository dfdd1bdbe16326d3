"""Makes the networks that tuning compares, and scores how well they answer."""

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
"""How many images are simulated at once."""


def preset_candidates(net: SpikingNetwork, max_spikes: int) -> dict[str, SpikingNetwork]:
    """A network with each preset that sends at most ``max_spikes`` in a step, by the preset's name;
    and the network with its own rules, as ``"as given"``, where no preset has these."""
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
    """A copy of a network whose neurons follow other rules and have no hooks; it shares the rest.

    Args:
        net: the network to copy.
        rules: the rule of each layer of neurons, by path.
    """
    layers = net.layers
    made = sharing_tensors(net)
    made.reset()
    for path, rule in rules.items():
        old = layers[path]
        neuron = SNMNeuron(old.threshold, rule, bias=old.bias, backend=old.backend)
        made.model.set_submodule(path, neuron.to(net.dtype).eval())
    return made


def seconds_per_image(
    candidates: Mapping[str, SpikingNetwork], images: Tensor, steps: int
) -> float:
    """How many seconds a simulation takes per image, once libraries are warm."""
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
    """The scores of candidates by name.

    Args:
        candidates: the networks to compare, by name.
        images: those to compare them on.
        expected: the ReLU network's logits for these images.
        steps: how many time steps to simulate.
        go_on: whether there is time for another candidate; the first one is scored in any case.
    """
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
    """The share of answers with the same class as expected; 1 where there are no classes."""
    if answers.dim() < 2:
        return 1.0
    return (answers.argmax(1) == expected.argmax(1)).float().mean().item()


def _answer(net: SpikingNetwork, images: Tensor, steps: int) -> Tensor:
    """A network's logits, float32; of a network that counts spikes, what its counts stand for."""
    with warnings.catch_warnings():
        # A preset whose counts are bounded below T warns; its score tells as much.
        warnings.simplefilter("ignore", UserWarning)
        answer: Tensor = net(images, timesteps=steps)
    if net.readout == "count":
        answer = next(reversed(net.layers.values())).amplitude(answer) / steps
    return answer.float()
