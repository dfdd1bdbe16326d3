"""Traces, which only say where spikes and analog values are, and what operations make of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ...network.program import Pooling, replaced
from .windows import pooling_windows, resizing_windows, window_sums

ROWS = 3
"""How many rows traces have."""


class Ledger(Protocol):
    """Takes note of operations with weights."""

    path: str
    """Path or name of the operation that is being executed."""

    def weigh(self, sums: Tensor, *, weights: int, inputs: int, outputs: int, after: bool) -> None:
        """Notes an operation; see :class:`snm.reports.count.synapses.Target`."""


class Traces(Tensor):
    """Three rows, float64, in place of a batch of images.

    - The first says how many spikes reach a place in a time step in which every neuron sends one.
    - The second is 1 where there is an analog value that changes from image to image, else 0.
    - The third is 1 where the ReLU network has such a value, which it does not have in padding.

    Operations pass traces on as they pass spikes on. In an operation that multiplies with weights,
    each weight other than 0 counts as 1, the results are analog, and the ledger gets their sums.
    """

    after: bool
    """Whether neurons come before this place."""
    ledger: Ledger
    """What takes note of operations with weights."""

    @classmethod
    def of(cls, rows: Tensor, after: bool, ledger: Ledger) -> "Traces":
        """Makes traces from a plain tensor of the rows."""
        made = rows.as_subclass(cls)
        made.after, made.ledger = after, ledger
        return made

    @property
    def rows(self) -> Tensor:
        """The rows as a plain tensor."""
        with torch._C.DisableTorchFunctionSubclass():
            return self.as_subclass(Tensor)

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return _operate(func, args, dict(kwargs or {}))


class Weighed(NamedTuple):
    """What an operation with weights computes."""

    sums: Tensor
    """Rows whose sums are those of all that it computes with weights of 1."""
    weights: int
    """How many weights it has."""
    shape: Sequence[int]
    """The shape of what it computes, the rows first."""


def _operate(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation makes of arguments with traces among them; refuses one that is unknown."""
    name, traces = name_of(func), _traces_in((args, kwargs))
    after, ledger = any(one.after for one in traces), traces[0].ledger
    plain_args, plain_kwargs = replaced((args, kwargs), _plain)
    if name in LIKE:
        return func(*plain_args, **plain_kwargs)
    found: Any = NotImplemented
    if name in QUERIES:
        found = func(*plain_args, **plain_kwargs)
        if not isinstance(found, Tensor):
            return found
    elif name in RULES:
        found = RULES[name](func, *args, **kwargs)
    elif name in POINTWISE and not after:
        found = sum(one.rows for one in traces)
    if isinstance(found, Weighed):
        rows = torch.ones(*found.shape, dtype=torch.float64, device=found.sums.device)
        rows[0] = 0
        ledger.weigh(
            found.sums.flatten(1).sum(1),
            weights=found.weights,
            inputs=sum(one.rows[0].numel() for one in traces),
            outputs=rows[0].numel(),
            after=after,
        )
        return Traces.of(rows, after, ledger)
    results = found if isinstance(found, tuple | list) else (found,)
    if not all(map(_are_rows, results)):
        raise ValueError(
            f"report: cannot count what {name} costs, in {ledger.path}; it is known neither to "
            "pass spikes on nor to multiply them with weights"
        )
    settled = [Traces.of(_settled(rows), after, ledger) for rows in results]
    return settled if isinstance(found, tuple | list) else settled[0]


def _are_rows(result: Any) -> bool:
    """Whether a result is a tensor of rows."""
    return isinstance(result, Tensor) and result.dtype == torch.float64 and len(result) == ROWS


def name_of(func: Any) -> str:
    """The name of an operation, the same whether it is a function, a method or an operator.

    >>> name_of(torch.mul), name_of(Tensor.__rdiv__), name_of(torch.ops.aten.mul.Tensor)
    ('mul', 'div', 'mul')
    """
    name = str(getattr(func, "__name__", func)).split(".")[0]
    if name != "__get__":
        name = name.removeprefix("__").removesuffix("__")
    return _OPERATORS.get(name, name)


