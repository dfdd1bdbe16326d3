"""The neuron's rule, which says when a neuron fires, and the rules with names."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ._checks import fits_float32

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True, slots=True)
class SNMRule:
    r"""One signed neuron with memory; frozen, hashable, compared by value.

    With threshold ``θ``, membrane ``v`` and memory ``m`` (the net number of spikes sent so far),
    a time step with drive ``c`` does, in float32 with one rounding per operation::

        u = v + c
        s = min(floor(u / θ), max_spikes, count_max - m)   if u >= θ and m < count_max
        s = -1                                             else if u <= -ν·θ and m > count_min
        s = 0                                              otherwise
        v = u - s·θ ;  m = m + s

    A neuron whose threshold is +inf starts at 0 and never fires. A NaN drive, or a NaN membrane to
    go on from, leaves its neuron silent and its membrane NaN.

    Args:
        v_init: starting membrane as a fraction of the threshold; finite.
        negative_threshold: ν, the negative threshold as a fraction of θ, finite and >= 0;
            None for a neuron that sends no negative spikes.
        strict: send a negative spike only if ``u < -ν·θ``, not on equality.
        max_spikes: Γ, the most spikes that one step may send, 1 to 127.
        count_min: the memory never falls below it by a negative spike; None for no bound.
        count_max: the memory never rises above it; None for no bound.

    Raises:
        TypeError, ValueError: a field has the wrong type or is out of its range.

    Source: Wang, Zhang, Chen, Qu, "Signed Neuron with Memory: Towards Simple, Accurate and
    High-Efficient ANN-SNN Conversion", IJCAI 2022.

    >>> SNMRule(v_init=0.5, count_max=4).count_max
    4
    """

    v_init: float = 0.0
    negative_threshold: float | None = 1.0
    strict: bool = False
    max_spikes: int = 1
    count_min: int | None = 0
    count_max: int | None = None

    def __post_init__(self) -> None:
        for name in ("v_init", "negative_threshold"):
            value = getattr(self, name)
            if value is None and name == "negative_threshold":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"SNMRule: {name} must be a number, got {value!r}")
            if not (math.isfinite(value) and fits_float32(value)):
                raise ValueError(f"SNMRule: {name} must be finite in float32, got {value!r}")
        if self.negative_threshold is not None and self.negative_threshold < 0:
            raise ValueError(
                f"SNMRule: negative_threshold must be >= 0 or None, got {self.negative_threshold!r}"
            )
        if not isinstance(self.strict, bool):
            raise TypeError(f"SNMRule: strict must be a bool, got {self.strict!r}")
        for name in ("max_spikes", "count_min", "count_max"):
            value = getattr(self, name)
            if value is None and name != "max_spikes":
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"SNMRule: {name} must be an int, got {value!r}")
            if not INT32_MIN <= value <= INT32_MAX:
                raise ValueError(f"SNMRule: {name} must fit in int32, got {value!r}")
        if not 1 <= self.max_spikes <= 127:
            raise ValueError(f"SNMRule: max_spikes must be 1 to 127, got {self.max_spikes}")
        low, high = self.count_bounds
        if not low <= 0 <= high:
            raise ValueError(
                "SNMRule: count_min <= 0 <= count_max must hold, "
                f"got count_min={self.count_min}, count_max={self.count_max}"
            )

    @property
    def count_bounds(self) -> tuple[int, int]:
        """The smallest and the largest memory; int32's own where there is no bound."""
        low = INT32_MIN if self.count_min is None else self.count_min
        high = INT32_MAX if self.count_max is None else self.count_max
        return low, high

    def largest_count(self, timesteps: int) -> int:
        """The largest memory that there can be after so many time steps from 0.

        >>> SNMRule.burst(max_spikes=4).largest_count(8), SNMRule.st_bif(levels=7).largest_count(8)
        (32, 7)
        """
        return min(timesteps * self.max_spikes, self.count_bounds[1])

    @classmethod
    def snm(cls) -> "SNMRule":
        """The paper's neuron: signed spikes, none that would make the count negative.

        Source: Wang et al., IJCAI 2022, equations 7 to 9.

        >>> SNMRule.snm() == SNMRule()
        True
        """
        return cls()

    @classmethod
    def snm_half(cls) -> "SNMRule":
        """The paper's neuron, its membrane started at half a threshold.

        Source: Wang et al., IJCAI 2022; the half-threshold start is that of Deng and Gu,
        "Optimal Conversion of Conventional Artificial Neural Networks to Spiking Neural
        Networks", ICLR 2021.

        >>> SNMRule.snm_half().v_init
        0.5
        """
        return cls(v_init=0.5)

    @classmethod
    def snm_zero(cls) -> "SNMRule":
        """Corrects a count as soon as the membrane is negative; best at few time steps.

        The ternary neuron of You et al., "SpikeZIP-TF", ICML 2024, without its upper bound.

        >>> SNMRule.snm_zero().negative_threshold
        0.0
        """
        return cls(v_init=0.5, negative_threshold=0.0, strict=True)

    @classmethod
    def integrate_and_fire(cls) -> "SNMRule":
        """Integrate-and-fire with reset by subtraction, the classic baseline (preset ``if``).

        Source: Rueckauer et al., "Conversion of Continuous-Valued Deep Networks to Efficient
        Event-Driven Networks for Image Classification", Frontiers in Neuroscience 2017.

        >>> SNMRule.integrate_and_fire().negative_threshold is None
        True
        """
        return cls(negative_threshold=None, count_min=None)

    @classmethod
    def integrate_and_fire_half(cls) -> "SNMRule":
        """Integrate-and-fire started at half a threshold (preset ``if-half``).

        Source: Bu et al., "Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency
        Spiking Neural Networks" (QCFS), ICLR 2022; Bu et al., "Optimized Potential
        Initialization for Low-latency Spiking Neural Networks" (OPI), AAAI 2022.

        >>> SNMRule.integrate_and_fire_half().v_init
        0.5
        """
        return cls(v_init=0.5, negative_threshold=None, count_min=None)

    @classmethod
    def st_bif(cls, levels: int = 15) -> "SNMRule":
        """SpikeZIP's ternary neuron with its count held in [0, levels].

        Source: You et al., "SpikeZIP-TF: Conversion is All You Need for Transformer-based
        SNN", ICML 2024.

        >>> SNMRule.st_bif(levels=8).count_bounds
        (0, 8)
        """
        return cls(v_init=0.5, negative_threshold=0.0, strict=True, count_max=levels)

    @classmethod
    def burst(cls, max_spikes: int = 5) -> "SNMRule":
        """Integrate-and-fire that may send up to ``max_spikes`` spikes in one step.

        Source: Li and Zeng, "Efficient and Accurate Conversion of Spiking Neural Network with
        Burst Spikes", IJCAI 2022.

        >>> SNMRule.burst(3).max_spikes
        3
        """
        return cls(negative_threshold=None, count_min=None, max_spikes=max_spikes)


