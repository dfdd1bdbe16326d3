"""The neuron's public ops, which run it over all time steps in one launch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _load
from ._checks import (
    AMPLITUDES_OF_INTEGERS,
    READ,
    check_out,
    check_overlap,
    check_state,
    check_tensor,
    check_threshold,
    dtype_names,
    number_dtype,
    parameter,
    refusal,
    refuse_grad,
)
from ._fakes import snm_counted_fake, snm_counted_out_fake, snm_fake, snm_out_fake
from ._layout import count_like, spikes_like, state_like
from ._types import (
    AMPLITUDE_DTYPES,
    DRIVE_DTYPES,
    Backend,
    Emit,
    SNMCounted,
    SNMOutput,
    SNMState,
)
from .reference import snm_reference
from .rule import SNM, SNMRule


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

    Where ``threshold`` is an int32 tensor, all of it is int32, and exact: the drive, the bias, the
    residual and the membrane. ``u <= -ν·θ`` compares with that real number, and the membrane starts
    at ``floor(v_init·θ)``. Sums have to stay within int32, or they wrap around. Such neurons send
    spikes, not amplitudes.

    Args:
        x: drive (input current) ``[T, *shape]``, time first; float32, float16, bfloat16 or
            int32. It may be an expanded view with stride 0 over time: a drive that is constant
            in time is read once. Any memory format is kept; a drive whose time slices have
            gaps is copied first.
        threshold: θ in units of the drive, > 0, +inf for a neuron that stays silent: a number,
            or a floating tensor broadcastable to ``shape``, read as float32. A tensor's values
            are not checked here; where ``torch.set_flush_denormal`` is on, subnormal ones count
            as 0, which is no threshold. Or an int32 tensor, 1 to 2**24 - 1, and
            :data:`SILENT` for a neuron that stays silent; x must be int32 then.
        rule: which neuron; see :class:`SNMRule` and :func:`preset`.
        state: goes on from this state; T steps at once equal T steps in chunks, bit for bit.
            None starts at the rule's ``v_init`` and memory 0. It is not changed.
        bias: added to every step's drive: a number, or a floating tensor broadcastable to
            ``shape``, read as float32; an int or an int32 tensor where thresholds are int32.
        residual: ``[T, *shape]``, of x's dtype and memory format, added to the drive after the
            bias; stride 0 over time allowed.
        emit: ``"amplitude"`` sends θ·s, ``"spike"`` sends s as int8, ``"none"`` sends nothing.
            Neurons of int32 thresholds send no amplitudes.
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
    >>> drive = torch.tensor([[6], [6], [-15], [1]], dtype=torch.int32)
    >>> spikes, state = snm(drive, torch.tensor(10, dtype=torch.int32), emit="spike")
    >>> spikes.flatten().tolist(), state.v.item()
    ([0, 1, -1, 0], -2)
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
    """An operator, and its variant that writes spikes into a given tensor."""

    name: str
    # The overloads themselves: looking them up takes as long as a small run.
    run: Callable[..., Any]
    run_out: Callable[..., Any]
    counts: bool


_GIVEN = (*READ, "out")
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
    """Checks the arguments and runs; returns what is sent, v, m and, if it counts, the count."""
    name = op.name
    if not isinstance(x, Tensor):
        raise refusal(name, TypeError, "x", "a tensor", x)
    if x.dtype not in DRIVE_DTYPES:
        raise refusal(name, TypeError, "x", f"one of {dtype_names(DRIVE_DTYPES)}", x.dtype)
    sizes = x.shape
    if len(sizes) == 0 or sizes[0] == 0:
        raise refusal(name, ValueError, "x", "[T, *shape] with T >= 1", list(sizes))
    if not isinstance(rule, SNMRule):
        raise refusal(name, TypeError, "rule", "an SNMRule", rule)
    device, shape = x.device, sizes[1:]
    number = number_dtype(threshold)
    if number == torch.int32 and x.dtype != torch.int32:
        raise refusal(name, TypeError, "x", "torch.int32 with an int32 threshold", x.dtype)
    spikes_dtype = _spikes_dtype(name, x, number, emit, out_dtype)
    if not isinstance(threshold, Tensor):
        threshold = check_threshold(threshold, "a tensor", name)
    theta = parameter(name, "threshold", threshold, shape, device, number)
    offset = None if bias is None else parameter(name, "bias", bias, shape, device, number)
    if residual is not None:
        check_tensor(name, "residual", residual, sizes, x.dtype, device)
    v = m = None
    if state is not None:
        check_state(state, name)
        v, m = state
        check_tensor(name, "state.v", v, shape, number, device)
        check_tensor(name, "state.m", m, shape, torch.int32, device)
    if negative is not None:
        check_tensor(name, "negative", negative, shape, torch.int32, device)
    if out is not None:
        check_out(name, out, x, spikes_dtype)
    tensors: tuple[Any, ...] = (x, theta, v, m, offset, residual)
    if op.counts:
        tensors = (*tensors, negative)
    if out is not None and not torch.compiler.is_compiling():
        check_overlap(name, out, tensors)
    if torch.is_grad_enabled():
        refuse_grad(name, _GIVEN, (x, theta, v, m, offset, residual, negative, out))

    on_cpu = backend == "auto" and device.type == "cpu"
    chosen = "cpu" if on_cpu else _load.choose(backend, device, name)
    if chosen == "reference":
        return _run_reference(op, tensors, rule, spikes_dtype, out)
    if chosen == "triton":
        op = _triton_op(op)
    if out is None:
        found: tuple[Any, ...] = op.run(*tensors, *rule_arguments(rule), spikes_dtype)
        return found if spikes_dtype is not None else (None, *found[1:])
    return out, *op.run_out(*tensors, *rule_arguments(rule), out)


def _triton_op(op: _Op) -> _Op:
    """The Triton operator that does what this one does."""
    _load.load_triton()
    name = "snm_triton_counted" if op.counts else "snm_triton"
    run, run_out = getattr(_OPS, name).default, getattr(_OPS, f"{name}_out").default
    return op._replace(run=run, run_out=run_out)


def rule_arguments(rule: SNMRule) -> tuple[float, float | None, bool, int, int, int]:
    """The rule as the six arguments that the operators take."""
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
    """Returns what the operator would, computed by the reference."""
    x = tensors[0]
    given = tensors if op.counts else (*tensors, None)
    sent, v, *counts = snm_reference(*given, rule=rule, spikes_dtype=spikes_dtype)
    like = state_like(x, v.dtype)
    if spikes_dtype is not None and out is None:
        out = spikes_like(x, like, spikes_dtype)
    if out is not None:
        for t, spikes in enumerate(sent):
            out[t].copy_(spikes)
    kept = counts if op.counts else counts[:1]
    in_place = (count_like(like).copy_(count) for count in kept)
    return out, like.copy_(v), *in_place


def _spikes_dtype(
    op: str, x: Tensor, number: torch.dtype, emit: str, out_dtype: torch.dtype | None
) -> torch.dtype | None:
    """The dtype of what is sent; None if nothing is."""
    if emit == "amplitude":
        if number == torch.int32:
            raise ValueError(f"{op}: {AMPLITUDES_OF_INTEGERS}")
        if out_dtype is None:
            return torch.float32 if x.dtype == torch.int32 else x.dtype
        if out_dtype not in AMPLITUDE_DTYPES:
            expected = f"one of {dtype_names(AMPLITUDE_DTYPES)}"
            raise refusal(op, TypeError, "out_dtype", expected, out_dtype)
        return out_dtype
    if emit not in ("spike", "none"):
        raise refusal(op, ValueError, "emit", "'amplitude', 'spike' or 'none'", emit)
    if out_dtype is not None:
        raise refusal(op, ValueError, "out_dtype", f"None with emit={emit!r}", out_dtype)
    return torch.int8 if emit == "spike" else None


for _name, _fake in (
    ("snm", snm_fake),
    ("snm_out", snm_out_fake),
    ("snm_counted", snm_counted_fake),
    ("snm_counted_out", snm_counted_out_fake),
):
    torch.library.register_fake(f"snm_kernels::{_name}", _fake)
