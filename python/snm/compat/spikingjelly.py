"""Signed neurons with memory as a node of SpikingJelly 2, in the place of its ``IFNode``."""

from collections.abc import Callable
from typing import Literal

import torch
from spikingjelly.activation_based.neuron import BaseNode
from spikingjelly.activation_based.surrogate import Sigmoid
from torch import Tensor, nn

import snm_kernels
from snm_kernels import Backend, SNMRule, SNMState

from ..nn.threshold import checked_threshold

__all__ = ["SNMNode", "neuron_factory"]

Send = Literal["spike", "amplitude"]
States = tuple[Tensor, Tensor]
"""The state of a layer: membranes, float32, and memories, int32."""


class SNMNode(BaseNode):
    """Signed neurons with memory that step, reset and load as SpikingJelly's ``IFNode`` does.

    With ``preset="if"`` it is ``IFNode(v_reset=None)``, bit for bit in float32. A multi-step call
    is one launch, with ``store_v_seq`` one for each step. There is no gradient: it runs under
    ``torch.no_grad()``. As an ``IFNode`` it starts afresh, reset or not, where a step is of
    another size than at the last call. Its state are the membrane ``v``, float32 whatever the
    drive's dtype, and the memory ``m``.

    A max pooling behind neurons that take spikes back has to count what it is sent, as
    :class:`snm.nn.RunningMaxPool2d` does.

    Args:
        v_threshold: θ in units of the drive, > 0, +inf for a neuron that stays silent: a number,
            which as of an ``IFNode`` is not part of the ``state_dict``, or a tensor broadcastable
            to ``[N, ...]``, e.g. ``[C, 1, 1]`` or ``[C, H, W]``, which is.
        v_reset: None: reset is by subtraction.
        surrogate_function, detach_reset: kept, and without effect: they are about the gradient.
        step_mode: ``"s"``: a call takes ``[N, ...]``, one step; ``"m"``: ``[T, N, ...]``.
        store_v_seq: keeps the membranes after each step in ``v_seq``.
        preset: which neuron: a name of ``snm.PRESETS``, or an :class:`snm.SNMRule`.
        send: ``"spike"`` sends s in the drive's dtype: 1 for a spike, -1 for one taken back;
            ``"amplitude"`` sends θ·s, θ rounded to that dtype.
        backend: as in :func:`snm_kernels.snm`.

    Raises:
        ValueError: a threshold is NaN, zero or negative; v_reset is a number; there is no such
            preset; send or step_mode is unknown.

    Source: Wang, Zhang, Chen, Qu, "Signed Neuron with Memory", IJCAI 2022.

    >>> from spikingjelly.activation_based import functional
    >>> node = SNMNode(step_mode="m")
    >>> node(torch.tensor([[0.5], [0.75], [-1.5], [0.25]])).flatten().tolist()
    [0.0, 1.0, -1.0, 0.0]
    >>> node.v, node.m
    (tensor([0.]), tensor([0], dtype=torch.int32))
    >>> functional.reset_net(node)
    >>> node.v, node.m
    (0.0, 0)
    """

    v_threshold: Tensor | float
    v: Tensor | float | None
    m: Tensor | int

    def __init__(
        self,
        v_threshold: Tensor | float = 1.0,
        v_reset: None = None,
        surrogate_function: nn.Module | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        *,
        preset: str | SNMRule = "snm",
        send: Send = "spike",
        backend: Backend = "auto",
    ) -> None:
        if v_reset is not None:
            raise ValueError(f"SNMNode: v_reset must be None, got {v_reset!r}")
        if send not in ("spike", "amplitude"):
            raise ValueError(f"SNMNode: send must be 'spike' or 'amplitude', got {send!r}")
        threshold = checked_threshold("SNMNode", v_threshold)
        super().__init__(
            v_reset=None,
            surrogate_function=surrogate_function or Sigmoid(),
            detach_reset=detach_reset,
            step_mode=step_mode,
            store_v_seq=store_v_seq,
        )
        if isinstance(v_threshold, Tensor):
            del self.v_threshold
            self.register_buffer("v_threshold", threshold)
        else:
            self.v_threshold = float(v_threshold)
        self.rule = preset if isinstance(preset, SNMRule) else snm_kernels.preset(preset)
        self.send: Send = send
        self.backend: Backend = backend
        self.register_memory("m", 0)
        if self.rule.v_init != 0:
            # A fraction of thresholds that may still be loaded.
            self.v = None
            self.set_reset_value("v", None)

    def materialize_states(
        self, inputs: tuple[Tensor, ...], states: tuple[object, ...], step_mode: str
    ) -> States:
        """The state to go on from, for each neuron of a step; as SpikingJelly calls it."""
        step = inputs[0][0] if step_mode == "m" else inputs[0]
        v, m = states
        if isinstance(m, Tensor) and m.shape != step.shape:
            v, m = None, 0
        if v is None:
            threshold = torch.as_tensor(self._threshold(step), device=step.device).float()
            v = torch.where(threshold.isinf(), 0.0, self.rule.v_init * threshold)
        return _of_each(v, step, torch.float32), _of_each(m, step, torch.int32)

    def single_step_functional_forward(
        self,
        inputs: tuple[Tensor, ...],
        states: States,
        **_options: object,
    ) -> tuple[tuple[Tensor], States]:
        """What one step ``[N, ...]`` sends, and the new state; as SpikingJelly calls it."""
        (sent,), states = self.multi_step_functional_forward((inputs[0].unsqueeze(0),), states)
        return (sent.squeeze(0),), states

    def multi_step_functional_forward(
        self,
        inputs: tuple[Tensor, ...],
        states: States,
        **_options: object,
    ) -> tuple[tuple[Tensor], States]:
        """What all steps ``[T, N, ...]`` send, and the new state; as SpikingJelly calls it."""
        x = inputs[0]
        sent, state = snm_kernels.snm(
            x,
            self._threshold(x),
            rule=self.rule,
            state=SNMState(*states),
            emit=self.send,
            backend=self.backend,
        )
        assert isinstance(sent, Tensor)
        return (sent.to(x.dtype),), (state.v, state.m)

    def _threshold(self, x: Tensor) -> Tensor | float:
        """The threshold for a drive, rounded where that is sent, so that as much is subtracted."""
        if self.send == "spike" or x.dtype == torch.float32:
            return self.v_threshold
        return torch.as_tensor(self.v_threshold, dtype=x.dtype, device=x.device)

    def extra_repr(self) -> str:
        shown = self.v_threshold
        threshold = list(shown.shape) if isinstance(shown, Tensor) else shown
        return (
            f"v_threshold={threshold}, rule={self.rule}, send={self.send!r}, "
            f"step_mode={self.step_mode}"
        )