_OPERATORS = {"rdiv": "div", "truediv": "div", "neg": "neg", "pos": "positive"}
"""The names of operations whose operators have other names."""


def _settled(rows: Tensor) -> Tensor:
    """Rows in which analog values are just there or not, however many of them were summed."""
    return torch.cat((rows[:1], (rows[1:] != 0).to(rows.dtype)))


def _traces_in(value: Any) -> list[Traces]:
    """All traces in an argument, which may be nested."""
    found: list[Traces] = []

    def note(part: Any) -> Any:
        if isinstance(part, Traces):
            found.append(part)
        return part

    replaced(value, note)
    return found


def _plain(part: Any) -> Any:
    """The rows of traces; anything else as it is."""
    return part.rows if isinstance(part, Traces) else part


def _absent(part: Any) -> Any:
    """A term of a sum as rows; one that is not traces counts as 0, as nothing changes in it."""
    if isinstance(part, Traces):
        return part.rows
    return torch.zeros_like(part, dtype=torch.float64) if isinstance(part, Tensor) else 0.0


def _factors(*operands: Any) -> list[Any] | None:
    """The operands of a product as factors: of weights, and of values that stay the same over time,
    1 where they are not 0. None if several operands change over time."""
    if sum(part.after for part in operands if isinstance(part, Traces)) > 1:
        return None
    changes = any(part.after for part in operands if isinstance(part, Traces))

    def factor(part: Any) -> Any:
        if isinstance(part, Traces):
            return part.rows if part.after or not changes else part.rows[2:].expand_as(part.rows)
        return (part != 0).double() if isinstance(part, Tensor) else float(part != 0)

    return [factor(part) for part in operands]


def _weights_in(*operands: Any) -> int:
    """How many elements there are in all operands of a product but one: the traces that change over
    time, or the last ones if none do."""
    traces = sorted((p for p in operands if isinstance(p, Traces)), key=lambda p: p.after)
    fixed = traces[:-1]
    constant = (p.numel() for p in operands if isinstance(p, Tensor) and not isinstance(p, Traces))
    return sum(constant) + sum(part.rows[0].numel() for part in fixed)


def _kept(func: Any, *args: Any, dtype: Any = None, **kwargs: Any) -> Any:  # noqa: ARG001
    """Does with the rows what the operation does."""
    args, kwargs = replaced((args, kwargs), _plain)
    return func(*args, **kwargs)


def _same(_func: Any, input: Tensor, *_args: Any, **_kwargs: Any) -> Any:
    """Leaves the rows as they are."""
    return _absent(input)


def _sum(_func: Any, input: Any, other: Any, **_kwargs: Any) -> Any:
    """Adds the rows, for a difference as well."""
    return _absent(input) + _absent(other)


