"""The Triton kernel compiled ahead of time, for GPUs that need not be here: its machine code."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
import triton
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from machine_code import FUSED_MULTIPLY_ADD, LOAD_16_BYTES, LOCAL_MEMORY, count, cuobjdump
from snm_kernels import SNMRule, snm
from snm_kernels.triton import AHEAD, INTERPRETED, THREADS, VECTOR_BYTES
from snm_kernels.triton.kernel import snm_kernel

pytestmark = pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET is set")

ARCHITECTURES = (75, 80, 90, 100, 120)
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "i32": 4, "i8": 1}
RUNTIME_INTEGERS = ("time_steps", "max_spikes", "count_min", "count_max")


@dataclass(frozen=True)
class Build:
    """What the kernel is specialised on."""

    architecture: int = 90
    drive: str = "fp32"
    spikes: str | None = "fp32"
    graded: bool = False
    negative: bool = True
    extras: bool = False
    """With a residual, a bias and a state to go on from."""
    aligned: bool = True
    """Whether pointers, strides and the number of neurons are multiples of 16."""
    ones: bool = False
    """Whether integers are 1, which specialises on them."""
    fusion: bool = False
    """Whether the compiler may contract products and sums, as torch.compile lets it."""

    def __str__(self) -> str:
        flags = ("graded", "extras", "ones", "fusion")
        words = [f"sm_{self.architecture}", self.drive, str(self.spikes)]
        words += [name for name in flags if getattr(self, name)]
        words += [] if self.aligned else ["unaligned"]
        words += [] if self.negative else ["no negative spikes"]
        return "-".join(words)

    @property
    def per_thread(self) -> int:
        return VECTOR_BYTES // max(BYTES[self.drive], BYTES.get(self.spikes, 1))


@dataclass(frozen=True)
class Compiled:
    """A kernel's machine code."""

    ptx: str
    sass: str
    instructions: tuple[tuple[int, str], ...]
    """Address and text of each instruction."""
    registers: int

    @property
    def loop(self) -> list[str]:
        """The instructions that run again and again: AHEAD time steps."""
        for address, text in self.instructions:
            back = re.search(r"BRA\S* (?:`\()?0x([0-9a-f]+)", text)
            if back and (start := int(back[1], 16)) < address:
                return [each for place, each in self.instructions if start <= place <= address]
        raise AssertionError("no loop")


@cache
def compiled(build: Build, tmp: Path) -> Compiled:
    types: dict[str, str | None] = {
        "drive": f"*{build.drive}",
        "residual": f"*{build.drive}" if build.extras else None,
        "threshold": "*fp32",
        "bias": "*fp32" if build.extras else None,
        "v_in": "*fp32" if build.extras else None,
        "m_in": "*i32" if build.extras else None,
        "v_out": "*fp32",
        "m_out": "*i32",
        "spikes": build.spikes and f"*{build.spikes}",
        "v_init": "fp32",
        "negative_threshold": "fp32" if build.negative else None,
    }
    constants = {
        "STRICT": False,
        "GRADED": build.graded,
        "THRESHOLD_SHARED": False,
        "BIAS_SHARED": False,
        "NARROW": True,
        "BLOCK": THREADS * build.per_thread,
        "AHEAD": AHEAD,
    }
    signature, constexprs, attributes = {}, {}, {}
    for place, parameter in enumerate(snm_kernel.params):
        name = parameter.name
        kind = types.get(name, "i32")
        if name in constants or kind is None or (build.ones and kind == "i32"):
            signature[name] = "constexpr"
            constexprs[name] = constants.get(name, None if kind is None else 1)
            continue
        signature[name] = kind
        if build.aligned and kind != "fp32" and name not in RUNTIME_INTEGERS:
            attributes[place,] = [["tt.divisibility", 16]]
    kernel = triton.compile(
        ASTSource(snm_kernel, signature, constexprs=constexprs, attrs=attributes),
        target=GPUTarget("cuda", build.architecture, 32),
        options={"num_warps": THREADS // 32, "enable_fp_fusion": build.fusion},
    )
    cubin = tmp / f"{kernel.hash}.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    sass = cuobjdump("-sass", cubin)
    instructions = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?) ;", sass, re.M)
    return Compiled(
        kernel.asm["ptx"],
        sass,
        tuple((int(address, 16), text) for address, text in instructions),
        int(re.search(r"REG:(\d+)", cuobjdump("-res-usage", cubin))[1]),
    )


@pytest.fixture(scope="module")
def tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cubins")


def first_use(loop: list[str], place: int) -> int:
    """How many instructions after the 16-byte load at this place its values are first read."""
    start = int(re.search(r"\bR(\d+)", loop[place])[1])
    row = {f"R{start + i}" for i in range(4)}
    for distance in range(1, len(loop)):
        text = re.sub(r"^@\S+ ", "", loop[(place + distance) % len(loop)])
        opcode, _, operands = text.partition(" ")
        registers = re.findall(r"\bR\d+\b", operands)
        read = registers if opcode.startswith("STG") else registers[1:]
        if row & set(read):
            return distance
    raise AssertionError(f"never read: {loop[place]}")


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
    assert code.registers <= 128


@pytest.mark.parametrize(
    "build", [Build(a, d, d) for a, d in product(ARCHITECTURES, ("fp32", "fp16", "bf16"))], ids=str
)
def test_moves_16_bytes_at_a_time(build: Build, tmp: Path) -> None:
    code = compiled(build, tmp)
    loads = Counter(re.findall(r"ld\.global[.\w]*", code.ptx))
    stores = Counter(re.findall(r"st\.global[.\w]*", code.ptx))
    # Each row of the drive is loaded in one place before the loop and in one within it.
    assert loads["ld.global.v4.b32"] == 2 * AHEAD
    assert stores.keys() == {"st.global.v4.b32"}
    assert count(LOAD_16_BYTES, code.sass) == 2 * AHEAD


@pytest.mark.parametrize("drive", ["fp32", "fp16", "bf16"])
def test_loads_of_later_steps_are_in_flight(drive: str, tmp: Path) -> None:
    code = compiled(Build(drive=drive, spikes=drive), tmp)
    texts = [text for _, text in code.instructions]
    first = next(i for i, text in enumerate(texts) if "FADD" in text)
    assert count(LOAD_16_BYTES, "\n".join(texts[:first])) >= AHEAD
    loads = [i for i, text in enumerate(code.loop) if re.search(LOAD_16_BYTES, text)]
    assert len(loads) == AHEAD
    half_a_step = len(code.loop) / (2 * AHEAD)
    assert min(first_use(code.loop, place) for place in loads) > half_a_step


@pytest.mark.parametrize("name", ["snm", "snm_out"])
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
        _, state = snm(x, threshold, rule=rule, state=state, emit="none", backend="triton")
        return spikes, state.v, state.m

    with FakeTensorMode():
        x = torch.empty(5, 2, 8, 4, 4, dtype=torch.float16, device="cuda")
        x = x.permute(0, 1, 3, 4, 2)
        threshold = torch.empty(8, device="cuda")
        for traced in (run, torch.compile(run, fullgraph=True, backend="eager")):
            spikes, v, m = traced(x, threshold)
            assert (spikes.dtype, v.dtype, m.dtype) == (torch.int8, torch.float32, torch.int32)
            assert spikes.shape == x.shape
            assert {tensor.device for tensor in (spikes, v, m)} == {x.device}
            assert spikes.stride()[1:] == v.stride() == m.stride() == x.stride()[1:]
