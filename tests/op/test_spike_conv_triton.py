"""Convolutions of spikes in Triton: interpreted, against the reference; compiled ahead of time."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
import triton
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from snm_kernels import _load, pack_spike_weight, snm_conv, snm_linear, spike_conv
from snm_kernels.triton.launch import INTERPRETED
from snm_kernels.triton.spike_conv import (
    STAGES,
    Tile,
    block_for,
    groups_together,
    takes_no_int8,
    tile_for,
)
from snm_kernels.triton.spike_conv_kernel import spike_conv_kernel
from support.machine_code import LOCAL_MEMORY, count, disassembled
from support.spike_conv_triton import CASES, ConvCase, fires

compiles = pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET is set")

LARGE = (128, 2**16, 1)
"""Outputs, pixels and groups of a layer that fills any device."""
MULTIPROCESSORS = 132


@pytest.mark.parametrize(
    ("options", "cases"),
    [
        ([], CASES),
        # So many that no tile of 128 outputs is chosen; smaller blocks; places of 64 bits.
        (["--multiprocessors=1000000000", "--major=8", "--far", "--every=2"], CASES[::2]),
        (["--major=7", "--every=3"], CASES[::3]),
        (["--opcheck", "--every=5"], CASES[::5]),
    ],
    ids=["wide", "narrow", "float16", "opcheck"],
)
def test_interpreted_triton_equals_reference(options: list[str], cases: list[ConvCase]) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "support.spike_conv_triton", *options],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)
    assert summary["failures"] == []
    assert summary["cases"] == len(cases)


@pytest.mark.parametrize("case", [case for case in CASES if 0 not in case.x], ids=str)
def test_cases_have_spikes(case: ConvCase) -> None:
    assert fires(case)


@dataclass(frozen=True)
class Build:
    """What the kernel is specialised on."""

    architecture: int = 90
    kernel: int = 3
    channels: int = 128
    outputs: int = 128
    steps: int = 8
    neurons: bool = True
    extras: bool = False
    """Whether there are a residual and a state to go on from."""
    graded: bool = False
    whole: bool = True
    pixels: bool = False
    """Whether each pixel has a threshold and a bias of its own."""
    pool: int = 1
    narrow: bool = True
    ones: bool = False
    """Whether integers are 1, which specialises on them."""

    def __str__(self) -> str:
        size = f"{self.channels}-{self.outputs}-{self.kernel}x{self.kernel}"
        words = [f"sm_{self.architecture}", size, f"{self.steps} steps"]
        words += [name for name in ("extras", "graded", "pixels", "ones") if getattr(self, name)]
        words += [] if self.neurons else ["sums"]
        words += [] if self.whole else ["part"]
        words += [] if self.narrow else ["64 bits"]
        return "-".join(words + ([f"pool {self.pool}"] if self.pool > 1 else []))

    @property
    def major(self) -> int:
        return self.architecture // 10

    @property
    def tile(self) -> Tile:
        return tile_for(self.outputs, *LARGE[1:], self.steps, MULTIPROCESSORS, self.major)

    @property
    def product(self) -> str:
        """The instruction of the PTX that multiplies int8."""
        return {
            8: r"mma\.sync\.aligned\.m16n8k32\S*\.s32\.s8\.s8\.s32",
            9: r"wgmma\.mma_async\.sync\.aligned\.m64n\d+k32\.s32\.s8\.s8",
            10: r"tcgen05\.mma\.cta_group::1\.kind::i8",
            12: r"mma\.sync\.aligned\.m16n8k32\S*\.s32\.s8\.s8\.s32",
        }[self.major]


@dataclass(frozen=True)
class Compiled:
    """The kernel's machine code."""

    ptx: str
    sass: str
    registers: int


@pytest.fixture(scope="module")
def tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cubins")


