"""Names, metadata, directories: what is not contents."""

from __future__ import annotations

import asyncio
import datetime
import os
import stat
import string
from pathlib import Path
from typing import Any

import pytest
from tests.support import LOOPS, open_descriptors

import multiloop
from multiloop import fs
from multiloop.errors import ClosedError, UsageError

loops = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a little of everything."""
    (tmp_path / "dir" / "below").mkdir(parents=True)
    (tmp_path / "dir" / "file").write_text("12345")
    (tmp_path / "dir" / "below" / "deep").write_text("x")
    (tmp_path / "link").symlink_to("dir")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


# --- looking ----------------------------------------------------------------------------------------------------------
@loops
def test_stat_and_lstat(tree: Path, loop: Any) -> None:
    async def main() -> None:
        info = await fs.stat(tree / "dir" / "file")
        assert (info.size, info.st_size, info.is_file()) == (5, 5, True)
        assert info.mtime == info.result.st_mtime
        assert info.mtime_ns == info.st_mtime_ns
        assert info == await fs.stat(tree / "dir" / "file")
        with pytest.raises(AttributeError, match="Stats has no 'colour'"):
            _ = info.colour
        assert (await fs.stat(tree / "link")).is_directory()
        assert (await fs.lstat(tree / "link")).is_symbolic_link()
        assert (await fs.stat(tree / "fifo")).is_fifo()
        assert (await fs.stat("/dev/null")).is_character_device()
        assert not (await fs.stat("/dev/null")).is_block_device()
        assert not info.is_socket()

    multiloop.run(main, loop=loop)


def test_exists_and_access(tree: Path) -> None:
    async def main() -> None:
        assert await fs.exists(tree / "dir")
        assert not await fs.exists(tree / "dangling")
        assert not await fs.exists("a\0b")
        assert await fs.access(tree / "dir", fs.R_OK | fs.X_OK) is None
        with pytest.raises(FileNotFoundError):
            await fs.access(tree / "nope")
        with pytest.raises(NotADirectoryError):
            await fs.access(tree / "dir" / "file" / "x")
        with pytest.raises(PermissionError) as caught:
            await fs.access(tree / "dir" / "file", fs.X_OK)
        assert str(tree) in str(caught.value)

    multiloop.run(main)


def test_links(tree: Path) -> None:
    async def main() -> None:
        assert await fs.readlink(tree / "link") == "dir"
        assert await fs.realpath(tree / "link" / "file") == str(tree.resolve() / "dir" / "file")
        with pytest.raises(FileNotFoundError):
            await fs.realpath(tree / "dangling")
        await fs.symlink("dir/file", tree / "new")
        assert (tree / "new").read_text() == "12345"
        await fs.link(tree / "dir" / "file", tree / "hard")
        assert (await fs.stat(tree / "hard")).nlink == 2
        with pytest.raises(OSError):
            await fs.readlink(tree / "dir")
        await fs.unlink(tree / "link")
        assert (tree / "dir" / "file").exists()

    multiloop.run(main)


def test_rename_permissions_times_and_statfs(tree: Path) -> None:
    async def main() -> None:
        file = tree / "dir" / "file"
        (tree / "other").write_text("replaced")
        await fs.rename(file, tree / "other")
        assert (tree / "other").read_text() == "12345"
        await fs.chmod(tree / "other", 0o600)
        await fs.chown(tree / "other", -1, -1)
        await fs.lchown(tree / "link", -1, -1)
        when = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        await fs.utimes(tree / "other", 1.5, when)
        info = await fs.stat(tree / "other")
        assert (stat.S_IMODE(info.mode), info.atime, info.mtime) == (0o600, 1.5, when.timestamp())
        await fs.lutimes(tree / "dangling", 5, 6)
        assert (await fs.lstat(tree / "dangling")).mtime == 6
        space = await fs.statfs(tree)
        assert space.blocks * space.bsize > 0
        assert space.bavail <= space.bfree <= space.blocks

    multiloop.run(main)


# --- directories ------------------------------------------------------------------------------------------------------
@loops
def test_mkdir(tmp_path: Path, loop: Any) -> None:
    async def main() -> None:
        assert await fs.mkdir(tmp_path / "a") is None
        with pytest.raises(FileExistsError):
            await fs.mkdir(tmp_path / "a")
        with pytest.raises(FileNotFoundError):
            await fs.mkdir(tmp_path / "b" / "c")
        assert await fs.mkdir(tmp_path / "b" / "c" / "d", recursive=True, mode=0o750) == str(tmp_path / "b")
        assert stat.S_IMODE((tmp_path / "b" / "c").stat().st_mode) == 0o750
        assert await fs.mkdir(tmp_path / "b" / "c" / "d", recursive=True) is None
        assert await fs.mkdir(tmp_path / "b" / "c" / "e", recursive=True) == str(tmp_path / "b" / "c" / "e")
        (tmp_path / "file").write_text("")
        with pytest.raises(FileExistsError):
            await fs.mkdir(tmp_path / "file", recursive=True)
        with pytest.raises(NotADirectoryError):
            await fs.mkdir(tmp_path / "file" / "x" / "y", recursive=True)
        results = await asyncio.gather(*(fs.mkdir(tmp_path / "1/2/3/4", recursive=True) for _ in range(20)))
        assert results.count(str(tmp_path / "1")) == 1

    multiloop.run(main, loop=loop)


def test_mkdtemp(tmp_path: Path) -> None:
    async def main() -> None:
        made = await fs.mkdtemp(tmp_path / "job-")
        assert made.startswith(f"{tmp_path}/job-")
        suffix = made.removeprefix(f"{tmp_path}/job-")
        assert len(suffix) == 6
        assert set(suffix) <= set(string.ascii_letters + string.digits)
        assert stat.S_IMODE(os.stat(made).st_mode) == 0o700
        with pytest.raises(FileNotFoundError):
            await fs.mkdtemp(tmp_path / "no" / "job-")

    multiloop.run(main)


def test_mkdtemp_disposable_is_removed_whatever_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        made = await fs.mkdtemp_disposable("job-")
        (tmp_path / made.path / "file").write_text("x")
        os.chdir("/")
        await made.remove()
        await made.remove()
        os.chdir(tmp_path)
        assert not (tmp_path / made.path).exists()
        async with fs.mkdtemp_disposable("job-") as path:
            assert os.path.isdir(path)
        assert not os.path.exists(path)

    multiloop.run(main)


@loops
def test_readdir(tree: Path, loop: Any) -> None:
    async def main() -> None:
        assert await fs.readdir(tree) == ["dangling", "dir", "fifo", "link"]
        deep = ["dangling", "dir", "dir/below", "dir/below/deep", "dir/file", "fifo", "link"]
        assert await fs.readdir(tree, recursive=True) == deep
        entries = await fs.readdir(tree, with_file_types=True)
        kinds = {e.name: (e.is_symbolic_link(), e.is_directory(), e.is_fifo(), e.is_file()) for e in entries}
        assert kinds == {
            "dangling": (True, False, False, False),
            "dir": (False, True, False, False),
            "fifo": (False, False, True, False),
            "link": (True, False, False, False),
        }
        assert {entry.parent_path for entry in entries} == {str(tree)}
        assert os.fspath(entries[1]) == entries[1].path == str(tree / "dir")
        entries = await fs.readdir(tree, with_file_types=True, recursive=True)
        assert [os.path.relpath(entry, tree) for entry in entries] == deep
        assert [(e.name, e.stats.size) for e in await fs.scandir(tree / "dir", stats=True) if e.is_file()] == [
            ("file", 5)
        ]
        with pytest.raises(NotADirectoryError):
            await fs.readdir(tree / "fifo")

    multiloop.run(main, loop=loop)


@loops
def test_opendir(tmp_path: Path, loop: Any) -> None:
    for number in range(100):
        (tmp_path / f"{number:03}").write_text("")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "x").write_text("")

    async def main() -> None:
        names = [entry.name async for entry in await fs.opendir(tmp_path)]
        assert sorted(names) == [*(f"{number:03}" for number in range(100)), "below"]
        names = [entry.name async for entry in fs.opendir(tmp_path, recursive=True, buffer_size=3)]
        assert sorted(names)[-1] == "x"
        assert len(names) == 102

        async with fs.opendir(tmp_path / "below") as directory:
            first, second = await asyncio.gather(directory.read(), directory.read())
            assert {first and first.name, second} == {"x", None}
            assert await directory.read() is None
        await directory.close()
        with pytest.raises(ClosedError, match="below' is closed"):
            await directory.read()
        with pytest.raises(UsageError, match="buffer_size=0"):
            fs.opendir(tmp_path, buffer_size=0)

    multiloop.run(main, loop=loop)


def test_leaving_a_directory_closes_it_and_dropping_one_warns(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / str(number)).write_text("")

    async def main() -> None:
        await multiloop.offload(int)
        before = open_descriptors()
        directory = await fs.opendir(tmp_path)
        async for _ in directory:
            break
        assert directory.closed
        directory = await fs.opendir(tmp_path)
        await asyncio.sleep(0)
        with pytest.warns(ResourceWarning, match="never closed"):
            del directory
        assert not open_descriptors() - before

    multiloop.run(main)


# --- rm ---------------------------------------------------------------------------------------------------------------
@loops
def test_rm(tree: Path, loop: Any) -> None:
    async def main() -> None:
        with pytest.raises(IsADirectoryError, match="recursive=True"):
            await fs.rm(tree / "dir")
        with pytest.raises(FileNotFoundError):
            await fs.rm(tree / "nope")
        await fs.rm(tree / "nope", force=True)
        await fs.rm(tree / "nope" / "deeper", force=True, recursive=True)
        await fs.rm(tree / "link", recursive=True)
        assert (tree / "dir" / "file").exists(), "a link is removed, not what it points to"
        (tree / "dir" / "out").symlink_to(tree / "kept")
        (tree / "kept").mkdir()
        (tree / "kept" / "file").write_text("")
        await fs.rm(tree / "dir", recursive=True)
        assert not (tree / "dir").exists()
        assert (tree / "kept" / "file").exists()
        with pytest.raises(OSError):
            await fs.rmdir(tree)
        await fs.rmdir(await fs.mkdtemp(tree / "x"))
        with pytest.raises(UsageError, match="cannot be negative"):
            fs.rm(tree, max_retries=-1)

    multiloop.run(main, loop=loop)


def test_rm_goes_deeper_than_the_recursion_limit_and_a_path_may_be_long(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("dir", dir_fd=fd)
        below = os.open("dir", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)

    async def main() -> None:
        await fs.rm(tmp_path / "dir", recursive=True)
        assert os.listdir(tmp_path) == []

    multiloop.run(main)


@loops
def test_a_cancelled_rm_stops(tmp_path: Path, loop: Any) -> None:
    top = tmp_path / "top"
    for directory in range(40):
        (top / str(directory)).mkdir(parents=True)
        for number in range(100):
            (top / str(directory) / str(number)).write_text("")

    async def main() -> None:
        await multiloop.offload(int)
        before = open_descriptors()
        op = fs.rm(top, recursive=True)
        await asyncio.sleep(0.002)
        op.cancel()
        await multiloop.offload(int)  # behind it, on the same thread
        left = sum(len(files) for _, _, files in os.walk(top))
        await asyncio.sleep(0.02)
        assert left == sum(len(files) for _, _, files in os.walk(top)) > 0
        assert not open_descriptors() - before

    multiloop.run(main, loop=loop)
