"""Why a backend cannot run and what helps, decided from facts alone."""

import re
from typing import NamedTuple

OLDEST_CAPABILITY = (7, 5)
"""The oldest compute capability of a GPU that torch's builds for CUDA 13 and Triton support."""
_OLDEST_DRIVERS = {"12": "525", "13": "580"}
"""The oldest Linux driver that runs each major version of CUDA."""


class Facts(NamedTuple):
    """What is known of torch, this build and the machine, which decides what backends can run.

    >>> cpu_only = Facts("2.13.0+cpu", None, "", "", "", True, None, "", ())
    >>> triton_reason(cpu_only)
    'torch 2.13.0+cpu is built without CUDA; install a torch built for CUDA'
    """

    torch: str
    """The version of torch."""
    torch_cuda: str | None
    """The version of CUDA that torch was built for, ``major.minor``; None without CUDA."""
    library_cuda: str
    """The CUDA toolkit that built the CUDA library, ``major.minor``; empty without a library."""
    architectures: str
    """The GPUs that the CUDA library was built for, as CMake has them: ``75-real 120-virtual``."""
    load_error: str
    """What the dynamic loader said of the CUDA library; empty where it loaded or was not tried."""
    triton: bool
    """Whether Triton is installed."""
    driver_cuda: tuple[int, int] | None
    """The newest version of CUDA that the driver runs; None without a driver."""
    gpu_error: str
    """Why torch can use no GPU, in torch's words; empty where it can."""
    capabilities: tuple[tuple[int, int], ...]
    """The compute capability of each GPU that torch can use."""


def torch_reason(version: str, oldest: str) -> str:
    """Why the libraries cannot be loaded into this version of torch; empty where they can.

    >>> torch_reason("2.10.0+cu128", "2.11")
    'torch must be 2.11 or newer, got 2.10.0+cu128'
    """
    # An alpha of the oldest, as NVIDIA's containers have it, counts as the oldest.
    if [int(part) for part in version.split(".")[:2]] >= [int(part) for part in oldest.split(".")]:
        return ""
    return f"torch must be {oldest} or newer, got {version}"


def library_reason(facts: Facts) -> str:
    """Why the CUDA library must not be loaded into this torch; empty where it may be."""
    torch_major = (facts.torch_cuda or "").split(".")[0]
    if not facts.library_cuda:
        ending = f"+cu{torch_major}x" if torch_major else "+cu…"
        return (
            f"this build has no CUDA library; install a wheel whose version ends in {ending} or "
            "build with nvcc"
        )
    major = facts.library_cuda.split(".")[0]
    if not torch_major:
        return _torch_without_cuda(facts, major)
    if major != torch_major:
        return (
            f"the CUDA library was built with CUDA {facts.library_cuda}, torch {facts.torch} uses "
            f"CUDA {facts.torch_cuda}; install a wheel whose version ends in +cu{torch_major}x, "
            f"or a torch built for CUDA {major}"
        )
    return ""


def cuda_reason(facts: Facts) -> str:
    """Why backend ``cuda`` can run on none of the GPUs; empty where it can on one."""
    if reason := library_reason(facts):
        return reason
    if facts.load_error:
        return (
            f"the CUDA library does not load: {facts.load_error}; install torch anew, or build "
            "for this torch with nvcc"
        )
    return _gpu_reason(facts) or _if_all(
        [cuda_refusal(facts.architectures, capability) for capability in facts.capabilities]
    )


def triton_reason(facts: Facts) -> str:
    """Why backend ``triton`` can run on none of the GPUs; empty where it can on one."""
    if not facts.triton:
        return "the package triton is not installed; pip install triton"
    return _gpu_reason(facts) or _if_all(
        [triton_refusal(capability) for capability in facts.capabilities]
    )


def cuda_refusal(architectures: str, capability: tuple[int, int]) -> str:
    """Why the CUDA library cannot run on a GPU of this compute capability; empty where it can.

    >>> cuda_refusal("80-real 90-real 90-virtual", (8, 6))
    ''
    >>> cuda_refusal("80-real", (9, 0))[:66]
    'the GPU has compute capability 9.0, the CUDA library code for 80-r'
    """
    if any(_runs(target, capability) for target in architectures.split()):
        return ""
    if capability < OLDEST_CAPABILITY:
        return triton_refusal(capability)
    shown = _shown(capability)
    return (
        f"the GPU has compute capability {shown}, the CUDA library code for {architectures}; "
        f"install a released wheel, or build with TORCH_CUDA_ARCH_LIST={shown}"
    )


def triton_refusal(capability: tuple[int, int]) -> str:
    """Why a GPU of this compute capability is too old; empty where it is not."""
    if capability >= OLDEST_CAPABILITY:
        return ""
    return (
        f"the GPU has compute capability {_shown(capability)}, {_shown(OLDEST_CAPABILITY)} is "
        "needed; use a newer GPU, or backend='cpu' on CPU tensors"
    )


def _runs(target: str, capability: tuple[int, int]) -> bool:
    """Whether code for a target, such as ``86-real``, runs on a GPU of this compute capability."""
    found = re.fullmatch(r"(\d+)(\d)([af]?)-(real|virtual)", target)
    if found is None:
        raise ValueError(f"architectures must be CMake's NN-real or NN-virtual, got {target}")
    built = (int(found[1]), int(found[2]))
    if found[3] == "a":
        return built == capability
    if found[3] == "f" or found[4] == "real":
        return built[0] == capability[0] and built <= capability
    return built <= capability


def _gpu_reason(facts: Facts) -> str:
    """Why torch can use no GPU; empty where it can use one."""
    if facts.torch_cuda is None:
        return _torch_without_cuda(facts, facts.library_cuda.split(".")[0])
    major = facts.torch_cuda.split(".")[0]
    wanted = f"one for CUDA {major}"
    if major in _OLDEST_DRIVERS:
        wanted += f", version {_OLDEST_DRIVERS[major]} or newer"
    if facts.driver_cuda is None:
        return (
            "no NVIDIA driver is here (no libcuda.so.1); install "
            f"{wanted}, or start the container with its GPUs (docker --gpus all, apptainer --nv)"
        )
    if facts.driver_cuda[0] < int(major):
        return (
            f"the NVIDIA driver runs CUDA up to {_shown(facts.driver_cuda)}, torch {facts.torch} "
            f"needs CUDA {facts.torch_cuda}; install {wanted}, or a torch and a wheel for CUDA "
            f"{facts.driver_cuda[0]}"
        )
    if not facts.capabilities:
        return (
            f"torch finds no usable NVIDIA GPU ({facts.gpu_error}); check nvidia-smi and "
            "CUDA_VISIBLE_DEVICES"
        )
    return ""


def _torch_without_cuda(facts: Facts, major: str) -> str:
    """Says that torch is built without CUDA, and for which major version it should be."""
    built_for = f"CUDA {major}" if major else "CUDA"
    return f"torch {facts.torch} is built without CUDA; install a torch built for {built_for}"


def _if_all(refusals: list[str]) -> str:
    """The first GPU's refusal where every GPU has one; empty where a GPU has none."""
    return refusals[0] if all(refusals) else ""


def _shown(version: tuple[int, int]) -> str:
    """A version or compute capability as people write it, ``8.6``."""
    return ".".join(str(part) for part in version)
