"""Finds out by a first pass over the same images where membranes should start."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from snm_kernels import SNMState

from ..nn import SNMNeuron
from .checks import check_count
from .interpret import Values
from .program import Fire, Program
from .run import Run

Method = Literal["srp", "cos"]
"""How the start of a membrane follows from a first pass; see :class:`FirstPass`."""

METHODS: tuple[str, ...] = get_args(Method)
"""The methods by name."""


@dataclass(frozen=True, slots=True)
class FirstPass:
    r"""Time steps simulated first, to find out where each neuron's membrane should start.

    A spike that was sent too early, before inhibition that should have prevented it, shows in the
    membrane that is left. With v(τ) and m(τ) a neuron's membrane and memory after the τ steps of
    the first pass, its drive was worth ``n = m(τ) + floor(v(τ) / θ)`` spikes, at least 0 and at
    most as many as its rule can send in τ steps. Layer by layer, front to back:

    - ``"srp"``: a neuron with v(τ) < 0 is masked: it sends nothing, whatever T is.
    - ``"cos"``: a neuron starts at ``(v_init + n - m(τ)) · θ``: one threshold higher for each spike
      that it sent too few, and one lower for each that it sent too many.

    Then the network is simulated from there, with memory 0; the spikes of the first pass do not
    count. In all that takes τ + T time steps, and memory for all τ steps at once. It is made for
    the presets "if" and "if-half"; rules with negative spikes take most such spikes back by
    themselves.

    The authors' own code starts neurons at ½ θ and differs in this: for SRP it finds all masks in
    one pass without masks, and masks up to v(τ) = 0.001 θ; for COS it shifts by one spike at most,
    and by more than θ where θ is too little for that.

    Args:
        method: "srp" or "cos".
        steps: τ, how many time steps the first pass takes, >= 1.

    Raises:
        ValueError: method is neither of these, or steps is less than 1.
        TypeError: steps is not an integer.

    Source: "srp": Hao, Bu, Ding, Huang, Yu, "Reducing ANN-SNN Conversion Error through Residual
    Membrane Potential", AAAI 2023. "cos": Hao, Ding, Bu, Huang, Yu, "Bridging the Gap between ANNs
    and SNNs by Calibrating Offset Spikes", ICLR 2023.

    Here the second layer's neuron is driven with 0, 1, 0 and -1, which is worth no spike:

    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1), nn.ReLU()).eval()
    >>> _ = model[0].weight.data.copy_(torch.eye(2)), model[0].bias.data.zero_()
    >>> _ = model[2].weight.data.copy_(torch.tensor([[1.0, -1.0]])), model[2].bias.data.zero_()
    >>> net = convert(model, torch.tensor([[1.0, 0.0], [0.0, 2.0]]), preset="if")
    >>> images = torch.tensor([[0.5, 0.5]])
    >>> net(images, timesteps=4), net(images, timesteps=4, first_pass=FirstPass("cos", 4))
    (tensor([[0.2500]]), tensor([[0.]]))
    """

    method: Method
    steps: int

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"FirstPass: method must be one of {', '.join(map(repr, METHODS))}, "
                f"got {self.method!r}"
            )
        check_count("FirstPass", "steps", self.steps)


def starting_states(
    first_pass: FirstPass, program: Program, model: nn.Module, images: Tensor
) -> dict[str, SNMState]:
    """The states from which a simulation of the same images starts, by the layer's step.

    Args:
        first_pass: the method, and how many time steps to simulate first.
        program: what to execute, for images that are constant in time.
        model: the modules that it calls.
        images: ``[B, ...]``.
    """
    run = _FirstRun(first_pass, program, model, images)
    run.advance(first_pass.steps, None)
    return run.starts


class _FirstRun(Run):
    """A simulation in which each layer is run again from the start that a first run calls for."""

    def __init__(
        self, first_pass: FirstPass, program: Program, model: nn.Module, images: Tensor
    ) -> None:
        super().__init__(program, model, images)
        self.method = first_pass.method
        self.starts: dict[str, SNMState] = {}

    def fire(self, fire: Fire, values: Values) -> None:
        """Runs a layer twice: to find out where it should start, and then from there."""
        drive, residual = self.drive_of(fire, values)
        neuron = self.neuron(fire)
        end = neuron(drive, residual=residual, emit="none").state
        v = _masked(neuron, end) if self.method == "srp" else _shifted(neuron, end, self.chunk)
        self.starts[fire.name] = self.states[fire.name] = SNMState(v, torch.zeros_like(end.m))
        super().fire(fire, values)


def _masked(neuron: SNMNeuron, end: SNMState) -> Tensor:
    """Starting membranes: NaN for neurons that are masked, the usual start for all others.

    >>> from snm_kernels import preset
    >>> neuron = SNMNeuron(2.0, preset("if-half"))
    >>> _masked(neuron, SNMState(torch.tensor([-0.5, 0.0]), torch.tensor([1, 1])))
    tensor([nan, 1.])
    """
    # From -inf a neuron that may send negative spikes before any other would send them.
    return torch.where(end.v < 0, torch.nan, neuron.rule.v_init * _finite(neuron))


def _shifted(neuron: SNMNeuron, end: SNMState, steps: int) -> Tensor:
    """Starting membranes, shifted by how many spikes each neuron sent too few or too many.

    >>> from snm_kernels import preset
    >>> neuron = SNMNeuron(2.0, preset("if-half"))
    >>> _shifted(neuron, SNMState(torch.tensor([-0.5, 0.5, 4.5]), torch.tensor([1, 1, 1])), 2)
    tensor([-1.,  1.,  3.])
    """
    rule = neuron.rule
    floors = torch.floor(end.v / neuron.threshold)
    worth = (end.m + floors).clamp(0, rule.largest_count(steps))
    return (rule.v_init + (worth - end.m)) * _finite(neuron)


def _finite(neuron: SNMNeuron) -> Tensor:
    """A layer's thresholds, with 0 for silent neurons."""
    return torch.where(neuron.threshold.isinf(), 0.0, neuron.threshold)
