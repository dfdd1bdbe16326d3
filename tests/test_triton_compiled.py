"""The Triton kernel compiled ahead of time, for GPUs that need not be here: its machine code."""

import re
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from machine_code import FUSED_MULTIPLY_ADD, LOAD_16_BYTES, LOCAL_MEMORY, count
from snm_kernels import SNMRule, snm, snm_counted
from snm_kernels.triton import INTERPRETED
from triton_build import BYTES, Build, compiled

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


@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_keeps_its_state_in_registers(build: Build, tmp: Path) -> None:
    code = compiled(build, tmp)
    assert count(LOCAL_MEMORY, code.sass) == 0
    # Four blocks of 128 threads fit on a multiprocessor; three where elements are loaded singly.
    assert code.registers <= (128 if build.aligned else 168)


@pytest.mark.parametrize(
    "build", [Build(a, d, d) for a, d in product(ARCHITECTURES, ("fp32", "fp16", "bf16"))], ids=str
)
def test_moves_16_bytes_at_a_time(build: Build, tmp: Path) -> None:
    code = compiled(build, tmp)
    loads = Counter(re.findall(r"ld\.global[.\w]*", code.ptx))
    stores = Counter(re.findall(r"st\.global[.\w]*", code.ptx))
    # Each row of the drive is loaded in one place before the loop and in one within it.
    assert loads["ld.global.v4.b32"] == 2 * build.shape.ahead
    assert stores.keys() == {"st.global.v4.b32"}
    assert count(LOAD_16_BYTES, code.sass) == 2 * build.shape.ahead


SENDS = [build for build in BUILDS if build.aligned and not build.extras and not build.ones]


@pytest.mark.parametrize("build", SENDS, ids=str)
def test_a_step_moves_its_bytes_once(build: Build, tmp: Path) -> None:
    found = compiled(build, tmp).measure(build)
    assert found.bytes_loaded == BYTES[build.drive]
    assert found.bytes_stored == BYTES.get(build.spikes, 0)


@pytest.mark.parametrize(
    "build",
    [*(Build(drive=d, spikes=d) for d in ("fp32", "fp16", "bf16")), *NARROW],
    ids=str,
)
def test_rows_of_later_steps_are_on_their_way(build: Build, tmp: Path) -> None:
    code = compiled(build, tmp)
    # A sum with zero only negates.
    sums = (each.opcode == "FADD" and "RZ" not in each.operands for each in code.instructions)
    first = list(sums).index(True)
    loads = [each for each in code.instructions[:first] if each.opcode.startswith("LDG")]
    assert len(loads) >= build.shape.ahead
    # Narrow blocks are there for it; of wide ones there are enough that a step or so will do.
    assert code.measure(build).steps_ahead > (1 if build.wide else 6)


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
