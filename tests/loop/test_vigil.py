"""Staying awake between messages that come in quick succession, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.support import until

import multiloop
from multiloop.loop import _vigil, hub, vigil_of
from multiloop.worker_threads import Worker


class Clock:
    """What the vigil sees of the time: all of it, and what this thread had of the core."""

    def __init__(self) -> None:
        self.now = 10**12
        self.cpu = 10**9

    def passes(self, microseconds: int, cpu: int | None = None) -> None:
        self.now += microseconds * 1000
        self.cpu += (microseconds if cpu is None else cpu) * 1000


def on_a_clock(body: Callable[[Clock], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch, cores: int = 2) -> None:
    clock = Clock()
    monkeypatch.setattr(_vigil, "_now", lambda: clock.now)
    monkeypatch.setattr(_vigil, "_cpu", lambda: clock.cpu)
    monkeypatch.setattr(_vigil.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)

    async def main() -> None:
        await body(clock)

    multiloop.run(main)


async def is_awake(turns: int = 5) -> bool:
    for _ in range(turns):
        await asyncio.sleep(0)
    return vigil_of(hub())._is_on


def test_a_message_that_comes_soon_after_another_keeps_the_loop_awake_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(clock: Clock) -> None:
        vigil = vigil_of(hub())
        vigil.message()
        assert not await is_awake()
        clock.passes(150)
        vigil.message()
        assert await is_awake()
        clock.passes(90)
        vigil.message()
        clock.passes(90)
        assert await is_awake()
        clock.passes(20)
        assert not await is_awake()

    on_a_clock(body, monkeypatch)


def test_a_message_now_and_then_keeps_nobody_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        vigil = vigil_of(hub())
        for _ in range(20):
            vigil.message()
            assert not await is_awake()
            clock.passes(250)

    on_a_clock(body, monkeypatch)


def test_whoever_has_to_share_its_core_sleeps_at_once_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        vigil = vigil_of(hub())

        async def talk(cpu: int) -> bool:
            for _ in range(30):
                vigil.message()
                await asyncio.sleep(0)
                clock.passes(80, cpu=cpu)
            return await is_awake(0)

        assert await talk(cpu=80)
        assert not await talk(cpu=20)
        clock.passes(5_000)
        assert not await talk(cpu=80)  # still calm
        clock.passes(10_000)
        assert await talk(cpu=80)
        assert not await talk(cpu=20)
        clock.passes(12_000)
        assert not await talk(cpu=20)
        clock.passes(12_000)
        assert not await talk(cpu=80)  # calm for longer when it goes on

    on_a_clock(body, monkeypatch)


def test_a_single_core_is_never_kept_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        vigil = vigil_of(hub())
        for _ in range(20):
            vigil.message()
            assert not await is_awake()
            clock.passes(10)

    on_a_clock(body, monkeypatch, cores=1)


def echo() -> None:
    from multiloop import worker_threads

    port: Any = worker_threads.parent_port
    port.on("message", port.post_message)


def test_a_loop_whose_worker_has_answered_everything_goes_to_sleep() -> None:
    async def main() -> None:
        worker: Any = Worker(echo, kind="process")
        answers: list[int] = []
        worker.on("message", answers.append)
        for number in range(200):
            worker.post_message(number)
            await until(lambda number=number: len(answers) > number)
        await until(lambda: not vigil_of(hub())._is_on)
        assert answers == list(range(200))
        await worker.terminate()

    multiloop.run(main)
