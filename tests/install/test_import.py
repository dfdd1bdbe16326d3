"""What importing the packages costs."""

import subprocess
import sys

import pytest

COSTLY = ("torch._dynamo", "torch._inductor", "onnx", "nir", "matplotlib", "rich", "PIL")
"""Modules that take long to import, and that only some users need."""


@pytest.mark.parametrize("package", ["snm_kernels", "snm"])
def test_nothing_costly_is_imported_that_torch_does_not_import(package: str) -> None:
    code = f"""
import sys, torch
before = {{name for name in {COSTLY} if name in sys.modules}}
import {package}
print(*({{name for name in {COSTLY} if name in sys.modules}} - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
