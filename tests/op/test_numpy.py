"""The NumPy entry: equal to torch's, without copies, without the interpreter lock."""

import subprocess
import sys
import threading
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snm_kernels import SNMOutput, SNMRule, SNMState, preset, snm
from snm_kernels import numpy as snm_numpy
from support.cases import CASES, Case
from support.equality import assert_same_run

Array = np.ndarray


def as_array(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(torch.float16 if value.dtype == torch.bfloat16 else value.dtype).numpy()
    if isinstance(value, SNMState):
        return snm_numpy.SNMState(value.v.numpy(), value.m.numpy())
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return value


def as_tensors(run: snm_numpy.SNMOutput) -> SNMOutput:
    spikes = None if run.spikes is None else torch.from_numpy(run.spikes)
    return SNMOutput(spikes, SNMState(*(torch.from_numpy(part) for part in run.state)))


FOR_NUMPY = [
    case for case in CASES if case.for_numpy and "bfloat16" not in f"{case.threshold} {case.bias}"
]


@pytest.mark.parametrize("case", FOR_NUMPY, ids=str)
def test_numpy_equals_torch(case: Case) -> None:
    inputs = case.inputs()
    expected = snm(**inputs)
    arrays = {name: as_array(value) for name, value in inputs.items()}
    before = {name: a.copy() for name, a in arrays.items() if isinstance(a, Array)}
    actual = snm_numpy.snm(**arrays)
    assert_same_run(as_tensors(actual), expected)
    for name, array in before.items():
        assert arrays[name].tobytes() == array.tobytes(), name
    if actual.spikes is not None:
        assert actual.spikes.flags.c_contiguous


def drive(*shape: int, dtype: Any = np.float32) -> Array:
    return (np.random.default_rng(0).normal(size=shape) * 1.5).astype(dtype)


def equal(a: snm_numpy.SNMOutput, b: snm_numpy.SNMOutput) -> bool:
    parts = zip((a.spikes, *a.state), (b.spikes, *b.state), strict=True)
    return all(left.tobytes() == right.tobytes() for left, right in parts)


def one_byte_off(x: Array) -> Array:
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
    raw[:] = np.frombuffer(x.tobytes(), np.uint8)
    return raw.view(x.dtype).reshape(x.shape)


LAYOUTS = {
    "time reversed": lambda x: x[::-1],
    "every other step": lambda x: x[::2],
    "every other column": lambda x: x[..., ::2],
    "columns reversed": lambda x: x[..., ::-1],
    "fortran": np.asfortranarray,
    "transposed": lambda x: x.swapaxes(1, 2),
    "constant": lambda x: np.broadcast_to(x[:1], x.shape),
    "one row for all": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "field of a record": lambda x: np.rec.fromarrays([x.astype(np.int8), x])["f1"],
    "one byte off": one_byte_off,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32], ids=lambda d: d.__name__)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_is_read_as_its_copy(layout: str, dtype: type) -> None:
    x = LAYOUTS[layout](drive(6, 5, 40, dtype=dtype))
    plain = np.array(x, dtype=dtype, order="C", copy=True)
    run = snm_numpy.snm(x, 0.75, emit="spike")
    assert equal(run, snm_numpy.snm(plain, 0.75, emit="spike"))
    run = snm_numpy.snm(x, 0.75, residual=x, emit="spike")
    assert equal(run, snm_numpy.snm(plain, 0.75, residual=plain, emit="spike"))


