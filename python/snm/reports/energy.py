"""What a network's operations cost, by several conventions side by side."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

_PICO = 1e-12
_BITS = 32
"""How many bits a weight has, and whatever else is not quantised."""


@dataclass(frozen=True, slots=True)
class Energy:
    """What an image costs under one convention, in joules.

    None of them is a measurement; what they disagree about is what hardware there is.

    >>> energy = Energy("45 nm", "Horowitz, 2014", snn=1e-6, ann=4e-6, quantised=2e-6, parts={})
    >>> energy.ratio
    0.5
    """

    convention: str
    """The convention's name, a few words."""
    source: str
    """Where the convention's constants and formulas are from."""
    snn: float
    """What the spiking network spends, in joules, as are all costs."""
    ann: float
    """What its ReLU network spends in 32 bits."""
    quantised: float
    """What the ReLU network spends with activations quantised to as many bits as it takes to count
    a neuron's spikes; its weights, and the images, stay what they are, as the spiking network's
    do."""
    parts: Mapping[str, float]
    """The costs that ``snn`` is the sum of, by what they are spent on."""

    @property
    def ratio(self) -> float:
        """The spiking network's energy in units of the quantised network's; 1 if neither spends
        any, inf if the spiking network alone does."""
        if self.quantised == 0:
            return 1.0 if self.snn == 0 else math.inf
        return self.snn / self.quantised


@dataclass(frozen=True, slots=True)
class Operation:
    """What one operation of a network does for one image in all time steps."""

    weights: int
    """How many weights it has; 0 if it reads values as they are."""
    inputs: int
    """How many values it reads at a time."""
    outputs: int
    """How many values it computes at a time."""
    spikes: float
    """How many spikes arrive at it, a mean over images."""
    synaptic_operations: float
    """How many synaptic operations they cost, a mean over images."""
    macs: int
    """How many multiply-accumulates with analog values it takes."""
    part: str
    """The part of the spiking network it belongs to: ``"first"``, ``"steps"`` or ``"readout"``, as
    in :class:`snm.reports.result.Macs`."""
    relu_macs: int
    """How many multiply-accumulates it takes in the ReLU network."""


@dataclass(frozen=True, slots=True)
class Work:
    """All that a network does for one image."""

    timesteps: int
    """How many time steps it takes."""
    operations: tuple[Operation, ...]
    """Its operations, in order of execution."""
    senders: tuple[tuple[int, float], ...]
    """How many neurons each layer of neurons or max pooling has, and how many spikes they send."""

    @property
    def synaptic_operations(self) -> float:
        """How many synaptic operations the spiking network takes."""
        return sum(one.synaptic_operations for one in self.operations)

    def macs(self, part: str) -> int:
        """How many multiply-accumulates one part of the spiking network takes."""
        return sum(one.macs for one in self.operations if one.part == part)

    def relu_macs(self, *parts: str) -> int:
        """How many multiply-accumulates some parts take in the ReLU network."""
        return sum(one.relu_macs for one in self.operations if one.part in parts)


def energies(work: Work, bits: int) -> tuple[Energy, ...]:
    """What an image costs under each convention.

    Args:
        work: what the network does for the image.
        bits: how many an activation has in the quantised network, which is what there is to beat.

    Source of the baseline: Yan, Bai, Tang, Wong, "Reconsidering the Energy Efficiency of Spiking
    Neural Networks Inference from Analytical Perspectives", arXiv:2409.08290, which holds T time
    steps, of one spike each, against ceil(log2(T + 1)) bits. A product of a weight and an
    activation of b bits is taken to cost b / 32 of one of 32 bits, as it has so many partial
    products; Horowitz's integer products of 8 and 32 bits, in both factors, cost 0.2 and 3.1 pJ,
    nearly as 8² to 32². What reads the images is not made cheaper.

    >>> work = Work(3, (Operation(8, 4, 2, 3.0, 6.0, 0, "steps", 8),), ((4, 3.0),))
    >>> [f"{energy.snn:.3g} {energy.ann:.3g}" for energy in energies(work, 2)][0]
    '5.4e-12 3.68e-11'
    """
    return (operations_in_45_nm(work, bits), chip_and_fpga(work, bits), memory_in_45_nm(work, bits))


def operations_in_45_nm(work: Work, bits: int) -> Energy:
    """The energy of arithmetic alone, in float32.

    A multiply-accumulate costs 4.6 pJ, of which 0.9 pJ are for the accumulate, which is all that a
    spike takes. Memory costs nothing, nor does updating membranes.

    Source: Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014.
    """
    return _counted(
        work,
        convention="45 nm arithmetic",
        source="Horowitz, ISSCC 2014: 3.7 pJ a float32 multiplication, 0.9 pJ an addition",
        spike=0.9,
        mac=4.6,
        quantised_mac=0.9 + 3.7 * bits / _BITS,
    )


