"""`Limiter` and `map_limited`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support import until

import multiloop
from multiloop import Limiter, map_limited
from multiloop.errors import UsageError


def test_a_limiter_lets_in_as_many_as_it_says_first_come_first_served() -> None:
    async def main() -> None:
        limiter = Limiter(3)
        most = 0
        order: list[int] = []

        async def work(number: int) -> int:
            nonlocal most
            most = max(most, limiter.active)
            order.append(number)
            await asyncio.sleep(0.001)
            return number

        results = await asyncio.gather(*(limiter.run(work, number) for number in range(20)))
        assert results == list(range(20)) == order
        assert most == 3
        assert (limiter.active, limiter.waiting) == (0, 0)

    multiloop.run(main)


def test_a_cancelled_waiter_gives_its_turn_back() -> None:
    async def main() -> None:
        limiter = Limiter(1)
        async with limiter:
            waiting = [asyncio.ensure_future(limiter.run(asyncio.sleep, 0)) for _ in range(3)]
            await until(lambda: limiter.waiting == 3)
            waiting[0].cancel()
            await asyncio.wait([waiting[0]])
            assert limiter.waiting == 2
        await asyncio.gather(*waiting[1:])
        assert (limiter.active, limiter.waiting) == (0, 0)

    multiloop.run(main)


def test_a_body_that_raises_frees_its_place() -> None:
    async def main() -> None:
        limiter = Limiter(1)
        for _ in range(2):
            with pytest.raises(ValueError):
                async with limiter:
                    raise ValueError
        assert limiter.active == 0

    multiloop.run(main)


def test_map_limited_keeps_the_order_and_the_limit_and_takes_items_lazily() -> None:
    async def main() -> None:
        taken = running = most = 0

        def items() -> Any:
            nonlocal taken
            for number in range(50):
                taken += 1
                assert taken - done <= 5
                yield number

        done = 0

        async def work(number: int) -> int:
            nonlocal running, most, done
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001 if number % 3 else 0.003)
            running -= 1
            done += 1
            return number * 2

        assert await map_limited(work, items(), limit=4) == [number * 2 for number in range(50)]
        assert most == 4

    multiloop.run(main)


def test_map_limited_takes_asynchronous_items() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(5):
            await asyncio.sleep(0)
            yield number

    async def double(number: int) -> int:
        return number * 2

    assert multiloop.run(lambda: map_limited(double, items(), limit=2)) == [0, 2, 4, 6, 8]


def test_the_first_failure_cancels_the_rest_and_waits_for_it() -> None:
    cleaned: list[int] = []

    async def work(number: int) -> None:
        if number == 2:
            raise LookupError("two")
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0)
            cleaned.append(number)

    async def main() -> None:
        with pytest.raises(LookupError, match="two"):
            await map_limited(work, range(100), limit=3)
        assert sorted(cleaned) == [0, 1]

    multiloop.run(main)


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Limiter(0)
    with pytest.raises(UsageError, match="at least 1"):
        multiloop.run(lambda: map_limited(asyncio.sleep, [], limit=0))


def test_map_limited_reports_to_a_callback() -> None:
    seen: list[Any] = []

    async def double(number: int) -> int:
        return number * 2

    async def fail(number: int) -> int:
        raise LookupError(number)

    def main() -> None:
        map_limited(double, range(3), limit=2, callback=lambda *told: seen.append(told))
        map_limited(fail, range(3), limit=2, callback=lambda error, value: seen.append((type(error), value)))
        map_limited(double, [], limit=0, callback=lambda error, value: seen.append((type(error), value)))
        with pytest.raises(TypeError, match="callback=3"):
            map_limited(double, [], limit=1, callback=3)  # type: ignore[call-overload]
        assert seen == [], "never inside the call"

    multiloop.run(main)
    assert sorted(seen, key=repr) == sorted([(None, [0, 2, 4]), (LookupError, None), (UsageError, None)], key=repr)
