"""Every phase of a connection has one deadline for the whole phase. The sweep's clock is moved by hand: nobody waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .harness import Client, answer, eventually, read_body, run, service_of


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    if scope["path"] == "/endless":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
    try:
        await read_body(receive)
    except AssertionError:  # http.disconnect
        scope["state"]["left"].set()
        return
    await answer(send)


class Clock:
    """Moves a service's time forward and sweeps."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.ahead_s = 0.0
        real = service.clock
        service.clock = lambda: real() + self.ahead_s
        service._sweeper.cancel()

    def pass_s(self, seconds: float) -> None:
        self.ahead_s += seconds
        self.service._sweep()
        self.service._sweeper.cancel()


def timed(check: Any, **options: Any) -> None:
    async def main() -> None:
        async with service_of(app, **options) as service:
            left = asyncio.Event()
            service.state = {"left": left}
            clock = Clock(service)
            await check(service, clock, left)

    run(main)


async def arrived(service: Any, phase: int) -> Any:
    await eventually(lambda: any(c.phase == phase for c in service.connections))
    return next(c for c in service.connections if c.phase == phase)


def test_silence_is_cut_after_the_first_byte_timeout() -> None:
    async def check(service: Any, clock: Clock, left: Any) -> None:
        client = Client(service)
        await arrived(service, 0)
        clock.pass_s(9)
        assert service.connections
        clock.pass_s(2)
        assert await client.rest() == b""

    timed(check)


@pytest.mark.parametrize("drip", [False, True])
def test_half_a_head_is_answered_408_whether_it_drips_or_not(drip: bool) -> None:
    async def check(service: Any, clock: Clock, left: Any) -> None:
        client = Client(service)
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        connection = await arrived(service, 1)
        for _ in range(4):
            clock.pass_s(2)
            if drip:
                before = connection.reader.fed_bytes
                await client.send(b"a")
                await eventually(lambda: connection.reader.fed_bytes > before)  # noqa: B023
        assert service.connections
        clock.pass_s(3)
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")

    timed(check)


def test_half_a_body_is_answered_408_and_the_application_told() -> None:
    async def check(service: Any, clock: Clock, left: Any) -> None:
        client = Client(service)
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab")
        await arrived(service, 2)
        clock.pass_s(29)
        assert not left.is_set()
        clock.pass_s(2)
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
        await asyncio.wait_for(left.wait(), 10)
        assert service.active == 0

    timed(check)


def test_a_dripping_body_is_cut_for_its_rate() -> None:
    async def check(service: Any, clock: Clock, left: Any) -> None:
        client = Client(service)
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        connection = await arrived(service, 2)
        for n in range(20):
            await client.send(b"x")
            await eventually(lambda: connection.reader is None or connection.reader.body_bytes > n)  # noqa: B023
            clock.pass_s(5)
            if connection.phase != 2:
                break
        assert 5 <= n <= 8
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")

    timed(check)


def test_an_idle_kept_connection_is_closed_with_fin() -> None:
    async def check(service: Any, clock: Clock, left: Any) -> None:
        client = Client(service)
        assert (await client.get()).status == 200
        clock.pass_s(14)
        assert (await client.get()).status == 200  # used again in time
        clock.pass_s(14)
        assert service.connections
        clock.pass_s(2)
        assert await client.rest() == b""

    timed(check)


def test_a_client_that_takes_nothing_of_its_reply_is_cut() -> None:
    async def check(service: Any, clock: Clock, left: Any) -> None:
        client = Client(service)
        await client.send(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        await eventually(lambda: any(c.write_room() is not None for c in service.connections))
        clock.pass_s(29)
        assert service.connections
        clock.pass_s(3)
        await eventually(lambda: not service.connections)
        assert not (await client.rest()).endswith(b"0\r\n\r\n")
        await eventually(lambda: service.active == 0)

    timed(check)


def test_a_slow_application_is_not_cut() -> None:
    async def check(service: Any, clock: Clock, left: Any) -> None:
        client = Client(service)
        go = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()
            await answer(send)

        service.app = slow
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTT")  # and half of the next
        await eventually(lambda: service.active == 1)
        clock.pass_s(5)
        go.set()
        assert (await client.reply()).status == 200
        await client.send(b"P/1.1\r\nHost: a\r\n\r\n")
        assert (await client.reply()).status == 200

    timed(check)
