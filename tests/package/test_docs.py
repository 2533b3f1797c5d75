"""The documentation leads nowhere that does not exist: files, headings, and names of ours."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import multiloop
from multiloop import errors

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
MODULES = sorted(name for name in multiloop.__all__ if inspect.ismodule(getattr(multiloop, name)))

_NO_PYTHON = {"multiloop.access", "multiloop.draining"}  # a logger, a key in the state of ASGI's scope
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_NAME = re.compile(rf"(?<![\w./-])((?:multiloop|{'|'.join(MODULES)})(?:\.[A-Za-z_]\w*)+)(?!\w*/)")


def title(page: Path) -> str:
    return str(page.relative_to(ROOT))


def links_of(page: Path) -> list[str]:
    """The page's links, those in code left out."""
    text = re.sub(r"`[^`\n]+`", "", _FENCE.sub("", page.read_text()))
    return [link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def anchors_of(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_variable(name: str, code: str) -> bool:
    """Whether the code binds a variable of this name: `with Pool() as pool:`."""
    return re.search(rf"^\s*{name} = |\bas {name}\b|\bfor {name} in\b", code, re.MULTILINE) is not None


def exists(name: str) -> bool:
    """Whether a dotted name leads to something of ours, as far as modules and classes go."""
    found: Any = multiloop
    for part in name.removeprefix("multiloop.").split("."):
        if found is not multiloop and not inspect.ismodule(found) and not inspect.isclass(found):
            return True  # what an object has is not known here
        if not hasattr(found, part):
            if not inspect.ismodule(found) or importlib.util.find_spec(f"{found.__name__}.{part}") is None:
                return False
            importlib.import_module(f"{found.__name__}.{part}")
        found = getattr(found, part)
    return True


def missing_from(code: str) -> set[str]:
    """Names of ours in this code that lead nowhere."""
    names = {name for name in _NAME.findall(code) if not is_variable(name.partition(".")[0], code)}
    return {name for name in names - _NO_PYTHON if not exists(name)}


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


@pytest.mark.parametrize("page", REFERENCE, ids=title)
def test_every_name_of_ours_in_the_reference_exists(page: Path) -> None:
    text = page.read_text()
    fences = [code for _, code in _FENCE.findall(text)]
    spans = re.findall(r"`([^`\n]+)`", _FENCE.sub("", text))
    assert not set().union(*map(missing_from, (*fences, *spans)))


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links_of(index)}
    assert {page for page in PAGES if page.parent.parent == index.parent} <= linked


def test_the_reference_has_every_error() -> None:
    page = (ROOT / "docs" / "reference" / "errors.md").read_text()
    public = {
        name for name, kind in vars(errors).items() if inspect.isclass(kind) and kind.__module__ == errors.__name__
    }
    assert {name for name in public if f"`{name}`" not in page} == set()


def test_names_that_do_not_exist_are_found() -> None:
    assert (
        missing_from("await fs.read_file(p), http.Agent(), multiloop.errors.ClosedError, other.fs.x, a/fs.py") == set()
    )
    assert missing_from("fs.read_fil(p); http.Agent.opne; multiloop.nothing") == {
        "fs.read_fil",
        "http.Agent.opne",
        "multiloop.nothing",
    }
    assert missing_from("with Pool() as pool:\n    pool.something()") == set()
