"""Everything else that takes bytes: frames of WebSockets and between processes, proxies' headers, heads in the primary,
configuration, lines on the control socket.
"""

from __future__ import annotations

import asyncio
import atexit
import ipaddress
import json
import os
import random
import struct
import tempfile
from typing import Any

from multiloop._wire import frames
from multiloop._wire.websocket import Handshake, MessageStream
from multiloop.cli import _settings, _sources
from multiloop.cluster import _env_file, _sticky
from multiloop.cluster._control import ControlServer
from multiloop.errors import ConfigError, FrameError, FrameTooLarge
from multiloop.http._proxy import TrustedProxies
from multiloop.http._proxy_protocol import SIGNATURE, BadProxyHeader, Header, parse_proxy_header
from tests.http.frames import BINARY, CONT, PING, TEXT, close, deflated, frame

from .target import pieces, target

# --- WebSocket frames ---------------------------------------------------------------------------------------------
_MAX_MESSAGE = 4096
_FRAMES = (
    frame(TEXT, "grüße".encode()) + frame(PING, b"?") + close(1000, b"bye"),
    frame(TEXT, b"gr\xc3", fin=False) + frame(PING) + frame(CONT, b"\xbc\xc3\x9fe"),
    frame(BINARY, deflated(b"packed" * 200), rsv=4)
    + frame(TEXT, deflated(b"x"), fin=False, rsv=4)
    + frame(CONT, b"\0"),
    frame(BINARY, b"x" * 130) + frame(BINARY, b"y" * 3000),
    frame(BINARY, deflated(b"\0" * 100_000), rsv=4),
    frame(CONT, b"x"),
    frame(TEXT, b"\xff\xfe"),
    frame(TEXT, b"x", mask=False),
    frame(TEXT, fin=False) + frame(CONT, fin=False) * 40,
    close(1005) + frame(TEXT, b"late"),
    bytes((0x82, 0xFF)) + b"\xff" * 8 + b"\0\0\0\0",
)


@target("websocket", _FRAMES, (*_FRAMES[:3], b"\x88\x80\0\0\0\0", b"\x89\xfe", b"\xc1", b"\x01", b"\x80\x80\0\0\0\0"))
def websocket_frames(data: bytes, chance: random.Random) -> None:
    """Whole and in pieces the same messages come out and the session ends the same way; no message is over the cap."""
    whole, cut = _session([data]), _session(pieces(data, chance))
    assert whole == cut, (whole, cut)


