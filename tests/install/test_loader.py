"""What the loader says where a backend cannot run, with the facts of each case made up."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import snm_kernels
from snm_kernels import _load
from snm_kernels._availability import (
    Facts,
    cuda_reason,
    cuda_refusal,
    library_reason,
    torch_reason,
    triton_reason,
)

TARGETS = "75-real 80-real 86-real 89-real 90-real 100-real 120-real 120-virtual"
RUNS = Facts(
    torch="2.13.0+cu130",
    torch_cuda="13.0",
    library_cuda="13.0",
    architectures=TARGETS,
    load_error="",
    triton=True,
    driver_cuda=(13, 0),
    gpu_error="",
    capabilities=((9, 0),),
)
NO_DRIVER = (
    "no NVIDIA driver is here (no libcuda.so.1); install one for CUDA 13, version 580 or newer, or "
    "start the container with its GPUs (docker --gpus all, apptainer --nv)"
)
TOO_OLD = (
    "the GPU has compute capability 7.0, 7.5 is needed; use a newer GPU, or backend='cpu' on CPU "
    "tensors"
)
OF_BOTH = {
    "no driver": (
        {"driver_cuda": None, "gpu_error": "Found no NVIDIA driver", "capabilities": ()},
        NO_DRIVER,
    ),
    "driver too old": (
        {"driver_cuda": (12, 4), "gpu_error": "The driver is too old", "capabilities": ()},
        "the NVIDIA driver runs CUDA up to 12.4, torch 2.13.0+cu130 needs CUDA 13.0; install one "
        "for CUDA 13, version 580 or newer, or a torch and a wheel for CUDA 12",
    ),
    "no GPU": (
        {"gpu_error": "No CUDA GPUs are available", "capabilities": ()},
        "torch finds no usable NVIDIA GPU (No CUDA GPUs are available); check nvidia-smi and "
        "CUDA_VISIBLE_DEVICES",
    ),
    "GPU too old": ({"capabilities": ((7, 0),)}, TOO_OLD),
    "every GPU too old": ({"capabilities": ((7, 0), (6, 1))}, TOO_OLD),
}
OF_CUDA = {
    "wheel without CUDA": (
        {"library_cuda": "", "architectures": ""},
        "this build has no CUDA library; install a wheel whose version ends in +cu13x or build "
        "with nvcc",
    ),
    "wheel without CUDA, torch without": (
        {"library_cuda": "", "architectures": "", "torch": "2.13.0+cpu", "torch_cuda": None},
        "this build has no CUDA library; install a wheel whose version ends in +cu… or build with "
        "nvcc",
    ),
    "torch without CUDA": (
        {"torch": "2.13.0+cpu", "torch_cuda": None},
        "torch 2.13.0+cpu is built without CUDA; install a torch built for CUDA 13",
    ),
    "another CUDA major": (
        {"torch": "2.13.0+cu128", "torch_cuda": "12.8"},
        "the CUDA library was built with CUDA 13.0, torch 2.13.0+cu128 uses CUDA 12.8; install a "
        "wheel whose version ends in +cu12x, or a torch built for CUDA 13",
    ),
    "library does not load": (
        {"load_error": "libcudart.so.13: cannot open shared object file"},
        "the CUDA library does not load: libcudart.so.13: cannot open shared object file; install "
        "torch anew, or build for this torch with nvcc",
    ),
    "GPU left out of the build": (
        {"architectures": "90-real", "capabilities": ((8, 0),)},
        "the GPU has compute capability 8.0, the CUDA library code for 90-real; install a released "
        "wheel, or build with TORCH_CUDA_ARCH_LIST=8.0",
    ),
}
OF_TRITON = {
    "no Triton": ({"triton": False}, "the package triton is not installed; pip install triton"),
    "torch without CUDA": (
        {"torch": "2.13.0+cpu", "torch_cuda": None, "library_cuda": "", "architectures": ""},
        "torch 2.13.0+cpu is built without CUDA; install a torch built for CUDA",
    ),
}


def test_everything_runs() -> None:
    assert library_reason(RUNS) == cuda_reason(RUNS) == triton_reason(RUNS) == ""


@pytest.mark.parametrize("case", [*OF_BOTH, *OF_CUDA])
def test_cuda_says_what_is_missing(case: str) -> None:
    change, reason = {**OF_BOTH, **OF_CUDA}[case]
    assert cuda_reason(RUNS._replace(**change)) == reason


@pytest.mark.parametrize("case", [*OF_BOTH, *OF_TRITON])
def test_triton_says_what_is_missing(case: str) -> None:
    change, reason = {**OF_BOTH, **OF_TRITON}[case]
    assert triton_reason(RUNS._replace(**change)) == reason


def test_minor_versions_of_cuda_need_not_agree() -> None:
    assert cuda_reason(RUNS._replace(torch_cuda="13.2", library_cuda="13.0")) == ""
    older = RUNS._replace(torch_cuda="12.9", library_cuda="12.8", driver_cuda=(12, 2))
    assert cuda_reason(older) == triton_reason(older) == ""


def test_one_gpu_that_can_is_enough() -> None:
    assert cuda_reason(RUNS._replace(capabilities=((7, 0), (9, 0)))) == ""
    assert triton_reason(RUNS._replace(capabilities=((7, 0), (9, 0)))) == ""


@pytest.mark.parametrize(
    ("targets", "runs_on", "not_on"),
    [
        ("75-real", [(7, 5)], [(7, 0), (8, 0)]),
        # Machine code runs on later GPUs of the same major version, PTX on all later ones.
        ("80-real", [(8, 0), (8, 6), (8, 9)], [(7, 5), (9, 0)]),
        ("86-real", [(8, 6), (8, 9)], [(8, 0), (9, 0)]),
        ("80-virtual", [(8, 0), (9, 0), (12, 1)], [(7, 5)]),
        ("90a-real", [(9, 0)], [(8, 9), (10, 0)]),
        ("100f-real", [(10, 0), (10, 3)], [(9, 0), (11, 0)]),
        ("90a-virtual", [(9, 0)], [(10, 0)]),
        (TARGETS, [(7, 5), (8, 7), (9, 0), (10, 3), (12, 0), (12, 1), (13, 0)], [(7, 2), (11, 0)]),
    ],
)
def test_targets_and_compute_capabilities(
    targets: str, runs_on: list[tuple[int, int]], not_on: list[tuple[int, int]]
) -> None:
    assert [c for c in (*runs_on, *not_on) if not cuda_refusal(targets, c)] == runs_on


def test_unknown_target_is_refused() -> None:
    with pytest.raises(ValueError, match=r"architectures must be .* got native"):
        cuda_refusal("native", (9, 0))


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        ("2.11.0", True),
        ("2.11.0a0+b4d1f", True),
        ("2.13.0+cpu", True),
        ("3.0.0", True),
        ("2.10.1", False),
        ("2.9.0+cu128", False),
        ("1.13.1", False),
    ],
)
def test_oldest_torch(version: str, fits: bool) -> None:
    refusal = "" if fits else f"torch must be 2.11 or newer, got {version}"
    assert torch_reason(version, "2.11") == refusal


def test_import_beside_an_older_torch_says_so() -> None:
    program = "import torch; torch.__version__ = '2.10.1'; import snm_kernels"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    expected = "ImportError: snm_kernels: torch must be 2.11 or newer, got 2.10.1"
    assert done.stderr.splitlines()[-1] == expected


class MadeUpDriver:
    """The driver's library, as far as it is asked; runs CUDA 12.4."""

    def __init__(self, name: str) -> None:
        assert name == "libcuda.so.1"

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 12040
        return 0


