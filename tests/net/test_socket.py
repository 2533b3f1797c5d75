"""net.Socket: backpressure, half-open, timeouts, closing, options (N4 to N8)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.support import LOOPS, until

import multiloop
from multiloop import events, net
from multiloop.errors import ClosedError, UsageError

loops = pytest.mark.parametrize("loop", LOOPS)
BIG = b"x" * (8 * 1024 * 1024)


def run_pair(test: Callable[[net.Socket, net.Socket], Awaitable[None]], loop: Any = "auto", **options: Any) -> None:
    """Run `test(client, server_side)` over a TCP connection; both are destroyed at the end."""

    async def main() -> None:
        connections: list[net.Socket] = []
        server = net.create_server(connections.append, **options)
        await server.listen(0)
        client = await net.connect(server.address[1], "127.0.0.1", **options)
        await until(lambda: connections)
        try:
            async with asyncio.timeout(20):
                await test(client, connections[0])
        finally:
            client.destroy()
            server.destroy_connections()
            await server.close()

    multiloop.run(main, loop=loop)


# --- reading ----------------------------------------------------------------------------------------------------------
@loops
def test_what_comes_before_anybody_asks_is_kept(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        client.write(b"early")
        await until(lambda: peer.bytes_read == 5)
        seen: list[bytes] = []
        peer.on("data", seen.append)
        assert seen == [], "never inside the call that adds the listener"
        client.write(b" late")
        await until(lambda: b"".join(seen) == b"early late")

    run_pair(test, loop)


@loops
def test_a_socket_is_iterated_to_its_end(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        client.write(BIG)
        client.end()
        size = 0
        async for chunk in peer:
            size += len(chunk)
        assert size == len(BIG)
        assert await peer.read_all() == b""

    run_pair(test, loop)


def test_read_takes_at_most_so_many_or_everything() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        client.write("grüße")
        assert await peer.read(2) == b"gr"
        client.end(b"!")
        assert await peer.read_all() == "üße!".encode()
        with pytest.raises(UsageError, match="size"):
            peer.read(0)

    run_pair(test)


def test_read_with_a_callback() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        seen: list[Any] = []
        peer.read(3, callback=lambda error, data: seen.append((error, data)))
        client.write(b"abcdef")
        await until(lambda: seen)
        assert seen == [(None, b"abc")]
        peer.read_all(callback=lambda error, data: seen.append((error, data)))
        assert len(seen) == 1, "never inside the call"
        client.end()
        await until(lambda: len(seen) == 2)
        assert seen[1] == (None, b"def")
        peer.read(1, callback=lambda error, data: seen.append((error, data)))
        await until(lambda: len(seen) == 3)
        assert seen[2] == (None, b"")

    run_pair(test)


def test_a_cancelled_read_loses_nothing() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        got = b""
        for number in range(50):
            reading = asyncio.ensure_future(peer.read(100))
            await asyncio.sleep(0)
            client.write(b"%03d" % number)
            if number % 2:
                await until(lambda: peer.bytes_read == 3 * number + 3)  # noqa: B023
            reading.cancel()
            try:
                got += await reading
            except asyncio.CancelledError:
                continue
        while len(got) < 150:
            got += await peer.read(100)
        assert got == b"".join(b"%03d" % number for number in range(50))

    run_pair(test)


def test_two_ways_of_reading_are_refused() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        first = asyncio.ensure_future(peer.read(1))
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="one reader"):
            await peer.read(1)
        first.cancel()
        peer.on("data", lambda data: None)
        with pytest.raises(UsageError, match="'data' listener"):
            await peer.read(1)

    run_pair(test)


@loops
def test_the_data_listener_sees_every_byte_in_order_and_end_comes_last(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        seen: list[bytes] = []
        order: list[str] = []
        peer.on("data", seen.append).on("end", lambda: order.append("end")).on("close", lambda e: order.append("close"))
        client.end(BIG)
        client.on("data", lambda data: None)
        await until(lambda: "close" in order)
        assert b"".join(seen) == BIG
        assert order == ["end", "close"]

    run_pair(test, loop)


def test_several_and_async_data_listeners_are_called() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        seen: list[Any] = []

        async def later(data: bytes) -> None:
            await asyncio.sleep(0)
            seen.append(("async", data))

        peer.on("data", later)
        client.write(b"a")
        await until(lambda: seen == [("async", b"a")])
        peer.once("data", lambda data: seen.append(("once", data)))
        client.write(b"b")
        await until(lambda: len(seen) == 3)
        client.write(b"c")
        await until(lambda: len(seen) == 4)
        assert seen[1:] == [("once", b"b"), ("async", b"b"), ("async", b"c")]

    run_pair(test)


# --- pause and resume (N4) --------------------------------------------------------------------------------------------
@loops
def test_pause_stops_the_kernels_read_and_the_sender_feels_it(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        peer.on("data", lambda data: None)
        client.write(b"go")
        await until(lambda: peer.bytes_read == 2)
        peer.pause()
        while client.write(b"x" * 65536):
            await asyncio.sleep(0)
        stood = peer.bytes_read
        await asyncio.sleep(0.02)
        assert peer.bytes_read == stood == 2
        drained = events.once(client, "drain")
        peer.resume()
        await drained
        await until(lambda: peer.bytes_read == client.bytes_written)

    run_pair(test, loop)


def test_without_a_reader_only_the_mark_is_kept() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        while client.write(b"x" * 65536):
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        assert peer.bytes_read <= 64 * 1024 + 256 * 1024  # the mark, and one read of the loop's
        size = 0
        client.end()
        async for chunk in peer:
            size += len(chunk)
        assert size == client.bytes_written

    run_pair(test)


def test_a_read_lets_a_paused_socket_go_on_for_that_read() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        peer.pause()
        client.write(b"abc")
        assert await peer.read(10) == b"abc"
        stood = peer.bytes_read
        client.write(b"def")
        await asyncio.sleep(0.01)
        assert peer.bytes_read == stood
        assert await peer.read(10) == b"def"

    run_pair(test)


def test_resume_without_a_listener_drops_what_comes() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        ended = events.once(peer, "end")
        peer.resume()
        client.end(BIG)
        await ended
        assert peer.bytes_read == len(BIG)

    run_pair(test)


# --- writing (N4) -----------------------------------------------------------------------------------------------------
@loops
def test_write_says_false_above_the_mark_and_drain_comes_when_it_has_left(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        assert client.write(b"small") is True
        await client.drain()
        drains: list[int] = []
        client.on("drain", lambda: drains.append(client.write_buffer_size))
        assert client.write(BIG) is False
        assert client.write_buffer_size > 0
        waiting = client.drain()
        assert not waiting.done()
        peer.resume()
        await waiting
        assert drains == [0]
        assert client.bytes_written == 5 + len(BIG)

    run_pair(test, loop)


@loops
def test_write_callbacks_come_in_order_when_the_data_has_left(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        seen: list[Any] = []

        def note(name: str) -> Callable[[Any, Any], None]:
            return lambda error, _: seen.append((name, error))

        client.write(b"a", note("a"))
        assert seen == [], "never inside the call"
        assert client.write(BIG, note("big")) is False
        client.write(b"c", note("c"))
        await until(lambda: len(seen) == 1)
        assert seen == [("a", None)]
        client.on("drain", lambda: seen.append(("drain", None)))
        peer.resume()
        await until(lambda: len(seen) >= 4)
        assert seen == [("a", None), ("big", None), ("c", None), ("drain", None)]
        assert client.write(b"after") is True

    run_pair(test, loop)


@pytest.mark.parametrize("data", [bytearray(b"abc"), memoryview(b"abc"), "abc", memoryview(b"a0b0c0")[::2]])
def test_every_kind_of_data_is_sent(data: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        client.write(data)
        client.write(b"")
        client.end()
        assert await peer.read_all() == b"abc"

    if isinstance(data, memoryview) and not data.contiguous:
        data = memoryview(bytes(data))
    run_pair(test)


def test_what_is_no_data_is_refused_in_the_call() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        with pytest.raises(TypeError, match="not int"):
            client.write(5)  # type: ignore[arg-type]

    run_pair(test)


def test_writing_after_end_is_refused_and_after_destroy_is_quiet() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        client.end()
        with pytest.raises(ClosedError, match="after end"):
            client.write(b"x")
        peer.destroy()
        told: list[Any] = []
        assert peer.write(b"x", lambda error, _: told.append(error)) is False
        with pytest.raises(ClosedError, match="closed here"):
            await peer.drain()
        with pytest.raises(ClosedError, match="closed here"):
            await peer.read(1)
        await until(lambda: told)
        assert isinstance(told[0], ClosedError)

    run_pair(test)


# --- half-open (N5) ---------------------------------------------------------------------------------------------------
@loops
def test_our_side_ends_by_itself_after_what_was_written(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        peer.on("data", lambda data: None)
        peer.on("end", lambda: peer.write(BIG))
        client.end(b"bye")
        assert await client.read_all() == BIG
        await peer.wait_closed()
        await client.wait_closed()
        assert (peer.error, client.error) == (None, None)

    run_pair(test, loop)


def test_a_reader_who_sees_the_end_may_still_answer() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        async def serve() -> None:
            request = b"".join([chunk async for chunk in peer])
            peer.write(request.upper())

        serving = asyncio.ensure_future(serve())
        client.end(b"request")
        assert await client.read_all() == b"REQUEST"
        await serving

    run_pair(test)


@loops
def test_allow_half_open_leaves_our_side_to_us(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        ended = events.once(peer, "end")
        peer.resume()
        client.end()
        await ended
        await asyncio.sleep(0.01)
        assert peer.write(b"still here") is True
        assert await client.read(100) == b"still here"
        peer.end(b".")
        assert await client.read(100) == b"."
        await peer.wait_closed()

    run_pair(test, loop, allow_half_open=True)


def test_writing_after_the_peers_end_is_epipe_on_a_later_turn() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        ended = events.once(peer, "end")
        peer.write(BIG)  # keeps the automatic end from being done with
        peer.resume()
        client.end()
        await ended
        failed = events.once(peer, "error")
        assert peer.write(b"late") is False
        assert not failed.done()
        assert isinstance((await failed)[0], BrokenPipeError)

    run_pair(test)


def test_finish_and_the_callback_of_end_come_when_everything_has_left() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        seen: list[Any] = []
        client.on("finish", lambda: seen.append("finish"))
        client.end(BIG, lambda error, _: seen.append(error))
        await asyncio.sleep(0.01)
        assert seen == []
        peer.resume()
        await until(lambda: len(seen) == 2)
        assert seen == [None, "finish"]

    run_pair(test)


# --- timeout (N6) -----------------------------------------------------------------------------------------------------
def test_timeout_only_tells_and_activity_puts_it_off() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        loop = asyncio.get_running_loop()
        moved: list[float] = []
        fired: list[float] = []
        peer.on("data", lambda data: moved.append(loop.time()))
        peer.set_timeout(0.05)
        peer.on("timeout", lambda: fired.append(loop.time()))
        assert peer.timeout == 0.05
        for _ in range(5):
            client.write(b"x")
            await asyncio.sleep(0.02)
        await until(lambda: fired)
        assert fired[0] - max(when for when in moved if when < fired[0]) >= 0.049
        await until(lambda: fired[-1] > moved[-1])
        told = len(fired)
        assert not peer.destroyed
        await asyncio.sleep(0.08)
        assert len(fired) == told, "once for each idle time"
        peer.write(b"y")
        await until(lambda: len(fired) == told + 1)
        peer.set_timeout(0)
        assert peer.timeout == 0

    run_pair(test)


def test_the_timeout_of_an_unrefd_socket_does_not_hold_the_program() -> None:
    async def main() -> None:
        server = net.create_server(lambda c: c.unref()).unref()
        await server.listen(0)
        client = await net.connect(server.address[1])
        client.unref().set_timeout(60)

    multiloop.run(main)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 3e9])
def test_a_timeout_out_of_range_is_refused(seconds: float) -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match="set_timeout"):
            net.Socket().set_timeout(seconds)

    multiloop.run(main)


# --- destroy and reset (N7) -------------------------------------------------------------------------------------------
@loops
def test_destroy_with_an_error_tells_callbacks_then_error_then_close(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        order: list[Any] = []
        problem = ValueError("mine")
        client.write(BIG, lambda error, _: order.append(("write", error)))
        client.on("error", lambda error: order.append(("error", error)))
        client.on("close", lambda had_error: order.append(("close", had_error)))
        assert client.destroy(problem) is client
        client.destroy(KeyError("second"))
        assert order == []
        await until(lambda: client.closed)
        assert order == [("write", problem), ("error", problem), ("close", True)]

    run_pair(test, loop)


@loops
def test_reset_gives_the_peer_econnreset(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        reading = asyncio.ensure_future(peer.read(1))
        await asyncio.sleep(0)
        address = peer.remote_address
        client.reset_and_destroy()
        with pytest.raises(ConnectionResetError) as caught:
            await reading
        assert isinstance(address, tuple)
        assert caught.value.filename == f"{address[0]}:{address[1]}"
        await peer.wait_closed()
        assert peer.error is caught.value
        with pytest.raises(ConnectionResetError):
            await peer.drain()

    run_pair(test, loop)


def test_what_came_before_a_reset_can_still_be_read() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        client.write(b"before")
        await until(lambda: peer.bytes_read == 6)
        client.reset_and_destroy()
        await until(lambda: peer.closed)
        assert await peer.read(100) == b"before"
        with pytest.raises(ConnectionResetError):
            await peer.read(100)

    run_pair(test)


def test_drain_is_told_when_the_peer_goes() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        client.write(BIG)
        waiting = client.drain()
        peer.reset_and_destroy()
        with pytest.raises(ConnectionError):
            await waiting

    run_pair(test)


def test_destroy_soon_sends_what_waits() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        client.write(BIG)
        client.destroy_soon()
        assert len(await peer.read_all()) == len(BIG)
        await client.wait_closed()

    run_pair(test)


def test_async_with_closes_and_an_exception_destroys() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        async with client:
            client.write(b"x")
        assert client.closed
        assert await peer.read_all() == b"x"

        async def fail() -> None:
            async with peer:
                raise ValueError

        with pytest.raises(ValueError):
            await fail()
        assert peer.closed

    run_pair(test)


# --- options and looking (N8) -----------------------------------------------------------------------------------------
@loops
def test_options_before_the_connection_are_applied_to_it(loop: Any) -> None:
    async def main() -> None:
        server = net.create_server(lambda c: c.on("data", c.write), keep_alive=True, no_delay=False)
        connections: list[net.Socket] = []
        server.on("connection", connections.append)
        await server.listen(0)
        client = net.Socket().set_no_delay(False).set_keep_alive(True, 42)
        assert client.write(b"early") is True
        client.pause()
        connecting = client.connect(server.address[1])
        assert client.connecting
        with pytest.raises(UsageError, match="connecting"):
            client.connect(1)
        assert await connecting is client
        raw = client.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 42
        client.set_no_delay().set_keep_alive(False)
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        seen: list[bytes] = []
        client.on("data", seen.append)
        await until(lambda: connections)
        await asyncio.sleep(0.01)
        assert seen == [], "paused before it connected"
        client.resume()
        await until(lambda: seen == [b"early"])
        theirs = connections[0].get_extra_info("socket")
        assert theirs.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        client.destroy()
        await server.close()

    multiloop.run(main, loop=loop)


def test_addresses_are_known_on_both_ends_and_after_the_end() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        assert client.local_address == peer.remote_address
        assert client.remote_address == peer.local_address
        before = peer.remote_address
        client.destroy()
        await peer.read_all()
        await peer.wait_closed()
        assert peer.remote_address == before
        assert "closed" in repr(peer)

    run_pair(test)


def test_a_socket_can_be_piped_into_another() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        peer.pipe(peer)  # an echo with backpressure
        writing = asyncio.ensure_future(_write_all(client, BIG))
        got = await client.read_all()
        await writing
        assert got == BIG

    async def _write_all(target: net.Socket, data: bytes) -> None:
        for start in range(0, len(data), 65536):
            if not target.write(data[start : start + 65536]):
                await target.drain()
        target.end()

    run_pair(test)


def test_the_high_water_mark_can_be_set() -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        assert client.write(b"x" * (4 * 1024 * 1024)) is True

    run_pair(test, high_water_mark=16 * 1024 * 1024)

    async def main() -> None:
        with pytest.raises(UsageError, match="high_water_mark"):
            net.Socket(high_water_mark=0)

    multiloop.run(main)


# --- a callback that cannot be called ---------------------------------------------------------------------------------
@loops
def test_a_callback_that_cannot_be_called_is_a_type_error_and_the_socket_is_as_before(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        wrong: Any = 3
        for call in (client.read, client.read_all, client.drain):
            with pytest.raises(TypeError, match="callback=3"):
                call(callback=wrong)
        with pytest.raises(TypeError, match="callback=3"):
            client.write(b"lost", wrong)
        with pytest.raises(TypeError, match="callback=3"):
            client.end(b"lost", wrong)
        with pytest.raises(TypeError, match="callback=3"):
            net.connect(1, callback=wrong)
        client.end(b"all there is")
        assert await peer.read_all() == b"all there is"
        peer.end(b"answer")
        assert await client.read() == b"answer", "nobody else reads"

    run_pair(test, loop, allow_half_open=True)


# --- the end, told to a callback --------------------------------------------------------------------------------------
@loops
def test_wait_closed_reports_to_a_callback_however_it_closed(loop: Any) -> None:
    async def test(client: net.Socket, peer: net.Socket) -> None:
        seen: list[Any] = []
        client.wait_closed(callback=lambda *told: seen.append(("client", *told)))
        peer.wait_closed(callback=lambda *told: seen.append(("peer", *told)))
        given_up = peer.wait_closed(callback=lambda error, _: seen.append(type(error)))
        assert given_up.cancel()
        await until(lambda: seen == [asyncio.CancelledError])
        client.reset_and_destroy()
        await until(lambda: len(seen) == 3)
        assert sorted(seen[1:]) == [("client", None, None), ("peer", None, None)]
        client.wait_closed(callback=lambda *told: seen.append(("later", *told)))
        assert len(seen) == 3, "never inside the call"
        await until(lambda: seen[3:] == [("later", None, None)])

    run_pair(test, loop)


def test_a_wait_for_the_end_of_an_unrefd_socket_does_not_keep_the_program() -> None:
    async def main() -> net.Server:
        server = await net.create_server(lambda connection: connection.unref()).listen(0)
        client = await net.connect(server.address[1], "127.0.0.1")
        client.wait_closed(callback=lambda *_: None)
        client.unref()
        return server.unref()

    multiloop.run(main)
