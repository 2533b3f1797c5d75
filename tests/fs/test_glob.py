"""`glob`: what patterns mean, and the walk."""

from __future__ import annotations

import asyncio
import glob as python_glob
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import LOOPS

import multiloop
from multiloop import fs
from multiloop.fs._pattern import Pattern, expand_braces, parse

loops = pytest.mark.parametrize("loop", LOOPS)

FILES = [
    "a/b/c/d.py",
    "a/b/x.py",
    "a/b/x.txt",
    "a/.hidden/x.py",
    "a/y1.py",
    "a/y2.py",
    "a/y10.py",
    "b/z.md",
    ".dot",
    "top.py",
    "star*.py",
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "link").symlink_to("a/b")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "dangling").symlink_to("nowhere")
    return tmp_path


CASES: list[tuple[Any, list[str]]] = [
    ("*.py", ["star*.py", "top.py"]),
    ("*", ["a", "b", "dangling", "link", "loop", "star*.py", "top.py"]),
    (".*", [".dot"]),
    ("**/*.py", ["a/b/c/d.py", "a/b/x.py", "a/y1.py", "a/y10.py", "a/y2.py", "star*.py", "top.py"]),
    ("a/**", ["a", "a/b", "a/b/c", "a/b/c/d.py", "a/b/x.py", "a/b/x.txt", "a/y1.py", "a/y10.py", "a/y2.py"]),
    ("a/**/x.py", ["a/b/x.py"]),
    ("a/.*/x.py", ["a/.hidden/x.py"]),
    ("a/y?.py", ["a/y1.py", "a/y2.py"]),
    ("a/y[0-1]*.py", ["a/y1.py", "a/y10.py"]),
    ("a/y[!1].py", ["a/y2.py"]),
    ("a/y[^1].py", ["a/y2.py"]),
    ("a/[[:alpha:]][[:digit:]].py", ["a/y1.py", "a/y2.py"]),
    ("{a,b}/*.{py,md}", ["a/y1.py", "a/y10.py", "a/y2.py", "b/z.md"]),
    ("a/y{1..3}.py", ["a/y1.py", "a/y2.py"]),
    ("a/@(y1|y2).py", ["a/y1.py", "a/y2.py"]),
    ("a/y?(1)0.py", ["a/y10.py"]),
    ("a/y+(1|0).py", ["a/y1.py", "a/y10.py"]),
    ("a/y*(0|1|2).py", ["a/y1.py", "a/y10.py", "a/y2.py"]),
    ("a/!(y1|y2).py", ["a/y10.py"]),
    ("*/", ["a", "b", "link", "loop"]),
    ("**/", ["a", "a/b", "a/b/c", "b", "link", "loop"]),
    ("link/*.py", ["link/x.py"]),
    ("loop/top.py", ["loop/top.py"]),
    ("star\\*.py", ["star*.py"]),
    ("star[*].py", ["star*.py"]),
    ("a/./b//x.py", ["a/b/x.py"]),
    ("a/b/../y1.py", ["a/b/../y1.py"]),
    ("a/b/../*1.py", ["a/b/../y1.py"]),
    ("dangling", ["dangling"]),
    ("nope/**", []),
    ("top.py/*", []),
    ("", []),
    ([], []),
    (["top.py", "*.py", "b/*"], ["b/z.md", "star*.py", "top.py"]),
    ("a/[", []),
    ("{", []),
    ("!(", []),
]


@pytest.mark.parametrize(("pattern", "expected"), CASES, ids=lambda value: str(value)[:30])
def test_what_patterns_find(tree: Path, pattern: Any, expected: list[str]) -> None:
    async def main() -> None:
        assert sorted(await fs.glob(pattern, cwd=tree)) == expected
        asked = await fs.glob(pattern, cwd=tree, exclude=lambda path: False)
        assert sorted(asked) == expected, "the same from the loop"

    multiloop.run(main)


