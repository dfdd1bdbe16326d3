"""Spike trains worked out by hand, of floating thresholds and of integers."""

from dataclasses import dataclass

from snm_kernels import SNMRule, preset


@dataclass(frozen=True)
class Train:
    """A drive at threshold 1 and what the neuron does, step by step."""

    name: str
    rule: SNMRule
    drive: list[float]
    spikes: list[int]
    membranes: list[float]

    def __str__(self) -> str:
        return self.name


TRAINS = [
    Train(
        "snm",
        preset("snm"),
        [0.5, 0.5, 0.75, -1.75, -1.0, 0.0, 3.5, 0.0, -1.5, -0.25],
        [0, 1, 0, -1, 0, 0, 1, 1, -1, 0],
        [0.5, 0.0, 0.75, 0.0, -1.0, -1.0, 1.5, 0.5, 0.0, -0.25],
    ),
    Train(
        "snm sends no more negative spikes than positive ones",
        preset("snm"),
        [1.0, 1.0, -1.0, -1.0, -1.0, -1.0],
        [1, 1, -1, -1, 0, 0],
        [0.0, 0.0, 0.0, 0.0, -1.0, -2.0],
    ),
    Train(
        "snm-half",
        preset("snm-half"),
        [0.25, 0.25, 0.0, -0.75, -0.25, 1.5, 0.5],
        [0, 1, 0, 0, -1, 1, 1],
        [0.75, 0.0, 0.0, -0.75, 0.0, 0.5, 0.0],
    ),
    Train(
        "snm-zero",
        preset("snm-zero"),
        [0.5, 0.0, -0.25, -0.75, -0.25, 0.0],
        [1, 0, -1, 0, 0, 0],
        [0.0, 0.0, 0.75, 0.0, -0.25, -0.25],
    ),
    Train(
        "if",
        preset("if"),
        [0.5, 0.5, -3.0, 2.0, 2.0, 2.5, 0.0],
        [0, 1, 0, 0, 1, 1, 1],
        [0.5, 0.0, -3.0, -1.0, 0.0, 1.5, 0.5],
    ),
    Train(
        "if-half",
        preset("if-half"),
        [0.25, 0.25, -2.0, 3.0],
        [0, 1, 0, 1],
        [0.75, 0.0, -2.0, 0.0],
    ),
    Train(
        "st-bif stops at its levels",
        preset("st-bif", levels=2),
        [1.0, 1.0, 1.0, 1.0, -1.75, -2.0, -1.0, -0.5],
        [1, 1, 0, 0, 0, -1, -1, 0],
        [0.5, 0.5, 1.5, 2.5, 0.75, -0.25, -0.25, -0.75],
    ),
    Train(
        "st-bif, fires again after a correction",
        preset("st-bif", levels=1),
        [0.5, 1.0, -1.5, 0.5],
        [1, 0, -1, 1],
        [0.0, 1.0, 0.5, 0.0],
    ),
    Train(
        "burst",
        preset("burst", max_spikes=3),
        [0.75, 0.25, 2.5, 4.75, 0.0, -5.0, 7.0],
        [0, 1, 2, 3, 2, 0, 2],
        [0.75, 0.0, 0.5, 2.25, 0.25, -4.75, 0.25],
    ),
    Train(
        "strict: equality sends nothing",
        SNMRule(strict=True),
        [2.0, -2.0, -1.0, -0.5],
        [1, 0, -1, 0],
        [1.0, -1.0, -1.0, -1.5],
    ),
    Train(
        "not strict, at zero: a membrane of zero corrects",
        SNMRule(negative_threshold=0.0),
        [1.0, -1.0, 0.0, 0.0],
        [1, -1, 0, 0],
        [0.0, 0.0, 0.0, 0.0],
    ),
    Train(
        "signed without bounds",
        SNMRule(count_min=None),
        [-1.0, -2.0, 0.0, 1.0, 3.0],
        [-1, -1, -1, 1, 1],
        [0.0, -1.0, 0.0, 0.0, 2.0],
    ),
    Train(
        "bounds on both sides",
        SNMRule(count_min=-2, count_max=1),
        [-1.0, -1.0, -1.0, 3.0, 0.0, 2.0, 0.0],
        [-1, -1, 0, 1, 1, 1, 0],
        [0.0, 0.0, -1.0, 1.0, 0.0, 1.0, 1.0],
    ),
    Train(
        "graded, cut by the room that is left",
        SNMRule(max_spikes=4, count_max=5),
        [4.5, 4.5, 0.0, -6.0, 2.0],
        [4, 1, 0, -1, 1],
        [0.5, 4.0, 4.0, -1.0, 0.0],
    ),
    Train(
        "the room counts from the memory before the step",
        SNMRule(count_max=1),
        [1.0, 1.0, -2.0, 1.0],
        [1, 0, -1, 1],
        [0.0, 1.0, 0.0, 0.0],
    ),
]


@dataclass(frozen=True)
class IntegerTrain:
    """A drive of integers at an int32 threshold and what the neuron does, step by step."""

    name: str
    rule: SNMRule
    threshold: int
    drive: list[int]
    spikes: list[int]
    membranes: list[int]

    def __str__(self) -> str:
        return self.name


INTEGER_TRAINS = [
    IntegerTrain(
        "snm",
        preset("snm"),
        10,
        [6, 6, 7, -20, -8, 3, 25, 0, -19, -3],
        [0, 1, 0, -1, 0, 0, 1, 0, -1, 0],
        [6, 2, 9, -1, -9, -6, 9, 9, 0, -3],
    ),
    IntegerTrain(
        "snm-half starts at the floor of half a threshold",
        preset("snm-half"),
        7,
        [3, 1, 7, -14, -6],
        [0, 1, 1, -1, -1],
        [6, 0, 0, -7, -6],
    ),
    IntegerTrain(
        "snm-zero",
        preset("snm-zero"),
        5,
        [3, 0, -1, -1, 0],
        [1, 0, -1, 0, 0],
        [0, 0, 4, 3, 3],
    ),
    IntegerTrain("if", preset("if"), 3, [2, 1, -7, 20, 0], [0, 1, 0, 1, 1], [2, 0, -7, 10, 7]),
    IntegerTrain("if-half", preset("if-half"), 9, [4, 1, -9], [0, 1, 0], [8, 0, -9]),
    IntegerTrain(
        "st-bif stops at its levels",
        preset("st-bif", levels=2),
        4,
        [4, 4, 4, -10, -5],
        [1, 1, 0, -1, -1],
        [2, 2, 6, 0, -1],
    ),
    IntegerTrain(
        "burst",
        preset("burst", max_spikes=3),
        4,
        [3, 1, 11, 17, 0, -20, 27],
        [0, 1, 2, 3, 2, 0, 1],
        [3, 0, 3, 8, 0, -20, 3],
    ),
    IntegerTrain(
        "a fraction of an odd threshold, met from above",
        SNMRule(negative_threshold=0.5),
        5,
        [5, -2, -1],
        [1, 0, -1],
        [0, -2, 2],
    ),
    IntegerTrain(
        "a fraction of an even threshold, and strict",
        SNMRule(negative_threshold=0.5, strict=True),
        4,
        [4, -2, -1],
        [1, 0, -1],
        [0, -2, 1],
    ),
    IntegerTrain(
        "a start below zero is rounded down",
        SNMRule(v_init=-0.5, negative_threshold=None),
        5,
        [0, 8],
        [0, 1],
        [-3, 0],
    ),
]
