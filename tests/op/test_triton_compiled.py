"""The Triton kernel compiled ahead of time, for GPUs that need not be here: its machine code."""

import re
from itertools import product
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from snm_kernels import SNMRule, snm, snm_counted
from snm_kernels.triton.launch import INTERPRETED
from support.machine_code import FUSED_MULTIPLY_ADD, LOCAL_MEMORY, count, least_under_way
from support.triton_build import BYTES, Build, compiled

pytestmark = pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET is set")

ARCHITECTURES = (75, 80, 90, 100, 120)


@pytest.fixture(scope="module")
def tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cubins")


NARROW = [
    Build(wide=False),
    Build(75, wide=False),
    Build(120, wide=False),
    Build(drive="fp16", spikes="fp16", wide=False),
    Build(drive="bf16", spikes="i8", wide=False),
    Build(spikes=None, wide=False),
    Build(extras=True, wide=False),
    Build(graded=True, wide=False),
    Build(counted=True, wide=False),
]
BUILDS = [
    *(Build(a, d, d) for a, d in product(ARCHITECTURES, ("fp32", "fp16", "bf16"))),
    *(Build(a, d, "i8") for a, d in product((75, 90), ("fp32", "fp16", "bf16", "i32"))),
    *(Build(a, graded=True) for a in ARCHITECTURES),
    Build(spikes=None),
    Build(drive="fp16", spikes="fp32"),
    Build(drive="i32", spikes="bf16"),
    Build(extras=True),
    Build(aligned=False),
    Build(drive="fp16", spikes="i8", aligned=False),
    Build(negative=False),
    Build(ones=True),
    Build(counted=True),
    Build(drive="fp16", spikes="i8", counted=True, extras=True),
    Build(graded=True, counted=True),
    *NARROW,
]


@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_rounds_after_every_operation_and_flushes_nothing(build: Build, tmp: Path) -> None:
    code = compiled(build, tmp)
    assert not re.search(r"\bfma\.|\.ftz|\.approx|div\.full", code.ptx)
    assert ("div.rn.f32" in code.ptx) == build.graded
    if not build.graded:
        assert count(r"\bFFMA", code.sass) == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_graded_spikes_are_not_contracted_even_where_allowed(architecture: int, tmp: Path) -> None:
    exact = compiled(Build(architecture, graded=True), tmp)
    allowed = compiled(Build(architecture, graded=True, fusion=True), tmp)
    assert "fma." not in allowed.ptx
    assert count(FUSED_MULTIPLY_ADD, allowed.sass) == count(FUSED_MULTIPLY_ADD, exact.sass)


INTEGERS = [
    *(Build(a, "i32", "i8", integers=True) for a in ARCHITECTURES),
    *(Build(a, "i32", "i8", integers=True, graded=True) for a in (75, 90)),
    Build(90, "i32", None, integers=True, extras=True, counted=True),
    Build(90, "i32", "i8", integers=True, extras=True, wide=False),
]


@pytest.mark.parametrize("build", INTEGERS, ids=str)
def test_integers_are_no_floats_while_time_runs(build: Build, tmp: Path) -> None:
    code = compiled(build, tmp)
    # A division of integers begins with a reciprocal.
    floating = {
        each.opcode for each in code.loop if re.match(r"[FDH](ADD|MUL|FMA|SET)", each.opcode)
    }
    assert floating == set()
    assert any("MUFU.RCP" in each.opcode for each in code.loop) == build.graded
    assert count(LOCAL_MEMORY, code.sass) == 0
    assert code.registers <= (80 if build.wide else 128)


@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_keeps_its_state_in_registers(build: Build, tmp: Path) -> None:
    code = compiled(build, tmp)
    assert count(LOCAL_MEMORY, code.sass) == 0
    # Six wide blocks fit on a multiprocessor; four with a division, or with more to keep.
    assert code.registers <= (128 if build.graded or build.extras or build.counted else 80)


