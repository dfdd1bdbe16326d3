"""The pages: what they show runs, and the reference names everything public."""

import contextlib
import doctest
import importlib
import inspect
import io
import re
import runpy
import shlex
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest

import snm
from snm.commands import cli

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"^```(?P<language>python|sh|text)\n(?P<code>.*?)^```$|^<!-- setup\n(?P<setup>.*?)^-->$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """Something on a page that runs, and what it has to print; empty if that is not said."""

    language: str
    code: str
    line: int
    printed: str


def blocks_of(page: Path) -> list[Block]:
    """In order: blocks of Python, with a hidden setup where names come from elsewhere; and of shell
    commands. A block of text that follows is what they print, ``...`` standing for anything."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        if match["language"] != "text":
            code = match["setup"] or match["code"]
            found.append(Block(match["language"] or "python", code, line, ""))
        elif found and not text[end : match.start()].strip():
            found[-1] = found[-1]._replace(printed=match["code"])
        end = match.end()
    return found


PAGES = {
    path.relative_to(ROOT).as_posix(): blocks
    for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    if (blocks := blocks_of(path))
}


def run_block(block: Block, page: str, names: dict[str, object]) -> str:
    """Runs a block and returns what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if block.language == "python":
            # Lines count from the top of the page, for tracebacks.
            exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), names)
        else:
            for line in block.code.replace("\\\n", " ").splitlines():
                program, *arguments = shlex.split(line, comments=True)
                assert program == "snm", f"{page}: only snm runs here, not {program}"
                assert cli.main(arguments) == 0, line
    return printed.getvalue()


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", snm.DeadNeuronWarning)
        for block in PAGES[page]:
            printed = run_block(block, page, names)
            print(printed)
            options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            if block.printed and not doctest.OutputChecker().check_output(
                block.printed, printed, options
            ):
                pytest.fail(f"{page}:{block.line} printed\n{printed}instead of\n{block.printed}")


def test_pages_run_something() -> None:
    assert {"README.md", "docs/index.md", "docs/few-steps.md"} <= set(PAGES)


@pytest.mark.parametrize("code", ["print(1)", "print(2)"])
def test_what_is_printed_is_compared(code: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```python\n{code}\n```\n\n```text\n1\n```\n", encoding="utf-8")
    [block] = blocks_of(page)
    assert (run_block(block, "page.md", {}) == block.printed) == (code == "print(1)")


def test_the_picture_shows_what_the_op_computes() -> None:
    drawn = runpy.run_path(str(DOCS / "site" / "figure.py"))["drawn"]()
    assert drawn == (DOCS / "rule.svg").read_text(encoding="utf-8")


def named(path: str) -> object:
    """What a path means: an attribute, or else a module. ``snm.convert`` is the function, although
    a module can be imported by that name as well."""
    first, *rest = path.split(".")
    found: object = importlib.import_module(first)
    for end, name in enumerate(rest, 2):
        if not hasattr(found, name):
            importlib.import_module(".".join(path.split(".")[:end]))
        found = getattr(found, name)
    return found


# Modules of the pages that import them.
@pytest.mark.needs("nir", "h5py", "onnx", "onnxscript", "snntorch", "spikingjelly")
@pytest.mark.parametrize("package", ["snm", "snm.nn", "snm_kernels"])
def test_the_reference_has_every_public_name(package: str) -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("reference/*.md"))
    documented = [named(path) for path in re.findall(r"^::: (\S+)$", pages, re.MULTILINE)]
    module = importlib.import_module(package)
    missing = {
        name
        for name in module.__all__
        if not inspect.ismodule(value := getattr(module, name))
        and not any(value is known for known in documented)
    }
    assert missing == set()
