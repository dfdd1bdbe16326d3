"""Multi-step layers that keep their state, from which to build a spiking network by hand."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

import snm_kernels
from snm_kernels import Backend, SNMRule, SNMState

from .neuron import SNMNeuron
from .threshold import checked_threshold

StepMode = Literal["m", "s"]
"""Whether a call of a layer takes all time steps (multi-step) or one (single-step)."""


class _Stateful(nn.Module):
    """A layer that goes on from the state its last call left, until :meth:`reset`.

    Args:
        step_mode: ``"m"``, multi-step: a call takes ``[T, B, ...]`` and does all T steps in one
            launch. ``"s"``, single-step: a call takes one step, ``[B, ...]``.

    Raises:
        ValueError: step_mode is neither of these.
    """

    def __init__(self, step_mode: StepMode) -> None:
        super().__init__()
        if step_mode not in ("m", "s"):
            raise ValueError(
                f"{type(self).__name__}: step_mode must be 'm' or 's', got {step_mode!r}"
            )
        self.step_mode: StepMode = step_mode
        self.state: Any = None
        self._size = torch.Size()

    def forward(self, x: Tensor) -> Tensor:
        """What the layer sends.

        Args:
            x: ``[T, B, ...]`` with step_mode "m", ``[B, ...]`` with "s".

        Raises:
            ValueError: a step has another size than at the last call.
        """
        over_time = x if self.step_mode == "m" else x.unsqueeze(0)
        size = over_time.shape[1:]
        if self.state is not None and size != self._size:
            raise ValueError(
                f"{type(self).__name__}: x must be {list(self._size)} at each step as at the last "
                f"call, got {list(size)}; call reset() before another batch"
            )
        sent = self.run(over_time)
        self._size = size
        return sent if self.step_mode == "m" else sent.squeeze(0)

    def run(self, x: Tensor) -> Tensor:
        """Runs the layer over all time steps ``[T, B, ...]`` and keeps the new state."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forgets the state, so that the next call starts afresh."""
        self.state = None

    def extra_repr(self) -> str:
        return f"step_mode={self.step_mode!r}"


def reset(model: nn.Module) -> None:
    """Resets every layer of a module, so that the next call starts afresh.

    Args:
        model: a module that holds :class:`SNM` or running maxima.

    >>> import torch
    >>> model = nn.Sequential(SNM(1.0, step_mode="s"))
    >>> [model(torch.tensor([[0.5]])).item() for _ in range(2)]
    [0.0, 1.0]
    >>> _ = model(torch.tensor([[0.5]]))
    >>> reset(model)
    >>> model(torch.tensor([[0.5]])).item()
    0.0
    """
    for module in model.modules():
        if isinstance(module, _Stateful):
            module.reset()


class SNM(_Stateful):
    """Signed neurons with memory as a drop-in layer, which sends amplitudes θ·s.

    Args:
        threshold, rule, backend: as for :class:`SNMNeuron`.
        step_mode: ``"m"`` if a call takes ``[T, B, ...]``, ``"s"`` if it takes one step
            ``[B, ...]``.

    Raises:
        ValueError: a threshold is NaN, zero or negative; step_mode is unknown.

    Source: Wang, Zhang, Chen, Qu, "Signed Neuron with Memory", IJCAI 2022.

    >>> import torch
    >>> layer = SNM(1.0)
    >>> layer(torch.full((4, 1), 0.5)).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """

    state: SNMState | None

    def __init__(
        self,
        threshold: Tensor | float,
        rule: SNMRule = snm_kernels.SNM,
        *,
        step_mode: StepMode = "m",
        backend: Backend = "auto",
    ) -> None:
        super().__init__(step_mode)
        self.neuron = SNMNeuron(threshold, rule, backend=backend)

    def run(self, x: Tensor) -> Tensor:
        spikes, self.state = self.neuron(x, self.state)
        assert isinstance(spikes, Tensor)
        return spikes


