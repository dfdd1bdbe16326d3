"""What the build says of itself."""

from importlib.metadata import version
from pathlib import Path

import torch

import snm_kernels
from snm_kernels import backends, build_info

FOLDER = Path(snm_kernels.__file__).parent


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


def test_backends_are_those_of_the_design() -> None:
    assert list(backends()) == ["cpu", "cuda", "triton", "reference"]
    for status in backends().values():
        assert status.available == (status.reason == "")
    assert backends()["cpu"].available
    assert backends()["reference"].available


def test_cuda_kernels_are_there_where_torch_has_the_cuda_of_the_build() -> None:
    built, running = build_info().cuda_version, torch.version.cuda or ""
    loaded = torch._C._dispatch_has_kernel_for_dispatch_key("snm_kernels::snm", "CUDA")
    assert loaded == (bool(built) and built.split(".")[0] == running.split(".")[0])


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
