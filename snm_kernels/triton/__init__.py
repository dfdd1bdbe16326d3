"""The Triton backend, whose import registers operators like those of csrc/ops.cpp.

Under ``TRITON_INTERPRET=1`` the kernels are interpreted, and the operators take CPU tensors.
"""

from . import running_max, snm, spike_conv

__all__ = ["running_max", "snm", "spike_conv"]