@pytest.mark.parametrize("layout", ["fortran", "columns reversed", "every other column"])
def test_state_and_parameters_of_any_layout(layout: str) -> None:
    theta = LAYOUTS[layout](np.abs(drive(5, 40)) + 0.5)
    x = drive(6, *theta.shape)
    ones = LAYOUTS[layout](np.ones((5, 40), np.int32))
    run = snm_numpy.snm(x, theta, bias=theta, state=snm_numpy.SNMState(theta, ones))
    theta, ones = np.ascontiguousarray(theta), np.ascontiguousarray(ones)
    state = snm_numpy.SNMState(theta, ones)
    assert equal(run, snm_numpy.snm(x, theta, bias=theta, state=state))


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=lambda d: d.__name__)
def test_out_may_be_the_drive(dtype: type) -> None:
    x = drive(6, 3000, dtype=dtype)
    expected = snm_numpy.snm(x.copy(), 1.0)
    run = snm_numpy.snm(x, 1.0, out=x)
    assert run.spikes is x
    assert equal(run, expected)


def test_out_with_padding_or_backwards() -> None:
    x = drive(6, 300)
    expected = snm_numpy.snm(x, 1.0)
    buffer = np.full((6, 310), 5, np.float32)
    assert equal(snm_numpy.snm(x, 1.0, out=buffer[:, 4:304]), expected)
    assert (buffer[:, :4] == 5).all()
    assert (buffer[:, 304:] == 5).all()
    backwards = np.zeros((6, 300), np.float32)[::-1]
    assert equal(snm_numpy.snm(x, 1.0, out=backwards), expected)


def test_state_is_continued_and_not_changed() -> None:
    x = drive(9, 300)
    whole = snm_numpy.snm(x, 1.0, emit="none")
    first = snm_numpy.snm(x[:4], 1.0, emit="none")
    kept = [part.copy() for part in first.state]
    last = snm_numpy.snm(x[4:], 1.0, emit="none", state=first.state)
    assert all((a == b).all() for a, b in zip(last.state, whole.state, strict=True))
    assert all((a == b).all() for a, b in zip(first.state, kept, strict=True))


@pytest.mark.parametrize("layout", ["contiguous", "constant", "time reversed", "padded"])
def test_drive_is_not_copied(layout: str) -> None:
    x = {
        "contiguous": lambda: np.ones((256, 16384), np.float32),
        "constant": lambda: np.broadcast_to(np.ones((1, 16384), np.float32), (256, 16384)),
        "time reversed": lambda: np.ones((256, 16384), np.float32)[::-1],
        "padded": lambda: np.ones((256, 16400), np.float32)[:, :16384],
    }[layout]()
    tracemalloc.start()
    snm_numpy.snm(x, 1.0, residual=x, emit="none")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x.nbytes / 16


def test_another_thread_runs_meanwhile() -> None:
    x = np.broadcast_to(np.ones((1, 4096), np.float32), (200_000, 4096))
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    ticker = threading.Thread(target=tick)
    ticker.start()
    begin = time.perf_counter()
    snm_numpy.snm(x, 1.0, emit="none", threads=1)
    end = time.perf_counter()
    done.set()
    ticker.join()
    quarter = (end - begin) / 4
    assert [tick for tick in ticks if begin + quarter < tick < end - quarter]


