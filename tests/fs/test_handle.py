"""`open` and `FileHandle`."""

from __future__ import annotations

import asyncio
import datetime
import os
import stat
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from tests.support import LOOPS, open_descriptors, until

import multiloop
from multiloop import fs
from multiloop.errors import ClosedError, UsageError
from multiloop.loop._threads import Threads

loops = pytest.mark.parametrize("loop", LOOPS)


@loops
def test_reading_goes_on_where_it_ended_or_where_it_is_told(tmp_path: Path, loop: Any) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")

    async def main() -> None:
        async with fs.open(tmp_path / "a") as file:
            assert await file.read(3) == b"012"
            assert await file.read(3, 5) == b"567"
            assert await file.read(2) == b"34"
            assert await file.read() == b"56789"
            assert await file.read(5) == b""
            assert await file.read() == b""
            assert await file.read(position=8) == b"89"
            assert await file.read(0) == b""

    multiloop.run(main, loop=loop)


def test_reading_into_buffers(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")

    async def main() -> None:
        async with fs.open(tmp_path / "a") as file:
            first, second = bytearray(4), bytearray(4)
            assert await file.readv([first, second]) == 8
            assert (first, second) == (b"0123", b"4567")
            assert await file.readv([first, second], 6) == 4
            assert first == b"6789"
            assert await file.read_into(second) == 2
            assert second == b"8967"
            assert await file.readv([first]) == 0

    multiloop.run(main)


@loops
def test_writing(tmp_path: Path, loop: Any) -> None:
    async def main() -> None:
        async with fs.open(tmp_path / "a", "w+") as file:
            assert await file.write("grün") == 5
            assert await file.write(b"XY", 1) == 2
            assert await file.writev([b"1", bytearray(b"2"), memoryview(b"34")]) == 4
            assert await file.writev([b"9"] * 3000) == 3000
            assert await file.write(b"") == 0
            await file.sync()
            await file.datasync()
            assert (await file.read(position=0))[:9] == b"gXY\xbcn1234"
            assert (await file.stat()).size == 9 + 3000
            await file.truncate(3)
            assert (await file.stat()).size == 3
            await file.append_file("!")

    multiloop.run(main, loop=loop)


def test_metadata(tmp_path: Path) -> None:
    async def main() -> None:
        async with fs.open(tmp_path / "a", "w", 0o600) as file:
            await file.chmod(0o640)
            await file.chown(-1, -1)
            await file.utimes(1_000_000_000, datetime.datetime(2001, 9, 9, 1, 46, 41, tzinfo=datetime.UTC))
            info = await file.stat()
            assert stat.S_IMODE(info.mode) == 0o640
            assert (info.atime_ns, info.mtime) == (1_000_000_000 * 10**9, 1_000_000_001.0)
            assert info.is_file()
            assert not info.is_directory()

    multiloop.run(main)


def test_read_file_and_write_file_of_a_handle(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("grün")

    async def main() -> None:
        async with fs.open(tmp_path / "a", "r+") as file:
            assert await file.read_file("utf-8") == "grün"
            assert await fs.read_file(file) == b""
            await file.write_file("blau")
            await fs.write_file(file, [b"1", "2"])
        assert (tmp_path / "a").read_text() == "grünblau12"

    multiloop.run(main)


# --- lines ------------------------------------------------------------------------------------------------------------
@loops
@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"one", ["one"]),
        (b"one\n", ["one"]),
        (b"one\r\n\ntwo\rthree\n", ["one", "", "two\rthree"]),
        ("ä".encode() * 70_000 + b"\n" + "ö".encode() * 70_000, ["ä" * 70_000, "ö" * 70_000]),
    ],
)
def test_lines(tmp_path: Path, loop: Any, content: bytes, lines: list[str]) -> None:
    (tmp_path / "a").write_bytes(content)

    async def main() -> None:
        async with fs.open(tmp_path / "a") as file:
            assert [line async for line in file] == lines
        async with fs.open(tmp_path / "a") as file:
            assert [line async for line in file.read_lines("latin-1")] == content.decode("latin-1").replace(
                "\r\n", "\n"
            ).removesuffix("\n").split("\n") * bool(content)

    multiloop.run(main, loop=loop)


