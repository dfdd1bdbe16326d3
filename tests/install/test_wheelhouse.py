"""The package index of a folder of wheels: what it says, and that pip installs from it."""

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from snm.commands import wheelhouse
from snm.commands.wheelhouse import write_index

WHEELS = ("0.1.0", "0.1.0+cu128", "0.1.0+cu130")


def write_wheel(folder: Path, name: str, version: str, requires_python: str = ">=3.10") -> Path:
    """A wheel of one module, whose VERSION says which it is."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    module = f"{name.lower()}.py"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(module, f"VERSION = {version!r}\n")
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            f"Requires-Python: {requires_python}\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"{module},,\n{info}/METADATA,,\n{info}/WHEEL,,\n")
    return path


@pytest.fixture
def house(tmp_path: Path) -> Path:
    # A name that has to be quoted in an address.
    folder = tmp_path / "wheel house"
    folder.mkdir()
    for version in WHEELS:
        write_wheel(folder, "made_up_kernels", version)
    write_wheel(folder, "Made.Up_Other", "2.0", ">=3.10,<4")
    (folder / "made_up_kernels-0.0.9.tar.gz").write_bytes(b"sources")
    (folder / "notes.txt").write_text("no package")
    return folder


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    # No configuration of this machine: what is not in the wheelhouse must not be found.
    command = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True)


def install(into: Path, *arguments: str) -> str:
    done = pip("install", "--no-deps", "--only-binary", ":all:", "--target", str(into), *arguments)
    assert done.returncode == 0, done.stderr
    found = re.search(r"VERSION = '(.*)'", (into / "made_up_kernels.py").read_text())
    assert found is not None
    return found[1]


def test_html_lists_every_file_with_its_hash(house: Path) -> None:
    write_index(house)
    top = (house / "simple" / "index.html").read_text()
    assert re.findall(r'<a href="(.*?)">(.*?)</a>', top) == [
        ("made-up-other/", "made-up-other"),
        ("made-up-kernels/", "made-up-kernels"),
    ]
    page = (house / "simple" / "made-up-kernels" / "index.html").read_text()
    links = re.findall(r'<a href="\.\./\.\./(.*?)#sha256=(.*?)"(.*?)>(.*?)</a>', page)
    assert len(links) == 4
    for address, digest, requires, filename in links:
        content = (house / filename).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert address == filename.replace("+", "%2B")
        wheel = filename.endswith(".whl")
        assert requires == (' data-requires-python="&gt;=3.10"' if wheel else "")
    other = (house / "simple" / "made-up-other" / "index.html").read_text()
    assert 'data-requires-python="&gt;=3.10,&lt;4"' in other


def test_json_says_the_same(house: Path) -> None:
    write_index(house)
    top = json.loads((house / "simple" / "index.json").read_text())
    assert top["meta"] == {"api-version": "1.0"}
    assert {"name": "made-up-kernels"} in top["projects"]
    page = json.loads((house / "simple" / "made-up-kernels" / "index.json").read_text())
    assert page["name"] == "made-up-kernels"
    for file in page["files"]:
        content = (house / file["filename"]).read_bytes()
        assert file["hashes"] == {"sha256": hashlib.sha256(content).hexdigest()}
        assert file.get("requires-python") == (
            ">=3.10" if file["filename"].endswith(".whl") else None
        )


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        # A local version counts as newer than the version without.
        ("made-up-kernels", "0.1.0+cu130"),
        ("Made_Up.Kernels==0.1.0+cu128", "0.1.0+cu128"),
        ("made-up-kernels===0.1.0", "0.1.0"),
    ],
)
def test_pip_installs_from_the_index_and_from_the_folder(
    house: Path, tmp_path: Path, wanted: str, got: str
) -> None:
    write_index(house)
    index = (house / "simple").as_uri()
    assert install(tmp_path / "index", "--index-url", index, wanted) == got
    assert install(tmp_path / "links", "--no-index", "--find-links", str(house), wanted) == got


def test_pip_refuses_a_file_that_was_changed(house: Path, tmp_path: Path) -> None:
    write_index(house)
    write_wheel(house, "made_up_kernels", "0.1.0+cu130", ">=3.9")
    index = (house / "simple").as_uri()
    refused = pip("install", "--target", str(tmp_path / "to"), "-i", index, "made-up-kernels")
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr


def test_a_second_run_renews_the_index(house: Path) -> None:
    write_index(house)
    (house / "made_up_kernels-0.1.0-py3-none-any.whl").unlink()
    projects = write_index(house)
    assert len(projects["made-up-kernels"]) == 3
    page = (house / "simple" / "made-up-kernels" / "index.html").read_text()
    assert "made_up_kernels-0.1.0-py3" not in page


def test_runs_as_a_program(house: Path) -> None:
    command = [sys.executable, "-m", "snm.commands.wheelhouse", str(house)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "5 files of 2 projects"
    assert f"--index-url {(house / 'simple').as_uri()} " in done.stdout


def test_runs_where_nothing_is_installed(house: Path) -> None:
    # Neither PYTHONPATH nor site-packages.
    command = [sys.executable, "-E", "-S", wheelhouse.__file__, str(house)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "5 files of 2 projects"


def test_a_folder_without_packages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^write_index: folder must hold \.whl or \.tar\.gz"):
        write_index(tmp_path)
    command = [sys.executable, "-m", "snm.commands.wheelhouse", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("write_index: folder must hold")
