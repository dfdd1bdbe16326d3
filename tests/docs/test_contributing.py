"""CONTRIBUTING.md names what is there, and the parts import each other as its table has them."""

import re
from pathlib import Path

import pytest

import snm_kernels
from support.imports import Module, modules_in, modules_of

ROOT = Path(__file__).resolve().parents[2]
SNM = modules_in(ROOT / "python" / "snm")
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


def parts() -> list[str]:
    """Modules and packages of snm from the bottom to the top, as the table of layers has them."""
    cells = re.findall(r"^\| (`python/snm/[^|]*) \|", TEXT, re.MULTILINE)
    paths = [path.removeprefix("python/") for cell in cells for path in paths_in(cell)]
    return [re.sub(r"(/__init__)?(\.py|/)$", "", path).replace("/", ".") for path in paths]


def place_of(module: str, known: list[str]) -> int:
    """The place of the innermost part that a module belongs to; that of snm's face is its own."""
    inside = [part for part in known if f"{module}.".startswith(f"{part}.")]
    innermost = max(inside, key=len)
    assert innermost != "snm" or module == "snm", f"{module} is in no row of the table of layers"
    return known.index(innermost)


def climbs(modules: dict[str, Module]) -> list[str]:
    """Imports of what is higher up in the table of layers."""
    known = parts()
    return [
        f"{name} imports {other}"
        for name, module in modules.items()
        for other in module.imports
        if other in modules and place_of(other, known) > place_of(name, known)
    ]


def test_imports_run_downwards() -> None:
    assert sum(len(module.imports) for module in SNM.values()) > 300
    assert climbs(SNM) == []


def test_an_import_upwards_is_found() -> None:
    sources = {
        "snm.errors": ("from .network.run import Run", False),
        "snm.network.run": ("from ..errors import Offence\nfrom ..nn import SNMNeuron", False),
        "snm.nn": ("def late():\n    from ..network.run import Run", True),
    }
    assert climbs(modules_of(sources)) == [
        "snm.errors imports snm.network.run",
        "snm.nn imports snm.network.run",
    ]


def test_networks_know_what_is_public_of_the_op() -> None:
    named = {
        f"{source}.{name}".removesuffix(".")
        for module in SNM.values()
        for source, names in module.imports.items()
        for name in names or {""}
        if source.partition(".")[0] == "snm_kernels"
    }
    public = {f"snm_kernels.{name}" for name in snm_kernels.__all__}
    modules = ("snm_kernels.windows.", "snm_kernels.compiling.")
    others = {name for name in named if not name.startswith(modules)}
    assert "snm_kernels.SNMRule" in others
    assert others - public == set()


def test_every_interpreter_is_named() -> None:
    subclass = re.compile(r"^class \w+\((?:Interpreter|Run)\):$", re.MULTILINE)
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "python" / "snm").rglob("*.py")
        if subclass.search(path.read_text(encoding="utf-8"))
    }
    assert len(files) > 5
    assert files - set(paths_in(TEXT)) == set()
