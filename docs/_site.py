"""What `make docs` does beside mkdocs: the order of the pages, and the pages of the root.

What lives here: mkdocs' hooks. What must not: anything that a page needs to be read where it is: links are as on disk.

The navigation is what `index.md` links, section by section, so that it is written once. README, ARCHITECTURE and the other
pages of the root become pages of the site; a link to anything else outside of `docs/` (code) becomes its text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PROJECT = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")

_LINK = re.compile(r"\[([^\]\n]+)\]\(([^)\s]+)\)")
_PICTURE = re.compile(r'\b(src|srcset)="(?!\w+:)([^"]+)"')
_SECTION = re.compile(r"^## ([^:\n]+).*$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Take the navigation out of the index."""
    parts = _SECTION.split((DOCS / "index.md").read_text())
    nav: list[Any] = [{"Home": "index.md"}]
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        pages = [link.partition("#")[0] for _, link in _LINK.findall(text)]
        inside = list(dict.fromkeys(page for page in pages if not page.startswith("..") and page.endswith(".md")))
        # The measured page stands behind the last section: it has a title of its own.
        nav.append({title: [page for page in inside if not page.startswith("benchmarks/")]})
    nav += [{"Benchmarks": "benchmarks/index.md"}, {"Project": [_in_site(name) for name in PROJECT]}]
    config["nav"] = nav
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the root."""
    for name in PROJECT:
        files.append(File.generated(config, _in_site(name), content=(ROOT / name).read_text()))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Let links lead to where things are in the site."""
    where = page.file.src_uri
    source = next((ROOT / name for name in PROJECT if _in_site(name) == where), DOCS / where)

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        moved = _moved(target, source, where)
        return text if moved is None else f"[{text}]({moved})"

    def picture(found: re.Match[str]) -> str:
        return f'{found[1]}="{_moved(found[2], source, where)}"'

    return _PICTURE.sub(picture, _LINK.sub(link, markdown))


def _in_site(name: str) -> str:
    return f"project/{name.lower()}"


def _moved(target: str, source: Path, where: str) -> str | None:
    """Return a link of `source` as it is from the page `where` of the site; None when the site has nothing there."""
    path, hash_sign, anchor = target.partition("#")
    if not path or re.match(r"\w+:", target):
        return target
    real = Path(os.path.normpath(source.parent / path))
    if real.is_relative_to(DOCS):
        place = real.relative_to(DOCS).as_posix()
    elif real.parent == ROOT and real.name in PROJECT:
        place = _in_site(real.name)
    else:
        return None if real.exists() else target  # what does not exist, mkdocs shall complain of
    if place == ".":
        place = "index.md"
    return os.path.relpath(place, os.path.dirname(where) or ".") + hash_sign + anchor
