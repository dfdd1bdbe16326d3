"""The Triton backend: importing it registers csrc/ops.cpp's operators anew, as Triton kernels.

Under ``TRITON_INTERPRET=1`` the kernels are interpreted, and the operators take CPU tensors.
"""

from . import running_max, snm

__all__ = ["running_max", "snm"]