X = np.zeros((4, 2, 3), np.float32)
V, M = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int32)
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "x a list": ({"x": [1.0]}, TypeError, "x must be an array, got [1.0]"),
    "x float64": (
        {"x": X.astype("f8")},
        TypeError,
        "x must be float32, float16 or int32, got float64",
    ),
    "x int64": ({"x": M.astype("i8")}, TypeError, "x must be float32, float16 or int32, got int64"),
    "x without time": (
        {"x": np.array(1, "f4")},
        ValueError,
        "x must be [T, *shape] with T >= 1, got []",
    ),
    "x of no steps": (
        {"x": X[:0]},
        ValueError,
        "x must be [T, *shape] with T >= 1, got [0, 2, 3]",
    ),
    "rule a name": ({"rule": "snm"}, TypeError, "rule must be an SNMRule, got snm"),
    "threshold 0": ({"threshold": 0.0}, ValueError, "threshold must be > 0 in float32, got 0.0"),
    "threshold NaN": (
        {"threshold": float("nan")},
        ValueError,
        "threshold must be > 0 in float32, got nan",
    ),
    "threshold of integers": (
        {"threshold": M.astype("i8")},
        TypeError,
        "threshold must be floating point or int32, got int64",
    ),
    "x floating with an int32 threshold": (
        {"threshold": M},
        TypeError,
        "x must be int32 with an int32 threshold, got float32",
    ),
    "amplitudes of integers": (
        {"x": X.astype("i4"), "threshold": M},
        ValueError,
        "emit must be 'spike' or 'none' with an int32 threshold, got 'amplitude'; "
        'integer neurons send spikes: use emit="spike"',
    ),
    "floating bias of integers": (
        {"x": X.astype("i4"), "threshold": M, "emit": "spike", "bias": V},
        TypeError,
        "bias must be int32 with an int32 threshold, got float32",
    ),
    "floating membrane of integers": (
        {"x": X.astype("i4"), "threshold": M, "emit": "spike", "state": (V, M)},
        TypeError,
        "state.v must be int32, got float32",
    ),
    "threshold of another shape": (
        {"threshold": np.ones(2)},
        ValueError,
        "threshold must broadcast to [2, 3], got [2]",
    ),
    "bias with time": (
        {"bias": np.ones((1, 2, 3))},
        ValueError,
        "bias must broadcast to [2, 3], got [1, 2, 3]",
    ),
    "bias of integers": ({"bias": M}, TypeError, "bias must be floating point, got int32"),
    "residual a list": ({"residual": [1.0]}, TypeError, "residual must be an array, got [1.0]"),
    "residual a list, with out": (
        {"residual": [1.0], "out": X.copy()},
        TypeError,
        "residual must be an array, got [1.0]",
    ),
    "residual of another dtype": (
        {"residual": X.astype("f2")},
        TypeError,
        "residual must be float32, got float16",
    ),
    "residual without time": (
        {"residual": V},
        ValueError,
        "residual must be of shape [4, 2, 3], got [2, 3]",
    ),
    "state.v float64": (
        {"state": (V.astype("f8"), M)},
        TypeError,
        "state.v must be float32, got float64",
    ),
    "state.m of another shape": (
        {"state": (V, M[0])},
        ValueError,
        "state.m must be of shape [2, 3], got [3]",
    ),
    "emit unknown": (
        {"emit": "rate"},
        ValueError,
        "emit must be 'amplitude', 'spike' or 'none', got rate",
    ),
    "out_dtype float64": (
        {"out_dtype": np.float64},
        TypeError,
        "out_dtype must be float32 or float16, got float64",
    ),
    "out_dtype with spikes": (
        {"emit": "spike", "out_dtype": "float16"},
        ValueError,
        "out_dtype must be None with emit='spike', got float16",
    ),
    "out with nothing": (
        {"emit": "none", "out": X},
        ValueError,
        "out must be None with emit='none', got an array",
    ),
    "out a list": ({"out": [1.0]}, TypeError, "out must be an array, got [1.0]"),
    "out of another dtype": (
        {"out": X.astype("f2")},
        TypeError,
        "out must be float32, got float16",
    ),
    "out of another shape": (
        {"out": X[:2].copy()},
        ValueError,
        "out must be of shape [4, 2, 3], got [2, 2, 3]",
    ),
    "out with gaps": (
        {"out": np.zeros((4, 2, 6), np.float32)[..., ::2]},
        ValueError,
        "out must be apart over time and C-contiguous in each time slice, got (48, 24, 8)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_argument_is_refused(name: str) -> None:
    changed, error, message = REFUSED[name]
    with pytest.raises(error) as raised:
        snm_numpy.snm(**{"x": X, "threshold": 1.0, **changed})
    assert str(raised.value) == f"snm: {message}"


@pytest.mark.parametrize("shift", [1, 6, 23])
def test_shifted_overlap_is_refused(shift: int) -> None:
    buffer = np.zeros(64, np.float32)
    x, out = (buffer[i : i + 24].reshape(4, 2, 3) for i in (0, shift))
    with pytest.raises(ValueError, match=r"^snm: out must be x itself or share no memory with it$"):
        snm_numpy.snm(x, 1.0, out=out)
    with pytest.raises(ValueError, match=r"^snm: out must be residual itself or share no memory"):
        snm_numpy.snm(X, 1.0, residual=x, out=out)


@pytest.mark.parametrize("part", ["threshold", "bias", "state.v", "state.m"])
def test_shifted_overlap_with_what_is_read_is_refused(part: str) -> None:
    buffer = np.ones((4, 3000), np.float32)
    shared = buffer.reshape(-1)[1500:4500]
    zeros = np.zeros(3000, np.float32)
    arguments = {
        "threshold": {"threshold": shared},
        "bias": {"threshold": 1.0, "bias": shared},
        "state.v": {"threshold": 1.0, "state": (shared, zeros.astype(np.int32))},
        "state.m": {"threshold": 1.0, "state": (zeros, shared.view(np.int32))},
    }[part]
    with pytest.raises(ValueError, match=f"^snm: out must .*share no memory with {part}$"):
        snm_numpy.snm(np.ones((4, 3000), np.float32), **arguments, out=buffer)


def test_out_whose_steps_overlap_is_refused() -> None:
    out = np.lib.stride_tricks.as_strided(np.zeros(6, np.float32), X.shape, (0, 12, 4))
    with pytest.raises(ValueError, match=r"^snm: out must be "):
        snm_numpy.snm(X, 1.0, out=out)


def test_read_only_out_is_refused() -> None:
    out = X.copy()
    out.flags.writeable = False
    with pytest.raises(ValueError, match=r"writeable"):
        snm_numpy.snm(X, 1.0, out=out)


@pytest.mark.parametrize("threads", [-1, -100])
def test_fewer_than_one_thread_is_refused(threads: int) -> None:
    with pytest.raises(ValueError, match=rf"^snm: threads must be .* got {threads}$"):
        snm_numpy.snm(np.ones((2, 200), np.float32), 1.0, threads=threads)


@pytest.mark.parametrize("threshold", [1e-46, 1e39])
def test_threshold_that_float32_cannot_hold_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"^snm: threshold must be "):
        snm_numpy.snm(X, threshold)


