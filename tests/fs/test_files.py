"""Whole files: read_file, write_file, append_file, copy_file, truncate."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import LOOPS, until

import multiloop
from multiloop import fs
from multiloop.errors import UsageError

loops = pytest.mark.parametrize("loop", LOOPS)


# --- reading ----------------------------------------------------------------------------------------------------------
@loops
@pytest.mark.parametrize("size", [0, 1, 4096, 65535, 65536, 65537, 300_000, 5_000_000, 20_000_000])
def test_any_size_is_read_whole(tmp_path: Path, loop: Any, size: int) -> None:
    data = os.urandom(min(size, 1 << 20)) * (size // (1 << 20) + 1)
    (tmp_path / "a").write_bytes(data[:size])

    async def main() -> None:
        assert await fs.read_file(tmp_path / "a") == data[:size]

    multiloop.run(main, loop=loop)


def test_paths_may_be_text_bytes_or_path_objects(tmp_path: Path) -> None:
    (tmp_path / "ä").write_text("x")

    async def main() -> None:
        for path in (tmp_path / "ä", str(tmp_path / "ä"), os.fsencode(tmp_path / "ä")):
            assert await fs.read_file(path) == b"x"

    multiloop.run(main)


def test_text_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("grün\n".encode() + b"\xff")

    async def main() -> None:
        with pytest.raises(UnicodeDecodeError):
            await fs.read_file(tmp_path / "a", "utf-8")
        assert await fs.read_file(tmp_path / "a", "utf-8", errors="replace") == "grün\n\N{REPLACEMENT CHARACTER}"
        assert await fs.read_file(tmp_path / "a", "latin-1") == "grÃ¼n\nÿ"

    multiloop.run(main)


def test_files_that_say_they_are_empty_are_read_to_the_end() -> None:
    async def main() -> None:
        assert b"processor" in await fs.read_file("/proc/cpuinfo")
        status = await fs.read_file("/proc/self/status", "ascii")
        assert f"Pid:\t{os.getpid()}\n" in status
        assert await fs.read_file("/dev/null") == b""
        maps = await fs.read_file("/proc/self/maps")  # longer than one page, given in short reads
        assert maps.endswith(b"\n")
        assert len(maps) > 4096

    multiloop.run(main)


def test_a_file_that_grows_is_read_to_its_new_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 3_000_000)
    stop = threading.Event()

    def grow() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"y" * 1000)
                stop.wait(0.0002)

    writer = threading.Thread(target=grow)

    async def main() -> None:
        writer.start()
        for _ in range(20):
            before = path.stat().st_size
            data = await fs.read_file(path)
            assert len(data) >= before
            assert data[:3_000_000] == b"x" * 3_000_000
            assert set(data[3_000_000:]) <= {ord("y")}

    try:
        multiloop.run(main)
    finally:
        stop.set()
        writer.join()


@pytest.mark.slow
def test_a_file_over_2_gib_is_read_whole(tmp_path: Path) -> None:
    if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 4 << 30:
        pytest.skip("needs 4 GiB of free memory")
    size = (2 << 30) + 4097
    with (tmp_path / "big").open("wb") as file:
        file.truncate(size)
        file.seek(size - 3)
        file.write(b"end")

    async def main() -> None:
        data = await fs.read_file(tmp_path / "big")
        assert (len(data), data[-3:], data[:3]) == (size, b"end", b"\0\0\0")

    multiloop.run(main)


# --- writing ----------------------------------------------------------------------------------------------------------
@loops
def test_what_is_written_replaces_what_was_there(tmp_path: Path, loop: Any) -> None:
    async def main() -> None:
        await fs.write_file(tmp_path / "a", "long text, ä")
        assert (tmp_path / "a").read_bytes() == "long text, ä".encode()
        await fs.write_file(tmp_path / "a", b"short")
        assert (tmp_path / "a").read_bytes() == b"short"
        await fs.append_file(tmp_path / "a", " more")
        await fs.append_file(tmp_path / "new", bytearray(b"new"), flush=True)
        assert (tmp_path / "a").read_bytes() == b"short more"
        assert (tmp_path / "new").read_bytes() == b"new"
        await fs.write_file(tmp_path / "a", "ä", "latin-1", flush=True)
        assert (tmp_path / "a").read_bytes() == b"\xe4"

    multiloop.run(main, loop=loop)


def test_anything_with_bytes_in_it_may_be_written(tmp_path: Path) -> None:
    import array

    numbers = array.array("H", [1, 2, 3])
    large = os.urandom(40_000_000)

    async def main() -> None:
        await fs.write_file(tmp_path / "a", memoryview(b"abcdef")[::2])
        assert (tmp_path / "a").read_bytes() == b"ace"
        await fs.write_file(tmp_path / "a", numbers)  # type: ignore[arg-type]
        assert (tmp_path / "a").read_bytes() == numbers.tobytes()
        await fs.write_file(tmp_path / "a", large)
        assert (tmp_path / "a").read_bytes() == large
        for nothing in (b"", "", memoryview(b"")):
            await fs.write_file(tmp_path / "a", nothing)
            assert (tmp_path / "a").read_bytes() == b""

    multiloop.run(main)


def test_iterables_are_written_as_they_come(tmp_path: Path) -> None:
    async def parts() -> AsyncIterator[str]:
        for part in ("a", "ö", "c"):
            await asyncio.sleep(0)
            yield part

    async def main() -> None:
        await fs.write_file(tmp_path / "a", parts())
        assert (tmp_path / "a").read_text() == "aöc"
        await fs.append_file(tmp_path / "a", (part for part in (b"1", "2")))
        assert (tmp_path / "a").read_text() == "aöc12"

    multiloop.run(main)


def test_flags_and_mode(tmp_path: Path) -> None:
    async def main() -> None:
        await fs.write_file(tmp_path / "a", "1", flag="wx", mode=0o600)
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
        with pytest.raises(FileExistsError) as caught:
            await fs.write_file(tmp_path / "a", "2", flag="wx")
        assert caught.value.filename == tmp_path / "a" or caught.value.filename == str(tmp_path / "a")
        await fs.write_file(tmp_path / "a", "23", flag="r+")
        await fs.write_file(tmp_path / "a", "4", flag=os.O_WRONLY | os.O_APPEND)
        assert await fs.read_file(tmp_path / "a", "utf-8", flag="rb") == "234"
        for wrong in ("z", "rw", "r++", ""):
            with pytest.raises(UsageError, match="are unknown"):
                fs.write_file(tmp_path / "a", "5", flag=wrong)

    multiloop.run(main)


def test_what_is_no_data_is_refused_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        for wrong in (3, None, object()):
            with pytest.raises(TypeError, match="must be bytes or text"):
                fs.write_file(tmp_path / "a", wrong)  # type: ignore[arg-type]
        assert not (tmp_path / "a").exists()

    multiloop.run(main)


def test_truncate_cuts_and_fills(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("12345")

    async def main() -> None:
        await fs.truncate(tmp_path / "a", 3)
        assert (tmp_path / "a").read_bytes() == b"123"
        await fs.truncate(tmp_path / "a", 5)
        assert (tmp_path / "a").read_bytes() == b"123\0\0"
        await fs.truncate(tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == b""

    multiloop.run(main)


# --- copying ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 10, 3_000_000])
def test_copy_file_copies_contents_and_permissions(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "a").chmod(0o640)
    (tmp_path / "b").write_bytes(b"much longer than before" * 1_000_000)

    async def main() -> None:
        await fs.copy_file(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == data
        assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o640
        await fs.copy_file(tmp_path / "a", tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == data, "onto itself"
        with pytest.raises(FileExistsError):
            await fs.copy_file(tmp_path / "a", tmp_path / "b", fs.COPYFILE_EXCL)
        await fs.copy_file("/proc/cpuinfo", tmp_path / "c")
        assert b"processor" in (tmp_path / "c").read_bytes()

    multiloop.run(main)


def test_copy_file_refuses_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    async def main() -> None:
        with pytest.raises(IsADirectoryError):
            await fs.copy_file(tmp_path, tmp_path / "b")
        with pytest.raises(OSError, match="FIFO"):
            await fs.copy_file(tmp_path / "fifo", tmp_path / "b")
        with pytest.raises(UsageError, match="COPYFILE_EXCL"):
            fs.copy_file(tmp_path / "fifo", tmp_path / "b", 64)
        assert not (tmp_path / "b").exists()

    multiloop.run(main)


# --- FIFOs ------------------------------------------------------------------------------------------------------------
@loops
def test_reading_a_fifo_waits_for_its_writer_without_a_thread(tmp_path: Path, loop: Any) -> None:
    os.mkfifo(tmp_path / "fifo")

    async def main() -> None:
        reading = [fs.read_file(tmp_path / "fifo", "utf-8")]
        os.mkfifo(tmp_path / "other")
        others = [fs.read_file(tmp_path / "other") for _ in range(100)]
        await asyncio.gather(*(fs.stat("/") for _ in range(200)))
        busy = [each for each in threading.enumerate() if each.name.startswith("multiloop-offload")]
        assert len(busy) <= 8, "a hundred readers wait, and no thread does"
        writer = os.open(tmp_path / "fifo", os.O_WRONLY)
        os.write(writer, b"one ")
        await asyncio.sleep(0.01)
        assert not reading[0].done()
        os.write(writer, b"two")
        os.close(writer)
        assert await reading[0] == "one two"
        for each in others:
            each.cancel()

    multiloop.run(main, loop=loop)


@loops
def test_writing_a_fifo_waits_for_its_reader_and_for_room(tmp_path: Path, loop: Any) -> None:
    os.mkfifo(tmp_path / "fifo")
    data = os.urandom(1_000_000)

    async def main() -> None:
        writing = fs.write_file(tmp_path / "fifo", data)
        await asyncio.sleep(0.03)
        assert not writing.done()
        reading = fs.read_file(tmp_path / "fifo")
        assert await reading == data
        await writing

    multiloop.run(main, loop=loop)


@loops
def test_a_fifo_nobody_writes_to_holds_up_no_other_file(tmp_path: Path, loop: Any) -> None:
    os.mkfifo(tmp_path / "fifo")
    for number in range(200):
        (tmp_path / str(number)).write_bytes(b"x" * 4096)

    async def main() -> None:
        paths = [tmp_path / str(number) for number in range(200)]
        await asyncio.gather(*map(fs.read_file, paths))
        stuck = fs.read_file(tmp_path / "fifo")
        await asyncio.wait_for(asyncio.gather(*map(fs.read_file, paths)), 15)
        assert not stuck.done()
        stuck.cancel()

    multiloop.run(main, loop=loop)


@loops
def test_cancelled_fifos_leave_no_descriptor(tmp_path: Path, loop: Any) -> None:
    os.mkfifo(tmp_path / "fifo")

    async def main() -> None:
        await multiloop.offload(int)
        before = len(os.listdir("/proc/self/fd"))
        for operation in (fs.read_file, lambda path: fs.write_file(path, "x"), lambda path: fs.open(path, "w")):
            ops = [operation(tmp_path / "fifo") for _ in range(10)]
            await asyncio.sleep(0.02)
            for op in ops:
                op.cancel()
        await until(lambda: len(os.listdir("/proc/self/fd")) == before)

    multiloop.run(main, loop=loop)
