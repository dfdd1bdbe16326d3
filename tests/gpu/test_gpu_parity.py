"""The CUDA and Triton backends on a GPU: parity, streams, graphs, compile, size."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from snm_kernels import SNMOutput, SNMState, backends, preset, snm
from support.cases import CASES, COUNTED, Case
from support.equality import assert_laid_out_as, assert_same_bits, assert_same_run
from support.parity import BULKS, NEURON_STEPS, Bulk, compare, compare_bulk, compare_counted, to_cpu
from support.triton_subset import launch_case, launch_counted, launch_in_two_calls

DEVICE = "cuda"
NAMES = ("cuda", "triton")


if not torch.cuda.is_available():
    pytest.skip(backends()["cuda"].reason, allow_module_level=True)


# Where there is a GPU, a backend that can't run is a failure, not a skip.
each_backend = pytest.mark.parametrize("backend", NAMES)


@each_backend
def test_backend_is_available(backend: str) -> None:
    assert backends()[backend] == (True, "")


def on_cpu(case: Case) -> SNMOutput:
    return snm(**case.inputs(), backend="reference")


@each_backend
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.launches(of=launch_case)
def test_gpu_equals_reference(case: Case, backend: str) -> None:
    assert compare(case, backend, DEVICE) == case.neuron_steps


@each_backend
@pytest.mark.parametrize("case", COUNTED, ids=str)
@pytest.mark.launches(of=launch_counted)
def test_gpu_counts_as_reference(case: Case, backend: str) -> None:
    assert compare_counted(case, backend, DEVICE) == case.neuron_steps


@each_backend
@pytest.mark.parametrize("bulk", BULKS, ids=str)
def test_gpu_equals_reference_in_bulk(bulk: Bulk, backend: str) -> None:
    assert compare_bulk(bulk, backend, DEVICE) * len(BULKS) >= NEURON_STEPS


@pytest.mark.parametrize("case", CASES[::7], ids=str)
def test_reference_is_the_same_on_the_gpu(case: Case) -> None:
    assert_same_run(to_cpu(snm(**case.inputs(DEVICE), backend="reference")), on_cpu(case))


@each_backend
@pytest.mark.parametrize("case", [c for c in CASES if c.time_steps > 3][::5], ids=str)
@pytest.mark.launches(of=launch_in_two_calls)
def test_second_call_goes_on_from_the_state_of_the_first(case: Case, backend: str) -> None:
    inputs = case.inputs(DEVICE)
    x, residual, state = (inputs.pop(name, None) for name in ("x", "residual", "state"))
    sent = []
    for steps in (slice(0, 2), slice(2, None)):
        added = None if residual is None else residual[steps]
        spikes, state = snm(x[steps], residual=added, state=state, backend=backend, **inputs)
        sent.append(spikes)
    spikes = None if sent[0] is None else torch.cat(sent)
    assert_same_run(to_cpu(SNMOutput(spikes, state)), on_cpu(case))


@each_backend
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "padded time"])
def test_out_may_be_the_drive(layout: str, backend: str) -> None:
    case = Case(f"in place on a GPU, {layout}", 9, (4, 6, 31, 33), layout=layout)
    inputs = case.inputs(DEVICE)
    actual = snm(**inputs, out=inputs["x"], backend=backend)
    assert actual.spikes is inputs["x"]
    assert_same_run(to_cpu(actual), on_cpu(case))


@each_backend
def test_runs_on_the_current_stream(backend: str) -> None:
    case = Case("on a side stream", 32, (64, 1024), emit="spike")
    inputs = case.inputs(DEVICE)
    x = inputs.pop("x")
    snm(x, backend=backend, **inputs)
    late = torch.empty_like(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # The drive is written on this stream only after a long wait.
        torch.cuda._sleep(100_000_000)
        late.copy_(x)
        actual = snm(late, backend=backend, **inputs)
    stream.synchronize()
    assert_same_run(to_cpu(actual), on_cpu(case))


@each_backend
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "every other"])
def test_captured_graph_replays_on_a_new_drive(layout: str, backend: str) -> None:
    case = Case("captured", 8, (4, 6, 9, 11), preset("st-bif"), layout=layout, state="given")
    inputs, other = case.inputs(DEVICE), case.inputs(DEVICE, seed=1)
    snm(**inputs, backend=backend)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = snm(**inputs, backend=backend)
    inputs["x"].copy_(other["x"])
    for part, new in zip(inputs["state"], other["state"], strict=True):
        part.copy_(new)
    graph.replay()
    torch.cuda.synchronize()
    fresh = case.inputs(seed=1) | {"threshold": inputs["threshold"].cpu()}
    assert_same_run(to_cpu(captured), snm(**fresh, backend="reference"))


@each_backend
def test_nothing_waits_for_the_gpu(backend: str) -> None:
    inputs = Case("no sync", 8, (4, 6, 9, 11), state="given", bias="channel").inputs(DEVICE)
    snm(**inputs, backend=backend)
    torch.cuda.set_sync_debug_mode("error")
    try:
        snm(**inputs, backend=backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@each_backend
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_compiled_equals_eager(layout: str, compiler: str, backend: str) -> None:
    torch.compiler.reset()
    case = Case("compiled on a GPU", 8, (4, 6, 9, 11), layout=layout, threshold="channel")
    inputs = case.inputs(DEVICE)
    run: Callable[..., SNMOutput] = torch.compile(snm, fullgraph=True, backend=compiler)
    actual = run(**inputs, backend=backend)
    assert_same_run(to_cpu(actual), on_cpu(case))
    assert_laid_out_as(inputs["x"], actual)


def needs(gibibytes: int) -> None:
    free = torch.cuda.mem_get_info()[0] >> 30
    if free < gibibytes:
        pytest.skip(f"needs {gibibytes} GiB of free GPU memory, there are {free}")


def assert_ends_equal_reference(x: Tensor, theta: float, actual: SNMOutput) -> None:
    """Compares the first and the last neurons, which lie on either side of 2^31 elements."""
    torch.cuda.synchronize()
    for part in (slice(0, 5000), slice(-5000, None)):
        expected = snm(x[:, part].cpu(), theta, emit="spike", backend="reference")
        state = SNMState(actual.state.v[part], actual.state.m[part])
        assert_same_run(to_cpu(SNMOutput(actual.spikes[:, part], state)), expected)


@each_backend
@pytest.mark.usefixtures("much_memory")
@pytest.mark.parametrize(
    ("steps", "neurons"), [(33, 2**26 + 3), (1, 2**31 + 67)], ids=["many steps", "many neurons"]
)
def test_more_than_two_to_the_31_elements(steps: int, neurons: int, backend: str) -> None:
    needs(40)
    x = torch.empty(steps, neurons, dtype=torch.float16, device=DEVICE).normal_()
    actual = snm(x, 0.75, emit="spike", backend=backend)
    assert_ends_equal_reference(x, 0.75, actual)


@each_backend
def test_constant_drive_is_not_materialised(backend: str) -> None:
    x = torch.rand(1, 2**20, device=DEVICE).expand(256, -1)
    snm(x, 1.0, emit="none", backend=backend)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    snm(x, 1.0, residual=x, emit="none", backend=backend)
    assert torch.cuda.max_memory_allocated() - before < 3 * 8 * 2**20


@each_backend
def test_second_device_gets_its_own_launch(backend: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    case = Case("on the second GPU", 8, (4, 700))
    actual = snm(**case.inputs("cuda:1"), backend=backend)
    assert actual.spikes.device == torch.device("cuda:1")
    assert_same_run(to_cpu(actual), on_cpu(case))


def test_drive_and_parameters_on_different_devices_are_refused() -> None:
    x = torch.zeros(4, 3, device=DEVICE)
    with pytest.raises(ValueError, match=r"^snm: threshold must be on cuda:0, got cpu$"):
        snm(x, torch.ones(3))
    with pytest.raises(ValueError, match=r"^snm: x must be on a cpu device for 'cpu', got cuda:0$"):
        snm(x, 1.0, backend="cpu")


def test_auto_is_a_native_backend() -> None:
    case = Case("auto on a GPU", 8, (4, 700))
    actual = snm(**case.inputs(DEVICE))
    assert_same_bits(actual.spikes.cpu(), on_cpu(case).spikes)