@cache
def compiled(build: Build, tmp: Path) -> Compiled:
    extra = "*i32" if build.extras else None
    own = "*i32" if build.neurons else None
    types: dict[str, str | None] = {
        **dict.fromkeys(("x", "weight"), "*i8"),
        **dict.fromkeys(("v_in", "m_in", "residual"), extra),
        **dict.fromkeys(("threshold", "v_out", "m_out"), own),
        "bias": "*i32",
        "result": "*i8" if build.neurons else "*i32",
        "v_init": "fp32",
        "negative_threshold": "fp32",
    }
    inputs, gathered = block_for(build.channels, build.kernel**2, build.major)
    constants = {
        **{f"KERNEL_{name}": build.kernel for name in ("HEIGHT", "WIDTH")},
        **{f"POOL_{name}": build.pool for name in ("HEIGHT", "WIDTH")},
        "PADDED": build.kernel > 1,
        "THRESHOLD_PIXELS": build.pixels,
        "BIAS_PIXELS": build.pixels,
        "STRICT": False,
        "GRADED": build.graded,
        "WHOLE": build.whole,
        "NARROW": build.narrow,
        "GATHERED": gathered,
        "HALVES": takes_no_int8(build.major),
        "OUTPUTS": build.tile.outputs,
        "PIXELS": build.tile.pixels,
        "STEPS": build.tile.steps,
        "INPUTS": inputs,
        "STAGES": STAGES,
    }
    ones = {"groups", "stride_height", "stride_width", "dilation_height", "dilation_width"}
    if build.kernel == 1:
        ones |= {"in_height", "in_width", "out_height", "out_width"}
    if build.ones:
        ones |= {"x_step", "residual_step", "pixels", "in_channels", "out_channels", "blocks"}
    sixteens = {"x_step", "residual_step", *(["in_channels"] if build.channels % 16 == 0 else [])}
    sixteens |= {"out_channels"} if build.outputs % 16 == 0 else set()
    signature, constexprs, attributes = {}, {}, {}
    for place, parameter in enumerate(spike_conv_kernel.params):
        name = parameter.name
        kind = types.get(name, "i32")
        if name in constants or name in ones or kind is None:
            signature[name] = "constexpr"
            constexprs[name] = constants.get(name, 1 if name in ones else None)
            continue
        signature[name] = kind
        if kind.startswith("*") or name in sixteens:
            attributes[place,] = [["tt.divisibility", 16]]
    kernel = triton.compile(
        ASTSource(spike_conv_kernel, signature, constexprs=constexprs, attrs=attributes),
        target=GPUTarget("cuda", build.architecture, 32),
        options={"num_warps": build.tile.warps, "enable_fp_fusion": False},
    )
    cubin = tmp / f"{kernel.hash}.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    return Compiled(kernel.asm["ptx"], *disassembled(cubin))


ARCHITECTURES = (80, 90, 100, 120)
BUILDS = [
    *(Build(a, kernel=k) for a in ARCHITECTURES for k in (1, 3)),
    *(Build(a, neurons=False) for a in (80, 90, 100)),
    *(Build(a, graded=True) for a in (80, 90, 100)),
    *(Build(a, steps=s) for a in (80, 90, 100) for s in (1, 4)),
    *(Build(a, channels=3, outputs=64, steps=4) for a in (80, 90)),
    *(Build(a, channels=1, outputs=1, steps=4) for a in (80, 90, 100)),
    Build(90, extras=True, whole=False),
    Build(100, extras=True, whole=False),
    Build(90, pixels=True),
    Build(90, narrow=False),
    Build(90, kernel=1, channels=1, outputs=1, steps=1, extras=True, pixels=True, ones=True),
    Build(90, channels=64, outputs=64, pool=2),
]


@compiles
@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_multiplies_on_tensor_cores_and_keeps_neurons_in_registers(build: Build, tmp: Path) -> None:
    code = compiled(build, tmp)
    # Fewer than 64 outputs are too few for the newest instructions.
    product = build.product if build.tile.outputs >= 64 else Build(80).product
    found = sorted(set(re.findall(product, code.ptx)))
    print(build, found, f"{code.registers} registers")
    assert found
    assert count(r"\b(?:IGMMA|IMMA|UTCIMMA)\b", code.sass) > 0
    assert count(LOCAL_MEMORY, code.sass) == 0
    assert not re.search(r"\bfma\.|\.ftz|\.approx", code.ptx)


@compiles
def test_time_runs_in_the_registers_of_the_sums(tmp: Path) -> None:
    code = compiled(Build(90), tmp)
    # Neurons would be handed from thread to thread by these; spikes alone go through memory.
    assert count(r"\bSHFL\b", code.sass) == 0
    assert code.registers <= 224


@compiles
def test_turing_multiplies_float16(tmp: Path) -> None:
    build = Build(75, extras=True)
    assert (build.tile.outputs, block_for(build.channels, 9, 7)) == (32, (32, False))
    code = compiled(build, tmp)
    assert count(LOCAL_MEMORY, code.sass) == 0


def test_small_groups_are_taken_together() -> None:
    taken = [groups_together(*each) for each in ((1, 96), (1, 20), (3, 32), (16, 6), (20, 4))]
    assert taken == [32, 20, 8, 2, 1]
    assert groups_together(64, 1) == groups_together(0, 1) == 1


def test_small_layers_have_small_tiles() -> None:
    assert tile_for(*LARGE, 16, MULTIPROCESSORS, 9) == Tile(128, 16, 8, 8)
    assert tile_for(*LARGE, 1, MULTIPROCESSORS, 9) == Tile(128, 32, 1, 8)
    assert tile_for(1000, 32, 1, 16, MULTIPROCESSORS, 9) == Tile(64, 16, 4, 4)
    assert tile_for(1, 2**16, 32, 3, MULTIPROCESSORS, 9) == Tile(16, 16, 4, 4)


