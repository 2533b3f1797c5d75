"""net.connect: names, happy eyeballs, failures (N9)."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from typing import Any

import pytest
from tests.support import LOOPS, descriptors_at_rest, descriptors_left, open_descriptors, until

import multiloop
from multiloop import dns, events, net
from multiloop.errors import UsageError

loops = pytest.mark.parametrize("loop", LOOPS)


def closed_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# --- failures ---------------------------------------------------------------------------------------------------------
@loops
def test_a_refused_connection_is_an_oserror_with_the_address(loop: Any) -> None:
    async def main() -> None:
        port = closed_port()
        with pytest.raises(ConnectionRefusedError) as caught:
            await net.connect(port, "127.0.0.1")
        assert caught.value.filename == f"127.0.0.1:{port}"
        assert f"127.0.0.1:{port}" in str(caught.value)

    multiloop.run(main, loop=loop)


def test_the_callback_gets_the_error_first() -> None:
    seen: list[Any] = []

    def main() -> None:
        net.connect(closed_port(), "127.0.0.1", callback=lambda error, s: seen.append((type(error), s)))
        net.connect(1, "no-such-host.invalid", callback=lambda error, s: seen.append((type(error), error.filename)))

    multiloop.run(main)
    assert sorted(seen, key=str) == [(ConnectionRefusedError, None), (socket.gaierror, "no-such-host.invalid")]


def test_a_listener_for_error_is_enough() -> None:
    async def main() -> None:
        client = net.Socket()
        order: list[Any] = []
        client.on("error", lambda error: order.append(type(error))).on("close", order.append)
        client.connect(closed_port(), "127.0.0.1")
        await until(lambda: len(order) == 2)
        assert order == [ConnectionRefusedError, True]
        assert client.destroyed

    multiloop.run(main)


def test_a_failure_that_nobody_looks_at_ends_the_program() -> None:
    async def main() -> None:
        net.connect(closed_port(), "127.0.0.1")
        await asyncio.sleep(5)

    with pytest.raises(ConnectionRefusedError):
        multiloop.run(main)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "port"),
        ({"port": 1, "path": "x"}, "port"),
        ({"port": 1, "family": 5}, "family"),
        ({"port": 1, "attempt_delay": 0}, "attempt_delay"),
        ({"path": "/tmp/x", "tls": True}, "server_hostname"),
        ({"port": 1, "tls": True, "allow_half_open": True}, "half"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_the_call(options: Any, message: str) -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match=message):
            net.connect(**options)
        with pytest.raises(ValueError, match="65535"):
            net.connect(65536)
        with pytest.raises(ValueError, match="not a host"):
            net.connect(1, "a\0b")

    multiloop.run(main)


# --- cancelling -------------------------------------------------------------------------------------------------------
@loops
def test_a_cancelled_connect_leaves_nothing(loop: Any) -> None:
    async def main() -> None:
        before = await descriptors_at_rest()
        with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
            port = server.getsockname()[1]
            held = [await net.connect(port, "127.0.0.1") for _ in range(1)]
            waiting = [net.connect(port, "127.0.0.1") for _ in range(5)]  # the backlog is full: these wait
            await asyncio.sleep(0.01)
            for op in waiting:
                op.cancel()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            held += [each for each in results if isinstance(each, net.Socket)]
            assert any(isinstance(each, asyncio.CancelledError) for each in results)
            for client in held:
                client.destroy()
        await until(lambda: open_descriptors() <= before)
        assert len(asyncio.all_tasks()) <= 2

    multiloop.run(main, loop=loop)


def test_destroying_while_connecting_ends_the_attempt() -> None:
    async def main() -> None:
        before = await descriptors_at_rest()
        client = net.Socket()
        closed = events.once(client, "close")
        connecting = client.connect(closed_port(), "localhost")
        client.destroy()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert await closed == [False]
        await until(lambda: open_descriptors() <= before)

    multiloop.run(main)


# --- happy eyeballs ---------------------------------------------------------------------------------------------------
def answers(*addresses: str) -> Any:
    async def lookup(host: str) -> list[str]:
        return list(addresses)

    return lookup


@loops
def test_a_dead_address_costs_only_its_head_start(loop: Any) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.2", 0), backlog=0) as full:
            port = full.getsockname()[1]
            filler = [socket.socket() for _ in range(3)]
            for each in filler:
                each.setblocking(False)
                each.connect_ex(("127.0.0.2", port))
            server = net.create_server(lambda c: c.end(b"hi"))
            await server.listen(port, "127.0.0.1")
            began = time.monotonic()
            lookup = answers("127.0.0.2", "127.0.0.1")
            client = await net.connect(port, "two.example", lookup=lookup, attempt_delay=0.03)
            assert 0.02 < time.monotonic() - began < 15  # the kernel gives up after a minute or two
            assert client.remote_address == ("127.0.0.1", port)
            assert await client.read_all() == b"hi"
            for each in filler:
                each.close()
            await server.close()

    multiloop.run(main, loop=loop)


def test_a_refusal_starts_the_next_address_at_once() -> None:
    async def main() -> None:
        server = net.create_server(lambda c: c.end())
        await server.listen(0, "127.0.0.1")
        port = server.address[1]
        lookup = answers("127.0.0.3", "127.0.0.2", "127.0.0.1")
        async with asyncio.timeout(5):
            client = await net.connect(port, "three.example", lookup=lookup, attempt_delay=60)
        assert client.remote_address == ("127.0.0.1", port)
        client.destroy()
        await server.close()

    multiloop.run(main)


def test_when_all_addresses_fail_one_error_tells_of_each() -> None:
    async def main() -> None:
        before = await descriptors_at_rest()
        port = closed_port()
        with pytest.raises(ConnectionRefusedError) as caught:
            await net.connect(port, "two.example", lookup=answers("127.0.0.1", "127.0.0.2"))
        assert caught.value.filename == f"two.example:{port}"
        group = caught.value.__cause__
        assert isinstance(group, ExceptionGroup)
        assert {error.filename for error in group.exceptions} == {f"127.0.0.1:{port}", f"127.0.0.2:{port}"}  # type: ignore[attr-defined]
        assert not descriptors_left(before)

    multiloop.run(main)


def test_families_take_turns() -> None:
    from multiloop.net._race import interleaved

    four, six = socket.AF_INET, socket.AF_INET6
    found: Any = [(six, ("a", 1)), (six, ("b", 1)), (four, ("c", 1)), (six, ("d", 1))]
    assert [where[0] for _, where in interleaved(found)] == ["a", "c", "b", "d"]


def test_a_lookup_of_ones_own_may_answer_with_lookup_addresses() -> None:
    async def main() -> None:
        async def lookup(host: str) -> list[dns.LookupAddress]:
            assert host == "my.example"
            return [dns.LookupAddress("127.0.0.1", 4)]

        async def wrong(host: str) -> list[str]:
            return ["not an address"]

        server = net.create_server(lambda c: c.end())
        await server.listen(0)
        client = await net.connect(server.address[1], "my.example", lookup=lookup)
        client.destroy()
        with pytest.raises(UsageError, match="not an address"):
            await net.connect(server.address[1], "my.example", lookup=wrong)
        with pytest.raises(OSError, match="IPv6"):
            await net.connect(server.address[1], "my.example", lookup=lookup, family=6)
        await server.close()

    multiloop.run(main)


def test_a_local_address_can_be_chosen() -> None:
    async def main() -> None:
        connections: list[net.Socket] = []
        server = net.create_server(connections.append)
        await server.listen(0)
        client = await net.connect(server.address[1], "127.0.0.1", local_address=("127.0.0.9", 0))
        await until(lambda: connections)
        remote = connections[0].remote_address
        assert isinstance(remote, tuple)
        assert remote[0] == "127.0.0.9"
        client.destroy()
        with pytest.raises(OSError) as caught:
            await net.connect(server.address[1], "127.0.0.1", local_address=("192.0.2.1", 0))
        assert caught.value.errno == errno.EADDRNOTAVAIL
        server.destroy_connections()
        await server.close()

    multiloop.run(main)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("127.0.0.1", 4),
        ("::1", 6),
        ("fe80::1%eth0", 6),
        ("localhost", 0),
        ("1.2.3", 0),
        ("", 0),
        (b"::1", 0),
        (None, 0),
    ],
)
def test_addresses_are_told_from_names(text: Any, version: int) -> None:
    assert net.is_ip(text) == version
    assert net.is_ipv4(text) is (version == 4)
    assert net.is_ipv6(text) is (version == 6)
