"""The public ops: a signed neuron with memory over all time steps in one launch."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from . import _load
from ._checks import check_broadcast, check_number, check_state, check_threshold
from ._layout import spikes_like, state_like
from .reference import snm_reference
from .rule import SNM, SNMRule

Emit = Literal["amplitude", "spike", "none"]
Backend = Literal["auto", "cpu", "cuda", "triton", "reference"]

DRIVE_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int32)
AMPLITUDE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class SNMState(NamedTuple):
    """What a neuron keeps between time steps; one entry per neuron, both of the same shape.

    >>> snm(torch.tensor([[0.75]]), 1.0).state
    SNMState(v=tensor([0.7500]), m=tensor([0], dtype=torch.int32))
    """

    v: Tensor
    """Membrane, float32."""
    m: Tensor
    """Memory, int32: the net number of spikes sent so far."""


class SNMOutput(NamedTuple):
    """What a run returns.

    >>> snm(torch.tensor([[0.75]]), 1.0, emit="none").spikes is None
    True
    """

    spikes: Tensor | None
    """``[T, *shape]``: θ·s or s for every step; None if nothing was to be emitted."""
    state: SNMState
    """The state after the last step."""


class SNMCounted(NamedTuple):
    """What a run that counts negative spikes returns.

    >>> snm_counted(torch.tensor([[1.5], [-2.0]]), 1.0, emit="none").negative
    tensor([1], dtype=torch.int32)
    """

    spikes: Tensor | None
    """``[T, *shape]``: θ·s or s for every step; None if nothing was to be emitted."""
    state: SNMState
    """The state after the last step."""
    negative: Tensor
    """int32 ``[*shape]``: how many negative spikes each neuron has sent."""


def snm(
    x: Tensor,
    threshold: Tensor | float,
    *,
    rule: SNMRule = SNM,
    state: SNMState | None = None,
    bias: Tensor | float | None = None,
    residual: Tensor | None = None,
    emit: Emit = "amplitude",
    out: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    backend: Backend = "auto",
) -> SNMOutput:
    r"""Runs signed neurons with memory over all T time steps in one launch.

    Per neuron and step, in float32 with one rounding per operation::

        c = x[t] + bias + residual[t]
        u = v + c
        s = min(floor(u / θ), Γ, m_max - m)   if u >= θ and m < m_max
        s = -1                                else if u <= -ν·θ and m > m_min
        s = 0                                 otherwise
        v = u - s·θ ;  m = m + s

    Args:
        x: drive (input current) ``[T, *shape]``, time first; float32, float16, bfloat16 or
            int32. It may be an expanded view with stride 0 over time: a drive that is constant
            in time is read once. Any memory format is kept; a drive whose time slices have
            gaps is copied first.
        threshold: θ in units of the drive, > 0, +inf for a neuron that stays silent: a number,
            or a floating tensor broadcastable to ``shape``, read as float32. A tensor's values
            are not checked here; where ``torch.set_flush_denormal`` is on, subnormal ones count
            as 0, which is no threshold.
        rule: which neuron; see :class:`SNMRule` and :func:`preset`.
        state: goes on from this state; T steps at once equal T steps in chunks, bit for bit.
            None starts at the rule's ``v_init`` and memory 0. It is not changed.
        bias: added to every step's drive: a number, or a floating tensor broadcastable to
            ``shape``, read as float32.
        residual: ``[T, *shape]``, of x's dtype and memory format, added to the drive after the
            bias; stride 0 over time allowed.
        emit: ``"amplitude"`` sends θ·s, ``"spike"`` sends s as int8, ``"none"`` sends nothing.
        out: written in place and returned as ``spikes``; of the emitted dtype, x's shape and
            memory format. May be ``x`` itself.
        out_dtype: dtype of amplitudes: float32, float16 or bfloat16. Default: x's, and float32
            for an int32 drive.
        backend: ``"cpu"``, ``"cuda"``, ``"triton"``, ``"reference"``, or ``"auto"``: ``"cpu"``
            for a CPU tensor; for a CUDA tensor ``"cuda"``, or ``"triton"`` if this build has no
            CUDA library that fits torch. See :func:`backends`.

    Returns:
        :class:`SNMOutput`: spikes ``[T, *shape]`` (None for ``emit="none"``) and the new state.

    Raises:
        TypeError, ValueError: an argument's type, dtype, shape or device is wrong; the message
            names it, what was expected and what was given.
        RuntimeError: grad mode is on and an input requires grad, or the backend is not
            available; the message says why.

    Source: Wang, Zhang, Chen, Qu, "Signed Neuron with Memory", IJCAI 2022; the rule covers
    its relatives as well (see :class:`SNMRule`).

    >>> drive = torch.tensor([[0.6], [0.6], [-1.5], [0.1]])
    >>> spikes, state = snm(drive, 1.0)
    >>> spikes.flatten().tolist(), state.m.item()
    ([0.0, 1.0, -1.0, 0.0], 0)
    """
    spikes, v, m = _run(
        _SNM, x, threshold, None, rule, state, bias, residual, emit, out, out_dtype, backend
    )
    return SNMOutput(spikes, SNMState(v, m))


def snm_counted(
    x: Tensor,
    threshold: Tensor | float,
    *,
    negative: Tensor | None = None,
    rule: SNMRule = SNM,
    state: SNMState | None = None,
    bias: Tensor | float | None = None,
    residual: Tensor | None = None,
    emit: Emit = "amplitude",
    out: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    backend: Backend = "auto",
) -> SNMCounted:
    r"""Runs neurons as :func:`snm` does, and counts each one's negative spikes in the same launch.

    With the memory, which is the net number of spikes, that tells both kinds apart without a
    second look at the spikes. Since the memory was 0, a neuron has sent ``m + negative`` positive
    spikes and ``m + 2 * negative`` of both kinds.

    Args:
        negative: int32 ``[*shape]``, how many negative spikes each neuron has sent before, as an
            earlier run returned it; None for 0. It is not changed.
        x, threshold, rule, state, bias, residual, emit, out, out_dtype, backend: as for
            :func:`snm`.

    Returns:
        :class:`SNMCounted`: spikes and state, the same bits as :func:`snm` returns, and the count
        increased by this run's negative spikes.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`snm`.

    >>> drive = torch.tensor([[0.6], [0.6], [-1.5], [1.5]])
    >>> spikes, state, negative = snm_counted(drive, 1.0)
    >>> spikes.flatten().tolist(), (state.m + negative).item(), negative.item()
    ([0.0, 1.0, -1.0, 1.0], 2, 1)
    >>> snm_counted(drive[2:3], 1.0, state=state, negative=negative).negative.item()
    2
    """
    spikes, v, m, counted = _run(
        _COUNTED, x, threshold, negative, rule, state, bias, residual, emit, out, out_dtype, backend
    )
    return SNMCounted(spikes, SNMState(v, m), counted)


class _Op(NamedTuple):
    """An operator and its variant that writes into a given tensor."""

    name: str
    # The overloads themselves: looking them up takes as long as a small run.
    run: Callable[..., Any]
    run_out: Callable[..., Any]
    counts: bool


_OPS = torch.ops.snm_kernels
_SNM = _Op("snm", _OPS.snm.default, _OPS.snm_out.default, counts=False)
_COUNTED = _Op("snm_counted", _OPS.snm_counted.default, _OPS.snm_counted_out.default, counts=True)


def _run(
    op: _Op,
    x: Tensor,
    threshold: Tensor | float,
    negative: Tensor | None,
    rule: SNMRule,
    state: SNMState | None,
    bias: Tensor | float | None,
    residual: Tensor | None,
    emit: Emit,
    out: Tensor | None,
    out_dtype: torch.dtype | None,
    backend: Backend,
) -> tuple[Any, ...]:
    """Checks the arguments and runs: what is sent, v and m, and the count of an op that counts."""
    name = op.name
    if not isinstance(x, Tensor):
        raise _refusal(name, TypeError, "x", "a tensor", x)
    if x.dtype not in DRIVE_DTYPES:
        raise _refusal(name, TypeError, "x", f"one of {_names(DRIVE_DTYPES)}", x.dtype)
    sizes = x.shape
    if len(sizes) == 0 or sizes[0] == 0:
        raise _refusal(name, ValueError, "x", "[T, *shape] with T >= 1", list(sizes))
    if not isinstance(rule, SNMRule):
        raise _refusal(name, TypeError, "rule", "an SNMRule", rule)
    device, shape = x.device, sizes[1:]
    spikes_dtype = _spikes_dtype(name, x, emit, out_dtype)
    if not isinstance(threshold, Tensor):
        threshold = check_threshold(threshold, "a tensor", name)
    theta = _parameter(name, "threshold", threshold, shape, device)
    offset = None if bias is None else _parameter(name, "bias", bias, shape, device)
    if residual is not None:
        _check_tensor(name, "residual", residual, sizes, x.dtype, device)
    v = m = None
    if state is not None:
        check_state(state, name)
        v, m = state
        _check_tensor(name, "state.v", v, shape, torch.float32, device)
        _check_tensor(name, "state.m", m, shape, torch.int32, device)
    if negative is not None:
        _check_tensor(name, "negative", negative, shape, torch.int32, device)
    if out is not None:
        _check_out(name, out, x, spikes_dtype)
    tensors: tuple[Any, ...] = (x, theta, v, m, offset, residual)
    if op.counts:
        tensors = (*tensors, negative)
    if out is not None and not torch.compiler.is_compiling():
        _check_overlap(name, out, tensors)
    if torch.is_grad_enabled():
        _refuse_grad(name, (x, theta, v, m, offset, residual, negative, out))

    on_cpu = backend == "auto" and device.type == "cpu"
    chosen = "cpu" if on_cpu else _load.choose(backend, device, name)
    if chosen == "reference":
        return _run_reference(op, tensors, rule, spikes_dtype, out)
    if chosen == "triton":
        op = _triton_op(op)
    if out is None:
        found: tuple[Any, ...] = op.run(*tensors, *_rule_arguments(rule), spikes_dtype)
        return found if spikes_dtype is not None else (None, *found[1:])
    return out, *op.run_out(*tensors, *_rule_arguments(rule), out)


def _triton_op(op: _Op) -> _Op:
    _load.load_triton()
    name = "snm_triton_counted" if op.counts else "snm_triton"
    run, run_out = getattr(_OPS, name).default, getattr(_OPS, f"{name}_out").default
    return op._replace(run=run, run_out=run_out)


def _rule_arguments(rule: SNMRule) -> tuple[float, float | None, bool, int, int, int]:
    """The rule as the ops' schemas take it."""
    return (
        rule.v_init,
        rule.negative_threshold,
        rule.strict,
        rule.max_spikes,
        *rule.count_bounds,
    )