def chip_and_fpga(work: Work, bits: int) -> Energy:
    """The energy at 77 fJ for a synaptic operation and 12.5 pJ for a floating point operation.

    A multiply-accumulate counts as one such operation.
    The two numbers are of hardware that has little in common, which flatters spikes.

    Source: Bu, Li, Yu, "Inference-Scale Complexity in ANN-SNN Conversion for High-Performance and
    Low-Power Applications", arXiv:2409.03368, appendix, which takes them from Qiao et al.,
    "A reconfigurable on-line learning spiking neuromorphic processor comprising 256 neurons and
    128K synapses", Frontiers in Neuroscience, 2015.
    """
    return _counted(
        work,
        convention="77 fJ a SOP, 12.5 pJ a FLOP",
        source="Bu, Li, Yu, arXiv:2409.03368, after Qiao et al., Frontiers in Neuroscience 2015",
        spike=0.077,
        mac=12.5,
        quantised_mac=12.5 * bits / _BITS,
    )


def _counted(
    work: Work,
    convention: str,
    source: str,
    spike: float,
    mac: float,
    quantised_mac: float,
) -> Energy:
    """The energy under a convention that prices operations alone, in picojoules."""
    parts = {
        "synaptic operations": spike * _PICO * work.synaptic_operations,
        "before the first neurons": mac * _PICO * work.macs("first"),
        "analog layers": mac * _PICO * work.macs("steps"),
        "readout": mac * _PICO * work.macs("readout"),
    }
    first, later = work.relu_macs("first"), work.relu_macs("steps", "readout")
    return Energy(
        convention=convention,
        source=source,
        snn=sum(parts.values()),
        ann=mac * _PICO * (first + later),
        quantised=_PICO * (mac * first + quantised_mac * later),
        parts=parts,
    )


_ADD, _MULTIPLY = 0.1, 3.1
"""What adding and multiplying 32-bit integers costs, in picojoules."""


def memory_in_45_nm(work: Work, bits: int) -> Energy:
    """The energy of arithmetic, and of all that is read and written.

    Each layer has memories of its own. To access one costs the more the larger it is: 13.2 pJ and
    1.09e-5 pJ for each bit in it.

    A multiply-accumulate reads an input and a weight; each output is written once. A spike is
    written and read once, in a queue of next to no size, and its place is computed with two
    multiply-accumulates and one addition for each synapse; over each synapse it reads a weight, and
    reads, adds to and writes a membrane. At every step each neuron's membrane is read, added to and
    written, and each spike takes one addition more.

    Simplified: synapses and multiply-accumulates are counted as they are, borders and pruned
    weights left out; biases are no memory of their own; a max pooling's outputs cost at every step
    what neurons do, the ReLU network's cost nothing.

    Source: Lemaire, Cordone, Castagnetti, Novac, Courtois, Miramond, "An Analytical Estimation of
    Spiking Neural Networks Energy Efficiency", ICONIP 2022, arXiv:2210.13107, its formulas and line
    through Horowitz's memories as the authors' laboratory publishes them in qualia-plugin-snn.
    """
    parts = {"synaptic operations": 0.0, "neurons": 0.0, "spikes": 0.0, "analog layers": 0.0}
    ann = quantised = 0.0
    for one in work.operations:
        membranes = 2 * _access(one.outputs)
        weights = _access(one.weights) if one.weights else 0.0
        parts["synaptic operations"] += one.synaptic_operations * (weights + membranes + 2 * _ADD)
        parts["spikes"] += one.spikes * (_access(0) + 2 * (_MULTIPLY + _ADD))
        parts["analog layers"] += _analog(one, one.macs, _BITS)
        ann += _analog(one, one.relu_macs, _BITS)
        quantised += _analog(one, one.relu_macs, _BITS if one.part == "first" else bits)
    for size, spikes in work.senders:
        parts["neurons"] += work.timesteps * size * (2 * _access(size) + _ADD) + spikes * _ADD
        parts["spikes"] += spikes * _access(0)
    return Energy(
        convention="45 nm with memory",
        source="Lemaire et al., ICONIP 2022, arXiv:2210.13107, after Horowitz, ISSCC 2014",
        snn=_PICO * sum(parts.values()),
        ann=_PICO * ann,
        quantised=_PICO * quantised,
        parts={name: _PICO * part for name, part in parts.items()},
    )


def _access(elements: int, bits: int = _BITS) -> float:
    """What reading or writing one of so many elements of a memory costs, in picojoules."""
    return 13.2 + 1.09e-5 * elements * bits


def _analog(one: Operation, macs: int, bits: int) -> float:
    """What an operation costs that reads values of so many bits, in picojoules."""
    if macs == 0:
        return 0.0
    each = _access(one.inputs, bits) + _access(one.weights) + _MULTIPLY * bits / _BITS + _ADD
    return macs * each + one.outputs * _access(one.outputs, bits)