@pytest.mark.parametrize("name", ["snm_conv", "spike_conv"])
def test_has_the_arguments_of_the_native_operator(name: str) -> None:
    _load.load_triton()
    native = getattr(torch.ops.snm_kernels, name).default._schema
    ours = getattr(torch.ops.snm_kernels, f"{name}_triton").default._schema

    def arguments(schema: torch.FunctionSchema) -> list[tuple[str, str]]:
        return [(each.name, str(each.type)) for each in schema.arguments]

    assert arguments(ours) == arguments(native)
    assert [str(each.type) for each in ours.returns] == [str(e.type) for e in native.returns]


REFUSED = {
    "x": {"x": torch.zeros(2, 1, 4, 3, 3)},
    "weight": {"weight": torch.zeros(4, 3, 1, 1, dtype=torch.int8)},
    "bias": {"bias": torch.zeros(5, dtype=torch.int32)},
    "stride": {"stride": [0, 1]},
    "padding": {"padding": [0, -1]},
    "stride, padding, dilation and pool": {"dilation": [1]},
    "pool": {"pool": [1, 0]},
    "threshold": {"threshold": torch.zeros(4)},
    "v": {"v": torch.zeros(1, 4, 3, 2, dtype=torch.int32)},
    "residual": {"residual": torch.zeros(1, 1, 4, 3, 3, dtype=torch.int32)},
}


@pytest.mark.parametrize("argument", REFUSED)
def test_refuses_what_the_native_operator_refuses(argument: str) -> None:
    _load.load_triton()
    weight = torch.zeros(4, 4, 1, 1, dtype=torch.int8)
    given = {
        "x": torch.zeros(2, 1, 4, 3, 3, dtype=torch.int8),
        "weight": weight,
        "packed": pack_spike_weight(weight),
        "threshold": torch.zeros(4, dtype=torch.int32),
        **dict.fromkeys(("v", "m", "bias", "residual")),
        "stride": [1, 1],
        "padding": [0, 0],
        "dilation": [1, 1],
        "pool": [1, 1],
        "dense": False,
        "groups": 1,
        "v_init": 0.5,
        "negative_threshold": 0.0,
        "strict": True,
        "max_spikes": 1,
        "count_min": 0,
        "count_max": 9,
        "sends": True,
        **REFUSED[argument],
    }
    for name in ("snm_conv", "snm_conv_triton"):
        with pytest.raises(RuntimeError, match=f"snm_conv: {argument} must be"):
            getattr(torch.ops.snm_kernels, name)(**given)


@compiles
def test_traces_without_a_gpu() -> None:
    def run(x: torch.Tensor, weight: torch.Tensor, threshold: torch.Tensor) -> list[torch.Tensor]:
        spikes, state = snm_conv(x, weight, threshold, padding=1, stride=2, backend="triton")
        silent = snm_conv(spikes, weight, threshold, emit="none", backend="triton")
        sums = spike_conv(spikes, weight, pool=(2, 1), backend="triton")
        return [spikes, *state, *silent.state, sums]

    with FakeTensorMode():
        x = torch.empty(5, 2, 8, 14, 14, dtype=torch.int8, device="cuda")
        weight = torch.empty(8, 8, 3, 3, dtype=torch.int8, device="cuda")
        threshold = torch.empty(8, 1, 1, dtype=torch.int32, device="cuda")
        for traced in (run, torch.compile(run, fullgraph=True, backend="eager")):
            spikes, v, m, second_v, second_m, sums = traced(x, weight, threshold)
            assert (spikes.dtype, spikes.shape) == (torch.int8, (5, 2, 8, 7, 7))
            assert v.shape == m.shape == spikes.shape[1:]
            assert second_v.shape == second_m.shape == (2, 8, 5, 5)
            assert (sums.dtype, sums.shape) == (torch.int32, (5, 2, 8, 1, 5))
            assert {each.dtype for each in (v, m, second_v, second_m)} == {torch.int32}
            assert spikes.stride() == (784, 392, 1, 56, 8)
            assert v.stride() == m.stride() == (392, 1, 56, 8)


@compiles
def test_linear_layers_trace_without_a_gpu() -> None:
    with FakeTensorMode():
        x = torch.empty(5, 2, 64, dtype=torch.int8, device="cuda")
        weight = torch.empty(10, 64, dtype=torch.int8, device="cuda")
        threshold = torch.empty(10, dtype=torch.int32, device="cuda")
        spikes, state = snm_linear(x, weight, threshold, backend="triton")
        assert (spikes.shape, state.v.shape) == ((5, 2, 10), (2, 10))
