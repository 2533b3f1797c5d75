"""stream.pipeline, finished, compose: one end for all (S2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

import pytest
from tests.stream.test_readable import record
from tests.support import LOOPS

import multiloop
from multiloop import stream, timers
from multiloop.errors import PrematureClose, UsageError

loops = pytest.mark.parametrize("loop", LOOPS)


def into(got: list[Any]) -> stream.Writable:
    return stream.Writable(write=got.append, object_mode=True)


async def upper(chunks: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for chunk in chunks:
        yield chunk.upper()


# --- what a stage may be ----------------------------------------------------------------------------------------------
@loops
@pytest.mark.parametrize(
    "source",
    [
        lambda: ["a", "b"],
        lambda: (each for each in "ab"),
        lambda: stream.Readable.from_(["a", "b"]),
        lambda: lambda: iter(["a", "b"]),
        lambda: "ab",
    ],
)
def test_everything_that_gives_chunks_is_a_source(loop: Any, source: Callable[[], Any]) -> None:
    async def main() -> None:
        got: list[Any] = []
        await stream.pipeline(source(), upper, into(got))
        assert "".join(got) == "AB"

    multiloop.run(main, loop=loop)


def test_the_result_is_what_a_function_at_the_end_returns() -> None:
    async def main() -> None:
        async def count(chunks: AsyncIterable[Any]) -> int:
            return len([chunk async for chunk in chunks])

        assert await stream.pipeline([1, 2, 3], count) == 3
        assert await stream.pipeline([[1, 2], count]) == 2, "stages may come as one list"

    multiloop.run(main)


@pytest.mark.parametrize(
    ("stages", "error", "says"),
    [
        ([], UsageError, "not 0 stages"),
        ([[1]], UsageError, "not 1 stages"),
        ([5, print], TypeError, "int cannot be the source"),
        ([[1], 5, print], TypeError, "int cannot stand between"),
        ([[1], 5], TypeError, "int cannot be the end"),
        ([[1], lambda chunks: 5, print], TypeError, "must return an async iterable, not int"),
    ],
)
def test_what_cannot_be_a_stage_is_refused(stages: Any, error: type[Exception], says: str) -> None:
    async def main() -> None:
        await stream.pipeline(*stages)

    with pytest.raises(error, match=says):
        multiloop.run(main)


def test_the_callback_comes_once_error_first() -> None:
    told: list[Any] = []

    def main() -> None:
        stream.pipeline(["a"], into([]), callback=lambda *args: told.append(args))
        stream.pipeline(["a"], stream.Writable(write=lambda chunk: 1 / 0), callback=lambda *args: told.append(args))

    multiloop.run(main)
    assert sorted(repr(each) for each in told) == ["(None, None)", "(ZeroDivisionError('division by zero'), None)"]


def test_the_last_stage_stays_open_when_asked_for() -> None:
    async def main() -> None:
        got: list[Any] = []
        sink = into(got)
        await stream.pipeline(["a"], sink, end=False)
        assert not sink.destroyed
        await stream.pipeline(["b"], sink)
        assert got == ["a", "b"]
        assert sink.closed

    multiloop.run(main)


# --- one end for all --------------------------------------------------------------------------------------------------
def failing(place: str) -> tuple[stream.Readable, stream.Transform, stream.Writable]:
    def fail(*_: Any) -> Any:
        raise KeyError(place)

    async def source() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"x" * 1000
            await asyncio.sleep(0)
            if place == "source":
                fail()

    return (
        stream.Readable(source()),
        stream.Transform(fail if place == "middle" else bytes),
        stream.Writable(write=fail if place == "sink" else lambda chunk: None),
    )


@loops
@pytest.mark.parametrize("place", ["source", "middle", "sink"])
def test_s2_one_stage_that_fails_destroys_all_and_its_error_is_raised(loop: Any, place: str) -> None:
    async def main() -> None:
        stages = failing(place)
        closes = [record(stage, "close") for stage in stages]
        with pytest.raises(KeyError, match=place):
            await stream.pipeline(*stages)
        assert all(stage.closed for stage in stages)
        assert closes == [[("close",)]] * 3

    multiloop.run(main, loop=loop)


@loops
@pytest.mark.parametrize("which", [0, 1, 2])
def test_s2_one_that_is_closed_too_early_is_premature(loop: Any, which: int) -> None:
    async def main() -> None:
        stages = (stream.Readable(), stream.PassThrough(), stream.Writable(write=lambda chunk: None))
        timers.set_timeout(stages[which].destroy, 0.005)
        with pytest.raises(PrematureClose):
            await stream.pipeline(*stages)
        assert all(stage.closed for stage in stages)

    multiloop.run(main, loop=loop)


@loops
def test_s2_cancelling_destroys_all(loop: Any) -> None:
    async def main() -> None:
        for wait_s in (None, 0, 0.005):
            stages = (stream.Readable(), stream.PassThrough(), stream.Writable(write=lambda chunk: None))
            flowing = stream.pipeline(*stages)
            if wait_s is not None:
                await asyncio.sleep(wait_s)
            assert flowing.cancel()
            for stage in stages:
                await stage.wait_closed()

    multiloop.run(main, loop=loop)


@loops
def test_s2_generators_are_closed_whatever_happens(loop: Any) -> None:
    closed: list[str] = []

    async def source() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
                await asyncio.sleep(0)
        finally:
            closed.append("source")

    async def middle(chunks: AsyncIterable[str]) -> AsyncIterator[str]:
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            closed.append("middle")

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await stream.pipeline(source(), middle, stream.Writable(write=lambda chunk: 1 / 0))
        assert sorted(closed) == ["middle", "source"]

    multiloop.run(main, loop=loop)


@loops
def test_s2_a_stage_that_has_seen_enough_ends_the_pipeline_well(loop: Any) -> None:
    async def first(chunks: AsyncIterable[int]) -> AsyncIterator[int]:
        async for chunk in chunks:
            yield chunk
            return

    async def main() -> None:
        got: list[int] = []
        source = stream.Readable.from_(range(1000))
        await stream.pipeline(source, first, into(got))
        assert got == [0]
        await source.wait_closed()

    multiloop.run(main, loop=loop)


def test_s1_nothing_is_buffered_beyond_the_marks() -> None:
    async def main() -> None:
        given = taken = most = 0

        async def source() -> AsyncIterator[bytes]:
            nonlocal given
            for _ in range(2000):
                given += 1000
                yield b"x" * 1000

        async def take(chunk: bytes) -> None:
            nonlocal taken, most
            most = max(most, given - taken)
            await asyncio.sleep(0)
            taken += len(chunk)

        middle = stream.Transform(bytes, high_water_mark=4000)
        await stream.pipeline(source, middle, stream.Writable(write=take, high_water_mark=4000))
        assert taken == 2_000_000
        assert most <= 16_000  # two marks of the middle one, one of the last, and a chunk in each hand

    multiloop.run(main)


# --- finished ---------------------------------------------------------------------------------------------------------
@loops
def test_finished_waits_for_both_sides_or_for_one(loop: Any) -> None:
    async def main() -> None:
        both = stream.PassThrough()
        reading = stream.finished(both, writable=False)
        whole = stream.finished(both)
        both.end(b"x")
        assert await both.read() == b"x"
        assert await both.read() == b""
        await reading
        await whole
        await stream.finished(both)  # long over
        told: list[Any] = []
        stream.finished(both, lambda error, _: told.append(error))
        await asyncio.sleep(0.002)
        assert told == [None]
        assert both.event_names() == []

    multiloop.run(main, loop=loop)


def test_finished_raises_what_it_ended_with() -> None:
    async def main() -> None:
        broken = stream.Readable()
        timers.set_timeout(broken.destroy, 0.001, KeyError("x"))
        with pytest.raises(KeyError):
            await stream.finished(broken)
        with pytest.raises(KeyError):
            await stream.finished(broken)  # also afterwards
        closed = stream.Readable()
        closed.destroy()
        with pytest.raises(PrematureClose):
            await stream.finished(closed)

    multiloop.run(main)


# --- compose ----------------------------------------------------------------------------------------------------------
@loops
def test_s2_composed_stages_are_one(loop: Any) -> None:
    async def reverse(chunks: AsyncIterable[str]) -> AsyncIterator[str]:
        async for chunk in chunks:
            yield chunk[::-1]

    async def main() -> None:
        got: list[str] = []
        both = stream.compose(upper, stream.Transform(lambda text: text + "!", object_mode=True), reverse)
        await stream.pipeline(["ab", "cd"], both, into(got))
        assert got == ["!BA", "!DC"]
        assert both.closed
        alone = stream.compose(upper)
        alone.write("x")
        alone.end("y")
        assert [each async for each in alone] == ["X", "Y"]

    multiloop.run(main, loop=loop)


@loops
def test_s2_a_composed_stage_that_fails_fails_the_whole(loop: Any) -> None:
    async def main() -> None:
        inner = stream.Transform(lambda chunk: 1 / 0, object_mode=True)
        both = stream.compose(upper, inner)
        source = stream.Readable.from_(["a"])
        with pytest.raises(ZeroDivisionError):
            await stream.pipeline(source, both, into([]))
        assert source.closed
        assert both.closed
        assert inner.closed
        with pytest.raises(UsageError, match="at least one"):
            stream.compose()

    multiloop.run(main, loop=loop)


@loops
def test_s2_destroying_the_whole_destroys_every_stage(loop: Any) -> None:
    async def main() -> None:
        inner = stream.PassThrough()
        both = stream.compose(inner, upper)
        both.write("x")
        await asyncio.sleep(0)
        both.destroy()
        await both.wait_closed()
        await inner.wait_closed()

    multiloop.run(main, loop=loop)


def test_a_composed_stage_that_has_seen_enough_drops_the_rest() -> None:
    async def two(chunks: AsyncIterable[int]) -> AsyncIterator[int]:
        left = 2
        async for chunk in chunks:
            yield chunk
            left -= 1
            if not left:
                return

    async def main() -> None:
        got: list[int] = []
        await stream.pipeline(range(1000), stream.compose(two), into(got))
        assert got == [0, 1]

    multiloop.run(main)
