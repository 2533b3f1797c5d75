"""dns: what the system's resolver answers, awaited and with a callback."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

import multiloop
from multiloop import dns
from multiloop.errors import UsageError

NOBODY = "no-such-host.invalid"  # RFC 2606: never has an address


def test_a_name_is_looked_up() -> None:
    async def main() -> None:
        first = await dns.lookup("localhost")
        assert first.address in ("127.0.0.1", "::1")
        assert first.family == (4 if first.address == "127.0.0.1" else 6)
        every = await dns.lookup("localhost", all=True)
        assert first in every
        assert len(set(every)) == len(every)
        assert await dns.lookup("localhost", family=4) == ("127.0.0.1", 4)

    multiloop.run(main)


def test_an_address_is_its_own_answer() -> None:
    async def main() -> None:
        assert await dns.lookup("192.0.2.1") == ("192.0.2.1", 4)
        assert await dns.lookup("::1") == ("::1", 6)
        assert await dns.lookup("::1", order="ipv4first", all=True) == [("::1", 6)]

    asyncio.run(main())


@pytest.mark.parametrize("host", [NOBODY, "x" * 70 + ".com", "", "a..b"])
def test_a_name_without_address_is_an_oserror_that_names_it(host: str) -> None:
    async def main() -> None:
        with pytest.raises(OSError) as caught:
            await dns.lookup(host)
        if host:
            assert isinstance(caught.value, socket.gaierror)
            assert caught.value.filename == host
            assert repr(host) in str(caught.value)

    multiloop.run(main)


def test_the_callback_gets_the_error_first() -> None:
    seen: list[Any] = []

    def main() -> None:
        dns.lookup(NOBODY, callback=lambda error, value: seen.append((type(error), error.filename, value)))
        dns.lookup("127.0.0.1", callback=lambda error, value: seen.append((error, value)))

    multiloop.run(main)
    assert sorted(seen, key=str) == [(socket.gaierror, NOBODY, None), (None, ("127.0.0.1", 4))]


def test_services_and_reverse_names() -> None:
    async def main() -> None:
        name, service = await dns.lookup_service("127.0.0.1", 22)
        assert (name, service) == ("localhost", "ssh")
        assert "localhost" in await dns.reverse("127.0.0.1")

    multiloop.run(main)


def test_reverse_and_service_of_a_name_are_refused_with_the_name() -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="localhost"):
            await dns.reverse("localhost")
        with pytest.raises(OSError, match="localhost"):
            await dns.lookup_service("localhost", 1)

    multiloop.run(main)


def test_wrong_arguments_are_refused_in_the_call() -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match="family"):
            dns.lookup("localhost", family=5)
        with pytest.raises(UsageError, match="order"):
            dns.lookup("localhost", order="random")  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="NUL"):
            dns.lookup("local\0host")
        with pytest.raises(TypeError, match="str"):
            dns.lookup(b"localhost")  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="65535"):
            dns.lookup_service("127.0.0.1", 70000)

    multiloop.run(main)


@pytest.mark.parametrize("name", ["resolve", "resolve4", "resolve_mx", "Resolver"])
def test_what_needs_a_dns_client_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(AttributeError, match=r"no DNS client; use dns.lookup"):
        getattr(dns, name)


def test_a_cancelled_lookup_stops_waiting_at_once() -> None:
    async def main() -> None:
        waiting = dns.lookup(NOBODY)
        assert waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    multiloop.run(main)