def _session(parts: list[bytes]) -> tuple[list[str | bytes], bool, int]:
    fields = [
        (b"host", b"a"),
        (b"upgrade", b"websocket"),
        (b"connection", b"upgrade"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
    ]
    handshake = Handshake("/", fields, deflate=True)
    handshake.accept(None, [], b"")
    stream: MessageStream = handshake.open(_MAX_MESSAGE, 16)
    messages: list[str | bytes] = []
    for part in parts:
        if stream.over:
            break
        messages += stream.feed(part)
        stream.output()
    for message in messages:
        size = len(message.encode()) if isinstance(message, str) else len(message)
        assert size <= 16 * _MAX_MESSAGE, "fragments are capped, and so is each"
    return messages, stream.over, stream.code if stream.over else 0


# --- frames between processes -------------------------------------------------------------------------------------
def _encoded(*arguments: Any) -> bytes:
    return b"".join(map(bytes, frames.encode(*arguments)))


_MESSAGES = (
    _encoded(0, b"body") + _encoded(7, b""),
    _encoded(0, b"body", [b"one", bytearray(b"two")], [1, 2]),
    _encoded(0, b"x" * 3000, [b""] * 3),
    struct.pack("<HHIIQ", 0x6C6D, 0, 0, 0, 1 << 40),
    struct.pack("<HHIIQ", 0x6C6D, 0, 0xFFFFFFFF, 0xFFFFFFFF, 0),
)


@target("frames", _MESSAGES, (*_MESSAGES, b"\x6d\x6c", b"\xff" * 8, b"\0" * 8, b"\0" * 20))
def process_frames(data: bytes, chance: random.Random) -> None:
    """Whole and in pieces the same frames come out, or the same refusal; what came out can be encoded again."""
    whole, cut = _decoded([data]), _decoded(pieces(data, chance))
    assert whole == cut, (whole, cut)
    for one in whole[0]:
        again, refused = _decoded([_encoded(one.kind, one.body, one.buffers, one.descriptors)])
        assert again == [one]
        assert not refused


def _decoded(parts: list[bytes]) -> tuple[list[frames.Frame], str]:
    decoder, found = frames.Decoder(100_000), []
    try:
        for part in parts:
            found += decoder.feed(part)
        if decoder.failed:
            decoder.feed(b"")
    except (FrameError, FrameTooLarge) as error:
        return found, type(error).__name__
    return found, ""


# --- what proxies say ---------------------------------------------------------------------------------------------
_V2 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes((192, 0, 2, 1, 192, 0, 2, 2)) + b"\x9c\x40\x00\x50"
_PROXIED = (
    b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 80\r\nGET / HTTP/1.1\r\n",
    b"PROXY TCP6 2001:db8::1 2001:db8::2 40000 80\r\n",
    b"PROXY UNKNOWN ffff::1 x y z\r\n",
    _V2 + b"GET",
    SIGNATURE + b"\x20\x00\x00\x00",
    SIGNATURE + b"\x21\x21\x00\x24" + b"\x20" * 36,
)


@target("proxy", _PROXIED, (SIGNATURE, b"PROXY ", b"TCP4 ", b"TCP6 ", b"\r\n", b" ", b"::", b"\xff\xff", b"99999"))
def proxy_header(data: bytes, chance: random.Random) -> None:
    """A header says the same whatever follows it, asks for no byte that is not its own, and names an address."""
    try:
        found = parse_proxy_header(data)
    except BadProxyHeader as error:
        _check_line(error)
        return
    if isinstance(found, int):
        assert found > 0
        return
    assert 0 < found.length <= len(data)
    if found.peer is not None:
        ipaddress.ip_address(found.peer[0])
        assert 0 <= found.peer[1] <= 65535
    have = 0
    while have < found.length:  # as it is read from a socket: never a byte more than is certain
        more = parse_proxy_header(data[:have])
        assert isinstance(more, int), (have, found.length)
        assert 0 < more <= found.length - have
        have += more
    last = parse_proxy_header(data[: found.length])
    assert isinstance(last, Header)
    assert (last.length, last.peer) == (found.length, found.peer)


_HOPS = (
    b'192.0.2.1, 198.51.100.1:4000\n[2001:db8::1]:80\nfor=192.0.2.1;proto=https;by=x, for="[2001:db8::1]:80"\nhttps',
    b"unknown, _hidden\n\nfor=unknown;for=x\nhttp, https",
    b'"a\\"b", 1.2.3.4\n::ffff:192.0.2.1\nfor="a\\"b;c,d"\nwss',
)


@target(
    "hops",
    _HOPS,
    (b",", b";", b'"', b"\\", b"for=", b"proto=", b"[", b"]", b":", b"::1", b"1.2.3.4", b"\n", b"unknown"),
)
def forwarded_headers(data: bytes, chance: random.Random) -> None:
    """Whatever a client puts into the fields of proxies, the client's address is an address."""
    names = (b"x-forwarded-for", b"x-real-ip", b"forwarded", b"x-forwarded-proto")
    values = [value.strip() for value in data.split(b"\n")]
    for trusted in (("127.0.0.1",), ("*",), ("127.0.0.1", "192.0.2.0/24", "2001:db8::/32")):
        scope = {
            "type": chance.choice(("http", "websocket")),
            "client": ("127.0.0.1", 5),
            "scheme": "http",
            "headers": list(zip(names, values, strict=False)),
        }
        TrustedProxies(trusted).apply(scope)
        host, port = scope["client"]  # type: ignore[misc]
        ipaddress.ip_address(host)
        assert 0 <= port <= 65535
        assert scope["scheme"] in ("http", "https", "ws", "wss"), scope["scheme"]


_HEADS = (
    b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; id=two; b\r\nX-Key: k\r\n\r\nbody",
    b"\r\n\r\n",
    b"GET / HTTP/1.1\r\ncookie:id=\r\n",
)


@target("heads", _HEADS, (b"Cookie: id=", b"id=", b";", b"=", b"\r\n", b"X-Key:", b":", b" ", b'"', b"\0"))
def keys_in_heads(data: bytes, chance: random.Random) -> None:
    """The key of a client is found in any head, or is nothing; it never holds the end of a line."""
    for key in (_sticky.key_in_cookie(data, "id"), _sticky.key_in_header(data, "X-Key")):
        assert b"\r\n" not in key
        assert key in data


# --- configuration and control ------------------------------------------------------------------------------------
_TOML = (
    b'target = "main:app"\nport = 8000\nworkers = "auto"\ngrace = 2.5\n',
    b'workers = 2\n[apps.web]\ntarget = "a:b"\nport = 1\n[apps.jobs]\ntarget = "c:d"\nport = 2\nenv = {A = "b"}\n',
    b'target = "x:y"\nuds = "/tmp/x.sock"\npolicy = "sticky"\ntrusted-proxies = ["*"]\nmax-body-size = "1MiB"\n',
    b'target = "x:y"\nhost = ["::1", "127.0.0.1"]\nadmin = "127.0.0.1:0"\ndev = true\nlog-level = "debug"\n',
)
_SETTINGS = tuple(f"{name} = ".encode() for name in _sources.OPTIONS)


_VALUES = (
    *(
        b"1\n",
        b'""\n',
        b"[]\n",
        b"true\n",
        b"-1\n",
        b"1e400\n",
        b"nan\n",
        b"{}\n",
        b"[apps.x]\n",
        b"\n",
        b"1979-05-27\n",
    ),
    *(b"[" * 3000, b'"\\u0000"\n', b'"1h"\n', b'"9" ', b'"a\\nb"\n', b"9" * 5000, b"0x7fffffffffffffff\n"),
)


@target("config", (*_TOML, b"port = " + b"[" * 3000, b"port = " + b"9" * 5000), (*_SETTINGS, *_VALUES), short=40)
def configuration(data: bytes, chance: random.Random) -> None:
    """A configuration file gives settings, or one clear line."""
    path = _scratch(data)
    try:
        for settings in _sources.gather_apps({"config": path}, {}, os.path.dirname(path)):
            _settings.build(settings)
    except ConfigError as error:
        _check_line(error)


_VARIABLES = (b'A=b\nexport C=\'d e\' # f\nG="h\\n\\"i"\n\n# j\nK=\n', b"A='\0'\n")


@target("env", _VARIABLES, (b"=", b"'", b'"', b"\\", b"#", b"export ", b"\n", b"\0", b"\xff"), short=40)
def environment_file(data: bytes, chance: random.Random) -> None:
    """A file of variables gives names and values that an environment can hold, or one clear line."""
    try:
        found = _env_file.read(_scratch(data))
    except ConfigError as error:
        _check_line(error)
        return
    for name, value in found.items():
        assert name
        assert "=" not in name
        assert "\0" not in name + value


@target(
    "control",
    (b'{"command": "status"}', b'{"command": "scale", "workers": 3}', b"[]", b'"x"', b"{}", b'{"command": ["a"]}'),
    (
        b"[" * 3000,
        b'{"a":' * 3000,
        b'"command":',
        b"{",
        b"}",
        b"null",
        b"1e999",
        b"NaN",
        b'"\\ud800"',
        b"9" * 5000,
        b"\xff",
    ),
)
def control_line(data: bytes, chance: random.Random) -> None:
    """Any line is answered with one line of JSON that says whether it went well."""

    async def handle(command: Any, arguments: Any) -> Any:
        return [command, arguments]

    async def main() -> Any:
        return await ControlServer("", handle)._result_of(data.replace(b"\n", b" "))

    answer = asyncio.run(main())
    assert isinstance(answer["ok"], bool)
    line = json.dumps(answer)
    assert "\n" not in line


def _check_line(error: Exception) -> None:
    assert str(error)
    assert "\n" not in str(error), str(error)


_folder: list[tempfile.TemporaryDirectory[str]] = []


def _scratch(data: bytes) -> str:
    if not _folder:
        _folder.append(tempfile.TemporaryDirectory())
        atexit.register(_folder[0].cleanup)
    path = os.path.join(_folder[0].name, "input")
    with open(path, "wb") as file:
        file.write(data)
    return path
