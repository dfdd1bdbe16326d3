"""What a network's operations cost, by several conventions side by side."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Energy:
    """What an image costs under one convention, in joules.

    >>> energy = Energy("45 nm", "Horowitz, 2014", snn=1e-6, ann=4e-6, quantised=2e-6, parts={})
    >>> energy.ratio
    0.5
    """

    convention: str
    """Its name, a few words."""
    source: str
    """Where its constants and formulas are from."""
    snn: float
    """Of the spiking network."""
    ann: float
    """Of its ReLU network, in float32."""
    quantised: float
    """Of the ReLU network quantised to as many bits as the spiking network's time steps tell
    levels apart."""
    parts: Mapping[str, float]
    """What ``snn`` is the sum of."""

    @property
    def ratio(self) -> float:
        """The spiking network's energy in those of the quantised network."""
        return self.snn / self.quantised
