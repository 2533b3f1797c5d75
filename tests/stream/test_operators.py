"""What can be made of a Readable: other streams, and values (S3)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support import LOOPS, until

import multiloop
from multiloop import stream
from multiloop.errors import UsageError

loops = pytest.mark.parametrize("loop", LOOPS)


def numbers(to: int = 10) -> stream.Readable:
    return stream.Readable.from_(range(to))


async def doubled(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


@loops
def test_streams_of_a_stream(loop: Any) -> None:
    async def main() -> None:
        assert await numbers().map(doubled).to_array() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
        assert await numbers().filter(lambda number: number % 3 == 0).to_array() == [0, 3, 6, 9]
        assert await numbers(3).flat_map(lambda number: [number] * number).to_array() == [1, 2, 2]
        assert await numbers(3).flat_map(lambda number: numbers(number)).to_array() == [0, 0, 1]
        assert await numbers().drop(7).to_array() == [7, 8, 9]
        assert await numbers().drop(20).to_array() == []
        assert await numbers().take(0).to_array() == []
        assert await numbers().drop(2).map(doubled).filter(lambda number: number > 6).take(2).to_array() == [8, 10]

    multiloop.run(main, loop=loop)


@loops
def test_values_of_a_stream(loop: Any) -> None:
    async def main() -> None:
        seen: list[int] = []
        assert await numbers(3).for_each(seen.append) is None
        assert seen == [0, 1, 2]
        assert await numbers().reduce(lambda total, number: total + number) == 45
        assert await numbers(4).reduce(lambda so_far, number: [*so_far, number], []) == [0, 1, 2, 3]
        assert await numbers(0).reduce(max, 5) == 5
        with pytest.raises(TypeError, match="empty"):
            await numbers(0).reduce(max)
        assert await numbers().find(lambda number: number > 4) == 5
        assert await numbers().find(lambda number: number > 40) is None
        assert (await numbers().some(lambda n: n == 9), await numbers().some(lambda n: n == 10)) == (True, False)
        assert (await numbers().every(lambda n: n < 10), await numbers().every(lambda n: n < 9)) == (True, False)

    multiloop.run(main, loop=loop)


def test_values_come_to_a_callback_too() -> None:
    told: list[Any] = []

    def main() -> None:
        numbers(3).to_array(callback=lambda *args: told.append(args))
        numbers(3).map(lambda number: [][number]).to_array(callback=lambda *args: told.append(args))

    multiloop.run(main)
    assert sorted(map(repr, told)) == [
        "(IndexError('list index out of range'), None)",
        "(None, [0, 1, 2])",
    ]


@loops
@pytest.mark.parametrize("concurrency", [1, 2, 7, 100])
def test_so_many_calls_run_at_once_and_results_keep_their_order(loop: Any, concurrency: int) -> None:
    async def main() -> None:
        running = most = 0
        full = asyncio.Event()

        async def work(number: int) -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if most == min(concurrency, 40):
                full.set()
            await full.wait()
            await asyncio.sleep(random.random() * 0.001)
            running -= 1
            return number

        assert await numbers(40).map(work, concurrency=concurrency).to_array() == list(range(40))
        assert most == min(concurrency, 40)

    multiloop.run(main, loop=loop)


@loops
def test_a_result_does_not_wait_for_further_chunks(loop: Any) -> None:
    async def main() -> None:
        source = stream.Readable(object_mode=True)
        results = source.map(doubled, concurrency=4)
        source.push(1)
        assert await results.read() == 2
        source.push(None)
        assert await results.read() is None

    multiloop.run(main, loop=loop)


@loops
@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_operator_that_has_seen_enough_destroys_the_source(loop: Any, concurrency: int) -> None:
    async def main() -> None:
        source = numbers(1000)
        assert await source.take(2).to_array() == [0, 1]
        await until(lambda: source.closed)
        source = numbers(1000)
        assert await source.find(lambda number: number == 5, concurrency=concurrency) == 5
        await until(lambda: source.closed)
        source = numbers(1000)
        async for number in source.map(doubled, concurrency=concurrency):
            if number == 6:
                break
        await until(lambda: source.closed)

    multiloop.run(main, loop=loop)


@loops
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_function_that_raises_ends_it_and_destroys_the_source(loop: Any, concurrency: int) -> None:
    async def main() -> None:
        async def fail(number: int) -> int:
            await asyncio.sleep(0)
            return 1 // (number - 3)

        source = numbers(1000)
        got: list[int] = []
        with pytest.raises(ZeroDivisionError):
            async for result in source.map(fail, concurrency=concurrency):
                got.append(result)
        assert got == [-1, -1, -1]
        await until(lambda: source.closed)
        assert len(asyncio.all_tasks()) <= 2

    multiloop.run(main, loop=loop)


def test_an_error_of_the_source_comes_through() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise KeyError("source")

    async def main() -> None:
        for concurrency in (1, 3):
            with pytest.raises(KeyError):
                await stream.Readable(source()).map(doubled, concurrency=concurrency).to_array()

    multiloop.run(main)


@loops
def test_cancelling_stops_the_calls_and_destroys_the_source(loop: Any) -> None:
    async def main() -> None:
        source = numbers(1000)
        gathering = source.map(lambda number: asyncio.sleep(60), concurrency=5).to_array()
        await asyncio.sleep(0.005)
        gathering.cancel()
        await until(lambda: source.closed)
        await until(lambda: len(asyncio.all_tasks()) <= 2)

    multiloop.run(main, loop=loop)


def test_nothing_is_taken_before_somebody_takes() -> None:
    async def main() -> None:
        called: list[int] = []
        made = numbers().map(called.append)
        await asyncio.sleep(0.005)
        assert called == []
        made.destroy()

    multiloop.run(main)


def test_what_cannot_be_meant_is_refused_in_the_call() -> None:
    async def main() -> None:
        source = numbers()
        for call in (
            lambda: source.map(print, concurrency=0),
            lambda: source.take(-1),
            lambda: source.drop(-1),
            lambda: source.find(print, concurrency=-2),
        ):
            with pytest.raises(UsageError, match="or more"):
                call()
        with pytest.raises(TypeError, match="flat_map"):
            await source.flat_map(lambda number: number).to_array()

    multiloop.run(main)