def _run_reference(
    op: _Op,
    tensors: tuple[Any, ...],
    rule: SNMRule,
    spikes_dtype: torch.dtype | None,
    out: Tensor | None,
) -> tuple[Any, ...]:
    x = tensors[0]
    given = tensors if op.counts else (*tensors, None)
    sent, v, *counts = snm_reference(*given, rule=rule, spikes_dtype=spikes_dtype)
    like = state_like(x)
    if spikes_dtype is not None and out is None:
        out = spikes_like(x, like, spikes_dtype)
    if out is not None:
        for t, spikes in enumerate(sent):
            out[t].copy_(spikes)
    kept = counts if op.counts else counts[:1]
    in_place = (torch.empty_like(like, dtype=torch.int32).copy_(count) for count in kept)
    return out, like.copy_(v), *in_place


@torch.library.register_fake("snm_kernels::snm")
def _snm_fake(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    like = state_like(x)
    spikes_dtype = arguments[-1]
    return spikes_like(x, like, spikes_dtype), like, torch.empty_like(like, dtype=torch.int32)


@torch.library.register_fake("snm_kernels::snm_out")
def _snm_out_fake(x: Tensor, *_arguments: Any) -> tuple[Tensor, Tensor]:
    like = state_like(x)
    return like, torch.empty_like(like, dtype=torch.int32)


@torch.library.register_fake("snm_kernels::snm_counted")
def _snm_counted_fake(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    spikes, v, m = _snm_fake(x, *arguments)
    return spikes, v, m, torch.empty_like(m)


@torch.library.register_fake("snm_kernels::snm_counted_out")
def _snm_counted_out_fake(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    v, m = _snm_out_fake(x, *arguments)
    return v, m, torch.empty_like(m)


def _refusal(
    op: str, error: type[Exception], argument: str, expected: object, got: object
) -> Exception:
    """The error to raise: texts are made only where they are needed, this op runs often."""
    return error(f"{op}: {argument} must be {expected}, got {got}")


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def _spikes_dtype(
    op: str, x: Tensor, emit: str, out_dtype: torch.dtype | None
) -> torch.dtype | None:
    """The dtype of what is sent; None if nothing is."""
    if emit == "amplitude":
        if out_dtype is None:
            return torch.float32 if x.dtype == torch.int32 else x.dtype
        if out_dtype not in AMPLITUDE_DTYPES:
            expected = f"one of {_names(AMPLITUDE_DTYPES)}"
            raise _refusal(op, TypeError, "out_dtype", expected, out_dtype)
        return out_dtype
    if emit not in ("spike", "none"):
        raise _refusal(op, ValueError, "emit", "'amplitude', 'spike' or 'none'", emit)
    if out_dtype is not None:
        raise _refusal(op, ValueError, "out_dtype", f"None with emit={emit!r}", out_dtype)
    return torch.int8 if emit == "spike" else None


def _parameter(
    op: str, name: str, value: Tensor | float, shape: torch.Size, device: torch.device
) -> Tensor:
    """A threshold or bias as a float32 tensor that broadcasts to one time slice of x."""
    if not isinstance(value, Tensor):
        number = check_number(name, value, "a tensor", op)
        return torch.full((), number, dtype=torch.float32, device=device)
    if not value.is_floating_point():
        raise _refusal(op, TypeError, name, "floating point", value.dtype)
    if value.device != device:
        raise _refusal(op, ValueError, name, f"on {device}", value.device)
    if value.dim() > 0:
        check_broadcast(name, value.shape, shape, op)
    return value if value.dtype == torch.float32 else value.to(torch.float32)


def _check_tensor(
    op: str,
    name: str,
    value: Tensor,
    shape: torch.Size,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    if not isinstance(value, Tensor):
        raise _refusal(op, TypeError, name, "a tensor", value)
    if value.dtype == dtype and value.device == device and value.shape == shape:
        return
    if value.dtype != dtype:
        raise _refusal(op, TypeError, name, dtype, value.dtype)
    if value.shape != shape:
        raise _refusal(op, ValueError, name, f"of shape {list(shape)}", list(value.shape))
    raise _refusal(op, ValueError, name, f"on {device}", value.device)


def _check_out(op: str, out: Tensor, x: Tensor, dtype: torch.dtype | None) -> None:
    if dtype is None:
        raise ValueError(f"{op}: out must be None with emit='none', got a tensor")
    _check_tensor(op, "out", out, x.shape, dtype, x.device)
    if out.is_contiguous() and x.is_contiguous():
        return
    like = state_like(x)
    expected = (like.numel(), *like.stride())
    same = all(
        size <= 1 or stride == wanted
        for size, stride, wanted in zip(out.shape[1:], out.stride()[1:], expected[1:], strict=True)
    )
    if not same or (out.shape[0] > 1 and out.stride(0) < expected[0]):
        raise ValueError(
            f"{op}: out must have the drive's strides {list(expected)}, got {list(out.stride())}"
        )


# The ops' tensors in the order of their schemas, as messages name them.
_READ = ("x", "threshold", "state.v", "state.m", "bias", "residual", "negative")


def _check_overlap(op: str, out: Tensor, tensors: Sequence[Tensor | None]) -> None:
    """Refuses an out that would be overwritten before it is read."""
    if out.untyped_storage().device.type == "meta":
        return
    start, end = _extent(out)
    for name, read in zip(_READ, tensors, strict=False):
        if read is None:
            continue
        other_start, other_end = _extent(read)
        if start >= other_end or other_start >= end:
            continue
        if name not in ("x", "residual"):
            raise ValueError(f"{op}: out must share no memory with {name}")
        if not _same_elements(out, read):
            raise ValueError(f"{op}: out must be {name} itself or share no memory with it")


def _same_elements(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.stride() == b.stride() and a.dtype == b.dtype


def _extent(tensor: Tensor) -> tuple[int, int]:
    """First byte of a tensor and the byte after its last; nothing if it has no elements."""
    if tensor.numel() == 0:
        return 0, 0
    start = tensor.data_ptr()
    if tensor.is_contiguous():
        return start, start + tensor.nbytes
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1) * tensor.element_size()


def _refuse_grad(op: str, tensors: Sequence[Tensor | None]) -> None:
    for tensor in tensors:
        if tensor is not None and tensor.requires_grad:
            name = (*_READ, "out")[[other is tensor for other in tensors].index(True)]
            raise RuntimeError(
                f"{op}: {name} requires grad, but this op has no gradient; "
                "call it under torch.no_grad()"
            )
