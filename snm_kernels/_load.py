"""Loads the libraries of this build and gathers the facts that say which backends can run."""

import ctypes
import functools
import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

import torch

from . import _host
from ._availability import (
    Facts,
    cuda_reason,
    cuda_refusal,
    library_reason,
    torch_reason,
    triton_reason,
    triton_refusal,
)
from .compiling import constant_result

_FOLDER = Path(__file__).parent
INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton's interpreter is on, in which Triton's kernels run on CPU tensors."""
NAMES = ("cpu", "cuda", "triton", "reference")


class BackendStatus(NamedTuple):
    """Whether a backend can run here.

    >>> backends()["reference"].available
    True
    """

    available: bool
    reason: str
    """Why not, and what to do about it; empty where it is available."""


class BuildInfo(NamedTuple):
    """How this copy of snm-kernels was built."""

    version: str
    cxx_compiler: str
    cuda_compiler: str
    """The compiler of the CUDA library; empty where there is none."""
    cuda_version: str
    """The toolkit that built the CUDA library, ``major.minor``; empty where there is none."""
    cuda_architectures: str
    """The library's GPUs as CMake has them, ``75-real 80-real``; empty where there is none."""
    oldest_torch: str
    """The oldest torch that has the stable ABI which the libraries use."""
    isa: str
    """The instruction set that the CPU kernels use: avx512, avx2 or baseline."""
    matrix: str
    """What multiplies matrices of 8 bits there: amx, vnni, or plain for what every set has."""


def build_info() -> BuildInfo:
    """Version, compilers, instruction set, CUDA targets and oldest torch of this build.

    The instruction set is the best of those built that this processor has. The environment
    variable ``SNM_CPU_ISA`` (``avx512``, ``avx2`` or ``baseline``), read once, forces one, and
    ``SNM_CPU_MATRIX`` (``amx``, ``vnni`` or ``plain``) what multiplies matrices.

    >>> build_info().oldest_torch
    '2.11'
    """
    return BuildInfo(**_host.build_info())


def backends() -> dict[str, BackendStatus]:
    """Says for each backend whether it is available and, if not, why.

    Returns:
        name -> :class:`BackendStatus`, for ``cpu``, ``cuda``, ``triton`` and ``reference``.

    >>> backends()["cpu"]
    BackendStatus(available=True, reason='')
    """
    facts = _facts()
    interpreted = INTERPRETING and facts.triton
    reasons = {
        "cpu": "",
        "cuda": cuda_reason(facts),
        "triton": "" if interpreted else triton_reason(facts),
        "reference": "",
    }
    return {name: BackendStatus(not reasons[name], reasons[name]) for name in NAMES}


def choose(backend: str, device: torch.device, op: str = "snm") -> str:
    """Returns the backend that runs a drive on this device; raises with the reason if none does."""
    if backend == "auto":
        if device.type == "cpu":
            return "cpu"
        if device.type == "cuda":
            backend = "cuda" if _CUDA_LOADED else "triton"
        else:
            raise ValueError(
                f"{op}: x must be on a cpu or cuda device for backend='auto', got {device}; "
                "backend='reference' runs on any device"
            )
    if backend not in NAMES:
        raise ValueError(
            f"{op}: backend must be 'auto' or one of {', '.join(NAMES)}, got {backend}"
        )
    if backend == "reference":
        return backend
    wanted = "cpu" if backend == "cpu" or (backend == "triton" and INTERPRETING) else "cuda"
    if device.type != wanted:
        status = backends()[backend]
        if not status.available:
            raise _not_available(op, backend, status.reason)
        raise ValueError(f"{op}: x must be on a {wanted} device for {backend!r}, got {device}")
    if (backend == "cuda" and not _CUDA_LOADED) or (backend == "triton" and not _HAS_TRITON):
        raise _not_available(op, backend, backends()[backend].reason)
    if wanted == "cuda" and (refusal := _refusal(backend, device.index)):
        raise _not_available(op, backend, refusal)
    return backend


def load_triton() -> None:
    """Registers the Triton operators, at their first use, as importing Triton takes seconds."""
    from . import triton  # noqa: F401


def _not_available(op: str, backend: str, reason: str) -> RuntimeError:
    """Makes the error of a backend that cannot run."""
    return RuntimeError(f"{op}: backend {backend!r} is not available: {reason}")


@constant_result
def _refusal(backend: str, index: int | None) -> str:
    """Why a backend cannot run on the GPU with this index, as a constant where it is traced."""
    return _looked_up_refusal(backend, index)


@functools.cache
def _looked_up_refusal(backend: str, index: int | None) -> str:
    """Why a backend cannot run on the GPU with this index; empty where it can."""
    if not torch.cuda.is_available():
        # Tensors of a GPU that is not here are only traced.
        return ""
    capability = torch.cuda.get_device_capability(index)
    if backend == "triton":
        return triton_refusal(capability)
    return cuda_refusal(build_info().cuda_architectures, capability)


def _facts() -> Facts:
    """All facts, those of the GPUs and their driver as they are now."""
    capabilities, gpu_error = _gpus()
    return _BUILD_AND_TORCH._replace(
        load_error=_LOAD_ERROR,
        driver_cuda=_driver_cuda(),
        gpu_error=gpu_error,
        capabilities=capabilities,
    )


def _build_and_torch() -> Facts:
    """The facts about the build, torch and Triton, which no GPU or driver is asked for."""
    info = build_info()
    return Facts(
        torch=str(torch.__version__),
        torch_cuda=torch.version.cuda,
        library_cuda=info.cuda_version,
        architectures=info.cuda_architectures,
        load_error="",
        triton=importlib.util.find_spec("triton") is not None,
        driver_cuda=None,
        gpu_error="",
        capabilities=(),
    )


def _driver_cuda() -> tuple[int, int] | None:
    """The newest version of CUDA that the NVIDIA driver runs; None without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    return version.value // 1000, version.value % 1000 // 10


def _gpus() -> tuple[tuple[tuple[int, int], ...], str]:
    """The compute capabilities of the GPUs that torch can use, and torch's reason if it can't."""
    if torch.version.cuda is None:
        return (), ""
    try:
        torch.cuda.init()
        count = torch.cuda.device_count()
        return tuple(torch.cuda.get_device_capability(index) for index in range(count)), ""
    except RuntimeError as error:
        return (), str(error)


def _load_cuda() -> str:
    """Loads the CUDA library; returns the dynamic loader's message if that fails, else nothing."""
    try:
        torch.ops.load_library(_FOLDER / "libsnm_cuda.so")
    except OSError as error:
        return str(error)
    return ""


_reason = torch_reason(str(torch.__version__), build_info().oldest_torch)
if _reason:
    raise ImportError(f"snm_kernels: {_reason}")
torch.ops.load_library(_FOLDER / "libsnm_cpu.so")
_BUILD_AND_TORCH = _build_and_torch()
_HAS_TRITON = _BUILD_AND_TORCH.triton
_LIBRARY_FITS = not library_reason(_BUILD_AND_TORCH)
_LOAD_ERROR = _load_cuda() if _LIBRARY_FITS else ""
_CUDA_LOADED = _LIBRARY_FITS and not _LOAD_ERROR
