"""Compiles the Triton kernel ahead of time, for GPUs that need not be here."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from snm_kernels.triton.snm import NARROW, WIDE, Shape
from snm_kernels.triton.snm_kernel import snm_kernel
from support.machine_code import (
    Instruction,
    Measured,
    disassembled,
    instructions,
    main_loop,
    measure,
)

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "i32": 4, "i8": 1}
RUNTIME_INTEGERS = ("time_steps", "max_spikes", "count_min", "count_max")


@dataclass(frozen=True)
class Build:
    """A specialisation of the kernel, by all that it is specialised on."""

    architecture: int = 90
    drive: str = "fp32"
    spikes: str | None = "fp32"
    graded: bool = False
    wide: bool = True
    negative: bool = True
    extras: bool = False
    """Whether there are a residual, a bias and a state to go on from."""
    counted: bool = False
    """Whether negative spikes are counted, and with extras on from a given number."""
    aligned: bool = True
    """Whether pointers, strides and the number of neurons are multiples of 16."""
    shared: bool = False
    """Whether all neurons have one threshold."""
    ones: bool = False
    """Whether integers are 1, which specialises on them."""
    integers: bool = False
    """Whether thresholds, biases and membranes are int32."""
    fusion: bool = False
    """Whether the compiler may contract products and sums, as torch.compile lets it."""

    def __str__(self) -> str:
        flags = ("wide", "graded", "extras", "counted", "shared", "ones", "integers", "fusion")
        words = [f"sm_{self.architecture}", self.drive, str(self.spikes)]
        words += [name for name in flags if getattr(self, name)]
        words += [] if self.wide else ["narrow"]
        words += [] if self.aligned else ["unaligned"]
        words += [] if self.negative else ["no negative spikes"]
        return "-".join(words)

    @property
    def shape(self) -> Shape:
        """How neurons are dealt out to threads."""
        return WIDE if self.wide else NARROW

    @property
    def sizes(self) -> tuple[int, int]:
        """How many bytes an element of the drive has, and one of the spikes."""
        return BYTES[self.drive], BYTES.get(self.spikes, 0)

    @property
    def block(self) -> int:
        """How many neurons a block has."""
        return self.shape.block(*self.sizes)

    @property
    def neurons(self) -> int:
        """How many neurons one thread has."""
        return self.shape.each(*self.sizes)

    @property
    def ahead(self) -> int:
        """How many time steps before it is used a row is asked for."""
        return self.shape.ahead(*self.sizes)

    @property
    def copied(self) -> bool:
        """Whether rows are copied to shared memory, as 4 bytes or more can be from sm_80 on."""
        return self.architecture >= 80 and (self.aligned or BYTES[self.drive] >= 4)


@dataclass(frozen=True)
class Compiled:
    """A kernel's machine code."""

    ptx: str
    sass: str
    registers: int
    shared_bytes: int
    """How many bytes of shared memory a block takes."""

    @property
    def instructions(self) -> list[Instruction]:
        return instructions(self.sass)

    @property
    def loop(self) -> list[Instruction]:
        """The loop over time."""
        return main_loop(self.instructions)

    @property
    def copies(self) -> list[Instruction]:
        """The loop's copies to shared memory."""
        return [each for each in self.loop if each.opcode.startswith("LDGSTS")]

    def measure(self, build: Build) -> Measured:
        """What the kernel's loop over time does."""
        return measure(
            self.sass,
            neurons=build.neurons,
            steps=build.shape.unroll,
            drive=BYTES[build.drive],
            spikes=BYTES.get(build.spikes, 0),
        )


@cache
def compiled(build: Build, tmp: Path) -> Compiled:
    """Compiles the kernel; the folder ``tmp`` takes its machine code."""
    number = "*i32" if build.integers else "*fp32"
    types: dict[str, str | None] = {
        "drive": f"*{build.drive}",
        "residual": f"*{build.drive}" if build.extras else None,
        "threshold": number,
        "bias": number if build.extras else None,
        "v_in": number if build.extras else None,
        "m_in": "*i32" if build.extras else None,
        "negative_in": "*i32" if build.extras and build.counted else None,
        "v_out": number,
        "m_out": "*i32",
        "negative_out": "*i32" if build.counted else None,
        "spikes": build.spikes and f"*{build.spikes}",
        "v_init": "fp32",
        "negative_threshold": "fp32" if build.negative else None,
    }
    constants = {
        "STRICT": False,
        "GRADED": build.graded,
        "THRESHOLD_SHARED": build.shared,
        "BIAS_SHARED": False,
        "NARROW": True,
        "BLOCK": build.block,
        "STAGES": build.shape.stages(*build.sizes),
        "UNROLL": build.shape.unroll,
    }
    signature, constexprs, attributes = {}, {}, {}
    for place, parameter in enumerate(snm_kernel.params):
        name = parameter.name
        kind = types.get(name, "i32")
        is_one = build.ones and kind == "i32" and name not in RUNTIME_INTEGERS
        if name in constants or kind is None or is_one:
            signature[name] = "constexpr"
            constexprs[name] = constants.get(name, None if kind is None else 1)
            continue
        signature[name] = kind
        if build.aligned and kind != "fp32" and name not in RUNTIME_INTEGERS:
            attributes[place,] = [["tt.divisibility", 16]]
    kernel = triton.compile(
        ASTSource(snm_kernel, signature, constexprs=constexprs, attrs=attributes),
        target=GPUTarget("cuda", build.architecture, 32),
        options={"num_warps": build.shape.warps, "enable_fp_fusion": build.fusion},
    )
    cubin = tmp / f"{kernel.hash}.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    return Compiled(kernel.asm["ptx"], *disassembled(cubin), kernel.metadata.shared)
