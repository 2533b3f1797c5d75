"""net.Server: listening, closing, limits (N1 to N3)."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest
from tests.support import LOOPS, descriptors_at_rest, descriptors_left, open_descriptors, until

import multiloop
from multiloop import events, http, net, timers
from multiloop.errors import UsageError
from multiloop.http import HttpConfig
from multiloop.http._target import Interface
from multiloop.net import _provider

loops = pytest.mark.parametrize("loop", LOOPS)


def _echo(connection: net.Socket) -> None:
    connection.on("data", connection.write)


# --- listening (N1) ---------------------------------------------------------------------------------------------------
@loops
def test_a_server_echoes(loop: Any) -> None:
    async def main() -> None:
        server = net.create_server(_echo)
        assert server.address is None
        assert await server.listen(0) is server
        host, port = server.address
        assert (host, server.listening) == ("127.0.0.1", True)
        client = await net.connect(port, "127.0.0.1")
        client.write(b"hello")
        assert await client.read(100) == b"hello"
        assert (client.bytes_written, client.bytes_read, server.connections) == (5, 5, 1)
        client.end()
        await client.wait_closed()
        await server.close()
        assert server.address is None

    multiloop.run(main, loop=loop)


def test_net_works_in_a_plain_asyncio_program() -> None:
    async def main() -> bytes:
        async with net.create_server(_echo) as server:
            await server.listen(0)
            async with net.connect(server.address[1], "127.0.0.1") as client:
                client.write(b"x")
                return await client.read(1)

    assert asyncio.run(main()) == b"x"


def test_a_server_keeps_the_program_running_until_it_is_closed_by_a_timer() -> None:
    seen: list[str] = []

    def main() -> None:
        server = net.create_server(_echo)
        server.on("listening", lambda: seen.append("listening"))
        server.on("close", lambda: seen.append("close"))
        server.listen(0, callback=lambda error, s: seen.append("callback"))
        timers.set_timeout(lambda: server.close(), 0.02)

    multiloop.run(main)
    assert sorted(seen[:2]) == ["callback", "listening"]
    assert seen[2:] == ["close"]


def test_an_unrefd_server_does_not_hold_the_program() -> None:
    async def main() -> None:
        server = net.create_server(_echo).unref()
        await server.listen(0)

    multiloop.run(main)


def test_listening_twice_is_refused_and_again_after_close_is_fine() -> None:
    async def main() -> None:
        server = net.create_server()
        await server.listen(0)
        with pytest.raises(UsageError, match="listens already"):
            server.listen(0)
        await server.close()
        await server.listen(0)
        await server.close()
        await server.close()

    multiloop.run(main)


def test_a_port_in_use_is_an_oserror_with_the_address() -> None:
    async def main() -> None:
        first = net.create_server()
        await first.listen(0)
        port = first.address[1]
        second = net.create_server()
        with pytest.raises(OSError) as caught:
            await second.listen(port)
        assert caught.value.errno == errno.EADDRINUSE
        assert caught.value.filename == f"127.0.0.1:{port}"

        told: list[Any] = []
        second.listen(port, callback=lambda error, value: told.append((error.filename, value)))
        await until(lambda: told)
        assert told == [(f"127.0.0.1:{port}", None)]

        third = net.create_server()
        happened = events.once(third, "error")
        third.listen(port)  # not awaited: who listens for 'error' is told there
        assert (await happened)[0].errno == errno.EADDRINUSE
        await first.close()

    multiloop.run(main)


def test_a_failed_listen_that_nobody_looks_at_ends_the_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        async def main() -> None:
            net.create_server().listen(port)
            await asyncio.sleep(5)

        with pytest.raises(OSError, match=str(port)):
            multiloop.run(main)


def test_an_unresolvable_name_is_an_oserror_with_the_name() -> None:
    async def main() -> None:
        with pytest.raises(socket.gaierror) as caught:
            await net.create_server().listen(0, "no-such-host.invalid")
        assert caught.value.filename == "no-such-host.invalid"
        with pytest.raises(OSError, match=r"192\.0\.2"):
            await net.create_server().listen(0, "192.0.2.1")

    multiloop.run(main)


def test_wrong_arguments_are_refused_in_the_call() -> None:
    async def main() -> None:
        server = net.create_server()
        with pytest.raises(ValueError, match="65535"):
            server.listen(70000)
        with pytest.raises(TypeError, match="port"):
            server.listen("80")  # type: ignore[call-overload]
        with pytest.raises(TypeError):
            server.listen(0, colour="red")  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="SSLContext"):
            net.create_server(tls="cert.pem")  # type: ignore[arg-type]

    multiloop.run(main)


def test_every_address_takes_ipv4_and_ipv6() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")

    async def main() -> None:
        server = net.create_server(_echo)
        await server.listen(0, None)
        port = server.address[1]
        for host in ("127.0.0.1", "::1"):
            async with net.connect(port, host) as client:
                client.write(b"x")
                assert await client.read(1) == b"x"
        await server.close()

        only = net.create_server(_echo)
        await only.listen(0, "::", ipv6_only=True)
        with pytest.raises(ConnectionRefusedError):
            await net.connect(only.address[1], "127.0.0.1")
        await only.close()

    multiloop.run(main)


def test_a_descriptor_can_be_listened_on() -> None:
    async def main() -> None:
        made = socket.create_server(("127.0.0.1", 0))
        port = made.getsockname()[1]
        server = net.create_server(_echo)
        await server.listen(fd=made.detach())
        assert server.address == ("127.0.0.1", port)
        async with net.connect(port) as client:
            client.write(b"x")
            assert await client.read(1) == b"x"
        await server.close()

        with pytest.raises(OSError, match="fd 987"):
            await net.create_server().listen(fd=987)
        with open("/dev/null") as null, pytest.raises(OSError, match=f"fd {null.fileno()}"):
            await net.create_server().listen(fd=null.fileno())

    multiloop.run(main)


def test_reuse_port_lets_two_servers_share_a_port() -> None:
    async def main() -> None:
        first, second = net.create_server(), net.create_server()
        await first.listen(0, reuse_port=True)
        await second.listen(first.address[1], reuse_port=True)
        await first.close()
        await second.close()

    multiloop.run(main)


def test_closing_while_it_opens_leaves_nothing() -> None:
    async def main() -> None:
        before = await descriptors_at_rest()
        server = net.create_server()
        opening = server.listen(0, "localhost")
        await server.close()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert not server.listening
        await until(lambda: open_descriptors() <= before)

    multiloop.run(main)


# --- close (N2) -------------------------------------------------------------------------------------------------------
def test_close_waits_for_the_connections_and_refuses_new_ones() -> None:
    async def main() -> None:
        server = net.create_server(_echo)
        await server.listen(0)
        port = server.address[1]
        client = await net.connect(port)
        client.write(b"a")
        await client.read(1)
        closing = server.close()
        closed: list[bool] = []
        server.on("close", lambda: closed.append(True))
        with pytest.raises(ConnectionRefusedError):
            await net.connect(port)
        client.write(b"b")
        assert await client.read(1) == b"b", "a connection outlives its listener"
        assert not closing.done()
        client.end()
        await closing
        assert closed == [True]

    multiloop.run(main)


def test_destroy_connections_ends_them_all() -> None:
    async def main() -> None:
        server = net.create_server(_echo)
        await server.listen(0)
        clients = [await net.connect(server.address[1]) for _ in range(5)]
        await until(lambda: server.connections == 5)
        server.destroy_connections()
        await server.close()
        for client in clients:
            assert await client.read_all() == b""
            await client.wait_closed()

    multiloop.run(main)


def test_leaving_the_server_by_an_exception_does_not_wait_for_connections() -> None:
    async def main() -> None:
        async def use() -> None:
            async with net.create_server(_echo) as server:
                await server.listen(0)
                await net.connect(server.address[1])
                raise ValueError

        with pytest.raises(ValueError):
            await asyncio.wait_for(use(), 5)

    multiloop.run(main)


def test_the_end_of_the_program_closes_everything() -> None:
    before = open_descriptors()

    async def main() -> None:
        server = net.create_server(_echo)
        await server.listen(0)
        await net.connect(server.address[1])
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        multiloop.run(main)
    assert not descriptors_left(before)


# --- limits (N3) ------------------------------------------------------------------------------------------------------
def test_over_max_connections_a_connection_is_dropped_and_told_of() -> None:
    async def main() -> None:
        dropped: list[dict[str, Any]] = []
        server = net.create_server(_echo, max_connections=1)
        server.on("drop", dropped.append)
        await server.listen(0)
        port = server.address[1]
        first = await net.connect(port)
        first.write(b"a")
        await first.read(1)
        second = await net.connect(port)
        assert await second.read_all() == b""
        assert [each["local_address"] for each in dropped] == [("127.0.0.1", port)]
        first.end()
        await first.wait_closed()
        await until(lambda: server.connections == 0)
        third = await net.connect(port)  # a slot is free again
        third.write(b"c")
        assert await third.read(1) == b"c"
        third.destroy()
        await server.close()

    multiloop.run(main)


def test_blocked_addresses_are_closed_without_a_word() -> None:
    async def main() -> None:
        blocked = net.BlockList()
        blocked.add_subnet("127.0.0.0", 8)
        seen: list[Any] = []
        server = net.create_server(seen.append, block_list=blocked)
        server.on("drop", seen.append)
        await server.listen(0)
        client = await net.connect(server.address[1])
        assert await client.read_all() == b""
        assert seen == []
        await server.close()

    multiloop.run(main)


@loops
def test_paused_on_connect_reads_nothing_until_resumed(loop: Any) -> None:
    async def main() -> None:
        connections: list[net.Socket] = []
        server = net.create_server(connections.append, pause_on_connect=True)
        await server.listen(0)
        client = await net.connect(server.address[1])
        client.write(b"x")
        await until(lambda: connections)
        assert connections[0].is_paused
        happened = events.once(connections[0], "data")
        await asyncio.sleep(0.01)
        assert not happened.done()
        while client.write(b"y" * 65536):
            await asyncio.sleep(0.001)
        assert connections[0].bytes_read < 400_000, "one read of the loop's at most"
        connections[0].resume()
        assert (await happened)[0].startswith(b"x")
        client.destroy()
        server.destroy_connections()
        await server.close()

    multiloop.run(main, loop=loop)


# --- handlers ---------------------------------------------------------------------------------------------------------
def test_an_async_handler_that_fails_loses_only_its_connection() -> None:
    async def main() -> None:
        async def handler(connection: net.Socket) -> None:
            async for data in connection:
                if data == b"die":
                    raise ConnectionError("handler's own")
                connection.write(data)

        server = net.create_server(handler)
        await server.listen(0)
        good, bad = await net.connect(server.address[1]), await net.connect(server.address[1])
        bad.write(b"die")
        assert await bad.read_all() == b""
        good.write(b"live")
        assert await good.read(10) == b"live"
        good.destroy()
        await server.close()

    multiloop.run(main)


def test_a_bug_in_a_handler_is_not_swallowed() -> None:
    async def main() -> None:
        async def handler(connection: net.Socket) -> None:
            raise KeyError("bug")

        server = net.create_server(handler)
        await server.listen(0)
        await net.connect(server.address[1])
        await asyncio.sleep(5)

    with pytest.raises(KeyError, match="bug"):
        multiloop.run(main)


def test_a_peers_reset_never_ends_the_program() -> None:
    async def main() -> None:
        connections: list[net.Socket] = []

        def plain(connection: net.Socket) -> None:  # nobody listens for 'error'
            connections.append(connection)
            connection.on("data", connection.write)

        server = net.create_server(plain)
        await server.listen(0)
        client = await net.connect(server.address[1])
        client.write(b"x")
        await client.read(1)
        client.reset_and_destroy()
        await until(lambda: connections[0].closed)
        assert isinstance(connections[0].error, ConnectionResetError)
        await server.close()

    multiloop.run(main)


@loops
@pytest.mark.parametrize("event", ["data", "end", "drain", "close"])
def test_leaving_the_program_from_a_listener_works(event: str, loop: Any) -> None:
    async def main() -> None:
        def leave(*_: Any) -> None:
            raise SystemExit(7)

        def serve(connection: net.Socket) -> None:
            connection.resume()
            connection.write(b"x" * 10_000_000)
            connection.on("error", lambda error: None)
            connection.on(event, leave)

        server = net.create_server(serve)
        await server.listen(0)
        client = await net.connect(server.address[1])
        client.write(b"x")
        client.resume()
        if event in ("end", "close"):
            client.end()
        await asyncio.sleep(5)

    with pytest.raises(SystemExit) as caught:
        multiloop.run(main, loop=loop)
    assert caught.value.code == 7


def test_an_exception_in_a_data_listener_reaches_on_uncaught_and_loses_nothing_else() -> None:
    async def main() -> None:
        uncaught: list[BaseException] = []
        multiloop.on_uncaught(uncaught.append)
        try:
            server = net.create_server(lambda c: c.on("data", lambda data: 1 / 0).on("data", c.write))
            echo = net.create_server(_echo)
            await server.listen(0)
            await echo.listen(0)
            client, other = await net.connect(server.address[1]), await net.connect(echo.address[1])
            client.write(b"x")
            await until(lambda: uncaught)
            assert isinstance(uncaught[0], ZeroDivisionError)
            other.write(b"y")
            assert await other.read(1) == b"y"
            client.destroy()
            other.destroy()
            await server.close()
            await echo.close()
        finally:
            multiloop.on_uncaught(None)

    multiloop.run(main)


# --- the hook ---------------------------------------------------------------------------------------------------------
def test_a_provider_stands_in_for_the_listener_and_may_be_refused() -> None:
    class Fake:
        address = ("198.51.100.1", 80)
        closed = False

        def close(self) -> None:
            self.closed = True

    async def main() -> None:
        fake = Fake()
        calls: list[Any] = []

        class Provider:
            async def listen(self, options: Any, server: Any) -> Fake:
                calls.extend((options, server.accepted))
                return fake

            async def bind(self, options: Any, where: Any) -> socket.socket:
                raise NotImplementedError

        before = _provider.set_provider(Provider())
        try:
            server = net.create_server(_echo, max_connections=1)
            await server.listen(80)
            own = net.create_server(_echo)
            await own.listen(0, exclusive=True)
            assert own.address[0] == "127.0.0.1", "exclusive: the process's own"
            await own.close()
        finally:
            _provider.set_provider(before)
        options, accepted = calls
        assert (options.port, server.address) == (80, fake.address)
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        assert accepted(theirs) is True
        more = socket.socketpair()
        assert accepted(more[0]) is False, "full: it stays the provider's"
        loop = asyncio.get_running_loop()
        ours.setblocking(False)
        await loop.sock_sendall(ours, b"hi")
        assert await loop.sock_recv(ours, 10) == b"hi"
        ours.close()
        await server.close()
        assert fake.closed
        assert accepted(more[0]) is False, "closed: it stays the provider's"
        for each in more:
            each.close()

    multiloop.run(main)


class HandedOver(socket.socket):
    """A connection of which somebody else keeps a copy."""

    prefix = b""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.told: list[str] = []

    def first_byte(self) -> None:
        self.told.append("first byte")


@loops
@pytest.mark.parametrize("prefix", [b"", b"before "])
def test_who_keeps_a_copy_of_a_connection_hears_of_its_first_byte_and_may_have_read_before(
    loop: Any, prefix: bytes
) -> None:
    class Fake:
        address = ("198.51.100.1", 80)

        def close(self) -> None:
            pass

    async def main() -> None:
        accepted: list[Any] = []

        class Provider:
            async def listen(self, options: Any, server: Any) -> Fake:
                accepted.append(server.accepted)
                return Fake()

            async def bind(self, options: Any, where: Any) -> socket.socket:
                raise NotImplementedError

        before = _provider.set_provider(Provider())
        try:
            server = net.create_server()
            await server.listen(80)
        finally:
            _provider.set_provider(before)
        connections: list[net.Socket] = []
        server.on("connection", connections.append)
        ours, theirs = socket.socketpair()
        handed = HandedOver(theirs.family, theirs.type, 0, theirs.detach())
        handed.prefix = prefix
        handed.setblocking(False)
        accepted[0](handed)
        await until(lambda: connections)
        assert handed.told == (["first byte"] if prefix else [])
        ours.send(b"one")
        got = b""
        async for chunk in connections[0]:
            got += chunk
            if got.endswith(b"one"):
                assert handed.told == ["first byte"]
                ours.send(b" two")
                ours.shutdown(socket.SHUT_WR)
        assert got == prefix + b"one two"
        assert handed.told == ["first byte"]
        ours.close()
        await server.close()

    multiloop.run(main, loop=loop)


@loops
@pytest.mark.parametrize("turns", [0, 1, 2, 5])
@pytest.mark.parametrize("kind", ["net", "http", "http with an application", "datagram"])
def test_what_is_cancelled_while_it_opens_leaves_nothing_open(loop: Any, kind: str, turns: int) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for name in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{name}.complete"})

    async def main() -> None:
        made: Any
        if kind == "datagram":
            made = net.create_datagram()
            opening = made.bind(0, "127.0.0.1")
        elif kind == "net":
            made = net.create_server()
            opening = made.listen(0)
        else:
            made = http.create_server(lambda request: "x")
            if "application" in kind:
                made = http.Server(application, Interface.ASGI, HttpConfig(), None, None)
            opening = made.listen(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        if opening.cancel():
            with pytest.raises(asyncio.CancelledError):
                await opening
            await until(lambda: made.address is None)
        else:
            assert await opening is made
            closing = made.close()
            if closing is not None:
                await closing

    before = open_descriptors()
    for _ in range(3):
        multiloop.run(main, loop=loop)  # which waits for what is left open
    assert not descriptors_left(before)
