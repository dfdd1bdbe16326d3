"""Makes a static package index of a folder of wheels, for pip in a network of its own.

    python -m snm.commands.wheelhouse FOLDER

Needs Python's standard library alone; the file also runs by itself, where snm is not installed:

    python wheelhouse.py FOLDER
"""

import argparse
import hashlib
import html
import json
import re
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

API_VERSION = "1.0"
_SUFFIXES = (".whl", ".tar.gz")


class Distribution(NamedTuple):
    """A file that pip can install.

    >>> Distribution("snm_kernels-0.1.0.tar.gz", "0" * 64, None).project
    'snm-kernels'
    """

    filename: str
    sha256: str
    requires_python: str | None
    """The versions of Python that its metadata ask for; None where they say nothing, and for source
    distributions."""

    @property
    def project(self) -> str:
        """The project's name as PEP 503 normalises it."""
        name = self.filename.removesuffix(".tar.gz")
        name = name.rpartition("-")[0] if name != self.filename else name.partition("-")[0]
        return re.sub(r"[-_.]+", "-", name).lower()


def write_index(folder: Path) -> dict[str, list[Distribution]]:
    """Writes ``simple/`` into a folder, as PEP 503 (HTML) and PEP 691 (JSON) have it.

    A web server that hands out the folder, or a ``file://`` address, serves as pip's
    ``--index-url``; links are relative, so that the folder may be moved. Every link carries the
    file's SHA-256, which pip checks. What ``simple/`` held of projects that are gone stays.

    Args:
        folder: holds wheels (``.whl``) and source distributions (``.tar.gz``).

    Returns:
        the files by project, in the order of their names.

    Raises:
        ValueError: the folder holds neither.

    >>> import tempfile
    >>> house = Path(tempfile.mkdtemp())
    >>> _ = (house / "snm_kernels-0.1.0.tar.gz").write_bytes(b"")
    >>> list(write_index(house))
    ['snm-kernels']
    >>> sorted(path.name for path in (house / "simple" / "snm-kernels").iterdir())
    ['index.html', 'index.json']
    """
    projects = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.name.endswith(_SUFFIXES):
            distribution = Distribution(path.name, _sha256(path), _requires_python(path))
            projects[distribution.project].append(distribution)
    if not projects:
        raise ValueError(
            f"write_index: folder must hold .whl or .tar.gz files, got none in {folder}"
        )
    simple = folder / "simple"
    anchors = [f'<a href="{name}/">{name}</a>' for name in projects]
    entries = [{"name": name} for name in projects]
    _write(simple, "Simple index", anchors, {"projects": entries})
    for name, files in projects.items():
        listed = [_json_file(file) for file in files]
        _write(simple / name, name, map(_anchor, files), {"name": name, "files": listed})
    return dict(projects)


def main() -> None:
    """Runs the command on the process's own command line, and exits with 1 if it cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m snm.commands.wheelhouse",
        description="Makes FOLDER/simple/, an index for pip.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with wheels and sdists")
    folder = parser.parse_args().folder.resolve()
    try:
        projects = write_index(folder)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    count = sum(map(len, projects.values()))
    print(f"{count} files of {len(projects)} projects")
    print(f"pip install --index-url {(folder / 'simple').as_uri()} snm-kernels")


def _write(folder: Path, title: str, anchors: Iterable[str], fields: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "<!DOCTYPE html>",
        "<html><head>",
        f'<meta name="pypi:repository-version" content="{API_VERSION}">',
        f"<title>{title}</title>",
        "</head><body>",
        *(f"{anchor}<br>" for anchor in anchors),
        "</body></html>",
    ]
    (folder / "index.html").write_text("\n".join(lines) + "\n")
    index = {"meta": {"api-version": API_VERSION}, **fields}
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")


def _anchor(file: Distribution) -> str:
    requires = ""
    if file.requires_python:
        requires = f' data-requires-python="{html.escape(file.requires_python)}"'
    return f'<a href="{_address(file)}#sha256={file.sha256}"{requires}>{file.filename}</a>'


def _json_file(file: Distribution) -> dict[str, object]:
    entry: dict[str, object] = {
        "filename": file.filename,
        "url": _address(file),
        "hashes": {"sha256": file.sha256},
    }
    return entry | ({"requires-python": file.requires_python} if file.requires_python else {})


def _address(file: Distribution) -> str:
    """The file's address relative to ``simple/PROJECT/``; the + of a local version is quoted."""
    return f"../../{quote(file.filename)}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _requires_python(path: Path) -> str | None:
    if path.suffix != ".whl":
        return None
    with zipfile.ZipFile(path) as archive:
        [name] = [n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
        metadata = Parser().parsestr(archive.read(name).decode())
    requires: str | None = metadata["Requires-Python"]
    return requires


if __name__ == "__main__":
    main()
