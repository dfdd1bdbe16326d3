"""CONTRIBUTING.md names what is there, and the parts import each other as its table has them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import snm_kernels

ROOT = Path(__file__).resolve().parents[2]
SNM = ROOT / "python" / "snm"
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
QUOTED = re.compile(r"`([^`\s]+)`")
# A name with a folder, or with the ending of a file; not torch.equal, python3.12 or an option.
PATH = re.compile(r"[\w.*-]*/[\w./*-]*|[\w.*-]+\.(?:cuh?|h|cpp|py|md|yml|toml|txt)")


def paths_in(text: str) -> list[str]:
    """What a text names between backticks that looks like a file or a folder."""
    return [name for name in QUOTED.findall(FENCED.sub("", text)) if PATH.fullmatch(name)]


def missing_from(text: str) -> set[str]:
    """The paths that a text names and that are not there; a star stands for what file names do."""
    return {path for path in paths_in(text) if not any(ROOT.glob(path.rstrip("/")))}


def test_every_path_is_there() -> None:
    assert len(paths_in(TEXT)) > 50
    assert missing_from(TEXT) == set()


@pytest.mark.parametrize(
    "made_up", ["python/snm/convert.py", "csrc/*/*_kern.cu", "tests/networks/", "sets.py"]
)
def test_a_path_that_is_not_there_is_found(made_up: str) -> None:
    text = f"`snm_kernels/` and `torch.equal`, then `{made_up}`.\n\n```\ncat no/such.py\n```\n"
    assert missing_from(text) == {made_up}


def parts() -> list[Path]:
    """The parts of snm from the bottom to the top, as the table of layers has them."""
    cells = re.findall(r"^\| (`python/snm/[^|]*) \|", TEXT, re.MULTILINE)
    return [ROOT / path for cell in cells for path in paths_in(cell)]


def part_of(path: Path, known: list[Path]) -> int:
    """The place of the innermost part that a file belongs to; -1 if there is none."""
    own = [place for place in (path, *path.parents) if place in known]
    return known.index(own[0]) if own else -1


def imported_by(path: Path) -> Iterator[Path]:
    """The files and folders of snm that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        for name in node.names:
            for place in (folder / name.name, folder):
                if place.with_suffix(".py").is_file() or place.is_dir():
                    yield place if place.is_dir() else place.with_suffix(".py")
                    break


def test_imports_run_downwards() -> None:
    known = parts()
    upwards = set()
    edges = 0
    for path in SNM.rglob("*.py"):
        place = part_of(path, known)
        assert place >= 0, f"{path.relative_to(ROOT)} is in no row of the table of layers"
        for other in imported_by(path):
            edges += 1
            if part_of(other, known) > place:
                upwards.add(f"{path.relative_to(SNM)} imports {other.relative_to(SNM)}")
    assert edges > 300
    assert upwards == set()


def test_networks_know_what_is_public_of_the_op() -> None:
    named = set()
    for path in SNM.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named |= {name.name for name in node.names if name.name.startswith("snm_kernels")}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("snm_kernels"):
                named |= {f"{node.module}.{name.name}" for name in node.names}
    public = {f"snm_kernels.{name}" for name in snm_kernels.__all__}
    others = {name for name in named if not name.startswith("snm_kernels.windows.")}
    assert "snm_kernels.SNMRule" in others
    assert others - public == {"snm_kernels"}


def test_every_interpreter_is_named() -> None:
    subclass = re.compile(r"^class \w+\((?:Interpreter|Run)\):$", re.MULTILINE)
    files = {
        path.relative_to(ROOT).as_posix()
        for path in SNM.rglob("*.py")
        if subclass.search(path.read_text(encoding="utf-8"))
    }
    assert len(files) > 5
    assert files - set(paths_in(TEXT)) == set()