@pytest.mark.parametrize(
    "build", [Build(a, d, d) for a, d in product(ARCHITECTURES, ("fp32", "fp16", "bf16"))], ids=str
)
def test_moves_16_bytes_at_a_time(build: Build, tmp: Path) -> None:
    code = compiled(build, tmp)
    row = [each for each in code.loop if each.opcode.startswith("LDG") and each.bytes]
    assert [each.bytes for each in row] == [16] * (build.neurons * BYTES[build.drive] // 16)
    assert all(each.opcode.startswith("LDGSTS") == build.copied for each in row)
    stores = re.findall(r"st\.global[.\w]*", code.ptx)
    assert set(stores) == {"st.global.v4.b32"}


SENDS = [build for build in BUILDS if build.aligned and not build.extras and not build.ones]


@pytest.mark.parametrize("build", SENDS, ids=str)
def test_a_step_moves_its_bytes_once(build: Build, tmp: Path) -> None:
    found = compiled(build, tmp).measure(build)
    assert found.bytes_loaded == BYTES[build.drive]
    assert found.bytes_stored == BYTES.get(build.spikes, 0)


@pytest.mark.parametrize("build", [each for each in BUILDS if each.copied], ids=str)
def test_waits_for_the_rows_of_one_pass_alone(build: Build, tmp: Path) -> None:
    code = compiled(build, tmp)
    # Those of later passes are under way all the time.
    later = build.ahead // build.shape.unroll - 1
    assert least_under_way(code.loop, set(code.copies)) == later * len(code.copies)


@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_two_wide_blocks_have_enough_on_their_way(build: Build) -> None:
    of_a_step = build.block * BYTES[build.drive]
    # 26 KB, what an H200 that only reads needs for one of its multiprocessors.
    assert not build.wide or 2 * of_a_step * (build.ahead - 1) >= 26_000


# Every width of what is loaded with every width of what is stored.
@pytest.mark.parametrize("spikes", ["fp32", "bf16", "i8", None])
@pytest.mark.parametrize("drive", ["i32", "fp16"])
def test_a_neuron_is_computed_once(drive: str, spikes: str | None, tmp: Path) -> None:
    build = Build(drive=drive, spikes=spikes, shared=True)
    loop = compiled(build, tmp).loop
    # Loads and stores of different widths would have it computed for either.
    assert sum(each.opcode == "FADD" for each in loop) == 2 * build.neurons


@pytest.mark.parametrize("name", ["snm", "snm_out", "snm_counted", "snm_counted_out"])
def test_has_the_arguments_of_the_native_operator(name: str) -> None:
    native = getattr(torch.ops.snm_kernels, name).default._schema
    ours = getattr(torch.ops.snm_kernels, name.replace("snm", "snm_triton")).default._schema

    def arguments(schema: torch.FunctionSchema) -> list[tuple[str, str, bool]]:
        return [
            (each.name, str(each.type), each.alias_info is not None and each.alias_info.is_write)
            for each in schema.arguments
        ]

    assert arguments(ours) == arguments(native)
    assert [str(each.type) for each in ours.returns] == [str(e.type) for e in native.returns]


def test_integers_trace_without_a_gpu() -> None:
    with FakeTensorMode():
        x = torch.empty(5, 2, 8, dtype=torch.int32, device="cuda")
        threshold = torch.empty(8, dtype=torch.int32, device="cuda")
        spikes, state = snm(x, threshold, emit="spike", backend="triton")
        assert (spikes.dtype, state.v.dtype, state.m.dtype) == (torch.int8, *2 * [torch.int32])


def test_traces_without_a_gpu() -> None:
    rule = SNMRule(count_max=4)

    def run(x: torch.Tensor, threshold: torch.Tensor) -> tuple[torch.Tensor, ...]:
        spikes, state = snm(x, threshold, rule=rule, emit="spike", backend="triton")
        _, state, negative = snm_counted(
            x, threshold, rule=rule, state=state, emit="none", backend="triton"
        )
        return spikes, state.v, state.m, negative

    with FakeTensorMode():
        x = torch.empty(5, 2, 8, 4, 4, dtype=torch.float16, device="cuda")
        x = x.permute(0, 1, 3, 4, 2)
        threshold = torch.empty(8, device="cuda")
        for traced in (run, torch.compile(run, fullgraph=True, backend="eager")):
            spikes, v, m, negative = traced(x, threshold)
            assert (spikes.dtype, v.dtype) == (torch.int8, torch.float32)
            assert m.dtype == negative.dtype == torch.int32
            assert spikes.shape == x.shape
            assert {tensor.device for tensor in (spikes, v, m, negative)} == {x.device}
            strides = [tensor.stride() for tensor in (v, m, negative)]
            assert strides == 3 * [x.stride()[1:]]
            assert spikes.stride()[1:] == x.stride()[1:]
