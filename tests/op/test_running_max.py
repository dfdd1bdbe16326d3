"""The running maximum on the CPU: parity, chunks, threads, instruction sets, Triton, compile."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from snm_kernels import RunningMaxOutput, adaptive_running_max_pool, running_max_pool
from support.cases import LAYOUTS
from support.isa import NEEDED, TESTS, USABLE, processor_flags, run_with_isa
from support.running_max_cases import POOL_CASES, PoolCase
from support.running_max_parity import assert_pooled_layout, assert_same_pooling, compare_pooling

PARITY = ("-m", "support.running_max_parity")
MOST_INPUT_STEPS = 3000
EVERY = 13


def test_case_names_are_unique() -> None:
    assert len({case.name for case in POOL_CASES}) == len(POOL_CASES)


@pytest.mark.parametrize("case", POOL_CASES, ids=str)
def test_cpu_equals_reference(case: PoolCase) -> None:
    assert compare_pooling(case, "cpu") == case.input_steps


# The best one is what test_cpu_equals_reference runs.
@pytest.mark.parametrize("isa", [isa for isa in NEEDED if isa != USABLE[0]])
def test_isa_equals_reference(isa: str) -> None:
    if isa not in USABLE:
        pytest.skip(f"this processor lacks {sorted(NEEDED[isa] - processor_flags())}")
    process = run_with_isa(isa, *PARITY, "--backend", "cpu")
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)
    assert summary["failures"] == []
    assert summary["isa"] == isa
    assert summary["cases"] == len(POOL_CASES)


def test_interpreted_triton_equals_reference() -> None:
    command = [sys.executable, *PARITY, "--backend=triton", f"--every={EVERY}"]
    process = subprocess.run(
        [*command, f"--most-input-steps={MOST_INPUT_STEPS}"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)
    assert summary["failures"] == []
    assert summary["cases"] > len(POOL_CASES) / (2 * EVERY)


@pytest.mark.parametrize("case", [c for c in POOL_CASES if c.time_steps > 3][::3], ids=str)
def test_chunks_equal_one_run(case: PoolCase) -> None:
    inputs = case.inputs()
    whole = case.run(inputs)
    x, total = inputs.pop("x"), inputs.pop("total", None)
    sent = []
    for begin, end in pairwise((0, 1, 3, case.time_steps)):
        spikes, total = case.run({"x": x[begin:end], "total": total, **inputs})
        sent.append(spikes)
    assert_same_pooling(RunningMaxOutput(torch.cat(sent), total), whole)


@pytest.fixture
def _restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_restored_threads")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("threshold", ["channel", "neuron"])
def test_threads_change_no_bit(threshold: str, layout: str) -> None:
    case = PoolCase(
        f"threads-{threshold}-{layout}",
        (5, 70, 20, 20),
        (3, 2, 1),
        time_steps=8,
        threshold=threshold,
        layout=layout,
    )
    inputs = case.inputs()
    torch.set_num_threads(1)
    alone = case.run(inputs)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert_same_pooling(case.run(inputs), alone)


def allocated(case: PoolCase, inputs: dict[str, Any]) -> int:
    """Bytes that one run allocates through PyTorch."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        case.run(inputs)
    return sum(
        max(0, event.self_device_memory_usage, event.self_cpu_memory_usage)
        for event in record.events()
    )


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "constant"])
@pytest.mark.parametrize("threshold", ["channel", "neuron"])
def test_nothing_is_copied(threshold: str, layout: str) -> None:
    case = PoolCase("memory", (4, 16, 16, 16), time_steps=32, threshold=threshold, layout=layout)
    inputs = case.inputs()
    slice_ = 4 * 16 * 16 * 16
    expected = 4 * slice_ + 32 * 4 * slice_ // 4
    assert expected <= allocated(case, inputs) < expected + slice_


SPREAD = [
    PoolCase("spikes", emit="spike", total="given"),
    PoolCase("shared", threshold="number", layout="channels_last", total="permuted"),
    PoolCase("neuron", threshold="neuron", out_dtype=torch.bfloat16),
    PoolCase("float16", window=(3, 2, 1), dtype=torch.float16, threshold=None, total="given"),
    PoolCase("gaps", window=(3, 2, 1), layout="every other"),
    PoolCase("constant", layout="constant"),
    PoolCase("1d", (2, 5, 17), (3, 2, 1, 1, True)),
    PoolCase("3d", (1, 2, 5, 6, 7), (3, 2, 1), threshold="neuron", layout="channels_last"),
    PoolCase("no samples", (0, 3, 4, 4)),
    PoolCase("adaptive", (2, 3, 7, 9), output=(3, 4), threshold="neuron"),
    PoolCase("adaptive channels_last", (2, 3, 7, 9), output=(None, 4), layout="channels_last"),
]


