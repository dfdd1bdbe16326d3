"""Reads the machine code of CUDA kernels with the tools that the triton package brings."""

import re
import subprocess
from pathlib import Path

import triton

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def cuobjdump(*arguments: object) -> str:
    """What cuobjdump prints."""
    command = [str(CUOBJDUMP), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def kernels(listing: str) -> dict[str, str]:
    """Mangled name -> listing of each function in the output of ``cuobjdump -sass``."""
    parts = re.split(r"Function : (\S+)", listing)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def count(pattern: str, listing: str) -> int:
    """How many instructions of a listing match."""
    return len(re.findall(pattern, listing))


LOAD_16_BYTES = r"\bLDG\.E\S*\.128\b"
STORE_16_BYTES = r"\bSTG\.E\S*\.128\b"
FUSED_MULTIPLY_ADD = r"\bFFMA\b"
LOCAL_MEMORY = r"\b(?:LDL|STL)\b"