class _RunningMax(_Stateful):
    """Max pooling of spikes over ``dims`` dimensions, as a running maximum."""

    dims: int
    """The number of dimensions of a window."""
    threshold: Tensor | None
    """What a spike carries, float32; None if inputs are amplitudes."""
    state: Tensor | None
    """What each input has sent in total; None before the first step."""

    def __init__(self, threshold: Tensor | float | None, step_mode: StepMode) -> None:
        super().__init__(step_mode)
        kept = None if threshold is None else checked_threshold(type(self).__name__, threshold)
        self.register_buffer("threshold", kept)

    def run(self, x: Tensor) -> Tensor:
        if x.dim() != self.dims + 3:
            batch = "[T, B, C" if self.step_mode == "m" else "[B, C"
            raise ValueError(
                f"{type(self).__name__}: x must be {batch}, ...] with {self.dims} more "
                f"dimensions, got {x.dim() - (self.step_mode == 's')} dimensions"
            )
        threshold = None if self.threshold is None else self.threshold.float()
        sent, self.state = self.pool(x, threshold)
        return sent

    def pool(self, x: Tensor, threshold: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the windows send for an input ``[T, B, C, ...]``, and the new totals."""
        raise NotImplementedError


class RunningMaxPool2d(_RunningMax):
    """Max pooling of spikes: a window sends the amount by which its largest running total grows.

    With C_i(t) what input i has sent in total, a window sends max C_i(t) - max C_i(t-1), so its own
    total is the maximum of its inputs' totals.

    Args:
        kernel_size, stride, padding, dilation, ceil_mode: as for ``torch.nn.MaxPool2d``.
        threshold: None if inputs are amplitudes, float32, float16 or bfloat16. Else inputs are int8
            spikes that carry it, which are counted exactly: > 0, a number or a tensor broadcastable
            to ``[C, H, W]``.
        step_mode: ``"m"`` if a call takes ``[T, B, C, H, W]``, ``"s"`` if it takes one step
            ``[B, C, H, W]``.

    Raises:
        ValueError: a threshold is NaN, zero or negative; step_mode is unknown.

    >>> import torch
    >>> pool = RunningMaxPool2d(2)
    >>> spikes = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])
    >>> pool(spikes.view(2, 1, 1, 2, 2)).flatten().tolist()
    [1.0, 0.0]
    """

    dims = 2

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        ceil_mode: bool = False,
        *,
        threshold: Tensor | float | None = None,
        step_mode: StepMode = "m",
    ) -> None:
        super().__init__(threshold, step_mode)
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode

    def pool(self, x: Tensor, threshold: Tensor | None) -> tuple[Tensor, Tensor]:
        return snm_kernels.running_max_pool(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            threshold=threshold,
            total=self.state,
        )

    def extra_repr(self) -> str:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        windows = [f"{name}={getattr(self, name)}" for name in names]
        return ", ".join([*windows, super().extra_repr()])


class RunningMaxPool1d(RunningMaxPool2d):
    """Max pooling of spikes as in :class:`RunningMaxPool2d`, for ``[T, B, C, L]``."""

    dims = 1


class RunningMaxPool3d(RunningMaxPool2d):
    """Max pooling of spikes as in :class:`RunningMaxPool2d`, for ``[T, B, C, D, H, W]``."""

    dims = 3


class AdaptiveRunningMaxPool2d(_RunningMax):
    """Max pooling of spikes as in :class:`RunningMaxPool2d`, with the windows of
    ``torch.nn.AdaptiveMaxPool2d``.

    Args:
        output_size: the sizes of the output, or one for all; None in a tuple keeps the input's.
        threshold, step_mode: as for :class:`RunningMaxPool2d`.

    >>> import torch
    >>> AdaptiveRunningMaxPool2d(1)(torch.ones(4, 1, 3, 5, 7)).shape
    torch.Size([4, 1, 3, 1, 1])
    """

    dims = 2

    def __init__(
        self,
        output_size: int | tuple[int | None, ...],
        *,
        threshold: Tensor | float | None = None,
        step_mode: StepMode = "m",
    ) -> None:
        super().__init__(threshold, step_mode)
        self.output_size = output_size

    def pool(self, x: Tensor, threshold: Tensor | None) -> tuple[Tensor, Tensor]:
        return snm_kernels.adaptive_running_max_pool(
            x, self.output_size, threshold=threshold, total=self.state
        )

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, {super().extra_repr()}"


class AdaptiveRunningMaxPool1d(AdaptiveRunningMaxPool2d):
    """Adaptive max pooling as in :class:`AdaptiveRunningMaxPool2d`, for ``[T, B, C, L]``."""

    dims = 1


class AdaptiveRunningMaxPool3d(AdaptiveRunningMaxPool2d):
    """Adaptive max pooling as in :class:`AdaptiveRunningMaxPool2d`, for ``[T, B, C, D, H, W]``."""

    dims = 3
