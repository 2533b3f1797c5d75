"""`create_read_stream` and `create_write_stream`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tests.support import LOOPS, open_descriptors, until

import multiloop
from multiloop import fs, stream
from multiloop.errors import ClosedError, PrematureClose, UsageError

loops = pytest.mark.parametrize("loop", LOOPS)


# --- reading ----------------------------------------------------------------------------------------------------------
@loops
@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 300_000])
def test_everything_is_read_in_chunks_of_64_kib(tmp_path: Path, loop: Any, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)

    async def main() -> None:
        source = fs.create_read_stream(tmp_path / "a")
        chunks = [chunk async for chunk in source]
        assert b"".join(chunks) == data
        assert all(len(chunk) == 65536 for chunk in chunks[:-1])
        assert (source.bytes_read, source.closed, source.path) == (size, True, str(tmp_path / "a"))

    multiloop.run(main, loop=loop)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"start": 3}, b"3456789"),
        ({"end": 3}, b"0123"),
        ({"start": 2, "end": 2}, b"2"),
        ({"start": 2, "end": 5, "high_water_mark": 3}, b"2345"),
        ({"start": 8, "end": 100}, b"89"),
        ({"start": 100}, b""),
        ({"encoding": "ascii"}, "0123456789"),
    ],
)
def test_start_and_end_are_both_included(tmp_path: Path, options: Any, expected: Any) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")

    async def main() -> None:
        chunks = [chunk async for chunk in fs.create_read_stream(tmp_path / "a", **options)]
        assert type(expected)().join(chunks) == expected

    multiloop.run(main)


def test_characters_are_never_cut(tmp_path: Path) -> None:
    text = "äöü€😀" * 1000
    (tmp_path / "a").write_text(text)

    async def main() -> None:
        source = fs.create_read_stream(tmp_path / "a", encoding="utf-8", high_water_mark=7)
        assert "".join([chunk async for chunk in source]) == text

    multiloop.run(main)


def test_ranges_that_cannot_be_meant_are_refused_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match="both are included"):
            fs.create_read_stream(tmp_path / "a", start=3, end=2)
        with pytest.raises(UsageError, match="start=-1"):
            fs.create_read_stream(tmp_path / "a", start=-1)
        with pytest.raises(UsageError, match="start=-1"):
            fs.create_write_stream(tmp_path / "a", start=-1)
        with pytest.raises(UsageError, match="high_water_mark=-1"):
            fs.create_read_stream(tmp_path / "a", high_water_mark=-1)

    multiloop.run(main)


@loops
def test_events_come_in_nodes_order(tmp_path: Path, loop: Any) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    seen: list[Any] = []

    def main() -> None:
        source = fs.create_read_stream(tmp_path / "a")
        assert source.pending
        for name in ("open", "ready", "end", "close", "error"):
            source.on(name, lambda *args, name=name: seen.append(name))
        source.on("data", lambda chunk: seen.append(len(chunk)))

    multiloop.run(main, loop=loop)
    assert seen == ["open", "ready", 65536, 34464, "end", "close"]


@loops
def test_nothing_is_read_that_nobody_asked_for(tmp_path: Path, loop: Any) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1_000_000)

    async def main() -> None:
        source = fs.create_read_stream(tmp_path / "a")
        await multiloop.offload(int)
        await asyncio.sleep(0.01)
        assert source.bytes_read == 0
        assert len(await source.read()) == 65536
        await asyncio.sleep(0.02)
        assert source.bytes_read == 2 * 65536, "one chunk ahead, no more"
        assert source.readable_length == 65536
        source.destroy()
        await source.wait_closed()

    multiloop.run(main, loop=loop)


@loops
def test_pause_stops_the_data(tmp_path: Path, loop: Any) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1_000_000)

    async def main() -> None:
        sizes: list[int] = []
        source = fs.create_read_stream(tmp_path / "a")

        def data(chunk: bytes) -> None:
            sizes.append(len(chunk))
            if len(sizes) == 3:
                source.pause()

        source.on("data", data)
        await until(lambda: len(sizes) == 3)
        await asyncio.sleep(0.02)
        assert len(sizes) == 3
        assert source.is_paused
        source.resume()
        await stream.finished(source)
        assert sum(sizes) == 1_000_000

    multiloop.run(main, loop=loop)


@loops
def test_an_error_of_opening_comes_out_of_the_iteration(tmp_path: Path, loop: Any) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError) as caught:
            async for _ in fs.create_read_stream(tmp_path / "nope"):
                pass
        assert caught.value.filename == str(tmp_path / "nope") or caught.value.filename == tmp_path / "nope"
        with pytest.raises(IsADirectoryError):
            async for _ in fs.create_read_stream(tmp_path):
                pass

    multiloop.run(main, loop=loop)


def test_an_error_nobody_waits_for_is_an_event_or_uncaught(tmp_path: Path) -> None:
    seen: list[Any] = []

    def main() -> None:
        fs.create_read_stream(tmp_path / "nope").on("error", seen.append).on("close", lambda: seen.append("close"))

    multiloop.run(main)
    assert [type(seen[0]), seen[1]] == [FileNotFoundError, "close"]
    with pytest.raises(FileNotFoundError):
        multiloop.run(lambda: fs.create_read_stream(tmp_path / "nope"))


@loops
def test_leaving_the_loop_closes_the_file(tmp_path: Path, loop: Any) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1_000_000)

    async def main() -> None:
        await multiloop.offload(int)
        before = open_descriptors()
        source = fs.create_read_stream(tmp_path / "a")
        async for _ in source:
            break
        assert source.destroyed
        await source.wait_closed()
        assert not open_descriptors() - before

    multiloop.run(main, loop=loop)


@loops
def test_destroying_at_any_moment_leaks_no_descriptor(tmp_path: Path, loop: Any) -> None:
    (tmp_path / "a").write_bytes(b"x" * 300_000)

    async def main() -> None:
        await multiloop.offload(int)
        before = open_descriptors()
        for step in range(60):
            source = fs.create_read_stream(tmp_path / "a")
            sink = fs.create_write_stream(tmp_path / "b")
            sink.write(b"x" * 100_000)
            if step % 2:
                source.resume()
            if step:
                await asyncio.sleep(step / 50_000)
            source.destroy()
            sink.destroy()
            await source.wait_closed()
            await sink.wait_closed()
        await until(lambda: not open_descriptors() - before)

    multiloop.run(main, loop=loop)


# --- writing ----------------------------------------------------------------------------------------------------------
@loops
def test_what_is_written_arrives_in_order_and_finish_means_all(tmp_path: Path, loop: Any) -> None:
    async def main() -> None:
        sink = fs.create_write_stream(tmp_path / "a")
        told: list[Any] = []
        for number in range(1000):
            sink.write(f"{number}\n", callback=lambda error, _, number=number: told.append(number))
        sink.end("end", callback=lambda error, _: told.append("end"))
        await stream.finished(sink)
        expected = "".join(f"{number}\n" for number in range(1000)) + "end"
        assert (tmp_path / "a").read_text() == expected
        assert told == [*range(1000), "end"]
        assert sink.bytes_written == len(expected)
        await sink.wait_closed()
        with pytest.raises(ClosedError):
            fs.create_write_stream(tmp_path / "a", fd=sink._file.handle)

    multiloop.run(main, loop=loop)


@loops
def test_write_says_when_to_wait_and_drain_waits(tmp_path: Path, loop: Any) -> None:
    async def main() -> None:
        sink = fs.create_write_stream(tmp_path / "a", high_water_mark=1000)
        assert sink.write(b"x" * 999)
        assert not sink.write(b"x")
        assert sink.writable_need_drain
        assert sink.writable_length == 1000
        await sink.drain()
        assert sink.writable_length == 0
        await sink.drain()
        drained: list[int] = []
        sink.on("drain", lambda: drained.append(1))
        assert not sink.write(b"x" * 5000)
        await until(lambda: drained)
        async with sink:
            sink.write(b"!")
        assert (tmp_path / "a").read_bytes() == b"x" * 6000 + b"!"

    multiloop.run(main, loop=loop)


def test_start_flags_and_flush(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")

    async def main() -> None:
        async with fs.create_write_stream(tmp_path / "a", "r+", start=2, flush=True) as sink:
            sink.write("ab")
            sink.write("cd")
        assert (tmp_path / "a").read_bytes() == b"01abcd6789"
        async with fs.create_write_stream(tmp_path / "a", "a", encoding="latin-1") as sink:
            sink.write("ä")
        assert (tmp_path / "a").read_bytes() == b"01abcd6789\xe4"

    multiloop.run(main)


@loops
def test_an_error_of_opening_is_raised_by_drain_finished_and_async_with(tmp_path: Path, loop: Any) -> None:
    async def main() -> None:
        sink = fs.create_write_stream(tmp_path / "no" / "a")
        sink.write(b"x" * 100_000)
        with pytest.raises(FileNotFoundError):
            await sink.drain()
        assert sink.write(b"more") is False
        with pytest.raises(FileNotFoundError):
            await sink.drain()
        with pytest.raises(FileNotFoundError):
            await stream.finished(sink)
        with pytest.raises(FileNotFoundError):
            async with fs.create_write_stream(tmp_path / "no" / "a") as sink:
                sink.write("x")
        with pytest.raises(IsADirectoryError):
            await stream.finished(fs.create_write_stream(tmp_path))

    multiloop.run(main, loop=loop)


def test_writing_after_the_end_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        sink = fs.create_write_stream(tmp_path / "a")
        sink.end()
        with pytest.raises(ClosedError, match="after end"):
            sink.write("x")
        await stream.finished(sink)
        with pytest.raises(TypeError, match="bytes or text, not int"):
            fs.create_write_stream(tmp_path / "a").destroy().write(3)

    multiloop.run(main)


def test_a_full_disk_is_an_error_with_the_name() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")

    async def main() -> None:
        with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
            async with fs.create_write_stream("/dev/full") as sink:
                sink.write(b"x")

    multiloop.run(main)


# --- descriptors that are open already --------------------------------------------------------------------------------
def test_streams_of_a_handle_or_descriptor(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")

    async def main() -> None:
        file = await fs.open(tmp_path / "a", "r+")
        assert [chunk async for chunk in file.create_read_stream(start=2, end=3, auto_close=False)] == [b"23"]
        assert not file.closed
        async with file.create_write_stream(start=0) as sink:
            sink.write("ab")
        assert file.closed
        assert (tmp_path / "a").read_bytes() == b"ab23456789"

        number = os.open(tmp_path / "a", os.O_RDONLY)
        assert [chunk async for chunk in fs.create_read_stream("", fd=number, auto_close=False)] == [b"ab23456789"]
        os.lseek(number, 8, os.SEEK_SET)
        assert [chunk async for chunk in fs.create_read_stream("", fd=number)] == [b"89"]
        with pytest.raises(OSError):
            os.fstat(number)

    multiloop.run(main)


# --- pipelines --------------------------------------------------------------------------------------------------------
@loops
def test_a_pipeline_copies_a_file(tmp_path: Path, loop: Any) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(data)

    async def main() -> None:
        await multiloop.offload(int)
        before = open_descriptors()
        await stream.pipeline(fs.create_read_stream(tmp_path / "a"), fs.create_write_stream(tmp_path / "b"))
        assert (tmp_path / "b").read_bytes() == data
        assert not open_descriptors() - before

    multiloop.run(main, loop=loop)


@loops
def test_a_pipeline_to_a_fifo_goes_at_the_readers_pace(tmp_path: Path, loop: Any) -> None:
    data = os.urandom(2_000_000)
    (tmp_path / "a").write_bytes(data)
    os.mkfifo(tmp_path / "fifo")

    async def main() -> None:
        source = fs.create_read_stream(tmp_path / "a")
        moving = stream.pipeline(source, fs.create_write_stream(tmp_path / "fifo"))
        async with fs.open(tmp_path / "fifo") as reader:
            got = bytearray()
            while chunk := await reader.read(65536):
                got += chunk
                await asyncio.sleep(0.0005)
                assert source.bytes_read - len(got) <= 5 * 65536
        assert got == data
        await moving

    multiloop.run(main, loop=loop)


@loops
def test_a_reader_of_the_fifo_that_leaves_fails_the_pipeline(tmp_path: Path, loop: Any) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    os.mkfifo(tmp_path / "fifo")

    async def main() -> None:
        await multiloop.offload(int)
        before = open_descriptors()
        source, sink = fs.create_read_stream(tmp_path / "a"), fs.create_write_stream(tmp_path / "fifo")
        moving = stream.pipeline(source, sink)
        async with fs.open(tmp_path / "fifo") as reader:
            await reader.read(1000)
        with pytest.raises(BrokenPipeError) as caught:
            await moving
        assert caught.value.filename == str(tmp_path / "fifo")
        assert source.closed
        assert sink.closed
        assert not open_descriptors() - before

    multiloop.run(main, loop=loop)


def test_closing_a_stream_under_its_reader_is_premature(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)

    async def main() -> None:
        source = fs.create_read_stream(tmp_path / "a")
        with pytest.raises(PrematureClose):
            async for _ in source:
                source.destroy()

    multiloop.run(main)
