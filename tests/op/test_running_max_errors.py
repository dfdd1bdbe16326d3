"""What the running maximum refuses, and how it says so: op, argument, expected, got."""

import re
from typing import Any

import pytest
import torch

from snm_kernels import adaptive_running_max_pool, backends, running_max_pool

X = torch.zeros(4, 2, 3, 6, 5, dtype=torch.int8)
SUMS = X.float()
FITS = "x must be [T, B, C, *spatial] with T >= 1 and 1 to 3 spatial sizes >= 1, got "
DTYPES = "int8, float32, float16, bfloat16"
TALL = torch.ones(3, 6, 1)
HALF = torch.float16

# Arguments that differ from a right call, the error, and its text.
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "x a list": ({"x": [1]}, TypeError, "x must be a tensor, got [1]"),
    "x int32": ({"x": X.int()}, TypeError, f"x must be one of {DTYPES}, got torch.int32"),
    "x without space": ({"x": X[..., 0, 0]}, ValueError, f"{FITS}[4, 2, 3]"),
    "x of four dimensions": (
        {"x": X[:, :, :, None, None]},
        ValueError,
        f"{FITS}[4, 2, 3, 1, 1, 6, 5]",
    ),
    "x of no steps": ({"x": X[:0]}, ValueError, f"{FITS}[0, 2, 3, 6, 5]"),
    "x of no pixels": ({"x": X[..., :0]}, ValueError, f"{FITS}[4, 2, 3, 6, 0]"),
    "no threshold": (
        {"threshold": None},
        ValueError,
        "threshold must be given for int8 x, got None",
    ),
    "a threshold of amplitudes": (
        {"x": SUMS},
        ValueError,
        "threshold must be None for torch.float32 x, which carries it already, got one",
    ),
    "threshold 0": ({"threshold": 0.0}, ValueError, "threshold must be > 0 in float32, got 0.0"),
    "threshold a string": (
        {"threshold": "1"},
        TypeError,
        "threshold must be a number or a tensor, got '1'",
    ),
    "threshold of integers": (
        {"threshold": torch.ones(3, 1, 1, dtype=torch.int32)},
        TypeError,
        "threshold must be floating point, got torch.int32",
    ),
    "threshold per channel without its dimensions": (
        {"threshold": torch.ones(3)},
        ValueError,
        "threshold must broadcast to [3, 6, 5], got [3]",
    ),
    "threshold per sample": (
        {"threshold": torch.ones(2, 3, 6, 5)},
        ValueError,
        "threshold must broadcast to [3, 6, 5], got [2, 3, 6, 5]",
    ),
    "threshold elsewhere": (
        {"threshold": torch.ones(3, 1, 1, device="meta")},
        ValueError,
        "threshold must be on cpu, got meta",
    ),
    "total a number": ({"total": 0}, TypeError, "total must be a tensor, got 0"),
    "total of amplitudes": (
        {"total": SUMS[0]},
        TypeError,
        "total must be torch.int32, got torch.float32",
    ),
    "total of spikes": (
        {"x": SUMS, "threshold": None, "total": X[0].int()},
        TypeError,
        "total must be torch.float32, got torch.int32",
    ),
    "total with time": (
        {"total": X.int()},
        ValueError,
        "total must be of shape [2, 3, 6, 5], got [4, 2, 3, 6, 5]",
    ),
    "total elsewhere": (
        {"total": X[0].int().to("meta")},
        ValueError,
        "total must be on cpu, got meta",
    ),
    "emit unknown": ({"emit": "none"}, ValueError, "emit must be 'amplitude' or 'spike', got none"),
    "spikes of amplitudes": (
        {"x": SUMS, "threshold": None, "emit": "spike"},
        ValueError,
        "emit must be 'amplitude' for torch.float32 x, got 'spike': the maximum of amplitudes "
        "changes by no whole number of thresholds",
    ),
    "spikes of several thresholds": (
        {"threshold": TALL, "emit": "spike"},
        ValueError,
        "emit must be 'amplitude' where thresholds differ within windows, got 'spike': a maximum "
        "that passes from one threshold to another changes by no whole number of either",
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
    "backend unknown": (
        {"backend": "metal"},
        ValueError,
        "backend must be 'auto' or one of cpu, cuda, triton, reference, got metal",
    ),
    "x on meta": (
        {"x": X.to("meta")},
        ValueError,
        "x must be on a cpu or cuda device for backend='auto', got meta; "
        "backend='reference' runs on any device",
    ),
}
WINDOWS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "kernel 0": (
        {"kernel_size": 0},
        ValueError,
        "kernel_size must be an integer >= 1, or 2 of them, got 0",
    ),
    "kernel a float": (
        {"kernel_size": 2.0},
        ValueError,
        "kernel_size must be an integer >= 1, or 2 of them, got 2.0",
    ),
    "kernel of three": (
        {"kernel_size": (2, 2, 2)},
        ValueError,
        "kernel_size must be an integer >= 1, or 2 of them, got (2, 2, 2)",
    ),
    "stride 0": (
        {"stride": (1, 0)},
        ValueError,
        "stride must be an integer >= 1, or 2 of them, got (1, 0)",
    ),
    "padding negative": (
        {"padding": -1},
        ValueError,
        "padding must be an integer >= 0, or 2 of them, got -1",
    ),
    "padding over half": (
        {"padding": 2},
        ValueError,
        "padding must be at most half of the effective kernel size 2, got 2",
    ),
    "dilation True": (
        {"dilation": True},
        ValueError,
        "dilation must be an integer >= 1, or 2 of them, got True",
    ),
    "ceil_mode 1": ({"ceil_mode": 1}, TypeError, "ceil_mode must be a bool, got 1"),
    "window over the input": (
        {"kernel_size": 7},
        ValueError,
        "x must be as large as a window of 7 in every spatial dimension, padding included, got 6",
    ),
    "window without input": (
        {"kernel_size": 2, "stride": 1, "padding": 4, "dilation": 8},
        ValueError,
        "x must have an input in every window, got none in window 2 of a dimension of size 6",
    ),
}