@loops
def test_the_faces(tree: Path, loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    seen: list[Any] = []

    async def main() -> None:
        assert await fs.glob("top.*") == ["top.py"]
        assert [path async for path in fs.glob("top.*")] == ["top.py"]
        assert await fs.glob(f"{tree}/top.*") == [f"{tree}/top.py"]
        assert await fs.glob(f"{tree}/a/b", cwd="/") == [f"{tree}/a/b"]
        entries = await fs.glob("a/*", with_file_types=True)
        assert {entry.name: entry.is_directory() for entry in entries}["b"]
        assert os.path.samefile(next(e for e in entries if e.name == "b"), tree / "a" / "b")
        fs.glob("top.*", callback=lambda *args: seen.append(args))

    multiloop.run(main, loop=loop)
    assert seen == [(None, ["top.py"])]


def test_what_is_left_out_is_not_entered(tree: Path) -> None:
    asked: list[str] = []

    def exclude(path: str) -> bool:
        assert asyncio.get_running_loop()
        asked.append(path)
        return path == "a/b"

    async def main() -> None:
        everything = ["a/y1.py", "a/y10.py", "a/y2.py", "star*.py", "top.py"]
        assert sorted(await fs.glob("**/*.py", cwd=tree, exclude=exclude)) == everything
        assert not [path for path in asked if path.startswith("a/b/")]
        for patterns in ("a/b/**", ["a/b"], ["**/b"]):
            assert sorted(await fs.glob("**/*.py", cwd=tree, exclude=patterns)) == everything
        names = await fs.glob("*", cwd=tree, with_file_types=True, exclude=lambda entry: entry.is_directory())
        assert "a" not in [entry.name for entry in names]
        with pytest.raises(ZeroDivisionError):
            await fs.glob("*", cwd=tree, exclude=lambda path: bool(1 / 0))

    multiloop.run(main)


def test_a_directory_that_cannot_be_read_counts_as_empty(tree: Path) -> None:
    async def main() -> None:
        assert await fs.glob("*", cwd=tree / "nope") == []
        assert await fs.glob("x/*", cwd="/dev/null") == []

    multiloop.run(main)


def test_it_finds_what_pythons_finds(tree: Path) -> None:
    patterns = ["*", "*.py", "a/*", "a/*/*", "**/*.py", "*/*/*.txt", "a/y[12].py", "[ab]/*", "?", "a/b/c/d.py"]

    async def main() -> None:
        for pattern in patterns:
            theirs = python_glob.glob(pattern, root_dir=tree, recursive=True)
            # Python's ** enters links to directories, Node's does not.
            theirs = [path for path in theirs if "**" not in pattern or not path.startswith(("link", "loop"))]
            assert sorted(await fs.glob(pattern, cwd=tree)) == sorted(theirs), pattern

    multiloop.run(main)


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("[---]", "-", "a"),
        ("[a-]", "a-", "b"),
        ("[-a]", "a-", "b"),
        ("[a-c-]", "b-", "d"),
        ("[!a-c&&]", "d-", "ab&"),
        ("[]a]", "]a", "b"),
        ("[&&~~||x-]", "&~|x-", "a"),
        ("[[:digit:]_]", "7_", "a:"),
        ("[![:digit:]]", "a", "7"),
        ("[z-a]", "", "az-"),
        ("[[:nope:]]", "", "n:"),
        ("[![:nope:]]", "n:", ""),
    ],
)
def test_classes_of_characters(pattern: str, fits: str, fits_not: str) -> None:
    [parsed] = parse(pattern)
    [part] = parsed.parts
    assert [each for each in fits if not part.matches(each)] == []
    assert [each for each in fits_not if part.matches(each)] == []


def test_braces() -> None:
    assert expand_braces("a{b,c{d,e}}f") == ["abf", "acdf", "acef"]
    assert expand_braces("{1..3}{a..c..1}") == ["1{a..c..1}", "2{a..c..1}", "3{a..c..1}"]
    assert expand_braces("{01..10..4}") == ["01", "05", "09"]
    assert expand_braces("{3..1}") == ["3", "2", "1"]
    assert expand_braces("{c..a}") == ["c", "b", "a"]
    assert expand_braces("{a},{},{b,}") == ["{a},{},b", "{a},{},"]
    assert expand_braces("\\{a,b}") == ["\\{a,b}"]


@given(st.text(alphabet="ab*?[]!^-{},.|()+@\\/:12&~", max_size=14))
@settings(deadline=None, max_examples=400)
def test_no_pattern_breaks_the_parser(text: str) -> None:
    for pattern in parse(text):
        assert isinstance(pattern, Pattern)
        for part in pattern.parts:
            part.matches("a")
            part.matches("")
            part.matches(".a-b")