def test_a_line_costs_no_hop_and_no_turn(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a line of a log file\n" * 50_000)

    async def main() -> None:
        turns = 0

        def turned() -> None:
            nonlocal turns
            turns += 1
            loop.call_soon(turned)

        loop = asyncio.get_running_loop()
        loop.call_soon(turned)
        async with fs.open(tmp_path / "a") as file:
            hops = 0
            submit = Threads.submit

            def count(self: Threads, call: Any) -> None:
                nonlocal hops
                hops += 1
                submit(self, call)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Threads, "submit", count)
                before = turns
                assert sum([1 async for _ in file]) == 50_000
        assert hops < 100
        if hops == 0:  # the loop turns as it likes while a thread reads
            assert turns - before < 1_000
        await asyncio.sleep(0)

    multiloop.run(main)


def test_leaving_the_lines_early_leaves_the_file_usable(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\ntwo\n")

    async def main() -> None:
        async with fs.open(tmp_path / "a") as file:
            async for line in file:
                assert line == "one"
                break
            assert await file.read(3, 0) == b"one"

    multiloop.run(main)


# --- closing ----------------------------------------------------------------------------------------------------------
@loops
def test_after_close_every_method_says_so(tmp_path: Path, loop: Any) -> None:
    (tmp_path / "a").write_text("x")

    async def main() -> None:
        file = await fs.open(tmp_path / "a", "r+")
        assert file.fd >= 0
        await file.close()
        await file.close()
        assert file.fd == -1
        assert file.closed
        uses = [
            lambda: file.read(),
            lambda: file.read(1, 0),
            lambda: file.readv([bytearray(1)]),
            lambda: file.write("x"),
            lambda: file.writev([b"x"]),
            lambda: file.stat(),
            lambda: file.sync(),
            lambda: file.truncate(),
            lambda: file.chmod(0o600),
            lambda: file.read_file(),
            lambda: fs.read_file(file),
            lambda: fs.write_file(file, "x"),
            lambda: anext(file.read_lines()),
        ]
        for use in uses:
            with pytest.raises(ClosedError, match="a' is closed"):
                await use()
        with pytest.raises(ClosedError):
            file.create_read_stream()

    multiloop.run(main, loop=loop)


def test_a_closed_descriptor_is_never_used_again_even_if_its_number_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")

    async def main() -> None:
        first = await fs.open(tmp_path / "a")
        number = first.fd
        await first.close()
        async with fs.open(tmp_path / "b") as second:
            assert second.fd == number
            with pytest.raises(ClosedError):
                await first.read()
            assert await second.read() == b"b"

    multiloop.run(main)


@loops
def test_close_waits_for_calls_in_flight(tmp_path: Path, loop: Any) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10_000_000)

    async def main() -> None:
        for _ in range(10):
            file = await fs.open(tmp_path / "a")
            reads = [file.read(position=0) for _ in range(3)]
            await asyncio.sleep(0.002)
            closing = file.close()
            for result in await asyncio.gather(*reads, return_exceptions=True):
                assert isinstance(result, ClosedError) or len(result) == 10_000_000
            await closing

    multiloop.run(main, loop=loop)


@loops
def test_close_fails_what_waits_for_the_other_end_of_a_fifo(tmp_path: Path, loop: Any) -> None:
    os.mkfifo(tmp_path / "fifo")

    async def main() -> None:
        file = await fs.open(tmp_path / "fifo")
        reads = [file.read(10), file.read(10)]
        await asyncio.sleep(0.02)
        await file.close()
        for op in reads:
            with pytest.raises(ClosedError):
                await op

    multiloop.run(main, loop=loop)