def compiled(case: PoolCase, backend: str, **options: Any) -> Callable[..., RunningMaxOutput]:
    torch.compiler.reset()

    def run(**arguments: Any) -> RunningMaxOutput:
        return case.run(arguments)

    return torch.compile(run, fullgraph=True, backend=backend, **options)


@pytest.mark.parametrize("case", SPREAD, ids=str)
def test_compiled_equals_eager(case: PoolCase) -> None:
    inputs = case.inputs()
    actual = compiled(case, "aot_eager")(**inputs)
    assert_same_pooling(actual, case.run(inputs))
    assert_pooled_layout(inputs["x"], actual)


def test_compiled_by_inductor_equals_eager() -> None:
    case = SPREAD[2]
    assert_same_pooling(compiled(case, "inductor")(**case.inputs()), case.run(case.inputs()))


@pytest.mark.parametrize("output", [None, (None, 4), 2])
def test_compiled_with_dynamic_shapes(output: Any) -> None:
    run = compiled(PoolCase("dynamic", window=(3, 2, 1), output=output), "aot_eager", dynamic=True)
    for steps, batch, height in ((5, 3, 7), (4, 2, 9)):
        case = PoolCase("dynamic", (batch, 4, height, 9), (3, 2, 1), output, steps)
        assert_same_pooling(run(**case.inputs()), case.run(case.inputs()))


def operator(case: PoolCase, inputs: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """The operator of a case and its arguments."""
    theta = inputs.get("threshold")
    if theta is not None:
        theta = torch.as_tensor(theta, dtype=torch.float32)
    dtype = torch.int8 if case.emit == "spike" else case.out_dtype
    if dtype is None:
        dtype = torch.float32 if case.dtype == torch.int8 else case.dtype
    first = (inputs["x"], theta, inputs.get("total"))
    if case.output is not None:
        size = [
            full if n is None else n for n, full in zip(case.output, case.shape[2:], strict=True)
        ]
        return torch.ops.snm_kernels.adaptive_running_max_pool.default, (*first, size, dtype)
    given = (*case.window, *(None, 0, 1, False)[len(case.window) - 1 :])
    kernel, stride, padding, dilation = (
        [each] * case.spatial if isinstance(each, int) else each for each in given[:4]
    )
    lists = (kernel, stride or kernel, padding, dilation)
    return torch.ops.snm_kernels.running_max_pool.default, (*first, *lists, given[4], dtype)


@pytest.mark.parametrize("case", SPREAD, ids=str)
def test_opcheck(case: PoolCase) -> None:
    torch.library.opcheck(*operator(case, case.inputs()))


@pytest.mark.parametrize("case", POOL_CASES[::5], ids=str)
def test_fake_run_has_the_layout_of_the_real_one(case: PoolCase) -> None:
    inputs = case.inputs()
    real = case.run(inputs)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = case.run(
            {k: mode.from_tensor(v) if isinstance(v, Tensor) else v for k, v in inputs.items()}
        )
    for ours, theirs in zip(fake, real, strict=True):
        assert (ours.shape, ours.dtype, ours.stride()) == (
            theirs.shape,
            theirs.dtype,
            theirs.stride(),
        )


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_memory_format_is_kept(name: str, backend: str) -> None:
    x = LAYOUTS[name](torch.randn(4, 2, 3, 6, 5))
    sent, total = running_max_pool(x, 2, backend=backend)
    last = "channels_last" in name
    assert sent.stride() == ((36, 18, 1, 6, 3) if last else (36, 18, 6, 2, 1))
    assert total.stride() == ((90, 1, 15, 3) if last else (90, 30, 5, 1))


def test_arguments_are_not_changed() -> None:
    case = PoolCase("kept", threshold="neuron", total="given")
    inputs = case.inputs()
    kept = {k: v.clone() for k, v in inputs.items() if isinstance(v, Tensor)}
    total = case.run(inputs).total
    assert total.data_ptr() != inputs["total"].data_ptr()
    assert all(torch.equal(inputs[name], before) for name, before in kept.items())


def test_offsets_beyond_32_bits() -> None:
    step = 2**31 + 5
    # Pages that nobody writes are never backed by memory.
    buffer = torch.empty(2 * step + 64, dtype=torch.int8)
    x = buffer.as_strided((3, 1, 1, 8, 8), (step, 64, 64, 8, 1))
    small = torch.randint(-1, 2, (3, 1, 1, 8, 8), dtype=torch.int8)
    x.copy_(small)
    assert_same_pooling(
        adaptive_running_max_pool(x, 3, threshold=0.5),
        adaptive_running_max_pool(small, 3, threshold=0.5),
    )
