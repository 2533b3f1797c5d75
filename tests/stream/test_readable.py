"""stream.Readable: its mark, its ways of taking, its end (S1 and S3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support import LOOPS, until

import multiloop
from multiloop import events, stream, timers
from multiloop.errors import ClosedError, PrematureClose, UsageError

loops = pytest.mark.parametrize("loop", LOOPS)


def record(of: Any, *names: str) -> list[Any]:
    seen: list[Any] = []
    for name in names:
        of.on(name, lambda *args, name=name: seen.append((name, *args)))
    return seen


# --- the source's side ------------------------------------------------------------------------------------------------
@loops
def test_s1_push_says_false_at_the_mark_and_nothing_is_lost(loop: Any) -> None:
    async def main() -> None:
        readable = stream.Readable(high_water_mark=4)
        assert [readable.push(b"ab"), readable.push(b"cd"), readable.push("é")] == [True, False, False]
        assert readable.readable_length == 6
        readable.push(None)
        assert [bytes(chunk) async for chunk in readable] == [b"ab", b"cd", "é".encode()]
        assert (readable.readable_ended, readable.closed, readable.errored) == (True, True, None)

    multiloop.run(main, loop=loop)


@loops
def test_s1_a_source_is_asked_for_one_chunk_ahead_of_who_takes(loop: Any) -> None:
    given: list[int] = []

    async def source() -> AsyncIterator[int]:
        for number in range(1000):
            given.append(number)
            yield number

    async def main() -> None:
        readable = stream.Readable(source())
        await asyncio.sleep(0.01)
        assert given == [], "nobody takes, nobody is asked"
        assert await readable.read() == 0
        await until(lambda: readable.readable_length == 1)
        await asyncio.sleep(0.01)
        assert given == [0, 1]
        readable.destroy()

    multiloop.run(main, loop=loop)


def test_the_default_marks_can_be_changed() -> None:
    async def main() -> None:
        assert stream.get_default_high_water_mark(False) == 64 * 1024
        assert stream.get_default_high_water_mark(True) == 16
        stream.set_default_high_water_mark(True, 3)
        try:
            assert stream.Readable.from_([1]).readable_high_water_mark == 3
            assert stream.Writable(object_mode=True, write=print).writable_high_water_mark == 3
        finally:
            stream.set_default_high_water_mark(True, 16)
        with pytest.raises(UsageError, match="0 or more"):
            stream.set_default_high_water_mark(False, -1)
        with pytest.raises(UsageError, match="0 or more"):
            stream.Readable(high_water_mark=-1)

    multiloop.run(main)


def test_what_cannot_be_a_chunk_is_refused() -> None:
    async def main() -> None:
        readable = stream.Readable()
        with pytest.raises(TypeError, match="bytes or text, not int"):
            readable.push(5)
        readable.push(None)
        with pytest.raises(ClosedError, match="after the end"):
            readable.push(b"more")
        # None is the end of a stream: in the middle of a source it would cut it silently.
        with pytest.raises(TypeError, match="None"):
            [each async for each in stream.Readable.from_([1, None, 2])]
        with pytest.raises(TypeError, match="iterable"):
            stream.Readable(5)  # type: ignore[arg-type]

    multiloop.run(main)


@loops
def test_a_subclass_or_a_function_gives_the_chunks(loop: Any) -> None:
    class Count(stream.Readable):
        def __init__(self, to: int) -> None:
            super().__init__()
            self.left = to

        async def _read(self, size: int) -> bytes | None:
            assert size == 64 * 1024
            self.left -= 1
            return b"x" if self.left >= 0 else None

    async def main() -> None:
        assert [chunk async for chunk in Count(3)] == [b"x"] * 3
        parts = iter([b"\xc3", b"\xa4", None])

        async def read(size: int) -> bytes | None:
            return next(parts)

        assert [text async for text in stream.Readable(read=read, encoding="utf-8")] == ["ä"]

    multiloop.run(main, loop=loop)


def test_text_and_bytes_are_one_chunk() -> None:
    async def main() -> None:
        assert [each async for each in stream.Readable.from_("text")] == ["text"]
        assert [each async for each in stream.Readable.from_(b"bytes")] == [b"bytes"]

    multiloop.run(main)


# --- taking -----------------------------------------------------------------------------------------------------------
@loops
def test_read_takes_a_chunk_a_part_of_one_or_the_end(loop: Any) -> None:
    async def main() -> None:
        readable = stream.Readable()
        for chunk in (b"abcdef", b"gh", None):
            readable.push(chunk)
        assert [await readable.read(2), await readable.read(), await readable.read()] == [b"ab", b"cdef", b"gh"]
        assert await readable.read() == b""
        assert await readable.read() == b"", "the end stays the end"
        assert await stream.Readable.from_([]).read() is None

    multiloop.run(main, loop=loop)


@loops
def test_lines_are_cut_anywhere_and_put_together(loop: Any) -> None:
    async def main() -> None:
        text = "eins\r\nzwei ä\n\nlast".encode()
        pieces = [text[index : index + 1] for index in range(len(text))]
        readable = stream.Readable(pieces, object_mode=False)
        assert [line async for line in readable.lines()] == ["eins", "zwei ä", "", "last"]

    multiloop.run(main, loop=loop)


@loops
def test_data_flows_stops_at_pause_and_goes_on(loop: Any) -> None:
    async def main() -> None:
        readable = stream.Readable.from_(range(6))
        got: list[int] = []

        def take(number: int) -> None:
            got.append(number)
            if number == 2:
                readable.pause()

        readable.on("data", take)
        await until(lambda: readable.is_paused)
        await asyncio.sleep(0.005)
        assert got == [0, 1, 2]
        readable.resume()
        await events.once(readable, "end")
        assert got == list(range(6))

    multiloop.run(main, loop=loop)


def test_two_tasks_that_read_from_one_are_refused() -> None:
    async def main() -> None:
        readable = stream.Readable()
        first = asyncio.ensure_future(readable.read())
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="two tasks"):
            await readable.read()
        readable.push(b"x")
        assert await first == b"x"
        readable.destroy()

    multiloop.run(main)


@loops
def test_leaving_the_iteration_destroys_it_and_its_source(loop: Any) -> None:
    closed: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            for number in range(100):
                yield number
        finally:
            closed.append("source")

    async def main() -> None:
        readable = stream.Readable(source())
        async for number in readable:
            if number == 3:
                break
        assert readable.destroyed
        await readable.wait_closed()
        assert closed == ["source"]

    multiloop.run(main, loop=loop)


# --- pipe -------------------------------------------------------------------------------------------------------------
@loops
def test_s1_pipe_goes_at_the_destinations_pace_and_ends_it(loop: Any) -> None:
    async def main() -> None:
        most = 0
        source = stream.Readable.from_([b"x" * 1000] * 200)

        async def write(chunk: bytes) -> None:
            nonlocal most
            most = max(most, sink.writable_length)
            await asyncio.sleep(0)

        sink = stream.Writable(write=write, high_water_mark=4000)
        assert source.pipe(sink) is sink
        await stream.finished(sink)
        assert most <= 5000

    multiloop.run(main, loop=loop)


def test_s1_a_failing_destination_leaves_the_source_open() -> None:
    async def main() -> None:
        source = stream.Readable.from_([b"a"] * 5)
        sink = stream.Writable(write=lambda chunk: 1 / 0)
        errors: list[BaseException] = []
        sink.on("error", errors.append)
        source.pipe(sink)
        await sink.wait_closed()
        assert [type(error) for error in errors] == [ZeroDivisionError]
        assert not source.destroyed
        assert source.listener_count("data") == 0
        source.destroy()

    multiloop.run(main)


# --- the end ----------------------------------------------------------------------------------------------------------
@loops
def test_s3_destroy_tells_the_error_then_close_each_once(loop: Any) -> None:
    async def main() -> None:
        freed: list[Any] = []
        readable = stream.Readable(destroy=freed.append)
        seen = record(readable, "error", "close", "end")
        problem = ValueError("broken")
        assert readable.destroy(problem).destroy(KeyError("later")) is readable
        assert seen == [], "never inside the call"
        await readable.wait_closed()
        assert seen == [("error", problem), ("close",)]
        assert freed == [problem]
        assert readable.push(b"x") is False

    multiloop.run(main, loop=loop)


@loops
def test_s3_a_resource_that_takes_time_is_freed_before_close(loop: Any) -> None:
    order: list[str] = []

    async def free(error: BaseException | None) -> None:
        await asyncio.sleep(0.005)
        order.append("freed")

    async def main() -> None:
        readable = stream.Readable(destroy=free)
        readable.on("close", lambda: order.append("close"))
        readable.destroy()

    multiloop.run(main, loop=loop)
    assert order == ["freed", "close"]


def test_an_error_while_freeing_is_the_streams_error() -> None:
    async def main() -> None:
        def free(error: BaseException | None) -> None:
            raise OSError(5, "stuck")

        readable = stream.Readable(destroy=free)
        seen = record(readable, "error", "close")
        readable.destroy()
        await readable.wait_closed()
        assert [name for name, *_ in seen] == ["error", "close"]
        assert isinstance(readable.errored, OSError)

    multiloop.run(main)


def test_an_error_that_nobody_looks_at_ends_the_program() -> None:
    async def main() -> None:
        stream.Readable().destroy(ValueError("nobody"))
        await timers.sleep(5)

    with pytest.raises(ValueError, match="nobody"):
        multiloop.run(main)


def test_an_awaited_stream_raises_its_error_at_the_next_use() -> None:
    async def main() -> None:
        readable = stream.Readable()
        timers.set_timeout(readable.destroy, 0.001, ValueError("broken"))
        with pytest.raises(ValueError, match="broken"):
            await readable.read()
        other = stream.Readable()
        timers.set_timeout(other.destroy, 0.001)
        with pytest.raises(PrematureClose, match="before it ended"):
            await other.read()

    multiloop.run(main)


@loops
def test_a_source_that_fails_gives_its_error_after_what_came_before(loop: Any) -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise KeyError("source")

    async def main() -> None:
        readable = stream.Readable(source())
        assert await readable.read() == 1
        with pytest.raises(KeyError):
            await readable.read()
        assert isinstance(readable.errored, KeyError)

    multiloop.run(main, loop=loop)


def test_a_stream_holds_the_program_only_while_its_source_works() -> None:
    async def main() -> None:
        stream.Readable().on("data", print)  # pushed by nobody: nothing to wait for

    multiloop.run(main)


def test_read_and_wait_closed_report_to_a_callback() -> None:
    seen: list[Any] = []

    def main() -> None:
        source = stream.Readable.from_([b"abc"], object_mode=False)
        source.wait_closed(callback=lambda *told: seen.append(("closed", *told)))

        def took(error: Any, chunk: Any) -> None:
            seen.append((error, chunk))
            if chunk:
                source.read(callback=took)

        source.read(2, callback=took)
        broken = stream.Readable(read=lambda size: 1 / 0)
        broken.read(callback=lambda error, chunk: seen.append((type(error), chunk)))
        with pytest.raises(TypeError, match="callback=3"):
            source.read(callback=3)  # type: ignore[call-overload]
        assert seen == [], "never inside the call"

    multiloop.run(main)
    assert [each for each in seen if each[0] is None] == [(None, b"ab"), (None, b"c"), (None, b"")]
    assert (ZeroDivisionError, None) in seen
    assert ("closed", None, None) in seen
