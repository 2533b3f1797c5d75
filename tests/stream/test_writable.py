"""stream.Writable, Duplex and Transform: the mark, the end, what they write (S1 and S3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from tests.stream.test_readable import record
from tests.support import LOOPS

import multiloop
from multiloop import stream, timers
from multiloop.errors import ClosedError, PrematureClose

loops = pytest.mark.parametrize("loop", LOOPS)


# --- Writable ---------------------------------------------------------------------------------------------------------
@loops
@pytest.mark.parametrize("objects", [False, True])
def test_s1_write_says_false_at_the_mark_and_drain_comes_when_all_is_written(loop: Any, objects: bool) -> None:
    async def main() -> None:
        written: list[Any] = []

        async def write(chunk: Any) -> None:
            await asyncio.sleep(0)
            written.append(chunk)

        sink = stream.Writable(write=write, object_mode=objects)
        seen = record(sink, "drain")
        answers = [sink.write({"n": n} if objects else b"x" * 4096) for n in range(17)]
        assert answers == [True] * 15 + [False] * 2
        assert sink.writable_need_drain
        await sink.drain()
        assert len(written) == 17
        assert sink.writable_length == 0
        assert seen == [("drain",)]
        sink.end()

    multiloop.run(main, loop=loop)


@loops
def test_s3_finish_comes_when_all_is_written_then_close_once(loop: Any) -> None:
    async def main() -> None:
        written: list[bytes] = []
        order: list[Any] = []
        sink = stream.Writable(write=written.append, final=lambda: order.append("final"))
        for name in ("finish", "close"):
            sink.on(name, lambda name=name: order.append(name))
        sink.write(b"a", lambda error, _: order.append(("written", error)))
        sink.end("b", lambda error, _: order.append(("over", error)))
        await sink.wait_closed()
        assert order == [("written", None), "final", "finish", ("over", None), "close"]
        assert written == [b"a", b"b"]
        with pytest.raises(ClosedError, match="after end"):
            stream.Writable(write=print).end() or _ended().write(b"x")

    def _ended() -> stream.Writable:
        sink = stream.Writable(write=print)
        sink.end()
        return sink

    multiloop.run(main, loop=loop)


def test_s3_destroy_fails_the_callbacks_of_what_was_not_written() -> None:
    async def main() -> None:
        told: list[Any] = []
        sink = stream.Writable(write=lambda chunk: timers.sleep(60))
        seen = record(sink, "error", "close")
        sink.write(b"a", lambda error, _: told.append(error))
        sink.end(callback=lambda error, _: told.append(error))
        problem = ValueError("broken")
        sink.destroy(problem)
        assert sink.write(b"late", lambda error, _: told.append(error)) is False
        await sink.wait_closed()
        await asyncio.sleep(0)
        assert told == [problem] * 3
        assert seen == [("error", problem), ("close",)]

    multiloop.run(main)


def test_destroying_right_after_a_write_leaves_no_coroutine_behind() -> None:
    async def main() -> None:
        sink = stream.Writable(write=lambda chunk: timers.sleep(60))
        sink.write(b"x")
        sink.destroy()  # before the write has taken its first step
        await sink.wait_closed()

    multiloop.run(main)  # warnings are errors here


@loops
def test_a_failing_sink_is_raised_by_who_waits(loop: Any) -> None:
    async def main() -> None:
        sink = stream.Writable(write=lambda chunk: 1 / 0, high_water_mark=1)
        sink.write(b"x")
        with pytest.raises(ZeroDivisionError):
            await sink.drain()
        with pytest.raises(ZeroDivisionError):
            async with stream.Writable(write=lambda chunk: 1 / 0) as other:
                other.write(b"x")

    multiloop.run(main, loop=loop)


def test_leaving_async_with_by_an_exception_destroys_and_by_the_end_finishes() -> None:
    async def main() -> None:
        written: list[bytes] = []
        async with stream.Writable(write=written.append) as sink:
            sink.write(b"x")
        assert written == [b"x"]
        assert sink.writable_finished
        with pytest.raises(KeyError):
            async with stream.Writable(write=written.append) as sink:
                raise KeyError
        assert sink.closed
        assert not sink.writable_finished

    multiloop.run(main)


@loops
def test_what_is_corked_is_written_at_once(loop: Any) -> None:
    async def main() -> None:
        batches: list[list[bytes]] = []

        async def writev(chunks: Sequence[bytes]) -> None:
            batches.append(list(chunks))

        sink = stream.Writable(writev=writev)
        sink.cork()
        sink.write(b"1")
        sink.write("2")
        await asyncio.sleep(0.002)
        assert batches == []
        sink.uncork()
        await asyncio.sleep(0.002)
        sink.end(b"3")
        await stream.finished(sink)
        assert batches == [[b"1", b"2"], [b"3"]]

    multiloop.run(main, loop=loop)


def test_what_is_neither_bytes_nor_text_is_refused_in_the_call() -> None:
    async def main() -> None:
        sink = stream.Writable(write=print)
        with pytest.raises(TypeError, match="object_mode"):
            sink.write({"a": 1})
        sink.destroy()

    multiloop.run(main)


def test_a_write_in_flight_holds_the_program() -> None:
    written: list[bytes] = []

    async def write(chunk: bytes) -> None:
        await asyncio.sleep(0.01)
        written.append(chunk)

    def main() -> None:
        sink = stream.Writable(write=write)
        sink.write(b"1")
        sink.end(b"2")

    multiloop.run(main)
    assert written == [b"1", b"2"]


# --- Duplex and Transform ---------------------------------------------------------------------------------------------
@loops
def test_the_sides_of_a_duplex_end_by_themselves_unless_told_otherwise(loop: Any) -> None:
    async def main() -> None:
        for half_open in (True, False):
            written: list[bytes] = []
            both = stream.Duplex(write=written.append, allow_half_open=half_open)
            both.push(None)
            assert await both.read() == b""
            assert both.writable_ended is not half_open
            if half_open:
                assert not both.destroyed
                both.end(b"still")
            await both.wait_closed()
            assert written == ([b"still"] if half_open else [])

    multiloop.run(main, loop=loop)


async def asynchronous(chunk: str) -> str:
    await asyncio.sleep(0)
    return chunk.upper()


def twice(chunk: str) -> Iterator[str]:
    yield chunk
    yield chunk


async def twice_later(chunk: str) -> AsyncIterator[str]:
    for _ in range(2):
        await asyncio.sleep(0)
        yield chunk


@loops
@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (str.upper, "ABC"),
        (asynchronous, "ABC"),
        (twice, "aabbcc"),
        (twice_later, "aabbcc"),
        (lambda chunk: None if chunk == "b" else chunk, "ac"),
    ],
)
def test_a_transform_returns_or_yields(loop: Any, transform: Any, expected: str) -> None:
    async def main() -> None:
        middle = stream.Transform(transform, flush=lambda: "!", object_mode=True)
        got: list[str] = []
        await stream.pipeline("abc", lambda text: _letters(text), middle, _into(got))
        assert "".join(got) == expected + "!"

    multiloop.run(main, loop=loop)


async def _letters(text: AsyncIterator[str]) -> AsyncIterator[str]:
    async for each in text:
        for letter in each:
            yield letter


def _into(got: list[Any]) -> stream.Writable:
    return stream.Writable(write=got.append, object_mode=True)


@loops
def test_a_transform_takes_no_more_while_nobody_takes_from_it(loop: Any) -> None:
    async def main() -> None:
        seen = 0

        def count(chunk: bytes) -> bytes:
            nonlocal seen
            seen += len(chunk)
            return chunk

        middle = stream.Transform(count, high_water_mark=1000)
        feeding = asyncio.ensure_future(stream.pipeline([b"x" * 100] * 100_000, middle, _never))
        await asyncio.sleep(0.05)
        assert seen <= 3000
        feeding.cancel()
        await asyncio.wait([feeding])
        assert middle.closed

    async def _never(chunks: Any) -> None:
        await asyncio.Event().wait()

    multiloop.run(main, loop=loop)


def test_pass_through_passes_through_and_a_subclass_transforms() -> None:
    class Shout(stream.Transform):
        def _transform(self, chunk: bytes) -> bytes:
            return chunk.upper()

        def _flush(self) -> bytes:
            return b"!"

    async def main() -> None:
        middle = stream.PassThrough()
        middle.end(b"x")
        assert [chunk async for chunk in middle] == [b"x"]
        shout = Shout()
        shout.end(b"hey")
        assert b"".join([chunk async for chunk in shout]) == b"HEY!"
        with pytest.raises(NotImplementedError, match="_transform"):
            bare = stream.Transform()
            bare.end(b"x")
            await bare.read()

    multiloop.run(main)


def test_a_transform_that_is_closed_too_early_is_premature() -> None:
    async def main() -> None:
        middle = stream.PassThrough()
        timers.set_timeout(middle.destroy, 0.005)
        with pytest.raises(PrematureClose):
            await stream.finished(middle)

    multiloop.run(main)


def test_a_callback_that_cannot_be_called_is_a_type_error_and_nothing_is_written() -> None:
    async def main() -> None:
        written: list[bytes] = []
        sink = stream.Writable(write=written.append)
        wrong: Any = 3
        for call in (lambda: sink.write(b"lost", wrong), lambda: sink.end(b"lost", wrong), lambda: sink.drain(wrong)):
            with pytest.raises(TypeError, match="callback=3"):
                call()
        with pytest.raises(TypeError, match="callback=3"):
            stream.finished(sink, wrong)
        with pytest.raises(TypeError, match="callback=3"):
            stream.pipeline([b"lost"], sink, callback=wrong)
        sink.end(b"all there is")
        await stream.finished(sink)
        assert written == [b"all there is"]

    multiloop.run(main)
