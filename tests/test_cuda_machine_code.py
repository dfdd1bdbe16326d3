"""What nvcc made of the CUDA kernels, read from the library itself; needs no GPU."""

import os
import re
import shutil
from pathlib import Path

import pytest

import snm_kernels
from machine_code import (
    FUSED_MULTIPLY_ADD,
    LOAD_16_BYTES,
    LOCAL_MEMORY,
    STORE_16_BYTES,
    count,
    cuobjdump,
    kernels,
)

LIBRARY = Path(snm_kernels.__file__).parent / "libsnm_cuda.so"
TARGETS = snm_kernels.build_info().cuda_architectures.split()
DEFAULT_TARGETS = [*(f"{n}-real" for n in (75, 80, 86, 89, 90, 100, 120)), "120-virtual"]
ARCHITECTURES = [target.removesuffix("-real") for target in TARGETS if target.endswith("-real")]

pytestmark = pytest.mark.skipif(
    not LIBRARY.exists() and shutil.which("nvcc") is None,
    reason="this build has no CUDA library: there is no nvcc on PATH",
)

# Mangled dtypes of drive and spikes: f float32, 6__half, 13__nv_bfloat16, i int32, a int8.
MANGLED = {"float32": "f", "float16": "6__half", "bfloat16": "13__nv_bfloat16"}
NEURON_KERNELS = 4 * 5 * 2
# Of the running maximum: three sizes of windows for five kinds of input, and the totals alone.
POOL_KERNELS = 3 * 5 + 4
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
    # Two blocks of 256 threads fit on a multiprocessor.
    assert max(int(registers) for registers, _, _ in usage) <= 128


@pytest.fixture(scope="module")
def sass() -> dict[str, str]:
    if "90" not in ARCHITECTURES:
        pytest.skip(f"built for {TARGETS}, not for sm_90")
    return kernels(cuobjdump("-sass", "-arch", "sm_90", LIBRARY))


@pytest.mark.parametrize("dtype", MANGLED)
def test_contiguous_drives_move_in_words_of_16_bytes(sass: dict[str, str], dtype: str) -> None:
    own = MANGLED[dtype]
    spikes = own if own == "f" else "S1_"
    (listing,) = (code for name, code in sass.items() if f"snm_kernelI{own}{spikes}Lb0E" in name)
    # Four steps ahead, once before the loop and once in it.
    assert count(LOAD_16_BYTES, listing) >= 8
    assert count(STORE_16_BYTES, listing) >= 4


def test_nothing_is_contracted_and_nothing_lives_in_local_memory(sass: dict[str, str]) -> None:
    assert len(sass) == KERNELS_PER_TARGET
    assert sum("snm_kernel" in name for name in sass) == NEURON_KERNELS
    for name, listing in sass.items():
        assert count(LOCAL_MEMORY, listing) == 0, name
        # Only the correctly rounded division of the graded kernels is made of them.
        if "snm_kernel" not in name or "Lb0E" in name:
            assert count(FUSED_MULTIPLY_ADD, listing) == 0, name


def test_the_library_has_code_for_every_target() -> None:
    listed = set(re.findall(r"sm_(\d+)", cuobjdump("-lelf", LIBRARY)))
    assert listed == set(ARCHITECTURES)
    virtual = {target.removesuffix("-virtual") for target in TARGETS if target.endswith("-virtual")}
    assert set(re.findall(r"sm_(\d+)", cuobjdump("-lptx", LIBRARY))) == virtual