def _of_each(value: object, step: Tensor, dtype: torch.dtype) -> Tensor:
    """A number or tensor as one value for each neuron of a step."""
    if isinstance(value, Tensor) and value.shape == step.shape:
        return value.to(dtype=dtype, device=step.device)
    return torch.empty_like(step, dtype=dtype).copy_(torch.as_tensor(value))


def neuron_factory(
    preset: str | SNMRule = "snm", *, backend: Backend = "auto"
) -> Callable[[float], SNMNode]:
    """Lets SpikingJelly's ANN2SNN converter put :class:`SNMNode` where it puts an ``IFNode``.

    Args:
        preset, backend: as of :class:`SNMNode`.

    Returns:
        What ``RateCodingRecipe(..., neuron_factory=...)`` takes. Thresholds are 1, since the
        recipe scales what comes in and what goes out.

    Raises:
        ValueError: there is no such preset.

    >>> from spikingjelly.activation_based import ann2snn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> recipe = ann2snn.RateCodingRecipe([torch.rand(32, 4)], neuron_factory=neuron_factory())
    >>> type(ann2snn.Converter(recipe).convert(model).spiking_0.if_node).__name__
    'SNMNode'
    """
    rule = preset if isinstance(preset, SNMRule) else snm_kernels.preset(preset)

    def make(_scale: float) -> SNMNode:
        return SNMNode(preset=rule, backend=backend)

    return make
