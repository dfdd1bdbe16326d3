"""What the neuron's ops take and return: names of choices, dtypes, states and results."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Emit = Literal["amplitude", "spike", "none"]
"""What neurons send: the amplitudes θ·s, the spikes s as int8, or nothing."""
Backend = Literal["auto", "cpu", "cuda", "triton", "reference"]
"""Which implementation runs; they all give the same bits."""

DRIVE_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int32)
"""The dtypes that a drive may have."""
AMPLITUDE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""The dtypes in which amplitudes can be sent."""

SILENT = 2**31 - 1
"""The int32 threshold of a neuron that never fires, as +inf is the floating one."""


class SNMState(NamedTuple):
    """What a neuron keeps between time steps; one entry per neuron, both of the same shape.

    >>> from snm_kernels import snm
    >>> snm(torch.tensor([[0.75]]), 1.0).state
    SNMState(v=tensor([0.7500]), m=tensor([0], dtype=torch.int32))
    """

    v: Tensor
    """Membrane, float32; int32 where thresholds are."""
    m: Tensor
    """Memory, int32: the net number of spikes sent so far."""


class SNMOutput(NamedTuple):
    """What a run of the neurons returns.

    >>> from snm_kernels import snm
    >>> snm(torch.tensor([[0.75]]), 1.0, emit="none").spikes is None
    True
    """

    spikes: Tensor | None
    """``[T, *shape]``: θ·s or s for every step; None if nothing was to be emitted."""
    state: SNMState
    """The state after the last step."""


class SNMCounted(NamedTuple):
    """What a run that counts negative spikes returns.

    >>> from snm_kernels import snm_counted
    >>> snm_counted(torch.tensor([[1.5], [-2.0]]), 1.0, emit="none").negative
    tensor([1], dtype=torch.int32)
    """

    spikes: Tensor | None
    """``[T, *shape]``: θ·s or s for every step; None if nothing was to be emitted."""
    state: SNMState
    """The state after the last step."""
    negative: Tensor
    """int32 ``[*shape]``: how many negative spikes each neuron has sent."""
