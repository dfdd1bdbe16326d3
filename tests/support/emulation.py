"""Compiles the CUDA kernels' own source for the host, against stand-ins for CUDA's headers."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

TESTS = Path(__file__).resolve().parents[1]
HERE = TESTS / "op" / "emulated"
ROOT = TESTS.parent
CSRC = ROOT / "csrc"
BUILD = ROOT / "build" / "emulated"
TORCH = Path(torch.__file__).parent
LIBRARY = "libsnm_emulated.so"

COMPILER = "g++"
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
# Kernels move elements in words of another type.
FLAGS += ["-fno-strict-aliasing"]
FLAGS += ["-fsanitize=address,undefined", "-fno-sanitize=vptr", "-fno-sanitize-recover=all"]
TORCH_FLAGS = ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-DUSE_CUDA"]
# Angle brackets find the stand-ins first.
INCLUDES = ["-I", HERE / "cuda", "-isystem", TORCH / "include"]


def _compile(*arguments: object) -> None:
    launcher = [found] if (found := shutil.which("ccache")) else []
    command = [*launcher, COMPILER, *FLAGS, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


def _compile_object(source: Path, target: Path) -> Path:
    _compile(*TORCH_FLAGS, *INCLUDES, "-x", "c++", "-c", source, "-o", target)
    return target


def _link(objects: Sequence[Path], target: Path) -> Path:
    """Of several definitions of an inline function the first object's is taken."""
    options = ["-shared", "-Wl,-Bsymbolic", "-Wl,--no-undefined", "-o", target]
    _compile(*options, *objects, "-L", TORCH / "lib", "-ltorch_cpu", "-lc10")
    return target


def _sources() -> list[Path]:
    """The sources that are compiled, those that take longest first."""
    kernels = sorted((CSRC / "cuda").glob("*.cu"), key=lambda path: "snm_" not in path.name)
    return [*kernels, HERE / "device.cpp"]


def _content() -> str:
    """A hash of all that the library is made of."""
    words = [*FLAGS, *TORCH_FLAGS, torch.__version__]
    compiler = subprocess.run([COMPILER, "--version"], capture_output=True, check=True)
    made_of = hashlib.sha256(" ".join(words).encode() + compiler.stdout)
    for path in sorted(path for tree in (CSRC, HERE) for path in tree.rglob("*")):
        if path.suffix in (".h", ".cuh", ".cu", ".cpp"):
            made_of.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return made_of.hexdigest()[:16]


def build() -> Path:
    """The library's path, its objects beside it; compiled unless it is there already."""
    BUILD.mkdir(parents=True, exist_ok=True)
    # Test processes side by side ask for the same.
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = BUILD / _content()
        library = folder / LIBRARY
        if not library.exists():
            for old in BUILD.glob("*/"):
                shutil.rmtree(old)
            folder.mkdir()
            jobs = int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))
            with ThreadPoolExecutor(jobs) as pool:
                made = [
                    pool.submit(_compile_object, path, folder / f"{path.stem}.o")
                    for path in _sources()
                ]
            objects = [each.result() for each in made]
            # Whoever is stopped while linking leaves no library.
            _link(objects, folder / "linked").rename(library)
    return library


def build_changed(
    library: Path, folder: Path, changes: dict[str, tuple[str, str]], source: str
) -> Path:
    """Builds a library of which one file is compiled from changed sources.

    Args:
        library: the unchanged library, with its objects beside it.
        folder: where the changed sources and the new library go.
        changes: for each file of csrc/cuda/ to change, by name, a text that it has once, and the
            text that replaces it.
        source: the name of the file to compile.
    """
    shutil.copytree(CSRC, folder / "csrc")
    changed = folder / "csrc" / "cuda"
    for name, (old, new) in changes.items():
        text = (changed / name).read_text()
        if text.count(old) != 1:
            raise ValueError(f"{name} must have {old!r} once, got {text.count(old)} times")
        (changed / name).write_text(text.replace(old, new))
    made = _compile_object(changed / source, (folder / source).with_suffix(".o"))
    others = [path for path in sorted(library.parent.glob("*.o")) if path.name != made.name]
    return _link([made, *others], folder / LIBRARY)


def build_program(source: Path, target: Path) -> Path:
    """A program of one file that launches kernels itself."""
    _compile(*INCLUDES, "-x", "c++", source, HERE / "device.cpp", "-o", target)
    return target


def library_of_compiler(name: str) -> str:
    """The path of a library that the compiler brings."""
    command = [COMPILER, f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def sanitizing() -> dict[str, str]:
    """The environment in which Python runs a library that is compiled with sanitizers."""
    # Python is not built with the sanitizer: its library, and the one that throws, first.
    sanitizer = [library_of_compiler(name) for name in ("libasan.so", "libstdc++.so")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
        "LD_PRELOAD": " ".join(sanitizer),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