def arguments(changed: dict[str, Any]) -> dict[str, Any]:
    return {"x": X, "threshold": 1.0, **changed}


@pytest.mark.parametrize("name", [*REFUSED, *WINDOWS])
def test_wrong_argument_is_refused(name: str) -> None:
    changed, error, message = (REFUSED | WINDOWS)[name]
    with pytest.raises(error) as raised:
        running_max_pool(**arguments({"kernel_size": 2, **changed}))
    assert str(raised.value) == f"running_max_pool: {message}"


@pytest.mark.parametrize("name", REFUSED)
def test_adaptive_op_refuses_the_same(name: str) -> None:
    changed, error, message = REFUSED[name]
    with pytest.raises(error) as raised:
        adaptive_running_max_pool(**arguments({"output_size": 2, **changed}))
    assert str(raised.value) == f"adaptive_running_max_pool: {message}"


@pytest.mark.parametrize("size", [0, (2,), (2, 0), (2, None, 2), 1.5, None])
def test_wrong_output_size_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match=r"^adaptive_running_max_pool: output_size must be an int"):
        adaptive_running_max_pool(X, size if size is not None else "2", threshold=1.0)


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_backend_that_cannot_run_says_why(backend: str) -> None:
    status = backends()[backend]
    if status.available:
        pytest.skip(f"{backend} is available here")
    with pytest.raises(RuntimeError) as raised:
        running_max_pool(X, 2, threshold=1.0, backend=backend)
    reason = f"running_max_pool: backend '{backend}' is not available: {status.reason}"
    assert str(raised.value) == reason


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", ["x", "threshold", "total"])
def test_argument_that_requires_grad_is_refused(name: str, backend: str) -> None:
    given: dict[str, Any] = {"x": SUMS, "threshold": None, "total": SUMS[0]}
    if name == "threshold":
        given = {"x": X, "threshold": torch.ones(3, 1, 1), "total": None}
    given[name] = given[name].clone().requires_grad_()
    with pytest.raises(RuntimeError) as raised:
        running_max_pool(**given, kernel_size=2, backend=backend)
    assert str(raised.value) == (
        f"running_max_pool: {name} requires grad, but this op has no gradient; "
        "call it under torch.no_grad()"
    )
    with torch.no_grad():
        assert running_max_pool(**given, kernel_size=2, backend=backend).spikes.eq(0).all()