def test_the_driver_is_asked_for_its_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_load.ctypes, "CDLL", MadeUpDriver)
    assert _load._driver_cuda() == (12, 4)


def test_a_missing_driver_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(_load.ctypes, "CDLL", not_found)
    assert _load._driver_cuda() is None


def test_torch_is_asked_for_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise RuntimeError("No CUDA GPUs are available")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    assert _load._gpus() == ((), "No CUDA GPUs are available")
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, index))
    assert _load._gpus() == (((9, 0), (9, 1)), "")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert _load._gpus() == ((), "")


@pytest.fixture
def as_if(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Lets a test put facts in place of the machine's."""
    _load._looked_up_refusal.cache_clear()
    yield monkeypatch
    _load._looked_up_refusal.cache_clear()


def pretend(as_if: pytest.MonkeyPatch, facts: Facts) -> None:
    as_if.setattr(_load, "_facts", lambda: facts)
    as_if.setattr(_load, "_CUDA_LOADED", not library_reason(facts) and not facts.load_error)
    as_if.setattr(_load, "_HAS_TRITON", facts.triton)
    as_if.setattr(_load, "INTERPRETING", False)


@pytest.mark.parametrize("case", [*OF_BOTH, *OF_CUDA])
def test_backends_and_a_call_give_the_reason(as_if: pytest.MonkeyPatch, case: str) -> None:
    change, reason = {**OF_BOTH, **OF_CUDA}[case]
    pretend(as_if, RUNS._replace(**change))
    assert snm_kernels.backends()["cuda"] == (False, reason)
    with pytest.raises(RuntimeError) as raised:
        snm_kernels.snm(torch.zeros(2, 3), 1.0, backend="cuda")
    assert str(raised.value) == f"snm: backend 'cuda' is not available: {reason}"
    drive = torch.zeros(2, 1, 4, 4)
    with pytest.raises(RuntimeError) as raised:
        snm_kernels.running_max_pool(drive, kernel_size=2, backend="cuda")
    assert str(raised.value).endswith(f": backend 'cuda' is not available: {reason}")
    assert snm_kernels.backends()["cpu"].available
    assert snm_kernels.snm(torch.zeros(2, 3), 1.0).state.m.eq(0).all()


@pytest.mark.parametrize("case", OF_CUDA)
def test_a_drive_on_a_gpu_is_refused_with_the_reason(as_if: pytest.MonkeyPatch, case: str) -> None:
    change, reason = OF_CUDA[case]
    facts = RUNS._replace(**change)
    pretend(as_if, facts)
    pretend_gpus(as_if, facts)
    with pytest.raises(RuntimeError) as raised:
        _load.choose("cuda", torch.device("cuda:0"))
    assert str(raised.value) == f"snm: backend 'cuda' is not available: {reason}"


def pretend_gpus(as_if: pytest.MonkeyPatch, facts: Facts) -> None:
    as_if.setattr(torch.cuda, "is_available", lambda: True)
    as_if.setattr(torch.cuda, "get_device_capability", lambda index: facts.capabilities[index or 0])
    info = _load.build_info()._replace(cuda_architectures=facts.architectures)
    as_if.setattr(_load, "build_info", lambda: info)


def test_each_gpu_is_judged_by_itself(as_if: pytest.MonkeyPatch) -> None:
    facts = RUNS._replace(capabilities=((9, 0), (7, 0)))
    pretend(as_if, facts)
    pretend_gpus(as_if, facts)
    assert snm_kernels.backends()["cuda"].available
    for backend in ("cuda", "triton"):
        assert _load.choose(backend, torch.device("cuda:0")) == backend
        with pytest.raises(RuntimeError, match=r"compute capability 7\.0"):
            _load.choose(backend, torch.device("cuda:1"))
    assert _load.choose("auto", torch.device("cuda:0")) == "cuda"
    with pytest.raises(RuntimeError, match=r"compute capability 7\.0"):
        _load.choose("auto", torch.device("cuda:1"))


def test_the_choice_compiles_without_a_break(as_if: pytest.MonkeyPatch) -> None:
    pretend(as_if, RUNS)

    def twice_if_cuda(x: torch.Tensor) -> torch.Tensor:
        return 2 * x if _load.choose("cuda", torch.device("cuda:0")) == "cuda" else x

    compiled = torch.compile(twice_if_cuda, backend="eager", fullgraph=True)
    assert torch.equal(compiled(torch.ones(3)), torch.full((3,), 2.0))
