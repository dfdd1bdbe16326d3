"""Signed neurons with memory as a neuron of snnTorch, in the place of its ``Leaky``."""

from collections.abc import Callable
from typing import Any

import torch
from snntorch import Leaky
from torch import Tensor, nn

import snm_kernels
from snm_kernels import Backend, SNMRule, SNMState

from ..nn.threshold import checked_threshold

__all__ = ["SNM"]


class SNM(Leaky):
    """Signed neurons with memory that step as snnTorch's ``Leaky`` does.

    ``spk, mem = neuron(cur, mem)`` does one time step. ``mem`` is the whole state, an
    :class:`snm_kernels.SNMState`: what snnTorch calls the membrane is ``mem.v``, and ``mem.m``
    counts the spikes. Handed nothing, or a state of another size than ``cur``, the neurons go on
    from the last call's state, or start afresh where that is of another size too. Membranes do
    not leak (beta is 1), a membrane at the threshold spikes, and is reset in the same step. There
    is no gradient: it runs under ``torch.no_grad()``. All time steps in one launch:
    :class:`snm.nn.SNM`.

    ``snntorch.utils.reset(net)`` and :meth:`reset_mem` start afresh.

    Args:
        threshold: θ in units of ``cur``, > 0, +inf for a neuron that stays silent: a number, or a
            tensor broadcastable to ``[B, ...]``, e.g. ``[C, 1, 1]``.
        preset: which neuron: a name of ``snm.PRESETS``, or an :class:`snm.SNMRule`.
        init_hidden: the neuron keeps its state to itself and returns ``spk`` alone, as
            ``nn.Sequential`` needs it.
        output: with init_hidden, returns ``spk, mem`` all the same.
        graded_spikes_factor: what a spike carries, in the place of 1; the threshold, for amplitudes
            as converted weights expect them.
        backend: as in :func:`snm_kernels.snm`.

    Raises:
        ValueError: a threshold is NaN, zero or negative; there is no such preset.

    Source: Wang, Zhang, Chen, Qu, "Signed Neuron with Memory", IJCAI 2022.

    >>> neuron = SNM()
    >>> mem, spikes = neuron.reset_mem(), []
    >>> for cur in torch.tensor([[0.5], [0.75], [-1.5], [0.25]]):
    ...     spk, mem = neuron(cur, mem)
    ...     spikes.append(spk.item())
    >>> spikes, mem
    ([0.0, 1.0, -1.0, 0.0], SNMState(v=tensor([0.]), m=tensor([0], dtype=torch.int32)))
    """

    def __init__(
        self,
        threshold: Tensor | float = 1.0,
        *,
        preset: str | SNMRule = "snm",
        init_hidden: bool = False,
        output: bool = False,
        graded_spikes_factor: Tensor | float = 1.0,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(
            beta=1.0,
            threshold=checked_threshold("SNM", threshold),
            init_hidden=init_hidden,
            output=output,
            graded_spikes_factor=graded_spikes_factor,
            reset_delay=False,
        )
        self.register_load_state_dict_pre_hook(_refuse_other_neurons)
        self.rule = preset if isinstance(preset, SNMRule) else snm_kernels.preset(preset)
        self.backend: Backend = backend

    def _init_mem(self) -> None:
        self.reset_mem()

    @property
    def mem(self) -> Tensor:
        """The neurons' membranes after the last call; empty before the first."""
        return self.state.v

    @mem.setter
    def mem(self, value: Tensor) -> None:
        # snntorch.utils.reset puts zeros there.
        if bool(value.any()):
            raise ValueError(
                "SNM: mem must be zeros, which start afresh; other states are handed to a call"
            )
        self.reset_mem()

    def reset_mem(self) -> SNMState:
        """Starts the neurons afresh.

        Returns:
            A state to hand to the first step. It is empty: the step knows how many neurons
            there are.

        >>> SNM(preset="snm-half").reset_mem().v.shape
        torch.Size([0])
        """
        self.state = SNMState(torch.zeros(0), torch.zeros(0, dtype=torch.int32))
        return self.state

    def forward(
        self, input_: Tensor, mem: SNMState | None = None
    ) -> Tensor | tuple[Tensor, SNMState]:
        """Sends what the neurons fire in one time step.

        Args:
            input_: ``[B, ...]``, float32, float16 or bfloat16.
            mem: what a step or :meth:`reset_mem` returned; None for the last call's.

        Returns:
            ``spk, mem``, ``spk`` ``[B, ...]`` in input_'s dtype; ``spk`` alone with init_hidden and
            without output.

        Raises:
            TypeError: mem is no state, or is given with init_hidden.
            RuntimeError: input_ requires grad, and grad mode is on.
        """
        if mem is not None and self.init_hidden:
            raise TypeError("SNM: mem must not be given with init_hidden=True")
        if not isinstance(mem, SNMState | None):
            raise TypeError(
                f"SNM: mem must be what a step or reset_mem() returned, got {type(mem).__name__}"
            )
        state = self.state if mem is None else mem
        spikes, self.state = snm_kernels.snm(
            input_.unsqueeze(0),
            self.threshold,
            rule=self.rule,
            state=state if state.v.shape == input_.shape else None,
            emit="spike",
            backend=self.backend,
        )
        assert isinstance(spikes, Tensor)
        spk = (spikes.squeeze(0) * self.graded_spikes_factor).to(input_.dtype)
        return spk if self.init_hidden and not self.output else (spk, self.state)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SNM":
        self.reset_mem()
        super()._apply(fn, recurse)
        return self

    def extra_repr(self) -> str:
        return f"threshold={list(self.threshold.shape)}, rule={self.rule}"


def _refuse_other_neurons(
    _neuron: nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    _metadata: object,
    _strict: bool,
    _missing: list[str],
    _unexpected: list[str],
    errors: list[str],
) -> None:
    """Refuses to load a ``Leaky`` that leaks or is reset in another way."""
    for name, needed in (("beta", 1), ("reset_mechanism_val", 0)):
        value = state_dict.get(prefix + name, needed)
        if value != needed:
            errors.append(f"SNM: {prefix}{name} must be {needed}, got {float(value):g}")