def _joined(func: Any, tensors: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
    """Joins rows as the operation joins tensors."""
    return func([_absent(part) for part in tensors], *args, **kwargs)


def _mean(_func: Any, input: Traces, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    """Sums the rows over what a mean is taken of."""
    return NotImplemented if dim is None else input.rows.sum(dim, keepdim)


def _product(_func: Any, input: Any, other: Any, **_kwargs: Any) -> Any:
    """Multiplies the factors, element by element."""
    factors = _factors(input, other)
    return NotImplemented if factors is None else factors[0] * factors[1]


def _quotient(func: Any, input: Any, other: Any, **kwargs: Any) -> Any:
    """Divides by traces as a product would, as long as they stay the same over time."""
    if isinstance(other, Traces):
        known = not other.after
        return (
            _product(func, 1.0 if not isinstance(input, Traces) else input, other)
            if known
            else NotImplemented
        )
    return _sum(func, input, other, **kwargs)


def _normalised(
    _func: Any,
    input: Traces,
    _mean: Any,
    _var: Any,
    weight: Any = None,
    *_args: Any,
    **_kwargs: Any,
) -> Any:
    """Keeps the rows of a batch norm's channels whose weight is not 0."""
    if weight is None:
        return input.rows
    return input.rows * (weight != 0).double().view(-1, *[1] * (input.rows.dim() - 2))


def _padded(
    func: Any,
    input: Traces,
    pad: Any,
    mode: str = "constant",
    value: Any = None,  # noqa: ARG001
) -> Any:
    """Pads the rows, with zeros where the operation pads with a constant."""
    return func(input.rows, pad) if mode == "constant" else func(input.rows, pad, mode)


def _each(value: Any, dims: int) -> tuple[Any, ...]:
    """An argument of a pooling for each of its dimensions."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    return values * dims if len(values) == 1 else values


def _averaged(
    dims: int,
    _func: Any,
    input: Traces,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    *_divisor: Any,
    **_kwargs: Any,
) -> Tensor:
    """Sums the rows over the windows of an average pooling."""
    return _in_windows(dims, input, kernel_size, stride, padding, 1, ceil_mode)


def _largest(
    dims: int,
    _func: Any,
    input: Traces,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Sums the rows over the windows of a max pooling."""
    if return_indices:
        return NotImplemented
    return _in_windows(dims, input, kernel_size, stride, padding, dilation, ceil_mode)


def _in_windows(
    dims: int,
    input: Traces,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> Tensor:
    """Sums the rows over the windows of a pooling."""
    each = (kernel_size, kernel_size if stride in (None, [], ()) else stride, padding, dilation)
    kernels, strides, paddings, dilations = (_each(value, dims) for value in each)
    pooling = Pooling(kernels, strides, paddings, dilations, bool(ceil_mode))
    return window_sums(input.rows, pooling_windows(pooling, input.rows.shape[-dims:]))


def _adaptive(
    dims: int, _func: Any, input: Traces, output_size: Any, return_indices: bool = False
) -> Any:
    """Sums the rows over the windows of an adaptive pooling."""
    if return_indices:
        return NotImplemented
    pooling = Pooling(output_size=_each(output_size, dims))
    return window_sums(input.rows, pooling_windows(pooling, input.rows.shape[-dims:]))


def _resized(func: Any, input: Traces, *args: Any, **kwargs: Any) -> Tensor:
    """Sums the rows over the values that each result of an interpolation is made of."""

    def resize(values: Tensor) -> Tensor:
        made: Tensor = func(values, *args, **kwargs)
        return made

    return window_sums(input.rows, resizing_windows(resize, input.rows.shape[2:]))


def _convolution(
    func: Any,
    input: Any,
    weight: Any,
    bias: Any = None,  # noqa: ARG001
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Convolves the rows with weights of 1; all filters of a group are summed to one."""
    if isinstance(weight, Traces):
        return NotImplemented
    # The filters of a group are summed first, as their outputs are summed in the end.
    filters = (weight != 0).unflatten(0, (groups, -1)).sum(1).double()
    sums = func(input.rows, filters, None, stride, padding, dilation, groups)
    return Weighed(sums, weight.numel(), (ROWS, weight.shape[0], *sums.shape[2:]))


def _transposed(
    func: Any,
    input: Any,
    weight: Any,
    bias: Any = None,  # noqa: ARG001
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Convolves the rows, transposed, with weights of 1; a group's filters are summed to one."""
    if isinstance(weight, Traces):
        return NotImplemented
    filters = (weight != 0).sum(1, keepdim=True).double()
    sums = func(input.rows, filters, None, stride, padding, output_padding, groups, dilation)
    return Weighed(sums, weight.numel(), (ROWS, groups * weight.shape[1], *sums.shape[2:]))


def _linear(_func: Any, input: Any, weight: Any, bias: Any = None) -> Any:  # noqa: ARG001
    """Multiplies the rows with a matrix of ones, all of its outputs summed to one."""
    if isinstance(weight, Traces) or not isinstance(input, Traces):
        return NotImplemented
    rows = input.rows
    sums = rows @ (weight != 0).sum(0).double()
    return Weighed(sums.reshape(ROWS, -1), weight.numel(), (*rows.shape[:-1], *weight.shape[:-1]))


def _matrices(_func: Any, input: Any, other: Any) -> Any:
    """Multiplies the factors as matrices, the right one's columns summed to one."""
    factors = _factors(input, other)
    if factors is None:
        return NotImplemented
    left, right = factors
    shape = torch.matmul(left.to("meta"), right.to("meta")).shape
    sums = left @ (right.sum(-1, keepdim=True) if right.dim() > 1 else right)
    return Weighed(sums.reshape(sums.shape[0], -1), _weights_in(input, other), shape)


def _einsum(func: Any, equation: str, *operands: Any) -> Any:
    """Takes the sum of products over the factors; it has weights if it sums over any index."""
    if isinstance(operands[0], tuple | list):
        operands = tuple(operands[0])
    factors = _factors(*operands)
    if factors is None:
        return NotImplemented
    rows = func(equation, *factors)
    read, arrow, made = equation.replace(" ", "").partition("->")
    summed = {c for c in read if c.isalpha() and (c not in made if arrow else read.count(c) > 1)}
    if len(operands) == 1 or not summed:
        return rows
    return Weighed(rows, _weights_in(*operands), rows.shape)


LIKE = frozenset(
    ("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full")
)
"""The names of operations that make constants in the size of a value."""

QUERIES = frozenset(
    (
        *("__get__", "dim", "ndimension", "size", "numel", "nelement", "len", "stride"),
        *("is_contiguous", "is_floating_point", "get_device", "element_size", "is_complex"),
    )
)
"""The names of operations that read sizes and the like, but no value."""

POINTWISE = frozenset(
    (
        *("relu", "relu6", "hardtanh", "threshold", "clamp", "clamp_min", "clamp_max", "clip"),
        *("sigmoid", "tanh", "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "rsqrt"),
        *("abs", "square", "pow", "reciprocal", "sin", "cos", "erf", "sign", "round", "floor"),
        *("ceil", "gelu", "silu", "elu", "selu", "leaky_relu", "softplus", "hardsigmoid"),
        *("hardswish", "softmax", "log_softmax", "layer_norm", "group_norm", "instance_norm"),
        *("normalize", "maximum", "minimum"),
    )
)
"""The names of operations that make a value of each value, without weights; they are known only
before the first neurons."""

RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("sum", "cumsum", "flip", "fliplr", "flipud", "repeat", "getitem"), _kept),
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split", "unbind"), _kept),
    **dict.fromkeys(("index_select", "narrow", "select", "unfold", "fold"), _kept),
    **dict.fromkeys(("flatten", "reshape", "unflatten", "view", "expand_as", "reshape_as"), _kept),
    **dict.fromkeys(("view_as", "squeeze", "unsqueeze", "expand", "broadcast_to"), _kept),
    **dict.fromkeys(("movedim", "moveaxis", "permute", "swapaxes", "swapdims"), _kept),
    **dict.fromkeys(("transpose", "channel_shuffle", "pixel_shuffle", "pixel_unshuffle"), _kept),
    **dict.fromkeys(("contiguous", "detach", "positive", "neg", "negative", "clone"), _same),
    **dict.fromkeys(("float", "double", "to", "dropout", "dropout1d", "dropout2d"), _same),
    **dict.fromkeys(("add", "sub", "subtract", "rsub"), _sum),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack", "hstack", "dstack"), _joined),
    **dict.fromkeys(("mul", "multiply"), _product),
    **dict.fromkeys(("div", "divide", "true_divide"), _quotient),
    **dict.fromkeys(("matmul", "bmm", "mm"), _matrices),
    **{f"conv{dims}d": _convolution for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": _transposed for dims in (1, 2, 3)},
    **{f"avg_pool{dims}d": partial(_averaged, dims) for dims in (1, 2, 3)},
    **{f"max_pool{dims}d": partial(_largest, dims) for dims in (1, 2, 3)},
    **{f"adaptive_avg_pool{dims}d": partial(_adaptive, dims) for dims in (1, 2, 3)},
    **{f"adaptive_max_pool{dims}d": partial(_adaptive, dims) for dims in (1, 2, 3)},
    "batch_norm": _normalised,
    "einsum": _einsum,
    "interpolate": _resized,
    "linear": _linear,
    "mean": _mean,
    "pad": _padded,
}
"""What each operation that is known makes of traces, by its name."""
