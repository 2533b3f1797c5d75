"""`cp`: trees, and what it refuses."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.support import LOOPS

import multiloop
from multiloop import fs
from multiloop.errors import UsageError

loops = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    top = tmp_path / "source"
    (top / "dir" / "below").mkdir(parents=True)
    (top / "file").write_text("file")
    (top / "file").chmod(0o640)
    (top / "dir" / "below" / "deep").write_text("deep")
    (top / "link").symlink_to("file")
    (top / "dir" / "absolute").symlink_to(top / "file")
    os.utime(top / "file", (1, 2))
    os.utime(top / "dir", (3, 4))
    return top


@loops
def test_a_tree_is_copied_whole(source: Path, tmp_path: Path, loop: Any) -> None:
    async def main() -> None:
        await fs.cp(source, tmp_path / "new" / "copy", recursive=True)
        copy = tmp_path / "new" / "copy"
        assert await fs.readdir(copy, recursive=True) == await fs.readdir(source, recursive=True)
        assert (copy / "dir" / "below" / "deep").read_text() == "deep"
        assert stat.S_IMODE((copy / "file").stat().st_mode) == 0o640
        assert os.readlink(copy / "link") == str(source / "file"), "it points to the same file as before"
        assert os.readlink(copy / "dir" / "absolute") == str(source / "file")
        assert (copy / "file").stat().st_mtime != 2

    multiloop.run(main, loop=loop)


def test_timestamps_links_as_written_and_links_followed(source: Path, tmp_path: Path) -> None:
    async def main() -> None:
        await fs.cp(source, tmp_path / "a", recursive=True, preserve_timestamps=True, verbatim_symlinks=True)
        assert ((tmp_path / "a" / "file").stat().st_atime, (tmp_path / "a" / "file").stat().st_mtime) == (1, 2)
        assert (tmp_path / "a" / "dir").stat().st_mtime == 4
        assert os.readlink(tmp_path / "a" / "link") == "file"
        await fs.cp(source, tmp_path / "b", recursive=True, dereference=True)
        assert not (tmp_path / "b" / "link").is_symlink()
        assert (tmp_path / "b" / "dir" / "absolute").read_text() == "file"

    multiloop.run(main)


def test_a_single_file_and_a_single_link(source: Path, tmp_path: Path) -> None:
    async def main() -> None:
        await fs.cp(source / "file", tmp_path / "made" / "on" / "the" / "way")
        assert (tmp_path / "made/on/the/way").read_text() == "file"
        await fs.cp(source / "link", tmp_path / "link")
        assert (tmp_path / "link").is_symlink()

    multiloop.run(main)


def test_what_exists_is_replaced_left_or_an_error(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"

    async def main() -> None:
        await fs.cp(source, copy, recursive=True)
        (copy / "file").write_text("changed")
        (copy / "extra").write_text("kept")
        await fs.cp(source, copy, recursive=True, force=False)
        assert (copy / "file").read_text() == "changed"
        with pytest.raises(FileExistsError):
            await fs.cp(source, copy, recursive=True, force=False, error_on_exist=True)
        with pytest.raises(FileExistsError):
            await fs.cp(source / "file", copy / "file", mode=fs.COPYFILE_EXCL)
        await fs.cp(source, copy, recursive=True)
        assert (copy / "file").read_text() == "file"
        assert (copy / "extra").read_text() == "kept"
        with pytest.raises(UsageError, match="force=False"):
            fs.cp(source, copy, error_on_exist=True)

    multiloop.run(main)


def test_a_file_that_is_replaced_is_not_written_through(source: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "target").symlink_to("precious")

    async def main() -> None:
        await fs.cp(source / "file", tmp_path / "target")
        assert (tmp_path / "precious").read_text() == "precious"
        assert (tmp_path / "target").read_text() == "file"

    multiloop.run(main)


@loops
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_filter_is_asked_on_the_loop(source: Path, tmp_path: Path, loop: Any, kind: str) -> None:
    asked: list[str] = []

    def wanted(src: str, dst: str) -> bool:
        assert asyncio.get_running_loop()
        assert os.path.relpath(src, source) == os.path.relpath(dst, tmp_path / "copy")
        asked.append(os.path.relpath(src, source))
        return "below" not in src and not src.endswith("link")

    async def later(src: str, dst: str) -> bool:
        await asyncio.sleep(0)
        return wanted(src, dst)

    async def main() -> None:
        await fs.cp(source, tmp_path / "copy", recursive=True, filter=wanted if kind == "sync" else later)
        assert await fs.readdir(tmp_path / "copy", recursive=True) == ["dir", "dir/absolute", "file"]
        assert "dir/below/deep" not in asked, "nothing below what was left out is asked for"
        await fs.cp(source, tmp_path / "nothing", recursive=True, filter=lambda src, dst: False)
        assert not (tmp_path / "nothing").exists()
        with pytest.raises(ZeroDivisionError):
            await fs.cp(source, tmp_path / "other", recursive=True, filter=lambda src, dst: bool(1 / 0))

    multiloop.run(main, loop=loop)


@pytest.mark.parametrize("asking", [False, True])
def test_what_it_refuses(source: Path, tmp_path: Path, asking: bool) -> None:
    os.mkfifo(tmp_path / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    (tmp_path / "into").symlink_to(source / "dir")
    more: Any = {"filter": lambda src, dst: True} if asking else {}
    cases = [
        (source, tmp_path / "copy", {}, IsADirectoryError, "recursive=True"),
        (source, source, {"recursive": True}, OSError, "into itself"),
        (source, source / "dir" / "copy", {"recursive": True}, OSError, "into itself"),
        (source, tmp_path / "into" / "copy", {"recursive": True}, OSError, "into itself"),
        (source / "file", source / "file", {}, OSError, "the same"),
        (source / "file", source / "dir", {}, IsADirectoryError, "by a file"),
        (source, source / "file" / "x", {"recursive": True}, NotADirectoryError, "Not a directory"),
        (source / "dir", source / "file", {"recursive": True}, NotADirectoryError, "no directory"),
        (tmp_path / "fifo", tmp_path / "copy", {}, OSError, "a FIFO cannot be copied"),
        (tmp_path / "socket", tmp_path / "copy", {}, OSError, "a socket cannot be copied"),
        (Path("/dev/null"), tmp_path / "copy", {}, OSError, "a device cannot be copied"),
        (tmp_path / "nope", tmp_path / "copy", {}, FileNotFoundError, "nope"),
    ]

    async def main() -> None:
        for src, dst, options, kind, words in cases:
            with pytest.raises(kind, match=words) as caught:
                await fs.cp(src, dst, **options, **more)
            assert str(tmp_path) in str(caught.value) or "/dev/null" in str(caught.value)
            assert not (tmp_path / "copy").exists()

    multiloop.run(main)
    listener.close()


def test_a_directory_that_may_not_be_written_to_is_copied_with_what_is_in_it(source: Path, tmp_path: Path) -> None:
    (source / "dir").chmod(0o555)

    async def main() -> None:
        await fs.cp(source, tmp_path / "copy", recursive=True)
        assert stat.S_IMODE((tmp_path / "copy" / "dir").stat().st_mode) == 0o555
        assert (tmp_path / "copy" / "dir" / "below" / "deep").exists()

    try:
        multiloop.run(main)
    finally:
        (source / "dir").chmod(0o755)
        (tmp_path / "copy" / "dir").chmod(0o755)


@loops
def test_a_cancelled_cp_stops(tmp_path: Path, loop: Any) -> None:
    for number in range(3000):
        (tmp_path / "many" / str(number // 100)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "many" / str(number // 100) / str(number)).write_text("x")

    async def main() -> None:
        op = fs.cp(tmp_path / "many", tmp_path / "copy", recursive=True)
        await asyncio.sleep(0.01)
        op.cancel()
        before, copied = -1, 0
        while copied != before:  # the file under way may be finished
            await asyncio.sleep(0.02)
            before, copied = copied, sum(len(files) for _, _, files in os.walk(tmp_path / "copy"))
        assert copied < 3000

    multiloop.run(main, loop=loop)