@pytest.mark.parametrize("threshold", [None, "1", [1.0]], ids=repr)
def test_threshold_that_is_no_number_names_the_argument(threshold: object) -> None:
    with pytest.raises(TypeError, match=r"^snm: threshold must be "):
        snm_numpy.snm(X, threshold)


def test_numpy_numbers_are_numbers() -> None:
    x = drive(5, 7)
    expected = snm_numpy.snm(x, 0.75, bias=0.25)
    assert equal(snm_numpy.snm(x, np.float64(0.75), bias=np.float32(0.25)), expected)
    assert equal(snm_numpy.snm(x, np.array(0.75), bias=np.array([0.25])), expected)
    assert equal(snm_numpy.snm(x, 0.75, bias=0.25, rule=SNMRule(v_init=0)), expected)
    assert equal(snm_numpy.snm(x, 0.75, bias=0.25, rule=preset("snm")), expected)


def test_threads_that_cannot_start_are_done_without() -> None:
    """Sixty stacks don't fit in what memory is left; the work is done all the same."""
    program = """
import resource
import numpy as np
import snm_kernels
x = np.random.default_rng(0).standard_normal((64, 2**20), dtype=np.float32)
expected = snm_kernels.numpy.snm(x, 1.0, emit="spike", threads=1)
out = np.zeros(x.shape, np.int8)
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 60 * 2**20, -1))
sent = snm_kernels.numpy.snm(x, 1.0, emit="spike", threads=60, out=out)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
assert np.array_equal(sent.spikes, expected.spikes)
assert np.array_equal(sent.state.v, expected.state.v)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
