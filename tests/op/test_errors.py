"""What the op refuses, and how it says so: op, argument, expected, got."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from snm_kernels import SNM, SNMState, backends, snm

X = torch.zeros(4, 2, 3)
V, M = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int32)
NAN = float("nan")
DRIVES = "float32, float16, bfloat16, int32"
HALF = torch.float16
INTEGERS: dict[str, Any] = {"x": X.int(), "threshold": M + 1, "emit": "spike"}

# Arguments that differ from a right call, the error, and its text.
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "x a list": ({"x": [1.0]}, TypeError, "x must be a tensor, got [1.0]"),
    "x float64": (
        {"x": X.double()},
        TypeError,
        f"x must be one of {DRIVES}, got torch.float64",
    ),
    "x bool": ({"x": X.bool()}, TypeError, f"x must be one of {DRIVES}, got torch.bool"),
    "x without time": (
        {"x": torch.tensor(1.0)},
        ValueError,
        "x must be [T, *shape] with T >= 1, got []",
    ),
    "x of no steps": ({"x": X[:0]}, ValueError, "x must be [T, *shape] with T >= 1, got [0, 2, 3]"),
    "x on meta": (
        {"x": X.to("meta")},
        ValueError,
        "x must be on a cpu or cuda device for backend='auto', got meta; "
        "backend='reference' runs on any device",
    ),
    "x on meta for the CPU": (
        {"x": X.to("meta"), "backend": "cpu"},
        ValueError,
        "x must be on a cpu device for 'cpu', got meta",
    ),
    "rule a name": ({"rule": "snm"}, TypeError, "rule must be an SNMRule, got snm"),
    "threshold 0": ({"threshold": 0.0}, ValueError, "threshold must be > 0 in float32, got 0.0"),
    "threshold negative": (
        {"threshold": -1},
        ValueError,
        "threshold must be > 0 in float32, got -1.0",
    ),
    "threshold NaN": ({"threshold": NAN}, ValueError, "threshold must be > 0 in float32, got nan"),
    "threshold of long integers": (
        {"threshold": M.long()},
        TypeError,
        "threshold must be floating point or torch.int32, got torch.int64",
    ),
    "x floating with an int32 threshold": (
        {"threshold": M},
        TypeError,
        "x must be torch.int32 with an int32 threshold, got torch.float32",
    ),
    "amplitudes of integers": (
        {**INTEGERS, "emit": "amplitude"},
        ValueError,
        "emit must be 'spike' or 'none' with an int32 threshold, got 'amplitude'; "
        'integer neurons send spikes: use emit="spike"',
    ),
    "out_dtype of integers": (
        {**INTEGERS, "out_dtype": torch.int8},
        ValueError,
        "out_dtype must be None with emit='spike', got torch.int8",
    ),
    "out of integers": (
        {**INTEGERS, "out": X},
        TypeError,
        "out must be torch.int8, got torch.float32",
    ),
    "int32 threshold of another shape": (
        {**INTEGERS, "threshold": M[:, :2]},
        ValueError,
        "threshold must broadcast to [2, 3], got [2, 2]",
    ),
    "floating bias of integers": (
        {**INTEGERS, "bias": V},
        TypeError,
        "bias must be torch.int32 with an int32 threshold, got torch.float32",
    ),
    "fractional bias of integers": (
        {**INTEGERS, "bias": 0.5},
        TypeError,
        "bias must be an int or a tensor with an int32 threshold, got 0.5",
    ),
    "bias beyond int32": (
        {**INTEGERS, "bias": 2**31},
        ValueError,
        "bias must be an int32, got 2147483648",
    ),
    "floating residual of integers": (
        {**INTEGERS, "residual": X},
        TypeError,
        "residual must be torch.int32, got torch.float32",
    ),
    "floating membrane of integers": (
        {**INTEGERS, "state": SNMState(V, M)},
        TypeError,
        "state.v must be torch.int32, got torch.float32",
    ),
    "whole membrane of floats": (
        {"state": SNMState(M, M)},
        TypeError,
        "state.v must be torch.float32, got torch.int32",
    ),
    "threshold per channel without its dimensions": (
        {"threshold": torch.ones(2)},
        ValueError,
        "threshold must broadcast to [2, 3], got [2]",
    ),
    "threshold with time": (
        {"threshold": torch.ones(1, 2, 3)},
        ValueError,
        "threshold must broadcast to [2, 3], got [1, 2, 3]",
    ),
    "threshold elsewhere": (
        {"threshold": torch.ones(3, device="meta")},
        ValueError,
        "threshold must be on cpu, got meta",
    ),
    "bias of integers": ({"bias": M}, TypeError, "bias must be floating point, got torch.int32"),
    "bias too long": (
        {"bias": torch.ones(4)},
        ValueError,
        "bias must broadcast to [2, 3], got [4]",
    ),
    "bias elsewhere": (
        {"bias": torch.ones(3, device="meta")},
        ValueError,
        "bias must be on cpu, got meta",
    ),
    "residual a number": ({"residual": 1.0}, TypeError, "residual must be a tensor, got 1.0"),
    "residual of another dtype": (
        {"residual": X.half()},
        TypeError,
        "residual must be torch.float32, got torch.float16",
    ),
    "residual without time": (
        {"residual": X[0]},
        ValueError,
        "residual must be of shape [4, 2, 3], got [2, 3]",
    ),
    "residual elsewhere": (
        {"residual": X.to("meta")},
        ValueError,
        "residual must be on cpu, got meta",
    ),
    "state.v half": (
        {"state": SNMState(V.half(), M)},
        TypeError,
        "state.v must be torch.float32, got torch.float16",
    ),
    "state.v of another shape": (
        {"state": SNMState(V[0], M)},
        ValueError,
        "state.v must be of shape [2, 3], got [3]",
    ),
    "state.v elsewhere": (
        {"state": SNMState(V.to("meta"), M)},
        ValueError,
        "state.v must be on cpu, got meta",
    ),
    "state.m int64": (
        {"state": SNMState(V, M.long())},
        TypeError,
        "state.m must be torch.int32, got torch.int64",
    ),
    "state.m of another shape": (
        {"state": SNMState(V, M[:, :1])},
        ValueError,
        "state.m must be of shape [2, 3], got [2, 1]",
    ),
    "state.m a number": (
        {"state": SNMState(V, 0)},
        TypeError,
        "state.m must be a tensor, got 0",
    ),
    "emit unknown": (
        {"emit": "rate"},
        ValueError,
        "emit must be 'amplitude', 'spike' or 'none', got rate",
    ),
    "out_dtype float64": (
        {"out_dtype": torch.float64},
        TypeError,
        "out_dtype must be one of float32, float16, bfloat16, got torch.float64",
    ),
    "out_dtype with spikes": (
        {"emit": "spike", "out_dtype": HALF},
        ValueError,
        "out_dtype must be None with emit='spike', got torch.float16",
    ),
    "out_dtype with nothing": (
        {"emit": "none", "out_dtype": HALF},
        ValueError,
        "out_dtype must be None with emit='none', got torch.float16",
    ),
    "out with nothing": (
        {"emit": "none", "out": X},
        ValueError,
        "out must be None with emit='none', got a tensor",
    ),
    "out of another dtype": (
        {"out": X.half()},
        TypeError,
        "out must be torch.float32, got torch.float16",
    ),
    "out of another shape": (
        {"out": X[:2].clone()},
        ValueError,
        "out must be of shape [4, 2, 3], got [2, 2, 3]",
    ),
    "out elsewhere": ({"out": X.to("meta")}, ValueError, "out must be on cpu, got meta"),
    "backend unknown": (
        {"backend": "metal"},
        ValueError,
        "backend must be 'auto' or one of cpu, cuda, triton, reference, got metal",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_argument_is_refused(name: str) -> None:
    changed, error, message = REFUSED[name]
    arguments = {"x": X, "threshold": 1.0, **changed}
    with pytest.raises(error) as raised:
        snm(arguments.pop("x"), arguments.pop("threshold"), **arguments)
    assert str(raised.value) == f"snm: {message}"


ON_ANY_DEVICE = [n for n in REFUSED if n != "x on meta" and "backend" not in REFUSED[n][0]]


@pytest.mark.parametrize("name", ON_ANY_DEVICE)
def test_reference_refuses_the_same(name: str) -> None:
    changed, error, message = REFUSED[name]
    arguments = {"x": X, "threshold": 1.0, **changed}
    with pytest.raises(error) as raised:
        snm(arguments.pop("x"), arguments.pop("threshold"), backend="reference", **arguments)
    assert str(raised.value) == f"snm: {message}"


@pytest.mark.parametrize("threshold", [1e-46, 5e-324])
def test_threshold_that_float32_rounds_to_zero_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"^snm: threshold must be "):
        snm(X, threshold)


def test_threshold_beyond_float32_names_the_argument() -> None:
    with pytest.raises((ValueError, TypeError), match=r"^snm: threshold must be "):
        snm(X, 1e39)


def test_bias_beyond_float32_names_the_argument() -> None:
    with pytest.raises((ValueError, TypeError), match=r"^snm: bias must be "):
        snm(X, 1.0, bias=-1e39)


@pytest.mark.parametrize("threshold", [None, "1", [1.0]], ids=repr)
def test_threshold_that_is_no_number_names_the_argument(threshold: object) -> None:
    with pytest.raises(TypeError, match=r"^snm: threshold must be "):
        snm(X, threshold)


@pytest.mark.parametrize("state", [(V,), (V, M, M)], ids=["one part", "three parts"])
def test_state_of_other_parts_names_the_argument(state: tuple[Tensor, ...]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^snm: state must be "):
        snm(X, 1.0, state=state)


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_backend_that_cannot_run_says_why(backend: str) -> None:
    status = backends()[backend]
    if status.available:
        with pytest.raises(ValueError, match=f"^snm: x must be on a cuda device for '{backend}', "):
            snm(X, 1.0, backend=backend)
        return
    with pytest.raises(RuntimeError) as raised:
        snm(X, 1.0, backend=backend)
    assert str(raised.value) == f"snm: backend '{backend}' is not available: {status.reason}"


def with_grad(name: str) -> dict[str, Any]:
    learnt = {
        "x": X.clone(),
        "threshold": torch.ones(3),
        "state.v": V.clone(),
        "bias": torch.zeros(3),
        "residual": X.clone(),
        "out": X.clone(),
    }[name].requires_grad_()
    if name == "state.v":
        return {"x": X, "threshold": 1.0, "state": SNMState(learnt, M)}
    return {"x": X, "threshold": 1.0, name: learnt}


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", ["x", "threshold", "state.v", "bias", "residual", "out"])
def test_argument_that_requires_grad_is_refused(name: str, backend: str) -> None:
    arguments = with_grad(name)
    with pytest.raises(RuntimeError) as raised:
        snm(**arguments, backend=backend)
    assert str(raised.value) == (
        f"snm: {name} requires grad, but this op has no gradient; call it under torch.no_grad()"
    )
    with torch.no_grad():
        assert snm(**with_grad(name), backend=backend).state.m.eq(0).all()
    with torch.inference_mode():
        assert snm(**with_grad(name), backend=backend).state.m.eq(0).all()


ONE = torch.tensor(1.0)
INTEGERS_DIRECT: dict[str, Any] = {"x": X.int(), "threshold": ONE.int()}
DIRECT: dict[str, tuple[dict[str, Any], str]] = {
    "x float64": ({"x": X.double()}, "x must be float32, float16, bfloat16 or int32, got Double"),
    "x without time": ({"x": ONE}, "x must be [T, *shape] with T >= 1, got []"),
    "x of no steps": ({"x": X[:0]}, "x must be [T, *shape] with T >= 1, got [0, 2, 3]"),
    "threshold float64": ({"threshold": ONE.double()}, "threshold must be float32, got Double"),
    "threshold of another shape": (
        {"threshold": torch.ones(2)},
        "threshold must be broadcastable to [2, 3], got [2]",
    ),
    "threshold with time": (
        {"threshold": torch.ones(1, 2, 3)},
        "threshold must be broadcastable to [2, 3], got [1, 2, 3]",
    ),
    "x float with an int32 threshold": (
        {"threshold": ONE.int()},
        "x must be int32 with an int32 threshold, got Float",
    ),
    "v float with an int32 threshold": ({**INTEGERS_DIRECT, "v": V}, "v must be Int, got Float"),
    "bias float with an int32 threshold": (
        {**INTEGERS_DIRECT, "bias": V},
        "bias must be int32, got Float",
    ),
    "amplitudes with an int32 threshold": (
        INTEGERS_DIRECT,
        "spikes must be int8 with an int32 threshold, got Float",
    ),
    "v half": ({"v": V.half()}, "v must be Float, got Half"),
    "v of another shape": ({"v": V[0]}, "v must be of shape [2, 3], got [3]"),
    "m float": ({"m": V}, "m must be Int, got Float"),
    "m of another shape": ({"m": M[0]}, "m must be of shape [2, 3], got [3]"),
    "bias half": ({"bias": V.half()}, "bias must be float32, got Half"),
    "bias of another shape": (
        {"bias": torch.ones(4)},
        "bias must be broadcastable to [2, 3], got [4]",
    ),
    "residual half": ({"residual": X.half()}, "residual must be Float, got Half"),
    "residual without time": (
        {"residual": V},
        "residual must be of shape [4, 2, 3], got [2, 3]",
    ),
    "max_spikes 0": ({"max_spikes": 0}, "max_spikes must be 1 to 127, got 0"),
    "max_spikes 128": ({"max_spikes": 128}, "max_spikes must be 1 to 127, got 128"),
    "negative_threshold -0.5": (
        {"negative_threshold": -0.5},
        "negative_threshold must be at least 0, got -0.5",
    ),
    "count_min 1": ({"count_min": 1}, "count_min must be an int32 <= 0, got 1"),
    "count_min too low": (
        {"count_min": -(2**31) - 1},
        "count_min must be an int32 <= 0, got -2147483649",
    ),
    "count_max -1": ({"count_max": -1}, "count_max must be an int32 >= 0, got -1"),
    "count_max too high": (
        {"count_max": 2**31},
        "count_max must be an int32 >= 0, got 2147483648",
    ),
}
DEFAULTS: dict[str, Any] = {
    "x": X,
    "threshold": ONE,
    "v": None,
    "m": None,
    "bias": None,
    "residual": None,
    "v_init": 0.0,
    "negative_threshold": 1.0,
    "strict": False,
    "max_spikes": 1,
    "count_min": 0,
    "count_max": SNM.count_bounds[1],
}
SPIKES = "spikes must be float32, float16, bfloat16 or int8, got "


@pytest.mark.parametrize("op", ["snm", "snm_out"])
@pytest.mark.parametrize("name", DIRECT)
def test_operator_called_directly_checks_its_arguments(name: str, op: str) -> None:
    changed, message = DIRECT[name]
    last = {"out": X.clone()} if op == "snm_out" else {"spikes_dtype": torch.float32}
    with pytest.raises(RuntimeError, match=re.escape(f"snm: {message}")):
        getattr(torch.ops.snm_kernels, op)(**{**DEFAULTS, **changed}, **last)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.bool], ids=str)
def test_operator_called_directly_checks_the_spikes(dtype: torch.dtype) -> None:
    with pytest.raises(RuntimeError, match=SPIKES):
        torch.ops.snm_kernels.snm(**DEFAULTS, spikes_dtype=dtype)
    with pytest.raises(RuntimeError, match=SPIKES):
        torch.ops.snm_kernels.snm_out(**DEFAULTS, out=X.to(dtype))


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (X[:3].clone(), "out must be of shape [4, 2, 3], got [3, 2, 3]"),
        (torch.zeros(4, 3, 2).mT, "out must be of strides [6, 3, 1], got [6, 1, 2]"),
        (X[:1].expand(4, 2, 3), "out must be of strides [6, 3, 1], got [0, 3, 1]"),
    ],
    ids=["shape", "strides", "stride 0 over time"],
)
def test_operator_called_directly_checks_out(out: Tensor, message: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(f"snm: {message}")):
        torch.ops.snm_kernels.snm_out(**DEFAULTS, out=out)