SNM = SNMRule.snm()
"""The paper's neuron, which runs where no rule is given."""

PRESETS: dict[str, Callable[..., SNMRule]] = {
    "snm": SNMRule.snm,
    "snm-half": SNMRule.snm_half,
    "snm-zero": SNMRule.snm_zero,
    "if": SNMRule.integrate_and_fire,
    "if-half": SNMRule.integrate_and_fire_half,
    "st-bif": SNMRule.st_bif,
    "burst": SNMRule.burst,
}
"""The presets: for each name the constructor of its rule."""


def preset(name: str, **options: int) -> SNMRule:
    """The rule that a preset's name stands for; its source is in the constructor's docstring.

    Args:
        name: one of ``PRESETS``: ``snm``, ``snm-half``, ``snm-zero``, ``if``, ``if-half``,
            ``st-bif`` (option ``levels``), ``burst`` (option ``max_spikes``).
        options: what the preset takes.

    Raises:
        ValueError: there is no such preset; the message lists those there are.
        TypeError: the preset takes no such option.

    >>> preset("burst", max_spikes=4)
    SNMRule(v_init=0.0, negative_threshold=None, strict=False, max_spikes=4, count_min=None, \
count_max=None)
    """
    if name not in PRESETS:
        raise ValueError(f"preset: unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name](**options)
