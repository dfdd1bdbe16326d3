"""Translates the environment for CMakeLists.txt, which holds all build logic."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
VERSION = "0.1.0"
OF_A_CHECKOUT = {
    *("conversions", "conversion_tables", "few_steps", "few_steps_networks", "few_steps_tables"),
    *("integers", "integers_tables", "machine_code", "profiled_run", "render", "sanitized_run"),
    *("layer_parity", "scaling"),
}
"""Scripts of bench/, and what they alone import: for records and pages, which no wheel has."""


def version() -> str:
    """The public version, with the local label that SNM_LOCAL_VERSION gives, as in 0.1.0+cu130."""
    local = os.environ.get("SNM_LOCAL_VERSION", "")
    return f"{VERSION}+{local}" if local else VERSION


def build_folder() -> Path:
    """Where this build is made; wheels of a kind of their own do not disturb the editable build."""
    without_cuda = "cpu" if os.environ.get("SNM_WITH_CUDA") == "OFF" else ""
    return ROOT / "build" / (os.environ.get("SNM_LOCAL_VERSION") or without_cuda)


def program(name: str) -> str:
    """Where a program lies on PATH."""
    path = shutil.which(name)
    if path is None:
        raise SystemExit(f"building snm-kernels needs {name}: pip install {name}")
    return path


def package_folder(name: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"building snm-kernels needs the package {name}: pip install {name}")
    return Path(spec.origin).parent


class InstalledModules(build_py):
    """Of ``snm.bench`` takes what ``snm bench`` and the comparison of its records run."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        found = super().find_package_modules(package, package_dir)
        if package != "snm.bench":
            return found
        return [module for module in found if module[1] not in OF_A_CHECKOUT]


class CMakeBuild(build_ext):
    """Runs CMake in a build folder that stays, so that a rebuild compiles only what changed."""

    def run(self) -> None:
        target = ROOT if self.inplace else Path(self.build_lib).resolve()
        tag = f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        build = build_folder() / f"cmake-{tag}"
        cmake = program("cmake")
        configure = [
            cmake,
            f"-S{ROOT}",
            f"-B{build}",
            "-GNinja",
            # Said each time: an isolated build's ninja is gone by the next one.
            f"-DCMAKE_MAKE_PROGRAM={program('ninja')}",
            f"-DSNM_VERSION={version()}",
            f"-DSNM_OUTPUT_DIR={target / 'snm_kernels'}",
            f"-DSNM_TORCH_DIR={package_folder('torch')}",
            f"-DSNM_WITH_CUDA={os.environ.get('SNM_WITH_CUDA', 'AUTO')}",
            f"-DSNM_CUDA_ARCHITECTURES={os.environ.get('TORCH_CUDA_ARCH_LIST', '')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={package_folder('pybind11') / 'share/cmake/pybind11'}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        subprocess.run(configure, check=True)
        jobs = os.environ.get("MAX_JOBS", str(len(os.sched_getaffinity(0))))
        subprocess.run([cmake, "--build", str(build), "--parallel", jobs], check=True)

    def get_outputs(self) -> list[str]:
        folder = ROOT if self.inplace else Path(self.build_lib).resolve()
        return [str(library) for library in (folder / "snm_kernels").glob("*.so")]


setup(
    version=version(),
    # Named so that setuptools marks the wheel as binary; CMake decides what is built.
    ext_modules=[Extension("snm_kernels._host", sources=[])],
    cmdclass={"build_py": InstalledModules, "build_ext": CMakeBuild},
    options={"build": {"build_base": str(build_folder().relative_to(ROOT))}},
)
