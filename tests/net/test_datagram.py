"""UDP (N12)."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest
from tests.support import LOOPS, descriptors_left, open_descriptors, until

import multiloop
from multiloop import events, net
from multiloop.errors import ClosedError, UsageError

loops = pytest.mark.parametrize("loop", LOOPS)


@loops
def test_datagrams_go_both_ways(loop: Any) -> None:
    async def main() -> None:
        server = net.create_datagram()
        server.on("message", lambda data, address: server.send(data.upper(), address[1], address[0]))
        assert await server.bind(0, "127.0.0.1") is server
        port = server.address[1]
        async with net.create_datagram() as client:
            assert await client.send("hello", port, "127.0.0.1") == 5
            async for data, address in client:
                assert (data, address) == (b"HELLO", ("127.0.0.1", port))
                break
        server.close()

    multiloop.run(main, loop=loop)


@loops
def test_what_is_sent_before_the_socket_is_bound_waits_and_binds_it(loop: Any) -> None:
    async def main() -> None:
        got: list[bytes] = []
        server = net.create_datagram(lambda data, address: got.append(data))
        await server.bind(0, "127.0.0.1")
        client = net.create_datagram()
        for number in range(3):
            client.send(b"%d" % number, server.address[1], "127.0.0.1")
        assert client.address is None
        await until(lambda: len(got) == 3)
        assert sorted(got) == [b"0", b"1", b"2"]
        assert client.address[1] > 0
        client.close()
        server.close()

    multiloop.run(main, loop=loop)


def test_a_connected_socket_needs_no_address_and_hears_of_a_closed_port() -> None:
    async def main() -> None:
        got: list[Any] = []
        server = net.create_datagram(lambda data, address: got.append(data))
        await server.bind(0, "127.0.0.1")
        client = net.create_datagram()
        await client.connect(server.address[1], "127.0.0.1")
        assert client.remote_address == ("127.0.0.1", server.address[1])
        await client.send(b"x")
        await client.send(b"")
        await until(lambda: got == [b"x", b""])
        with pytest.raises(UsageError, match="connected"):
            client.send(b"x", 1)
        server.close()
        client.on("message", lambda data, address: None)
        failed = events.once(client, "error")
        client.send(b"nobody")
        (error,) = await asyncio.wait_for(failed, 5)
        assert isinstance(error, ConnectionRefusedError)
        client.close()

    multiloop.run(main)


def test_errors_name_the_address() -> None:
    async def main() -> None:
        first = net.create_datagram()
        await first.bind(0, "127.0.0.1")
        port = first.address[1]
        with pytest.raises(UsageError, match="bound already"):
            first.bind(0)
        with pytest.raises(OSError) as caught:
            await net.create_datagram().bind(port, "127.0.0.1")
        assert (caught.value.errno, caught.value.filename) == (errno.EADDRINUSE, f"127.0.0.1:{port}")
        with pytest.raises(OSError) as caught:
            await first.send(b"x" * 70000, port, "127.0.0.1")
        assert (caught.value.errno, caught.value.filename) == (errno.EMSGSIZE, f"127.0.0.1:{port}")
        with pytest.raises(OSError, match=r"no-such-host\.invalid"):
            await first.send(b"x", port, "no-such-host.invalid")
        with pytest.raises(UsageError, match="port"):
            first.send(b"x")
        told: list[Any] = []
        first.send(b"x" * 70000, port, "127.0.0.1", callback=lambda error, size: told.append((error.errno, size)))
        assert told == []
        await until(lambda: told)
        assert told == [(errno.EMSGSIZE, None)]
        first.send(b"x" * 70000, port, "127.0.0.1")  # not awaited, nobody listens: no harm
        await asyncio.sleep(0.01)
        first.close()
        first.close()
        with pytest.raises(ClosedError):
            first.send(b"x", port)

    multiloop.run(main)


def test_a_slow_reader_leaves_datagrams_to_the_kernel() -> None:
    async def main() -> None:
        server = net.create_datagram()
        await server.bind(0, "127.0.0.1")
        reader = aiter(server)
        client = net.create_datagram()
        await client.connect(server.address[1], "127.0.0.1")
        for number in range(150):
            await client.send(b"%d" % number)
        await asyncio.sleep(0.01)
        assert len(server._queue) <= 128, "a reader's queue is bounded"
        got = [int((await anext(reader)).data) for _ in range(150)]
        assert got == list(range(150))
        client.close()
        server.close()
        with pytest.raises(StopAsyncIteration):
            await anext(reader)

    multiloop.run(main)


def test_multicast_reaches_its_members() -> None:
    async def main() -> None:
        got: list[bytes] = []
        receiver = net.create_datagram(lambda data, address: got.append(data), reuse_address=True)
        with pytest.raises(UsageError, match="bind"):
            receiver.add_membership("239.255.0.1")
        await receiver.bind(0)
        receiver.add_membership("239.255.0.1", "127.0.0.1")
        with pytest.raises(OSError, match=r"10\.0\.0\.1"):
            receiver.add_membership("10.0.0.1")
        sender = net.create_datagram()
        await sender.bind(0, "127.0.0.1")
        sender.set_multicast_ttl(1)
        sender.set_multicast_loopback(True)
        sender.set_broadcast(True)
        await sender.send(b"all", receiver.address[1], "239.255.0.1")
        await until(lambda: got == [b"all"])
        receiver.drop_membership("239.255.0.1", "127.0.0.1")
        receiver.close()
        sender.close()

    multiloop.run(main)


def test_a_bound_socket_holds_the_program_until_it_is_closed_or_unrefd() -> None:
    before = open_descriptors()
    seen: list[str] = []

    def main() -> None:
        first = net.create_datagram(lambda data, address: (seen.append("message"), first.close()))
        first.on("close", lambda: seen.append("close"))

        def bound(error: Any, socket: Any) -> None:
            net.create_datagram().unref().send(b"x", first.address[1], "127.0.0.1")

        first.bind(0, "127.0.0.1", callback=bound)

    multiloop.run(main)
    assert seen == ["message", "close"]
    assert not descriptors_left(before)


def test_family_6() -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match="family"):
            net.create_datagram(family=5)
        server = net.create_datagram(family=6)
        try:
            await server.bind(0, "::1")
        except OSError:
            pytest.skip("no IPv6 here")
        client = net.create_datagram(family=6)
        await client.send(b"six", server.address[1], "::1")
        assert (await anext(aiter(server))).data == b"six"
        client.close()
        server.close()

    multiloop.run(main)
