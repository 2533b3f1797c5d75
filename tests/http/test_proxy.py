"""Who the client is behind proxies: the trusted list, X-Forwarded-For, Forwarded, and the PROXY protocol."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest

from multiloop.errors import ConfigError
from multiloop.http._proxy import TrustedProxies, parse_address
from multiloop.http._proxy_protocol import SIGNATURE, BadProxyHeader, Header, parse_proxy_header

from .harness import Client, answer, eventually, run, service_of

PEER = ("10.0.0.9", 5000)
PROXIES = ("10.0.0.0/8", "2001:db8::1")


def fields(**values: str | list[str]) -> list[tuple[bytes, bytes]]:
    made = []
    for name, value in values.items():
        for one in [value] if isinstance(value, str) else value:
            made.append((name.replace("_", "-").encode(), one.encode("latin-1")))
    return made


# --- whose word is taken ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("entries", "peer", "trusted"),
    [
        (("127.0.0.1",), ("127.0.0.1", 1), True),
        (("127.0.0.1",), ("127.0.0.2", 1), False),
        (("127.0.0.1",), ("::ffff:127.0.0.1", 1), True),
        (("10.0.0.0/8",), ("10.255.0.1", 1), True),
        (("10.0.0.0/8",), ("11.0.0.1", 1), False),
        (("2001:db8::/32",), ("2001:db8::7", 1), True),
        (("10.0.0.0/8",), None, False),
        (("unix",), None, True),
        (("unix",), ("127.0.0.1", 1), False),
        (("*",), ("8.8.8.8", 1), True),
        (("*",), None, True),
        ((), ("127.0.0.1", 1), False),
        (("10.0.0.1",), ("not an address", 1), False),
    ],
)
def test_only_peers_on_the_list_are_believed(entries: Any, peer: Any, trusted: bool) -> None:
    said = fields(x_forwarded_for="1.2.3.4", x_forwarded_proto="https")
    proxies = TrustedProxies(entries)
    assert proxies.client_of(peer, said) == (("1.2.3.4", 0) if trusted else peer)
    scope = {"type": "http", "scheme": "http", "client": peer, "headers": said}
    proxies.apply(scope)
    assert scope["scheme"] == ("https" if trusted else "http")


@pytest.mark.parametrize("entry", ["", "localhost", "10.0.0.1/8", "300.0.0.1", "10.0.0.0/33", "1.2.3.4:80"])
def test_an_entry_that_is_no_address_is_one_clear_error(entry: str) -> None:
    with pytest.raises(ConfigError, match="use an address, a network"):
        TrustedProxies([entry])


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("1.2.3.4, 10.0.0.5", "1.2.3.4"),
        ("6.6.6.6, 1.2.3.4, 10.0.0.5, 10.0.0.6", "1.2.3.4"),  # what the client forged stands left of its address
        ("10.0.0.1, 1.2.3.4", "1.2.3.4"),
        ("10.0.0.7, 10.0.0.5", "10.0.0.7"),
        (["6.6.6.6", "1.2.3.4", "10.0.0.5"], "1.2.3.4"),
        ("1.2.3.4:567", "1.2.3.4"),
        ("2001:db8::2, 2001:db8::1", "2001:db8::2"),
        ("[2001:db8::2]:99", "2001:db8::2"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("1.2.3.4,", "10.0.0.9"),  # malformed on the right: nothing left of it can be believed
        ("1.2.3.4, garbage, 10.0.0.5", "10.0.0.5"),
        ("1.2.3.4, unknown", "10.0.0.9"),
        ("", "10.0.0.9"),
        (",,,", "10.0.0.9"),
        ("1.2.3.4%eth0", "10.0.0.9"),
        ("\xff\xfe", "10.0.0.9"),
        ("1" * 5000, "10.0.0.9"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_not_trusted(said: Any, client: str) -> None:
    proxies = TrustedProxies(PROXIES)
    found = proxies.client_of(PEER, fields(x_forwarded_for=said))
    assert found is not None
    assert found[0] == client
    assert proxies.client_of(PEER, fields(x_forwarded_for=said)) == found


@pytest.mark.parametrize(
    ("said", "client", "scheme"),
    [
        ("for=1.2.3.4;proto=https", "1.2.3.4", "https"),
        ('For="[2001:db8::2]:4711"', "2001:db8::2", None),
        ("for=6.6.6.6, for=1.2.3.4;proto=https;by=10.0.0.5, for=10.0.0.5;proto=http", "1.2.3.4", "https"),
        (["for=6.6.6.6;proto=http", "for=1.2.3.4 ; proto=https"], "1.2.3.4", "https"),
        ('for="1.2.3.4:5"', "1.2.3.4", None),
        ("for=_hidden", "10.0.0.9", None),
        ("for=unknown;proto=https", "10.0.0.9", "https"),
        ('for="unclosed', "10.0.0.9", None),
        ('for="a, for=1.2.3.4', "1.2.3.4", None),  # a quote that a client left open swallows nothing
        ('for=6.6.6.6;x=", for="[2001:db8::2]"', "2001:db8::2", None),
        ("for", "10.0.0.9", None),
        ("=;,", "10.0.0.9", None),
        ("proto=gopher;for=1.2.3.4", "1.2.3.4", None),
        (";" * 4000, "10.0.0.9", None),
        ('a="' * 2000 + ", for=1.2.3.4", "1.2.3.4", None),
        ('x=",' * 2000 + "for=1.2.3.4", "1.2.3.4", None),
    ],
)
def test_forwarded_is_read_by_the_same_rule(said: Any, client: str, scheme: str | None) -> None:
    proxies = TrustedProxies(PROXIES)
    scope = {"type": "http", "scheme": "none", "client": PEER, "headers": fields(forwarded=said)}
    proxies.apply(scope)
    assert scope["client"][0] == client  # type: ignore[index]
    assert scope["scheme"] == (scheme or "none")


def test_forwarded_counts_only_where_it_is_the_proxy_that_writes_it() -> None:
    both = fields(forwarded="for=6.6.6.6;proto=http", x_forwarded_for="1.2.3.4", x_forwarded_proto="https")
    assert TrustedProxies(PROXIES).client_of(PEER, both) == ("1.2.3.4", 0)
    assert TrustedProxies((*PROXIES, "forwarded")).client_of(PEER, both) == ("6.6.6.6", 0)
    only = fields(x_forwarded_for="1.2.3.4")
    assert TrustedProxies((*PROXIES, "forwarded")).client_of(PEER, only) == PEER


@pytest.mark.parametrize(
    ("hops", "schemes", "scheme"),
    [
        ("1.2.3.4", "https", "https"),
        ("1.2.3.4", "HTTPS", "https"),
        ("1.2.3.4, 10.0.0.5", "https, http", "https"),
        ("6.6.6.6, 1.2.3.4", "http, https", "https"),
        ("1.2.3.4, 10.0.0.5", "https", "https"),
        ("1.2.3.4", "javascript", "none"),
        ("1.2.3.4", "", "none"),
        ("1.2.3.4", "wss", "https"),
    ],
)
def test_the_scheme_belongs_to_the_hop_of_the_client(hops: str, schemes: str, scheme: str) -> None:
    scope = {
        "type": "http",
        "scheme": "none",
        "client": PEER,
        "headers": fields(x_forwarded_for=hops, x_forwarded_proto=schemes),
    }
    TrustedProxies(PROXIES).apply(scope)
    assert scope["scheme"] == scheme


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("1.2.3.4", "1.2.3.4", 0),
        (" 1.2.3.4:80 ", "1.2.3.4", 80),
        ("1.2.3.4:99999", "1.2.3.4", 0),
        ("1.2.3.4:x", "1.2.3.4", 0),
        ("[::1]", "::1", 0),
        ("[::1]:80", "::1", 80),
        ("::1", "::1", 0),
        ("[::1", "None", 0),
        ("[::1]x", "None", 0),
        ("[1.2.3.4", "None", 0),
        ("1.2.3", "None", 0),
        ("01.2.3.4", "None", 0),
        ("1.2.3.4\r\nX: y", "None", 0),
    ],
)
def test_addresses_are_read_strictly(text: str, address: str, port: int) -> None:
    found, number = parse_address(text)
    assert (str(found), number) == (address, port)


def test_asgi_wsgi_and_handlers_are_told_the_same_client() -> None:
    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")
        await answer(send, f"{scope['client'][0]} {scope['scheme']}".encode())

    def wsgi(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [f"{environ['REMOTE_ADDR']} {environ['wsgi.url_scheme']}".encode()]

    async def main() -> None:
        said = "X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\nX-Forwarded-Proto: https\r\n"
        for app, expected in ((asgi, b"1.2.3.4 https"), (wsgi, b"1.2.3.4 https"), (lambda r: r.client[0], b"1.2.3.4")):
            async with service_of(app, proxy_headers=("127.0.0.1",)) as service:
                assert (await Client(service, tcp=True).get("/", said)).body == expected
            async with service_of(app) as service:
                assert (await Client(service, tcp=True).get("/", said)).body.startswith(b"127.0.0.1")

    run(main)


# --- the PROXY protocol -------------------------------------------------------------------------------------------
def v2(family: int, body: bytes, command: int = 0x21, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


V4 = socket.inet_aton("1.2.3.4") + socket.inet_aton("5.6.7.8") + struct.pack("!HH", 567, 80)
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::2") * 2 + struct.pack("!HH", 567, 80)

GOOD = [
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 567 80\r\n", ("1.2.3.4", 567)),
    (b"PROXY TCP6 2001:db8::2 ::1 567 80\r\n", ("2001:db8::2", 567)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    (v2(0x11, V4), ("1.2.3.4", 567)),
    (v2(0x21, V6), ("2001:db8::2", 567)),
    (v2(0x11, V4 + b"\x04\x00\x01x" + b"n" * 300), ("1.2.3.4", 567)),
    (v2(0x00, b"", 0x20), None),
    (v2(0x11, V4, 0x20), None),
    (v2(0x31, b"\0" * 216), None),
]
BAD = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 567\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 567 80 9\r\n",
    b"PROXY TCP4 ::1 ::1 567 80\r\n",
    b"PROXY TCP6 1.2.3.4 5.6.7.8 567 80\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 80\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 80\r\n",
    b"PROXY TCP4 1.2.3.4  5.6.7.8 567 80\r\n",
    b"PROXY UDP4 1.2.3.4 5.6.7.8 567 80\r\n",
    b"PROXY \xff\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4 " + b"1" * 200,
    b"proxy TCP4 1.2.3.4 5.6.7.8 567 80\r\n",
    v2(0x11, V4, 0x31),
    v2(0x11, V4, 0x22),
    v2(0x11, V4[:8]),
    v2(0x11, V4, length=60000),
    SIGNATURE[:11] + b"X" + v2(0x11, V4)[12:],
]


@pytest.mark.parametrize(("header", "peer"), GOOD)
def test_a_proxy_header_is_read_to_its_end_and_asks_for_no_byte_behind_it(header: bytes, peer: Any) -> None:
    for end in range(len(header)):
        more = parse_proxy_header(header[:end])
        assert isinstance(more, int)
        assert 1 <= more <= len(header) - end
    for behind in (b"", b"GET / HTTP/1.1\r\n"):
        found = parse_proxy_header(header + behind)
        assert isinstance(found, Header)
        assert (found.length, found.peer) == (len(header), peer)


@pytest.mark.parametrize("header", BAD)
def test_what_is_no_proxy_header_is_refused(header: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        parse_proxy_header(header)


REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def whoami(request: Any) -> str:
    return str(request.client)


@pytest.mark.parametrize(("header", "peer"), GOOD)
@pytest.mark.parametrize("split", [0, 1, 5])
def test_a_connection_has_the_address_of_its_proxy_header(header: bytes, peer: Any, split: int) -> None:
    async def main() -> None:
        async with service_of(whoami, proxy_protocol=True) as service:
            client = Client(service, tcp=True)
            data = header + REQUEST
            if split:
                for start in range(0, len(data), split):
                    await client.send(data[start : start + split])
                    await asyncio.sleep(0)
            else:
                await client.send(data)
            expected = str(peer or client.sock.getsockname()).encode()
            assert (await client.reply()).body == expected
            assert (await client.get()).body == expected

    run(main)


@pytest.mark.parametrize("header", BAD)
def test_a_connection_without_its_proxy_header_is_closed_unanswered(header: bytes) -> None:
    closed = []

    async def main() -> None:
        async with service_of(whoami, proxy_protocol=True) as service:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            with ours:
                service.adopt(theirs, on_closed=lambda: closed.append(True))
                loop = asyncio.get_running_loop()
                try:
                    await loop.sock_sendall(ours, header + REQUEST)
                    assert await loop.sock_recv(ours, 100) == b""
                except ConnectionError:
                    pass
            await eventually(lambda: closed)
            assert not service.connections

    run(main)


def test_a_proxy_header_that_never_comes_or_ends_meets_the_deadline() -> None:
    async def main() -> None:
        async with service_of(whoami, proxy_protocol=True, first_byte_timeout=0.1) as service:
            silent, half = Client(service), Client(service)
            await half.send(b"PROXY TCP4 1.2.3.4")
            assert await silent.rest() == b""
            assert await half.rest() == b""
            gone = Client(service)
            await gone.send(b"PROX")
            gone.close()

    run(main)


def test_the_first_byte_of_a_proxy_header_is_reported() -> None:
    seen = []

    async def main() -> None:
        async with service_of(whoami, proxy_protocol=True) as service:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            with ours:
                service.adopt(theirs, on_first_byte=lambda: seen.append(True))
                await asyncio.sleep(0.01)
                assert not seen
                ours.send(b"P")
                await eventually(lambda: seen)

    run(main)


def test_a_prefix_that_was_read_before_may_hold_the_header() -> None:
    async def main() -> None:
        async with service_of(whoami, proxy_protocol=True) as service:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            with ours:
                service.adopt(theirs, prefix=GOOD[0][0] + REQUEST)
                reply = await asyncio.get_running_loop().sock_recv(ours, 1000)
                assert reply.endswith(b"('1.2.3.4', 567)")

    run(main)
