"""Pages of the site that are files of the repository, and links from pages to such files."""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent.parent
FROM_ROOT = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Pages by the file that they are."""
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s:#]+)(#[^)\s]*)?\)")
PICTURE = re.compile(r'<img [^>]*src="([^":]+\.svg)"[^>]*/>')


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    for page, source in FROM_ROOT.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_linked(text, ROOT, config)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: MkDocsConfig, **_: Any) -> str:
    if page.file.src_uri in FROM_ROOT:
        return markdown
    return _linked(markdown, (Path(config.docs_dir) / page.file.src_uri).parent, config)


def on_page_content(html: str, *, page: Any, config: MkDocsConfig, **_: Any) -> str:
    """Pictures that follow the theme's colours stand in the page itself: as files they could follow
    the reader's system alone."""

    def inline(match: re.Match[str]) -> str:
        path = Path(config.docs_dir) / Path(page.file.src_uri).parent / match[1]
        picture = path.read_text(encoding="utf-8") if path.is_file() else ""
        return picture if "data-md-color-scheme" in picture else match[0]

    return PICTURE.sub(inline, html)


def _linked(text: str, folder: Path, config: MkDocsConfig) -> str:
    """Links to files of the repository that are no pages: to where they are published, or, as long
    as that is nowhere, their names. Links to what is not there stay, for the build to refuse."""

    def link(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        path = (folder / target).resolve()
        if not path.exists() or not path.is_relative_to(ROOT):
            return match[0]
        name = path.relative_to(ROOT).as_posix()
        for page, source in FROM_ROOT.items():
            if name == source:
                name = f"docs/{page}"
        if name.startswith("docs/"):
            here = "docs" if folder == ROOT else folder.relative_to(ROOT).as_posix()
            return f"[{label}]({os.path.relpath(name, here)}{anchor})"
        if config.repo_url:
            return f"[{label}]({config.repo_url.rstrip('/')}/blob/main/{name}{anchor})"
        return f"`{name}`" if Path(label.strip("`")).name == path.name else f"{label} (`{name}`)"

    return LINK.sub(link, text)