@loops
def test_a_fifo_gives_what_is_there_and_waits_for_more(tmp_path: Path, loop: Any) -> None:
    os.mkfifo(tmp_path / "fifo")

    async def main() -> None:
        async with fs.open(tmp_path / "fifo") as reader, fs.open(tmp_path / "fifo", "w") as writer:
            await writer.write("one")
            assert await reader.read(100) == b"one"
            waiting = reader.read(100)
            await asyncio.sleep(0.01)
            assert not waiting.done()
            await writer.write("two")
            assert await waiting == b"two"
            waiting = reader.read(100)
            await asyncio.sleep(0.01)
            waiting.cancel()
            await writer.write("three")
            assert await reader.read(100) == b"three", "nothing was lost with the cancelled one"
            await writer.close()
            assert await reader.read(100) == b""

    multiloop.run(main, loop=loop)


@loops
def test_a_cancelled_close_closes_all_the_same(tmp_path: Path, loop: Any) -> None:
    (tmp_path / "a").write_text("x")

    async def main() -> None:
        await multiloop.offload(int)
        before = open_descriptors()
        for _ in range(20):
            file = await fs.open(tmp_path / "a")
            op = file.close()
            op.cancel()
            with pytest.raises(asyncio.CancelledError):
                await op
        await until(lambda: not open_descriptors() - before)

    multiloop.run(main, loop=loop)


@loops
def test_a_file_opened_at_the_moment_of_the_cancel_is_closed(tmp_path: Path, loop: Any) -> None:
    (tmp_path / "a").write_text("x")

    async def opens() -> None:
        async with fs.open(tmp_path / "a"):
            raise AssertionError("never entered")

    async def main() -> None:
        await multiloop.offload(int)
        before = open_descriptors()
        op = fs.open(tmp_path / "a")
        task = asyncio.ensure_future(opens())
        op.add_done_callback(lambda _: task.cancel())  # the file of the task is open, and the task does not know yet
        time.sleep(0.02)
        await asyncio.wait([task])
        assert task.cancelled()
        await (await op).close()
        await until(lambda: not open_descriptors() - before)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        multiloop.run(main, loop=loop)


def test_a_dropped_handle_warns_with_its_name_and_is_closed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")

    async def main() -> None:
        file = await fs.open(tmp_path / "a")
        number = file.fd
        await asyncio.sleep(0)
        with pytest.warns(ResourceWarning, match=f"file '{tmp_path}/a' was never closed"):
            del file
        with pytest.raises(OSError):
            os.fstat(number)

    multiloop.run(main)


def test_a_cancelled_open_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")

    async def main() -> None:
        await multiloop.offload(int)
        before = open_descriptors()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for pause in (0, 0, 0.0001, 0.0003, 0.001) * 10:
                ops = [fs.open(tmp_path / "a") for _ in range(10)]
                await asyncio.sleep(pause)
                for op in ops:
                    if not op.cancel():
                        await op.result().close()
            await multiloop.offload(int)
            await until(lambda: not open_descriptors() - before)

    multiloop.run(main)


def test_wrong_arguments_are_refused_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match="flags 'q' are unknown"):
            fs.open(tmp_path / "a", "q")
        async with fs.open(tmp_path / "a", "w") as file:
            with pytest.raises(TypeError, match="bytes or text"):
                file.write(3)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="seconds since 1970"):
                file.utimes("now", 0)  # type: ignore[arg-type]

    multiloop.run(main)


def test_errors_of_a_descriptor_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")

    async def main() -> None:
        async with fs.open(tmp_path / "a") as file:
            with pytest.raises(OSError) as caught:
                await file.write("not for writing")
            assert caught.value.filename == str(tmp_path / "a")
        async with fs.open(tmp_path) as directory:
            with pytest.raises(IsADirectoryError) as caught_too:
                await directory.read()
            assert str(tmp_path) in str(caught_too.value)

    multiloop.run(main)


def test_a_handle_may_be_used_with_callbacks(tmp_path: Path) -> None:
    seen: list[Any] = []

    def opened(error: Any, file: Any) -> None:
        assert error is None
        file.write("hello", callback=lambda error, count: written(file, error, count))

    def written(file: Any, error: Any, count: Any) -> None:
        seen.append((error, count))
        file.close(callback=lambda error, _: seen.append((error, file.closed)))

    multiloop.run(lambda: fs.open(tmp_path / "a", "w", callback=opened))
    assert seen == [(None, 5), (None, True)]
    assert threading.active_count() >= 1
