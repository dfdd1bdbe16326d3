"""The running maximum's Triton kernel compiled ahead of time: its machine code; its tracing."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import triton
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from snm_kernels import adaptive_running_max_pool, running_max_pool
from snm_kernels.triton.launch import INTERPRETED
from snm_kernels.triton.running_max import BLOCK, MOST_TAPS
from snm_kernels.triton.running_max_kernel import snm_running_max_kernel, snm_running_total_kernel
from support.machine_code import LOCAL_MEMORY, count, cuobjdump

pytestmark = pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET is set")

ARCHITECTURES = (75, 80, 90, 100, 120)


@dataclass(frozen=True)
class Build:
    """What the kernel is specialised on."""

    architecture: int = 90
    x: str = "i8"
    spikes: str = "fp32"
    carries: bool = False
    kernel: int = 2
    channels_last: bool = False
    adaptive: bool = False
    goes_on: bool = False
    """Whether totals are given."""

    def __str__(self) -> str:
        words = [f"sm_{self.architecture}", self.x, self.spikes, f"{self.kernel}x{self.kernel}"]
        flags = ("carries", "channels_last", "adaptive", "goes_on")
        return "-".join([*words, *(name for name in flags if getattr(self, name))])

    @property
    def counts(self) -> bool:
        return self.x == "i8"

    @property
    def in_registers(self) -> bool:
        return self.kernel**2 <= MOST_TAPS


BUILDS = [
    *(Build(a) for a in ARCHITECTURES),
    *(Build(a, carries=True, kernel=3, goes_on=True) for a in ARCHITECTURES),
    *(Build(a, carries=True, kernel=4) for a in ARCHITECTURES),
    Build(spikes="i8", channels_last=True),
    Build(x="fp32", kernel=3),
    Build(x="fp16", spikes="fp16", channels_last=True),
    Build(x="bf16", spikes="bf16", kernel=5),
    Build(kernel=3, adaptive=True),
    Build(x="fp32", kernel=4, adaptive=True, goes_on=True),
]


def compiled(build: Build, tmp: Path) -> tuple[str, str]:
    """PTX and machine code."""
    total = "*i32" if build.counts else "*fp32"
    types: dict[str, str | None] = {
        "x": f"*{build.x}",
        "threshold": "*fp32" if build.counts else None,
        "total_in": total if build.goes_on else None,
        "total_out": total,
        "spikes": f"*{build.spikes}",
        "scratch": None if build.in_registers else total,
    }
    constants = {
        **{f"KERNEL_{name}": build.kernel for name in ("HEIGHT", "WIDTH")},
        **{f"DILATION_{name}": 1 for name in ("DEPTH", "HEIGHT", "WIDTH")},
        **{f"ADAPTIVE_{name}": build.adaptive for name in ("HEIGHT", "WIDTH")},
        "KERNEL_DEPTH": 1,
        "ADAPTIVE_DEPTH": False,
        "CHANNELS_LAST": build.channels_last,
        "CARRIES": build.carries,
        "COUNTS": build.counts,
        "TAPS": build.kernel**2 if build.in_registers else 0,
        "BLOCK": BLOCK,
    }
    return code(snm_running_max_kernel, types, constants, build.architecture, tmp)


def code(
    kernel: triton.JITFunction,
    types: dict[str, str | None],
    constants: dict[str, int],
    architecture: int,
    tmp: Path,
) -> tuple[str, str]:
    signature, constexprs = {}, {}
    for parameter in kernel.params:
        name = parameter.name
        kind = types.get(name, "i32")
        if name in constants or kind is None:
            signature[name] = "constexpr"
            constexprs[name] = constants.get(name)
        else:
            signature[name] = kind
    built = triton.compile(
        ASTSource(kernel, signature, constexprs=constexprs),
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": BLOCK // 32, "enable_fp_fusion": False},
    )
    cubin = tmp / f"{built.hash}.cubin"
    cubin.write_bytes(built.asm["cubin"])
    return built.asm["ptx"], cuobjdump("-sass", cubin)


@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_is_exact_and_uses_no_local_memory(build: Build, tmp_path: Path) -> None:
    ptx, sass = compiled(build, tmp_path)
    assert not re.search(r"\bfma\.|\.ftz|\.approx", ptx)
    assert count(LOCAL_MEMORY, sass) == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_totals_alone_compile(architecture: int, tmp_path: Path) -> None:
    types: dict[str, str | None] = {"x": "*i8", "total_in": None, "total_out": "*i32"}
    constants = {"COUNTS": True, "BLOCK": BLOCK}
    _, sass = code(snm_running_total_kernel, types, constants, architecture, tmp_path)
    assert count(LOCAL_MEMORY, sass) == 0


@pytest.mark.parametrize("name", ["running_max_pool", "adaptive_running_max_pool"])
def test_has_the_arguments_of_the_native_operator(name: str) -> None:
    native = getattr(torch.ops.snm_kernels, name).default._schema
    ours = getattr(torch.ops.snm_kernels, f"{name}_triton").default._schema

    def arguments(schema: torch.FunctionSchema) -> list[tuple[str, str]]:
        return [(each.name, str(each.type)) for each in schema.arguments]

    assert arguments(ours) == arguments(native)
    assert [str(each.type) for each in ours.returns] == [str(e.type) for e in native.returns]


def test_traces_without_a_gpu() -> None:
    def run(x: torch.Tensor, threshold: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first, total = running_max_pool(x, 2, threshold=threshold, emit="spike", backend="triton")
        second, _ = adaptive_running_max_pool(
            x, (3, 1), threshold=threshold, total=total, backend="triton"
        )
        return first, total, second

    with FakeTensorMode():
        x = torch.empty(5, 2, 4, 4, 8, dtype=torch.int8, device="cuda").permute(0, 1, 4, 2, 3)
        threshold = torch.empty(8, 1, 1, device="cuda")
        for traced in (run, torch.compile(run, fullgraph=True, backend="eager")):
            first, total, second = traced(x, threshold)
            assert (first.dtype, total.dtype) == (torch.int8, torch.int32)
            assert second.dtype == torch.float32
            assert first.shape == (5, 2, 8, 2, 2)
            assert second.shape == (5, 2, 8, 3, 1)
            assert first.stride(2) == total.stride(1) == second.stride(2) == 1
