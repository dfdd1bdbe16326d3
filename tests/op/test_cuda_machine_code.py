"""What nvcc made of the CUDA kernels, read from the library itself; needs no GPU."""

import os
import re
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

import snm_kernels
from support.cuda_kernels import BYTES, DTYPES, Kernel
from support.machine_code import (
    FUSED_MULTIPLY_ADD,
    LOCAL_MEMORY,
    accesses,
    count,
    cuobjdump,
    hot_path,
    instructions,
    kernels,
    main_loop,
)

LIBRARY = Path(snm_kernels.__file__).parent / "libsnm_cuda.so"
TARGETS = snm_kernels.build_info().cuda_architectures.split()
DEFAULT_TARGETS = [*(f"{n}-real" for n in (75, 80, 86, 89, 90, 100, 120)), "120-virtual"]
ARCHITECTURES = [target.removesuffix("-real") for target in TARGETS if target.endswith("-real")]

pytestmark = pytest.mark.skipif(
    not LIBRARY.exists() and shutil.which("nvcc") is None,
    reason="this build has no CUDA library: there is no nvcc on PATH",
)

# For each dtype of drive and of spikes: ternary or graded, of wide or narrow shape, and in half
# precision for single neurons. Those of integers send int8 or nothing.
NEURON_KERNELS = (4 * 2 + 2) * 5 * 2 + 2 * 2 * 2
# Of the running maximum: three sizes of windows for five kinds of input, the totals alone, and four
# ways in which spikes lie in words.
POOL_KERNELS = 3 * 5 + 4 + 4
KERNELS_PER_TARGET = NEURON_KERNELS + POOL_KERNELS


@pytest.mark.skipif(
    "TORCH_CUDA_ARCH_LIST" in os.environ, reason="TORCH_CUDA_ARCH_LIST names other targets"
)
def test_default_targets_are_all_built() -> None:
    assert TARGETS == DEFAULT_TARGETS


def resources(architecture: str) -> str:
    return cuobjdump("-res-usage", "-arch", f"sm_{architecture}", LIBRARY)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_kernel_spills_registers(architecture: str) -> None:
    usage = re.findall(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", resources(architecture))
    assert len(usage) == KERNELS_PER_TARGET
    assert {(stack, local) for _, stack, local in usage} == {("0", "0")}
    # Four wide blocks of 128 threads fit on a multiprocessor, two of a pooling's 256.
    assert max(int(registers) for registers, _, _ in usage) <= 128


@pytest.fixture(scope="module")
def sass() -> dict[str, str]:
    if "90" not in ARCHITECTURES:
        pytest.skip(f"built for {TARGETS}, not for sm_90")
    return kernels(cuobjdump("-sass", "-arch", "sm_90", LIBRARY))


KERNELS = [
    Kernel(drive, spikes, graded, wide)
    for drive, spikes, graded, wide in product(
        DTYPES, ("float32", "float16", "bfloat16", "int8", None), (False, True), (True, False)
    )
]


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_a_step_moves_its_bytes_once_and_in_the_widest_words(
    sass: dict[str, str], kernel: Kernel
) -> None:
    found = kernel.measure(sass)
    assert found.bytes_loaded == BYTES[kernel.drive]
    assert found.bytes_stored == BYTES[kernel.spikes]
    if kernel.wide and not kernel.graded:
        assert found.load_width == 16


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_rows_of_later_steps_are_on_their_way(sass: dict[str, str], kernel: Kernel) -> None:
    loop = [each.opcode for each in main_loop(instructions(sass[kernel.name(sass)]))]
    real = [n for n, opcode in enumerate(loop) if opcode in ("LDS", "LDS.64", "LDS.128")]
    assert loop.index("DEPBAR.LE") < real[0]
    # All but the group that is being computed, of those that have been asked for.
    assert kernel.measure(sass).steps_ahead == kernel.rows - kernel.group


@dataclass(frozen=True)
class Packed:
    """An instantiation of csrc/cuda/running_max_packed.cuh."""

    packing: str
    taps: int
    windows: int
    most_instructions: int
    """For a window and a step."""

    def __str__(self) -> str:
        return f"{self.packing}, {self.taps} words"


PACKED = [
    Packed("channels", 4, 4, 16),
    Packed("channels", 9, 4, 28),
    Packed("pairs", 2, 2, 20),
    Packed("triples", 3, 2, 31),
]


@pytest.mark.parametrize("kernel", PACKED, ids=str)
def test_spikes_in_words_are_loaded_as_words(sass: dict[str, str], kernel: Packed) -> None:
    number = ["channels", "pairs", "triples"].index(kernel.packing)
    pattern = f"running_max_packed_kernelILNS_7PackingE{number}ELi{kernel.taps}E"
    (listing,) = (listing for name, listing in sass.items() if pattern in name)
    loop = main_loop(instructions(listing))
    ahead = 4
    loads = {i for i in loop if i.opcode.startswith("LDG")}
    single = {i for i in loads if i.bytes == 1}
    assert {i.bytes for i in loads - single} == {4}
    assert len(loads - single) == ahead * kernel.taps
    assert len(single) == (ahead * kernel.taps if kernel.packing == "triples" else 0)
    path = hot_path(loop, [(loads, len(loads)), (accesses(loop, "STG", kernel.windows), ahead)])
    assert len(path) / (ahead * kernel.windows) <= kernel.most_instructions


def test_nothing_is_contracted_and_nothing_lives_in_local_memory(sass: dict[str, str]) -> None:
    assert len(sass) == KERNELS_PER_TARGET
    assert sum("snm_kernel" in name for name in sass) == NEURON_KERNELS
    for name, listing in sass.items():
        assert count(LOCAL_MEMORY, listing) == 0, name
        if "snm_kernel" not in name:
            assert count(FUSED_MULTIPLY_ADD, listing) == 0, name


@pytest.mark.parametrize("kernel", [each for each in KERNELS if not each.graded], ids=str)
def test_only_the_exact_product_is_fused(sass: dict[str, str], kernel: Kernel) -> None:
    # Of -1, 0 or 1 and the threshold. A graded rule has the correctly rounded division's as well.
    listing = sass[kernel.name(sass)]
    of_minus_s = r"\bFFMA R\d+, (?:-R\d+, R\d+|R\d+, -R\d+), R\d+ ;"
    plain = listing.replace(".reuse", "")
    assert count(of_minus_s, plain) == count(FUSED_MULTIPLY_ADD, plain) > 0


def test_the_library_has_code_for_every_target() -> None:
    listed = set(re.findall(r"sm_(\d+)", cuobjdump("-lelf", LIBRARY)))
    assert listed == set(ARCHITECTURES)
    virtual = {target.removesuffix("-virtual") for target in TARGETS if target.endswith("-virtual")}
    assert set(re.findall(r"sm_(\d+)", cuobjdump("-lptx", LIBRARY))) == virtual
