"""Bad input, through the awaitable and through the callback: the right error, with the name in it, and nothing left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support import LOOPS, descriptors_left, open_descriptors

import multiloop
from multiloop import fs
from multiloop.errors import ClosedError, InvalidPath

loops = pytest.mark.parametrize("loop", LOOPS)

Case = tuple[str, Callable[[Path, Any], Any], type[BaseException], str]


def on_missing(function: Any, *more: Any, **options: Any) -> Callable[[Path, Any], Any]:
    return lambda top, callback: function(top / "missing" / "x", *more, **options, callback=callback)


def on_nul(function: Any, *more: Any, **options: Any) -> Callable[[Path, Any], Any]:
    return lambda top, callback: function("nul\0path", *more, **options, callback=callback)


def at(name: str, function: Any, *more: Any, **options: Any) -> Callable[[Path, Any], Any]:
    return lambda top, callback: function(top / name, *more, **options, callback=callback)


# Every function that takes a path, with what else it needs.
FUNCTIONS: list[tuple[str, Any, tuple[Any, ...]]] = [
    ("read_file", fs.read_file, ()),
    ("read_file as text", fs.read_file, ("utf-8",)),
    ("write_file", fs.write_file, ("data",)),
    ("write_file parts", fs.write_file, (["data"],)),
    ("append_file", fs.append_file, ("data",)),
    ("copy_file", fs.copy_file, ("there",)),
    ("truncate", fs.truncate, (3,)),
    ("open", fs.open, ()),
    ("stat", fs.stat, ()),
    ("lstat", fs.lstat, ()),
    ("access", fs.access, ()),
    ("realpath", fs.realpath, ()),
    ("readlink", fs.readlink, ()),
    ("statfs", fs.statfs, ()),
    ("rename", fs.rename, ("there",)),
    ("unlink", fs.unlink, ()),
    ("link", fs.link, ("there",)),
    ("chmod", fs.chmod, (0o600,)),
    ("chown", fs.chown, (-1, -1)),
    ("lchown", fs.lchown, (-1, -1)),
    ("utimes", fs.utimes, (1, 2)),
    ("lutimes", fs.lutimes, (1, 2)),
    ("mkdir", fs.mkdir, ()),
    ("mkdtemp", fs.mkdtemp, ()),
    ("rmdir", fs.rmdir, ()),
    ("rm", fs.rm, ()),
    ("readdir", fs.readdir, ()),
    ("scandir", fs.scandir, ()),
    ("opendir", fs.opendir, ()),
    ("cp", fs.cp, ("there",)),
]

CASES: list[Case] = [
    *((f"{name}: missing", on_missing(function, *more), FileNotFoundError, "missing") for name, function, more in FUNCTIONS),
    *((f"{name}: NUL", on_nul(function, *more), InvalidPath, "nul") for name, function, more in FUNCTIONS),
    ("glob: NUL", lambda top, callback: fs.glob("nul\0path", callback=callback), InvalidPath, "nul"),
    ("symlink: NUL", lambda top, callback: fs.symlink("nul\0path", top / "x", callback=callback), InvalidPath, "nul"),
    ("rename: NUL second", lambda top, callback: fs.rename(top / "file", "nul\0", callback=callback), InvalidPath, "nul"),
    ("symlink: exists", lambda top, callback: fs.symlink("x", top / "file", callback=callback), FileExistsError, "file"),
    ("read_file: directory", at("dir", fs.read_file), IsADirectoryError, "dir"),
    ("write_file: directory", at("dir", fs.write_file, "x"), IsADirectoryError, "dir"),
    ("append_file: directory", at("dir", fs.append_file, "x"), IsADirectoryError, "dir"),
    ("truncate: directory", at("dir", fs.truncate), IsADirectoryError, "dir"),
    ("copy_file: directory", at("dir", fs.copy_file, "there"), IsADirectoryError, "dir"),
    ("unlink: directory", at("dir", fs.unlink), IsADirectoryError, "dir"),
    ("rm: directory", at("dir", fs.rm), IsADirectoryError, "dir"),
    ("readdir: file", at("file", fs.readdir), NotADirectoryError, "file"),
    ("scandir: file", at("file", fs.scandir), NotADirectoryError, "file"),
    ("opendir: file", at("file", fs.opendir), NotADirectoryError, "file"),
    ("rmdir: file", at("file", fs.rmdir), NotADirectoryError, "file"),
    ("rmdir: full", at("dir", fs.rmdir), OSError, "dir"),
    ("stat: below a file", at("file/x", fs.stat), NotADirectoryError, "file/x"),
    ("mkdir: exists", at("dir", fs.mkdir), FileExistsError, "dir"),
    ("open: must be new", at("file", fs.open, "wx"), FileExistsError, "file"),
    ("write_file: must be new", at("file", fs.write_file, "x", flag="wx"), FileExistsError, "file"),
    ("readlink: file", at("file", fs.readlink), OSError, "file"),
    ("stat: name too long", at("x" * 300, fs.stat), OSError, "xxx"),
    ("stat: links in a circle", at("circle", fs.stat), OSError, "circle"),
    ("read_file: links in a circle", at("circle", fs.read_file), OSError, "circle"),
]  # fmt: skip


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dir" / "full").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(error: BaseException, kind: type[BaseException], name: str) -> None:
    assert isinstance(error, kind), repr(error)
    assert isinstance(error, OSError | ValueError)
    assert name in str(error)
    assert any(name in os.fsdecode(each) for each in (error.filename, getattr(error, "filename2", None)) if each)  # type: ignore[union-attr]


@loops
def test_through_the_awaitable(top: Path, loop: Any) -> None:
    async def main() -> None:
        await multiloop.offload(int)
        before = open_descriptors()
        for title, start, kind, name in CASES:
            with pytest.raises((OSError, ValueError)) as caught:
                await start(top, None)
                pytest.fail(f"{title}: no error")
            checked(caught.value, kind, name)
        assert not descriptors_left(before)

    multiloop.run(main, loop=loop)
    assert sorted(os.listdir(top)) == ["circle", "dir", "file"]


@loops
def test_through_the_callback(top: Path, loop: Any) -> None:
    told: dict[str, tuple[Any, ...]] = {}

    def main() -> None:
        for title, start, _, _ in CASES:
            start(top, lambda *args, title=title: told.setdefault(title, args))
        assert not told, "never inside the call"

    multiloop.run(main, loop=loop)
    for title, _, kind, name in CASES:
        error, value = told[title]
        checked(error, kind, name)
        assert value is None
    assert sorted(os.listdir(top)) == ["circle", "dir", "file"]


@loops
def test_a_closed_handle_through_the_callback(top: Path, loop: Any) -> None:
    told: list[Any] = []

    async def main() -> None:
        file = await fs.open(top / "file", "r+")
        await file.close()
        for use in (
            lambda callback: file.read(callback=callback),
            lambda callback: file.write("x", callback=callback),
            lambda callback: file.stat(callback=callback),
            lambda callback: file.truncate(callback=callback),
        ):
            use(lambda *args: told.append(args))

    multiloop.run(main, loop=loop)
    assert len(told) == 4
    for error, value in told:
        assert isinstance(error, ClosedError)
        assert str(top / "file") in str(error)
        assert value is None


def test_what_is_no_path_is_a_type_error() -> None:
    async def main() -> None:
        for wrong in (3.5, None, [], object()):
            for function, more in ((fs.read_file, ()), (fs.stat, ()), (fs.readdir, ()), (fs.write_file, ("x",))):
                if function in (fs.stat, fs.readdir) and wrong is None:
                    continue  # Python's own calls take None for "."
                with pytest.raises(TypeError):
                    await function(wrong, *more)  # type: ignore[operator]

    multiloop.run(main)


def test_a_callback_that_cannot_be_called_is_a_type_error_in_the_call_and_nothing_is_touched(top: Path) -> None:
    async def main() -> None:
        for title, function, more in FUNCTIONS:
            with pytest.raises(TypeError, match="callback=3"):
                function(top / "file", *more, callback=3)
                pytest.fail(f"{title}: accepted")
        async with await fs.open(top / "file") as file:
            with pytest.raises(TypeError, match="callback=3"):
                file.read(callback=3)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="callback=3"):
                file.close(callback=3)  # type: ignore[arg-type]
            assert await file.read() == b"x", "still open"

    multiloop.run(main)
    assert sorted(os.listdir(top)) == ["circle", "dir", "file"]
