"""Docstrings from reStructuredText to Markdown: an extension of Griffe, which reads the code.

Roles such as ``:class:`SNMRule``` become cross-references; literal blocks after ``::`` and examples
at a prompt become code blocks.
"""

import re
import textwrap
from collections.abc import Iterator
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|data|attr|mod):`~?([\w.]+)`")
OURS = ("snm", "snm_kernels")


class Docstrings(griffe.Extension):
    """Rewrites every docstring of a package before it is parsed."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for place in _objects(pkg):
            if place.docstring is not None:
                place.docstring.value = as_markdown(place.docstring.value, place)


def as_markdown(text: str, place: griffe.Object) -> str:
    """The docstring of the object at a place, in Markdown."""
    return ROLE.sub(lambda role: _reference(role[1], place), _fenced(text))


def _objects(place: griffe.Object) -> Iterator[griffe.Object]:
    """All that is defined at a place and within it."""
    yield place
    for member in place.members.values():
        if isinstance(member, griffe.Object):
            yield from _objects(member)


def _reference(name: str, place: griffe.Object) -> str:
    """A link to what a role names, where that is ours; else its name as code."""
    whole = name.startswith(tuple(f"{package}." for package in OURS))
    path = name if whole else _path(name, place) or name
    return f"[`{name}`][{path}]" if path.split(".")[0] in OURS else f"`{name}`"


def _path(name: str, place: griffe.Object) -> str | None:
    """The path of what a name means at a place."""
    first, _, rest = name.partition(".")
    scope: griffe.Object | griffe.Alias | None = place
    while scope is not None:
        member = scope.members.get(first)
        if member is not None:
            path = member.target_path if isinstance(member, griffe.Alias) else member.path
            return f"{path}.{rest}" if rest else path
        scope = scope.parent
    return None


def _fenced(text: str) -> str:
    """Code blocks between fences, indented as what they stand in."""
    lines = text.split("\n")
    done: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        indent = line[: len(line) - len(line.lstrip())]
        if line.lstrip().startswith(">>> "):
            end = at
            while end < len(lines) and lines[end].strip():
                end += 1
            done += _block("pycon", lines[at:end], indent)
        elif line.endswith("::"):
            end = at + 1
            while end < len(lines) and (lines[end].startswith(f"{indent} ") or not lines[end]):
                end += 1
            done += [line[:-1], *_block("text", lines[at + 1 : end], indent)]
        else:
            end = at + 1
            done.append(line)
        at = end
    return "\n".join(done)


def _block(language: str, lines: list[str], indent: str) -> list[str]:
    code = textwrap.dedent("\n".join(lines)).strip("\n")
    fenced = f"\n```{language}\n{code}\n```\n"
    return textwrap.indent(fenced, indent).split("\n")