ONE = torch.ones(())
DIRECT: dict[str, tuple[dict[str, Any], str]] = {
    "x int32": ({"x": X.int()}, "x must be int8, float32, float16 or bfloat16, got Int"),
    "x without space": ({"x": X[..., 0, 0]}, f"{FITS}[4, 2, 3]"),
    "no threshold": ({"threshold": None}, "threshold must be given for int8 x, got None"),
    "a threshold": ({"x": SUMS}, "threshold must be None for floating x, got a tensor"),
    "threshold float64": ({"threshold": ONE.double()}, "threshold must be float32, got Double"),
    "threshold too long": (
        {"threshold": torch.ones(3)},
        "threshold must be broadcastable to [3, 6, 5], got [3]",
    ),
    "total float": ({"total": SUMS[0]}, "total must be Int, got Float"),
    "total with time": (
        {"total": X.int()},
        "total must be of shape [2, 3, 6, 5], got [4, 2, 3, 6, 5]",
    ),
    "sent int32": (
        {"sent_dtype": torch.int32},
        "sent must be float32, float16, bfloat16 or int8, got Int",
    ),
    "spikes of several thresholds": (
        {"threshold": TALL, "sent_dtype": torch.int8},
        "sent must be float32, float16 or bfloat16, got Char",
    ),
    "kernel of one": (
        {"kernel_size": [2]},
        "kernel_size must be one integer per spatial dimension (2), got [2]",
    ),
    "kernel 0": ({"kernel_size": [2, 0]}, "kernel_size must be at least 1, got 0"),
    "stride 0": ({"stride": [0, 2]}, "stride must be at least 1, got 0"),
    "dilation 0": ({"dilation": [1, 0]}, "dilation must be at least 1, got 0"),
    "padding over half": (
        {"padding": [2, 0]},
        "padding must be 0 to half of the effective kernel size, got 2",
    ),
    "window over the input": (
        {"kernel_size": [7, 2]},
        "x must be as large as a window with its padding, got size 6 for 7",
    ),
    "window without input": (
        {"stride": [1, 1], "padding": [4, 4], "dilation": [8, 8]},
        "x must be of a size with an input in every window, got size 6 with none in window 2",
    ),
}


@pytest.mark.parametrize("name", DIRECT)
def test_operator_called_directly_checks_its_arguments(name: str) -> None:
    changed, message = DIRECT[name]
    right: dict[str, Any] = {
        "x": X,
        "threshold": ONE,
        "total": None,
        "kernel_size": [2, 2],
        "stride": [2, 2],
        "padding": [0, 0],
        "dilation": [1, 1],
        "ceil_mode": False,
        "sent_dtype": torch.float32,
    }
    with pytest.raises(RuntimeError, match=re.escape(f"running_max_pool: {message}")):
        torch.ops.snm_kernels.running_max_pool(**{**right, **changed})


def test_adaptive_operator_called_directly_checks_its_output_size() -> None:
    run = torch.ops.snm_kernels.adaptive_running_max_pool
    with pytest.raises(RuntimeError, match="output_size must be at least 1, got 0"):
        run(X, ONE, None, [2, 0], torch.float32)
    with pytest.raises(RuntimeError, match="output_size must be one integer per spatial dimension"):
        run(X, ONE, None, [2], torch.float32)
