"""The signed neuron with memory as a module."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from snm_kernels import (
    SNM,
    Backend,
    Emit,
    SNMCounted,
    SNMOutput,
    SNMRule,
    SNMState,
    snm,
    snm_counted,
)

from .threshold import checked_threshold


class SNMNeuron(nn.Module):
    """A layer of signed neurons with memory; the spiking counterpart of ``nn.ReLU``.

    The layer keeps no state: the caller hands in the state to go on from and gets the new one back.
    :class:`snm.nn.SNM` does keep its state.

    Args:
        threshold: θ in units of the drive, > 0, +inf for a neuron that stays silent: a number,
            or a tensor broadcastable to ``[B, ...]``, e.g. ``[C, H, W]`` or ``[C, 1, 1]``. It is
            kept in float32. When the layer is moved to float16 or bfloat16, in which spikes are
            then sent, it is rounded to few enough bits that its multiples up to the most spikes
            of a step fit, so that what is subtracted is what is sent.
        rule: the rule that the neurons follow; see :class:`snm_kernels.SNMRule`.
        bias: added to the drive of every step, in units of the drive, finite: a number, or a
            tensor broadcastable to ``[B, ...]``, e.g. ``[C, 1, 1]``; None for none. It is kept in
            float32, whatever dtype the layer is moved to.
        backend: as in :func:`snm_kernels.snm`.

    Raises:
        ValueError: a threshold is NaN, zero or negative; a bias is NaN or infinite.
        TypeError: rule is not an SNMRule.

    Source: Wang, Zhang, Chen, Qu, "Signed Neuron with Memory", IJCAI 2022.

    >>> neuron = SNMNeuron(1.0)
    >>> spikes, state = neuron(torch.full((4, 1), 0.5))
    >>> spikes.flatten().tolist(), state.m.item()
    ([0.0, 1.0, 0.0, 1.0], 2)
    >>> SNMNeuron(1.0, bias=0.25)(torch.full((4, 1), 0.5)).spikes.flatten().tolist()
    [0.0, 1.0, 1.0, 1.0]
    """

    threshold: Tensor
    bias: Tensor | None

    def __init__(
        self,
        threshold: Tensor | float,
        rule: SNMRule = SNM,
        *,
        bias: Tensor | float | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        if not isinstance(rule, SNMRule):
            raise TypeError(f"SNMNeuron: rule must be an SNMRule, such as snm.preset({rule!r})")
        self.register_buffer("threshold", checked_threshold("SNMNeuron", threshold))
        self.register_buffer("bias", None if bias is None else _checked_bias(bias))
        self.rule = rule
        self.backend: Backend = backend

    def forward(
        self,
        x: Tensor,
        state: SNMState | None = None,
        *,
        residual: Tensor | None = None,
        emit: Emit = "amplitude",
        out: Tensor | None = None,
    ) -> SNMOutput:
        """Runs the neurons over all time steps of a drive.

        Args:
            x: drive ``[T, B, ...]``, time first; float32, float16 or bfloat16.
            state: the state to go on from; None to start afresh.
            residual: added to the drive; of its shape and dtype.
            emit: ``"amplitude"`` sends θ·s, ``"spike"`` sends s as int8, ``"none"`` nothing.
            out: written in place and returned as ``spikes``; may be ``x`` itself.

        Raises:
            TypeError, ValueError: as for :func:`snm_kernels.snm`.
        """
        return snm(
            x,
            self.threshold,
            rule=self.rule,
            state=state,
            bias=self.bias,
            residual=residual,
            emit=emit,
            out=out,
            backend=self.backend,
        )

    def counted(
        self,
        x: Tensor,
        state: SNMState | None = None,
        negative: Tensor | None = None,
        *,
        residual: Tensor | None = None,
        emit: Emit = "amplitude",
        out: Tensor | None = None,
    ) -> SNMCounted:
        """Runs the neurons as a call does, and counts the negative spikes of each along the way.

        Args:
            negative: how many negative spikes each neuron has sent before, int32; None for 0.
            x, state, residual, emit, out: as for a call.

        Raises:
            TypeError, ValueError: as for :func:`snm_kernels.snm_counted`.

        >>> run = SNMNeuron(1.0).counted(torch.tensor([[1.0], [1.0], [-1.0]]))
        >>> run.state.m.item(), run.negative.item()
        (1, 1)
        """
        return snm_counted(
            x,
            self.threshold,
            negative=negative,
            rule=self.rule,
            state=state,
            bias=self.bias,
            residual=residual,
            emit=emit,
            out=out,
            backend=self.backend,
        )

    @property
    def silent(self) -> Tensor:
        """Which neurons never fire, in the threshold's shape."""
        return self.threshold.isinf()

    def amplitude(self, spikes: Tensor) -> Tensor:
        """The amplitude that integer spikes carry: θ·s, float32, and 0 for a silent neuron.

        Args:
            spikes: integers ``[..., B, ...]``: spikes s, or counts of them.
        """
        finite = torch.where(self.silent, 0.0, self.threshold)
        return spikes * finite

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SNMNeuron":
        moved, bias = self.moved(fn), self.bias
        super()._apply(fn, recurse)
        self.threshold = moved
        if bias is not None and self.bias is not None and self.bias.dtype != torch.float32:
            self.bias = bias.to(self.bias.device)
        return self

    def moved(self, fn: Callable[[Tensor], Tensor]) -> Tensor:
        """The threshold as it is after a move of the layer, in float32 again.

        Args:
            fn: moves a tensor to another dtype or device.

        Raises:
            ValueError: the new dtype cannot hold the threshold.
        """
        found = fn(self.threshold)
        rounded = found.float()
        if found.dtype in (torch.float16, torch.bfloat16):
            rounded = _with_room_for(rounded, self.rule.max_spikes, found.dtype)
        before = self.threshold.to(rounded.device)
        lost = (rounded == 0) | (rounded.isinf() & before.isfinite())
        if bool(lost.any()):
            raise ValueError(
                f"SNMNeuron: threshold must be > 0 and finite in {found.dtype}, "
                f"{before[lost][0]} is not; keep float32 or use bfloat16"
            )
        return rounded

    def extra_repr(self) -> str:
        silent = int(self.silent.sum())
        bias = "" if self.bias is None else f"bias={list(self.bias.shape)}, "
        return f"threshold={list(self.threshold.shape)}, silent={silent}, {bias}rule={self.rule}"


def _checked_bias(bias: Tensor | float) -> Tensor:
    """A copy of a bias in float32; refuses NaN and infinity."""
    kept = torch.as_tensor(bias).detach().to(torch.float32, copy=True)
    if not bool(kept.isfinite().all()):
        raise ValueError(f"SNMNeuron: bias must be finite, got {kept[~kept.isfinite()][0].item()}")
    return kept


def _with_room_for(threshold: Tensor, spikes: int, dtype: torch.dtype) -> Tensor:
    """A threshold rounded so that ``dtype`` holds its multiples up to ``spikes`` times; +inf stays.

    >>> _with_room_for(torch.tensor([1.0078125, torch.inf]), 3, torch.bfloat16)
    tensor([1., inf])
    """
    digits = 1 - round(math.log2(torch.finfo(dtype).eps))
    bits = max(1, digits - (spikes - 1).bit_length())
    mantissa, exponent = torch.frexp(threshold)
    rounded = torch.ldexp((mantissa * 2.0**bits).round() / 2.0**bits, exponent)
    return torch.where(threshold.isinf(), threshold, rounded)
