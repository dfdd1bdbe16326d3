"""Checks wheel files: their tags, what they hold, and how large code and data are.

python tests/install/wheel.py dist/wheels/*.whl
"""

import re
import sys
import zipfile
from pathlib import Path, PurePosixPath

MOST_CODE = 8_000_000
"""Bytes of a wheel, packed, but for the packaged data."""
DATA = PurePosixPath("snm/demo/assets")
IMPORTS_TESTS = re.compile(r"^\s*(?:from|import) (?:support|tests)\b", re.MULTILINE)


def check(path: Path) -> None:
    """Prints the sizes of a wheel, and fails if it holds what it should not."""
    _, version, *_, platform = path.stem.split("-")
    assert all(tag.startswith("manylinux") for tag in platform.split(".")), platform
    with zipfile.ZipFile(path) as archive:
        files = {PurePosixPath(info.filename): info for info in archive.infolist()}
        sources = {name: archive.read(str(name)).decode() for name in files if name.suffix == ".py"}
    tops = {name.parts[0] for name in files}
    assert tops == {"snm", "snm_kernels", f"snm_kernels-{version}.dist-info"}, tops
    # What runs from a checkout alone stays there: tests, and what imports their helpers.
    tests = {name for name, text in sources.items() if IMPORTS_TESTS.search(text)}
    tests |= {name for name in files if name.name.startswith("test_")}
    assert not tests, tests
    libraries = sorted(name.name.split(".")[0] for name in files if name.suffix == ".so")
    with_cuda = ["libsnm_cuda"] if "+cu" in version else []
    if "+" in version or "libsnm_cuda" not in libraries:
        assert libraries == ["_host", "libsnm_cpu", *with_cuda], libraries
    data = sum(info.compress_size for name, info in files.items() if DATA in name.parents)
    assert data > 0
    code = path.stat().st_size - data
    unpacked = sum(info.file_size for name, info in files.items() if name.suffix == ".so")
    print(
        f"{path.name}: code {code / 1e6:.2f} MB (libraries {unpacked / 1e6:.2f} MB unpacked), "
        f"data {data / 1e6:.2f} MB"
    )
    assert code < MOST_CODE, code


if __name__ == "__main__":
    assert len(sys.argv) > 1, "name the wheels"
    for argument in sys.argv[1:]:
        check(Path(argument))
