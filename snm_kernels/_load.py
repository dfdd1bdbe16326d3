"""Finds the backends of this build and says of each whether it can run and, if not, why."""

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

import torch

from . import _host

_FOLDER = Path(__file__).parent
INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton's interpreter is on; its kernels then run on CPU tensors."""
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
    """Empty where the build has no CUDA library."""
    cuda_version: str
    """Toolkit of the CUDA library, ``major.minor``; empty where there is none."""
    cuda_architectures: str
    """CMake's list of targets, as in ``75-real 80-real``; empty where there is none."""
    oldest_torch: str
    """Oldest torch whose stable ABI the libraries need."""
    isa: str
    """Instruction set that the CPU kernels run on: avx512, avx2 or baseline."""


def build_info() -> BuildInfo:
    """Version, compilers, instruction set, CUDA targets and oldest torch of this build.

    The instruction set is the best of those built that this processor has. The environment
    variable ``SNM_CPU_ISA`` (``avx512``, ``avx2`` or ``baseline``), read once, forces one.

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
    reasons = {
        "cpu": "",
        "cuda": _CUDA_LIBRARY_MISSING or _no_gpu(),
        "triton": _TRITON_MISSING or ("" if INTERPRETING else _no_gpu()),
        "reference": "",
    }
    return {name: BackendStatus(not reasons[name], reasons[name]) for name in NAMES}


def choose(backend: str, device: torch.device, op: str = "snm") -> str:
    """The backend that runs a drive on this device; raises with the reason if there is none."""
    if backend == "auto":
        if device.type == "cpu":
            return "cpu"
        if device.type == "cuda":
            backend = "triton" if _CUDA_LIBRARY_MISSING else "cuda"
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
            raise RuntimeError(f"{op}: backend {backend!r} is not available: {status.reason}")
        raise ValueError(f"{op}: x must be on a {wanted} device for {backend!r}, got {device}")
    reason = {"cpu": "", "cuda": _CUDA_LIBRARY_MISSING, "triton": _TRITON_MISSING}[backend]
    if reason:
        raise RuntimeError(f"{op}: backend {backend!r} is not available: {reason}")
    return backend


def load_triton() -> None:
    """Registers the Triton operators at their first use: what they import takes seconds."""
    from . import triton  # noqa: F401
    from .triton import running_max  # noqa: F401


def _no_gpu() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install a CUDA build of torch"
    if not torch.cuda.is_available():
        return "torch finds no usable NVIDIA GPU; check nvidia-smi and the driver's version"
    return ""


def _triton_missing() -> str:
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed; pip install triton"
    return ""


def _load_cuda() -> str:
    """Loads the CUDA library where it fits this torch; returns why it was not loaded."""
    library = _FOLDER / "libsnm_cuda.so"
    if not library.exists():
        return "this build has no CUDA library; install a CUDA wheel or build with nvcc"
    built = build_info().cuda_version
    running = torch.version.cuda
    if running is None:
        return _no_gpu()
    if built.split(".")[0] != running.split(".")[0]:
        return (
            f"the CUDA library was built with CUDA {built}, torch {torch.__version__} uses CUDA "
            f"{running}; install the wheel whose local version names CUDA {running.split('.')[0]}"
        )
    torch.ops.load_library(library)
    return ""


torch.ops.load_library(_FOLDER / "libsnm_cpu.so")
_CUDA_LIBRARY_MISSING = _load_cuda()
_TRITON_MISSING = _triton_missing()
