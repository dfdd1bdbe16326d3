"""What the libraries ask of torch, the system and each other: what lets one wheel fit many."""

import ctypes
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import torch

import snm_kernels
from snm_kernels import build_info
from support.elf import Symbol, needed_libraries, readelf, undefined_symbols

FOLDER = Path(snm_kernels.__file__).parent
TORCH = Path(torch.__file__).parent
[HOST] = FOLDER.glob("_host*.so")
CPU, CUDA = FOLDER / "libsnm_cpu.so", FOLDER / "libsnm_cuda.so"
TORCH_LIBRARIES = [path for path in (CPU, CUDA) if path.exists()]
LIBRARIES = [HOST, *TORCH_LIBRARIES]

SHIMS = (
    "torch/csrc/stable/c/shim.h",
    "torch/csrc/inductor/aoti_torch/c/shim.h",
    "torch/csrc/inductor/aoti_torch/generated/c_shim_aten.h",
)
"""The C functions that stand between an extension and torch."""
SYSTEM = {"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "libpthread.so.0"}
if platform.machine() == "x86_64":
    SYSTEM |= {"ld-linux-x86-64.so.2"}
elif platform.machine() == "aarch64":
    SYSTEM |= {"ld-linux-aarch64.so.1"}
SYSTEM_VERSIONS = ("GLIBC_", "GLIBCXX_", "CXXABI_", "GCC_")
OF_CUDA_TORCH = {
    "aoti_torch_get_current_cuda_stream",
    "torch_c10_cuda_check_msg",
    "torch_c10_cuda_free_error_msg",
}
"""What only a torch with CUDA defines."""

every_library = pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
every_torch_library = pytest.mark.parametrize(
    "library", TORCH_LIBRARIES, ids=lambda path: path.name
)


@cache
def stable_abi(version: str) -> frozenset[str]:
    """The functions that torch's headers offer an extension built for this version of torch."""
    major, minor = (int(part) for part in version.split("."))
    compiler = shutil.which("c++")
    assert compiler is not None, "the libraries were built with a C++ compiler"
    text = subprocess.run(
        [
            *(compiler, "-std=c++17", "-E", "-P", "-x", "c++", "-", f"-I{TORCH / 'include'}"),
            *(f"-DTORCH_TARGET_VERSION={major << 56 | minor << 48:#x}ULL", "-DUSE_CUDA"),
        ],
        input="".join(f"#include <{header}>\n" for header in SHIMS),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return frozenset(re.findall(r"\b((?:aoti_)?torch_\w+)\s*\(", text))


def torch_symbols(library: Path) -> set[str]:
    return {s.name for s in undefined_symbols(library) if "torch" in s.name}


def from_the_system(symbol: Symbol) -> bool:
    return symbol.weak or symbol.version.startswith(SYSTEM_VERSIONS)


def test_the_cpu_library_is_there() -> None:
    assert CPU.exists()
    assert CUDA.exists() == bool(build_info().cuda_version)


def test_headers_offer_what_each_version_added() -> None:
    first = stable_abi("2.11")
    assert {"torch_call_dispatcher", "torch_parallel_for", "aoti_torch_get_numel"} <= first
    assert stable_abi("2.9") < first
    if torch.__version__ >= (2, 13):
        assert first < stable_abi("2.13")


@every_torch_library
def test_torch_is_asked_for_the_stable_abi_of_the_oldest_torch_alone(library: Path) -> None:
    asked = torch_symbols(library)
    assert len(asked) > 40
    assert asked - stable_abi(build_info().oldest_torch) == set()


@every_torch_library
def test_this_torch_has_what_the_library_asks_for(library: Path) -> None:
    # The dynamic loader looks a function up when it is first called, a missing one only then.
    loaded = ctypes.CDLL(str(TORCH / "lib" / "libtorch_cpu.so"))
    missing = {name for name in torch_symbols(library) if not hasattr(loaded, name)}
    assert missing <= (OF_CUDA_TORCH if library == CUDA else set())
    if torch.version.cuda is not None:
        with_cuda = ctypes.CDLL(str(TORCH / "lib" / "libtorch_cuda.so"))
        assert {name for name in missing if not hasattr(with_cuda, name)} == set()


@every_torch_library
def test_the_rest_comes_from_the_system_and_from_cuda(library: Path) -> None:
    rest = [s for s in undefined_symbols(library) if "torch" not in s.name]
    assert rest
    runtime = f"libcudart.so.{build_info().cuda_version.split('.')[0]} "
    strange = [
        symbol
        for symbol in rest
        if not from_the_system(symbol)
        and not (library == CUDA and f"{symbol.version} ".startswith(runtime))
    ]
    assert strange == []


@every_torch_library
def test_the_library_knows_no_python(library: Path) -> None:
    names = [symbol.name for symbol in undefined_symbols(library)]
    assert [name for name in names if name.startswith(("Py", "_Py"))] == []


def test_the_host_module_knows_python_and_the_system_alone() -> None:
    strange = [
        symbol
        for symbol in undefined_symbols(HOST)
        if not from_the_system(symbol) and not symbol.name.startswith(("Py", "_Py"))
    ]
    assert strange == []


@every_library
def test_needed_libraries(library: Path) -> None:
    major = build_info().cuda_version.split(".")[0]
    own = {HOST: set(), CPU: {"libtorch_cpu.so"}, CUDA: {"libtorch.so", f"libcudart.so.{major}"}}
    needed = needed_libraries(library)
    assert len(needed) == len(set(needed))
    assert set(needed) - SYSTEM == own[library]


@every_library
def test_no_search_path(library: Path) -> None:
    dynamic = readelf("--dynamic", str(library))
    assert "(RPATH)" not in dynamic
    assert "(RUNPATH)" not in dynamic


@every_library
def test_the_stack_is_not_executable(library: Path) -> None:
    [stack] = [
        line for line in readelf("--segments", str(library)).splitlines() if "GNU_STACK" in line
    ]
    assert "E" not in stack.split()[-2]
