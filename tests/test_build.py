"""What the build says of itself, and what its libraries depend on."""

import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import snm_kernels
from snm_kernels import backends, build_info

FOLDER = Path(snm_kernels.__file__).parent
LIBRARIES = sorted(FOLDER.glob("libsnm_*.so"))


def readelf(*arguments: str) -> str:
    program = shutil.which("readelf")
    assert program is not None, "readelf comes with the compiler's binutils"
    return subprocess.run(
        [program, "--wide", *arguments], capture_output=True, text=True, check=True
    ).stdout


def undefined_symbols(library: Path) -> list[str]:
    lines = readelf("--dyn-syms", str(library)).splitlines()
    return [line.split()[7] for line in lines if " UND " in line and len(line.split()) > 7]


def needed_libraries(library: Path) -> list[str]:
    lines = readelf("--dynamic", str(library)).splitlines()
    return [line.split("[")[1].rstrip("]") for line in lines if "(NEEDED)" in line]


def test_build_info() -> None:
    info = build_info()
    assert all(isinstance(field, str) for field in info)
    assert info.version.split("+")[0] == version("snm-kernels").split("+")[0]
    assert snm_kernels.__version__ == info.version
    assert info.cxx_compiler.split()[0] in ("GNU", "Clang")
    assert info.oldest_torch == "2.11"
    assert info.isa in ("avx512", "avx2", "baseline")
    built_with_cuda = (FOLDER / "libsnm_cuda.so").exists()
    for field in (info.cuda_compiler, info.cuda_version, info.cuda_architectures):
        assert bool(field) == built_with_cuda
    assert info == build_info()


def test_cpu_library_is_there() -> None:
    assert FOLDER / "libsnm_cpu.so" in LIBRARIES


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_library_knows_no_python(library: Path) -> None:
    symbols = undefined_symbols(library)
    assert symbols
    assert [name for name in symbols if name.startswith(("Py", "_Py"))] == []
    assert [name for name in needed_libraries(library) if "python" in name] == []


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_library_uses_only_the_stable_abi_of_torch(library: Path) -> None:
    mangled = [name for name in undefined_symbols(library) if name.startswith("_Z")]
    assert [name for name in mangled if any(s in name for s in ("2at", "3c10", "5torch"))] == []


def test_host_module_knows_no_torch() -> None:
    [module] = FOLDER.glob("_host*.so")
    assert [name for name in needed_libraries(module) if "torch" in name or "c10" in name] == []
    assert [name for name in undefined_symbols(module) if "torch" in name] == []


@pytest.mark.parametrize("library", [*LIBRARIES, *FOLDER.glob("_host*.so")], ids=lambda p: p.name)
def test_library_holds_no_search_path(library: Path) -> None:
    dynamic = readelf("--dynamic", str(library))
    assert "(RPATH)" not in dynamic
    assert "(RUNPATH)" not in dynamic


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_stack_is_not_executable(library: Path) -> None:
    [stack] = [
        line for line in readelf("--segments", str(library)).splitlines() if "GNU_STACK" in line
    ]
    assert "E" not in stack.split()[-2]


def test_backends_are_those_of_the_design() -> None:
    assert list(backends()) == ["cpu", "cuda", "triton", "reference"]
    for status in backends().values():
        assert status.available == (status.reason == "")
    assert backends()["cpu"].available
    assert backends()["reference"].available


def test_backends_tell_the_truth_about_the_gpu() -> None:
    cuda, triton = backends()["cuda"], backends()["triton"]
    if not (FOLDER / "libsnm_cuda.so").exists():
        assert cuda.reason.startswith("this build has no CUDA library; install a ")
    elif torch.version.cuda is None:
        assert "is built without CUDA" in cuda.reason
    else:
        assert cuda.available <= torch.cuda.is_available()
    if torch.version.cuda is None:
        assert triton.reason.startswith(f"torch {torch.__version__} is built without CUDA; ")
    else:
        assert triton.available <= torch.cuda.is_available()
