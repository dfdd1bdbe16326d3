"""The running maximum on a GPU: parity, streams, graphs, compile, size."""

import pytest
import torch

from snm_kernels import RunningMaxOutput, backends, running_max_pool
from support.running_max_cases import POOL_CASES, PoolCase
from support.running_max_parity import (
    assert_pooled_layout,
    assert_same_pooling,
    compare_pooling,
    pool_to_cpu,
)
from support.triton_subset import launch_pool

DEVICE = "cuda"

if not torch.cuda.is_available():
    pytest.skip(backends()["cuda"].reason, allow_module_level=True)

each_backend = pytest.mark.parametrize("backend", ["cuda", "triton"])
KINDS = {
    "registers": {"window": (3, 2, 1), "threshold": "neuron"},
    "scratch": {"window": (4, 2), "threshold": "neuron"},
    "gaps": {"window": (2, 3), "emit": "spike"},
}


def on_cpu(case: PoolCase) -> RunningMaxOutput:
    return case.run(case.inputs(), backend="reference")


@each_backend
@pytest.mark.parametrize("case", POOL_CASES, ids=str)
@pytest.mark.launches(of=launch_pool)
def test_gpu_equals_reference(case: PoolCase, backend: str) -> None:
    assert compare_pooling(case, backend, DEVICE) == case.input_steps


@each_backend
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("kind", KINDS)
def test_large_run_equals_the_cpu(kind: str, layout: str, backend: str) -> None:
    case = PoolCase(f"large {kind}", (4, 70, 57, 55), time_steps=9, layout=layout, **KINDS[kind])
    actual = case.run(case.inputs(DEVICE), backend=backend)
    assert_same_pooling(pool_to_cpu(actual), case.run(case.inputs()))


@each_backend
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("window", [(2,), (3, 2, 1)], ids=["2x2", "3x3"])
def test_large_run_of_spikes_in_words_equals_the_cpu(
    window: tuple[int, ...], layout: str, backend: str
) -> None:
    name = f"large, words {window}"
    case = PoolCase(name, (4, 72, 56, 60), window, time_steps=9, emit="spike", layout=layout)
    actual = case.run(case.inputs(DEVICE), backend=backend)
    assert_same_pooling(pool_to_cpu(actual), case.run(case.inputs()))


@each_backend
def test_runs_on_the_current_stream(backend: str) -> None:
    case = PoolCase("on a side stream", (8, 16, 32, 32), threshold="neuron")
    inputs = case.inputs(DEVICE)
    case.run(inputs, backend=backend)
    late = torch.empty_like(inputs["x"])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # The spikes are written on this stream only after a long wait.
        torch.cuda._sleep(100_000_000)
        late.copy_(inputs["x"])
        actual = case.run(inputs, x=late, backend=backend)
    stream.synchronize()
    assert_same_pooling(pool_to_cpu(actual), on_cpu(case))


@each_backend
@pytest.mark.parametrize("kind", KINDS)
def test_captured_graph_replays_on_new_spikes(kind: str, backend: str) -> None:
    case = PoolCase(f"captured {kind}", (2, 5, 9, 11), total="given", **KINDS[kind])
    inputs, other = case.inputs(DEVICE), case.inputs(DEVICE, seed=1)
    case.run(inputs, backend=backend)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = case.run(inputs, backend=backend)
    for name in ("x", "total", "threshold"):
        inputs[name].copy_(other[name])
    graph.replay()
    torch.cuda.synchronize()
    expected = case.run(case.inputs(seed=1), backend="reference")
    assert_same_pooling(pool_to_cpu(captured), expected)


@each_backend
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_waits_for_the_gpu(kind: str, backend: str) -> None:
    case = PoolCase("no sync", (2, 5, 9, 11), **KINDS[kind])
    inputs = case.inputs(DEVICE)
    case.run(inputs, backend=backend)
    torch.cuda.set_sync_debug_mode("error")
    try:
        case.run(inputs, backend=backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@each_backend
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiled_equals_eager(compiler: str, backend: str) -> None:
    torch.compiler.reset()
    case = PoolCase("compiled on a GPU", (2, 5, 9, 11), (3, 2, 1), threshold="neuron")
    inputs = case.inputs(DEVICE)

    def run(x: torch.Tensor, threshold: torch.Tensor) -> RunningMaxOutput:
        return running_max_pool(x, 3, 2, 1, threshold=threshold, backend=backend)

    compiled = torch.compile(run, fullgraph=True, backend=compiler)
    actual = compiled(inputs["x"], inputs["threshold"])
    assert_same_pooling(pool_to_cpu(actual), on_cpu(case))
    assert_pooled_layout(inputs["x"], actual)


@each_backend
@pytest.mark.usefixtures("much_memory")
@pytest.mark.parametrize(
    ("steps", "height"), [(33, 2**13), (1, 2**18 + 4)], ids=["many steps", "many inputs"]
)
def test_more_than_two_to_the_31_elements(steps: int, height: int, backend: str) -> None:
    if torch.cuda.mem_get_info()[0] >> 30 < 60:
        pytest.skip("needs 60 GiB of free GPU memory")
    x = torch.randint(-1, 2, (steps, 1, 1, height, 2**13), dtype=torch.int8, device=DEVICE)
    actual = running_max_pool(x, 2, threshold=0.5, emit="spike", backend=backend)
    for part, pooled in ((slice(0, 4), slice(0, 2)), (slice(-4, None), slice(-2, None))):
        expected = running_max_pool(
            x[..., part, :].cpu(), 2, threshold=0.5, emit="spike", backend="reference"
        )
        given = RunningMaxOutput(actual.spikes[..., pooled, :], actual.total[..., part, :])
        assert_same_pooling(pool_to_cpu(given), expected)
