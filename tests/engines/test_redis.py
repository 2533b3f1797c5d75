"""The bus and broadcast channels through a real Redis, which goes away and comes back."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import Any

import pytest

import multiloop
from multiloop import bus
from multiloop.errors import NotSendable
from multiloop.worker_threads import BroadcastChannel
from tests.engines.clusters import Redis
from tests.support import environment, until

pytestmark = [pytest.mark.engines, pytest.mark.xdist_group("redis"), pytest.mark.timeout(120)]


async def values(subscription: bus.Subscription, count: int) -> list[Any]:
    found = []
    async for message in subscription:
        found.append(message.value)
        if len(found) == count:
            break
    return found


def test_ends_hear_each_other_in_order_and_ask_each_other(redis: Redis) -> None:
    async def main() -> None:
        async with bus.connect(redis.url) as left, bus.connect(redis.url) as right:
            heard = right.subscribe("chat")
            right.answer("double", lambda value: value * 2)
            await right.ready()
            for number in range(500):
                left.publish("chat", [number, b"\x00\xff", "ü"])
            assert await values(heard, 500) == [[number, b"\x00\xff", "ü"] for number in range(500)]
            assert await asyncio.gather(*(left.request("double", number) for number in range(20))) == [
                2 * number for number in range(20)
            ]
            async with bus.connect(redis.url, prefix="other") as stranger:
                stranger.publish("chat", "not for us")
            assert right.statistics().received == 500

    multiloop.run(main)


OTHER = """
import sys, multiloop
from multiloop import bus

async def main():
    async with bus.connect(sys.argv[1]) as end:
        answers = end.answer("who", lambda value: f"{value} from another program")
        await end.ready()
        print("ready", flush=True)
        await multiloop.offload(sys.stdin.readline)
        answers.close()

multiloop.run(main)
"""


def test_another_program_answers(redis: Redis) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, redis.url],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdin is not None
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "ready\n"

        async def main() -> str:
            async with bus.connect(redis.url) as end:
                return str(await end.request("who", "hello"))

        assert multiloop.run(main) == "hello from another program"
    finally:
        other.stdin.close()
        assert other.wait(20) == 0
        other.stdout.close()


def test_an_outage_loses_no_request_and_is_told(redis: Redis) -> None:
    async def main() -> None:
        async with bus.connect(redis.url) as asks, bus.connect(redis.url) as answers:
            told: list[Any] = []
            gaps: list[bus.Gap] = []
            asks.on("disconnect", lambda reason: told.append("disconnect"))
            asks.on("connect", lambda seconds: told.append("connect"))
            heard = answers.subscribe("numbers")
            heard.on("gap", gaps.append)
            ran: list[int] = []
            answers.answer("work", lambda value: ran.append(value) or value)
            await answers.ready()
            asks.publish("numbers", 0)
            assert await values(heard, 1) == [0]
            redis.end(signal.SIGKILL)
            await until(lambda: not asks.is_connected and not answers.is_connected, 30)
            requests = [asyncio.ensure_future(asks.request("work", number, timeout=60)) for number in range(20)]
            for number in range(1, 11):
                asks.publish("numbers", number)
            await asyncio.sleep(0.5)  # some attempts to connect fail
            await multiloop.offload(redis.start_again)
            assert await asyncio.gather(*requests) == list(range(20))
            assert sorted(ran) == list(range(20))
            await until(lambda: gaps and gaps[0].missed is None and gaps[0].seconds > 0.3, 30)
            # Each number has come, or the bus has told that it did not.
            await until(
                lambda: len(heard._waiting) + sum(gap.missed or 0 for gap in gaps if gap.topic == "numbers") >= 10, 30
            )
            assert told[:1] == ["disconnect"]
            assert "connect" in told

    multiloop.run(main)


def test_a_server_that_says_nothing_is_noticed(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiloop._limits.BUS_SILENCE_S", 0.3)
    monkeypatch.setattr("multiloop._limits.BUS_CONNECT_S", 0.3)

    async def main() -> None:
        async with bus.connect(redis.url) as end:
            redis.service.process.send_signal(signal.SIGSTOP)
            await until(lambda: not end.is_connected, 30)
            redis.service.process.send_signal(signal.SIGCONT)
            await until(lambda: end.is_connected, 30)
            assert end.statistics().outages == 1

    multiloop.run(main)


def test_what_waits_too_long_is_dropped_and_told(redis: Redis) -> None:
    async def main() -> None:
        async with bus.connect(redis.url, max_waiting=10_000) as end:
            gaps: list[bus.Gap] = []
            end.on("gap", gaps.append)
            redis.end()
            await until(lambda: not end.is_connected, 30)
            for _ in range(30):
                end.publish("topic", "x" * 1000)
            assert sum(gap.missed or 0 for gap in gaps) >= 20
            assert {gap.where for gap in gaps} == {"outbox"}

    multiloop.run(main)


def test_strangers_on_the_channel_are_ignored_and_counted(redis: Redis) -> None:
    async def main() -> None:
        import pickle

        import redis.asyncio as client_of

        async with bus.connect(redis_url) as end:
            heard = end.subscribe("topic")
            await end.ready()
            async with client_of.Redis.from_url(redis_url) as stranger:
                for bad in (b"\xff\xfe", b"[]", b'{"k":"m"}', pickle.dumps(print), b"{" * 5000, b"x" * 2_000_000):
                    await stranger.publish("multiloop:t:topic", bad)
            end.publish("topic", "fine")
            assert await values(heard, 1) == ["fine"]
            assert end.statistics().bad == 6

    redis_url = redis.url
    multiloop.run(main)


def test_broadcast_channels_span_programs_with_a_url(redis: Redis) -> None:
    async def main() -> None:
        left, right, other = (BroadcastChannel(name, redis.url) for name in ("room", "room", "elsewhere"))
        got: list[Any] = []
        own: list[Any] = []
        right.on("message", got.append)
        left.on("message", own.append)
        other.on("message", got.append)
        for channel in (left, right, other):
            await channel.ready()
        for number in range(20):
            left.post_message({"number": number})
        await until(lambda: len(got) == 20, 30)
        assert got == [{"number": number} for number in range(20)]
        with pytest.raises(NotSendable):
            left.post_message(object())
        right.post_message("last")
        right.close()  # what was posted is sent first
        await until(lambda: own == ["last"], 30)
        left.close()
        other.close()

    multiloop.run(main)
