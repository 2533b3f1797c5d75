"""WebSocket through the server: the handshake, messages, control frames, limits, both backpressures, every end."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import pytest

from .frames import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT, WebSocketClient, close, deflated, frame, opened, request
from .harness import Client, answer, eventually, run, service_of

EXTENSIONS = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


class Echo:
    """Sends every message back; remembers what it was told."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.ends: list[tuple[int, str]] = []
        self.received: list[Any] = []
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")
        if scope["type"] == "http":
            await answer(send, b"http")
            return
        self.scopes.append(scope)
        assert (await receive()) == {"type": "websocket.connect"}
        await send({"type": "websocket.accept"})
        while True:
            await self.go.wait()
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.ends.append((message["code"], message["reason"]))
                return
            self.received.append(message.get("text", message.get("bytes")))
            try:
                await send({"type": "websocket.send", **{k: v for k, v in message.items() if k != "type"}})
            except OSError:
                pass


def websocket_only(app: Any) -> Any:
    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")
        await app(scope, receive, send)

    return wrapped


# --- the handshake ------------------------------------------------------------------------------------------------
def test_the_scope_says_what_the_handshake_said() -> None:
    async def main() -> None:
        app = Echo()
        async with service_of(app, root_path="/api") as service:
            client = WebSocketClient(service, tcp=True)
            headers = await client.open(
                "/caf%C3%A9?q=1", "Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Protocol: c\r\n"
            )
            (scope,) = app.scopes
            assert scope["type"] == "websocket"
            assert scope["scheme"] == "ws"
            assert scope["path"] == "/api/café"
            assert scope["raw_path"] == b"/caf%C3%A9"
            assert scope["query_string"] == b"q=1"
            assert scope["root_path"] == "/api"
            assert scope["subprotocols"] == ["a", "b", "c"]
            assert scope["http_version"] == "1.1"
            assert (b"sec-websocket-version", b"13") in scope["headers"]
            assert scope["client"] == client.sock.getsockname()
            assert scope["extensions"] == {"websocket.http.response": {}}
            assert scope["asgi"]["version"] == "3.0"
            assert "method" not in scope
            assert headers["upgrade"] == "websocket"
            assert headers["connection"].lower() == "upgrade"
            assert "sec-websocket-protocol" not in headers
            assert service.statistics().websockets == 1
            client.close()
            await eventually(lambda: service.statistics().websockets == 0)

    run(main)


@pytest.mark.parametrize(
    ("fields", "how", "status"),
    [
        ("", {"key": "short"}, 400),
        ("", {"key": "x" * 24}, 400),
        (f"Sec-WebSocket-Key: {KEY}\r\n", {}, 400),
        ("", {"version": "8"}, 426),
        ("", {"version": "x"}, 426),
        ("Sec-WebSocket-Version: 13\r\n", {}, 426),
        ("Sec-WebSocket-Protocol: caf\xe9\r\n", {}, 400),
        ("Sec-WebSocket-Protocol: a b\r\n", {}, 400),
        ("Sec-WebSocket-Protocol: ,\r\n", {}, 400),
        ("Sec-WebSocket-Protocol: \x80\xff\r\n", {}, 400),
        ("Sec-WebSocket-Extensions: =;,\r\n", {}, 400),
        ("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=99\r\n", {}, 101),
        ("Sec-WebSocket-Extensions: x-unknown; a=b\r\n", {}, 101),
        ("Sec-WebSocket-Protocol: __proto__, constructor\r\n", {}, 101),
        ("X-Wide: \xff\xfe\r\n", {}, 101),
    ],
)
def test_a_malformed_handshake_is_answered_and_never_reaches_the_application(
    fields: str, how: dict[str, str], status: int
) -> None:
    async def main() -> None:
        app = Echo()
        async with service_of(app) as service:
            client = WebSocketClient(service)
            await client.send(request("/", fields, **how))
            reply = await client.reply() if status != 101 else None
            if reply is None:
                assert (await client.head())[0] == 101
            else:
                assert (reply.status, reply.headers["connection"]) == (status, "close")
                assert await client.rest() == b""
                assert app.scopes == []
            if status == 426:
                assert reply is not None
                assert reply.headers["sec-websocket-version"] == "13"
            assert (await Client(service).get()).body == b"http"  # and the service goes on

    run(main)


def test_other_upgrades_and_methods_are_plain_requests() -> None:
    async def main() -> None:
        async with service_of(Echo()) as service:
            client = WebSocketClient(service)
            await client.send(request(protocol="h2c"))
            assert (await client.reply()).body == b"http"
            await client.send(request().replace(b"Connection: Upgrade\r\n", b""))
            assert (await client.reply()).body == b"http"
            post = request("/", "Content-Length: 2\r\n").replace(b"GET", b"POST")
            await client.send(post + b"hi")
            assert (await client.reply()).body == b"http"
            await client.send(request().replace(b"HTTP/1.1", b"HTTP/1.0"))
            assert (await client.reply()).body == b"http"

    run(main)


def test_the_application_picks_a_subprotocol_and_adds_headers() -> None:
    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(
            {"type": "websocket.accept", "subprotocol": "b", "headers": [(b"X-Own", b"1"), [b"set-cookie", b"c=d"]]}
        )
        await receive()

    async def main() -> None:
        async with service_of(app) as service:
            client = WebSocketClient(service)
            headers = await client.open("/", "Sec-WebSocket-Protocol: a, b\r\n")
            assert headers["sec-websocket-protocol"] == "b"
            assert (headers["x-own"], headers["set-cookie"]) == ("1", "c=d")

    run(main)


@pytest.mark.parametrize(
    "accept",
    [
        {"subprotocol": "never offered"},
        {"subprotocol": "a\r\nX-Evil: b"},
        {"headers": [(b"x", b"a\r\nX-Evil: b")]},
        {"headers": [(b"x y", b"a")]},
        {"headers": [(b"Sec-WebSocket-Accept", b"forged")]},
        {"headers": [(b"connection", b"close")]},
    ],
)
def test_what_cannot_be_said_in_a_handshake_is_a_logged_500(
    accept: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", **accept})

    async def main() -> None:
        async with service_of(app) as service:
            client = WebSocketClient(service)
            await client.send(request("/", "Sec-WebSocket-Protocol: a\r\n"))
            reply = await client.reply()
            assert reply.status == 500
            assert "x-evil" not in reply.headers
            assert await client.rest() == b""

    run(main)
    assert caplog.records[0].exc_info is not None


def test_a_refused_handshake_is_a_403() -> None:
    ends: list[Any] = []

    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4000})
        ends.append(await receive())

    async def main() -> None:
        async with service_of(app) as service:
            client = WebSocketClient(service)
            await client.send(request() + frame(TEXT, b"too early"))
            reply = await client.reply()
            assert (reply.status, reply.headers["connection"]) == (403, "close")
            assert await client.rest() == b""

    run(main)
    assert ends[0]["type"] == "websocket.disconnect"


def test_a_denial_is_a_reply_of_the_application_s_own() -> None:
    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(
            {"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Basic")]}
        )
        await send({"type": "websocket.http.response.body", "body": b"not ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"you"})
        assert (await receive())["type"] == "websocket.disconnect"

    async def main() -> None:
        async with service_of(app) as service:
            client = WebSocketClient(service)
            await client.send(request())
            reply = await client.reply()
            assert (reply.status, reply.body, reply.headers["www-authenticate"]) == (401, b"not you", "Basic")
            assert reply.headers["connection"] == "close"
            assert await client.rest() == b""
            assert (service.requests, service.active) == (1, 0)

    run(main)


@pytest.mark.parametrize("how", ["return", "raise", "cut short"])
def test_an_application_that_does_not_answer_the_handshake_is_a_logged_500(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if how == "raise":
            raise ValueError("from the application")
        if how == "cut short":
            await send({"type": "websocket.http.response.start", "status": 200})

    async def main() -> None:
        async with service_of(app) as service:
            client = WebSocketClient(service)
            await client.send(request())
            assert (await client.reply()).status == 500
            assert await client.rest() == b""

    run(main)
    assert len(caplog.records) == 1


def test_a_client_that_leaves_before_the_answer_ends_the_session() -> None:
    seen: list[Any] = []

    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        seen.append(await receive())
        with pytest.raises(OSError):
            await send({"type": "websocket.accept"})

    async def main() -> None:
        async with service_of(app) as service:
            client = WebSocketClient(service, tcp=True)
            await client.send(request())
            await eventually(lambda: service.active)
            client.reset()
            await eventually(lambda: seen and not service.active)

    run(main)
    assert seen[0] == {"type": "websocket.disconnect", "code": 1006, "reason": "the connection was lost"}


def test_frames_sent_right_behind_the_handshake_wait_for_it() -> None:
    async def main() -> None:
        async with service_of(Echo()) as service:
            client = WebSocketClient(service)
            await client.send(request() + frame(TEXT, b"early") + frame(PING, b"p"))
            assert (await client.head())[0] == 101
            found = [await client.frame(), await client.frame()]
            assert sorted((one.opcode, one.data) for one in found) == [(TEXT, b"early"), (PONG, b"p")]

    run(main)


# --- messages -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1_000_000])
@pytest.mark.parametrize("fields", ["", EXTENSIONS])
def test_messages_of_every_length_come_back(size: int, fields: str) -> None:
    async def main() -> None:
        app = Echo()
        async with service_of(app) as service:
            client = await opened(service, "/", fields)
            data = os.urandom(size)
            await client.send(frame(BINARY, data) + frame(TEXT, b"t" * size))
            first, second = await client.frame(), await client.frame()
            assert first.opcode == BINARY
            assert second.opcode == TEXT
            await eventually(lambda: app.received == [data, "t" * size])

    run(main)


def test_every_split_of_the_bytes_gives_the_same_messages() -> None:
    sent = (
        frame(TEXT, "né".encode())
        + frame(TEXT, b"frag", fin=False)
        + frame(PING, b"p")
        + frame(CONT, b"ments")
        + close(1000)
    )

    async def main() -> None:
        for step in (1, 2, 3, 7, len(sent)):
            app = Echo()
            async with service_of(app) as service:
                client = await opened(service)
                for start in range(0, len(sent), step):
                    await client.send(sent[start : start + step])
                    await asyncio.sleep(0)
                found = [await client.frame()]
                while found[-1].opcode != CLOSE:
                    found.append(await client.frame())
                assert (PONG, b"p", True, False) in found
                assert found[-1].data == b"\x03\xe8"
                await eventually(lambda app=app: app.ends == [(1000, "")])
                assert app.received == ["né", "fragments"]

    run(main)


def test_compressed_messages_both_ways() -> None:
    async def main() -> None:
        app = Echo()
        async with service_of(app) as service:
            client = WebSocketClient(service)
            headers = await client.open("/", EXTENSIONS)
            assert "server_no_context_takeover" in headers["sec-websocket-extensions"]
            text = b"compressible " * 1000
            await client.send(frame(TEXT, deflated(text), rsv=4))
            reply = await client.frame()
            assert reply.rsv1
            assert len(reply.data) < len(text) / 10
            packed = deflated(text)
            await client.send(frame(TEXT, packed[:20], fin=False, rsv=4) + frame(CONT, packed[20:]))
            await client.frame()
            await client.send(frame(TEXT, deflated(b"short"), rsv=4))
            reply = await client.frame()
            assert (reply.rsv1, reply.data) == (False, b"short")  # not worth it
            assert app.received == [text.decode(), text.decode(), "short"]

    run(main)


def test_compression_can_be_switched_off() -> None:
    async def main() -> None:
        async with service_of(Echo(), ws_deflate=False) as service:
            client = WebSocketClient(service)
            assert "sec-websocket-extensions" not in await client.open("/", EXTENSIONS)
            await client.send(frame(TEXT, b"x", rsv=4))
            assert (await client.closed())[0] == 1002

    run(main)


def test_text_in_fragments_may_split_a_character() -> None:
    data = "aé€😀".encode()

    async def main() -> None:
        app = Echo()
        async with service_of(app) as service:
            client = await opened(service)
            pieces = [data[i : i + 1] for i in range(len(data))]
            await client.send(frame(TEXT, pieces[0], fin=False))
            for piece in pieces[1:]:
                await client.send(frame(CONT, piece, fin=False) + frame(PING))
            await client.send(frame(CONT))
            await eventually(lambda: app.received == ["aé€😀"])

    run(main)


def test_a_ping_is_answered_with_its_payload_and_a_pong_is_ignored() -> None:
    async def main() -> None:
        async with service_of(Echo()) as service:
            client = await opened(service)
            for payload in (b"", b"x" * 125, b"\x00\xff"):
                await client.send(frame(PONG, b"unasked") + frame(PING, payload))
                found = await client.frame()
                assert (found.opcode, found.data) == (PONG, payload)

    run(main)


# --- broken rules -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "sent", "code"),
    [
        ("an unmasked frame", frame(TEXT, b"x", mask=False), 1002),
        ("a reserved opcode", frame(3), 1002),
        ("a reserved control opcode", frame(11), 1002),
        ("a reserved bit", frame(TEXT, b"x", rsv=2), 1002),
        ("a compressed frame nobody agreed on", frame(TEXT, b"x", rsv=4), 1002),
        ("a long ping", frame(PING, b"x" * 126), 1002),
        ("a fragmented ping", frame(PING, fin=False), 1002),
        ("a fragmented close", frame(CLOSE, fin=False), 1002),
        ("a continuation of nothing", frame(CONT, b"x"), 1002),
        ("a message inside a message", frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
        ("a close of one byte", frame(CLOSE, b"x"), 1002),
        ("close code 0", close(0), 1002),
        ("close code 999", close(999), 1002),
        ("close code 1004", close(1004), 1002),
        ("close code 1005", close(1005), 1002),
        ("close code 1006", close(1006), 1002),
        ("close code 1016", close(1016), 1002),
        ("close code 2999", close(2999), 1002),
        ("close code 5000", close(5000), 1002),
        ("a close reason that is no UTF-8", close(1000, b"\xff"), 1007),
        ("text that is no UTF-8", frame(TEXT, b"a\xff"), 1007),
        ("text that ends inside a character", frame(TEXT, "é".encode()[:1]), 1007),
        ("a surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007),
        ("an overlong form", frame(TEXT, b"\xc0\xaf"), 1007),
        ("a bad fragment in the middle", frame(TEXT, b"ok", fin=False) + frame(CONT, b"\xff", fin=False), 1007),
        ("fragments that end inside a character", frame(TEXT, b"ok", fin=False) + frame(CONT, b"\xc3"), 1007),
    ],
)
def test_a_broken_rule_ends_the_session_with_its_code(name: str, sent: bytes, code: int) -> None:
    async def main() -> None:
        app = Echo()
        async with service_of(app) as service:
            client = await opened(service)
            await client.send(sent if "fragment" in name else sent + frame(TEXT, b"behind it"))
            assert (await client.closed())[0] == code
            await eventually(lambda: app.ends)
            assert app.ends[0][0] in (code, int.from_bytes(sent[-2:], "big"))
            assert app.received == []
            assert (await Client(service).get()).body == b"http"

    run(main)


@pytest.mark.parametrize("split", [False, True])
def test_a_message_over_the_limit_is_1009_before_it_is_read(split: bool) -> None:
    async def main() -> None:
        app = Echo()
        async with service_of(app, ws_max_size=1000) as service:
            client = await opened(service)
            await client.send(frame(TEXT, b"x" * 1000))
            await client.frame()
            if split:
                await client.send(frame(BINARY, b"x" * 600, fin=False) + frame(CONT, b"x" * 600))
            else:
                await client.send(frame(BINARY, b"x" * 70000)[:14])  # its head is enough
            assert (await client.closed())[0] == 1009
            await eventually(lambda: app.ends)
            assert app.ends[0][0] == 1009
            assert len(app.received) == 1

    run(main)


def test_a_bomb_is_stopped_while_it_inflates() -> None:
    import resource

    async def main() -> None:
        async with service_of(Echo(), ws_max_size=1_000_000) as service:
            bomb = deflated(b"\0" * 40_000_000)
            assert len(bomb) < 60_000
            client = WebSocketClient(service)
            await client.open("/", EXTENSIONS)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await client.send(frame(BINARY, bomb, rsv=4))
            assert (await client.closed())[0] == 1009
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB

    run(main)


def test_a_message_of_too_many_fragments_is_1009() -> None:
    async def main() -> None:
        app = Echo()
        async with service_of(app, ws_max_fragments=100) as service:
            client = await opened(service)
            pieces = [frame(TEXT, b"x", fin=False), *[frame(CONT, b"x", fin=False)] * 98, frame(CONT, b"x")]
            await client.send(b"".join(pieces))
            assert (await client.frame()).data == b"x" * 100
            await client.send(b"".join([*pieces[:-1], frame(CONT, b"", fin=False), frame(CONT)]))
            assert (await client.closed())[0] == 1009
            assert len(app.received) == 1

    run(main)


def test_a_million_fragments_cost_a_bounded_time_and_other_connections_get_their_turn() -> None:
    async def main() -> None:
        async with service_of(Echo()) as service:
            client = await opened(service)
            flood = frame(BINARY, b"", fin=False) + frame(CONT, b"x", fin=False) * 1_000_000
            sending = asyncio.ensure_future(client.send(flood))
            other = Client(service)
            for _ in range(20):
                assert (await other.get()).status == 200
            assert (await client.closed())[0] == 1009
            sending.cancel()
            await asyncio.wait([sending])

    run(main)


def test_a_flood_of_pings_whose_pongs_nobody_takes_is_not_read_on() -> None:
    async def main() -> None:
        async with service_of(Echo()) as service:
            client = WebSocketClient(service)
            await client.open()
            (connection,) = service.connections
            sending = asyncio.ensure_future(client.send(frame(PING, b"x" * 125) * 20_000))
            await eventually(lambda: connection.reading_paused and connection.write_room() is not None)
            await asyncio.sleep(0.1)
            assert not sending.done()
            assert connection.transport.get_write_buffer_size() < 1_000_000
            pongs = 0
            while pongs < 20_000:
                found = await client.frame()
                assert found == (PONG, b"x" * 125, True, False)
                pongs += 1
            await sending

    run(main)


# --- backpressure -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("size", "most"), [(10, 32 + 64), (50_000, 3)])
def test_messages_wait_for_the_application_up_to_a_limit_and_then_the_client_does(size: int, most: int) -> None:
    async def main() -> None:
        app = Echo()
        app.go.clear()
        async with service_of(app, ws_max_queue=32) as service:
            client = WebSocketClient(service, tcp=True)
            await client.open()
            (connection,) = service.connections
            count = 1000
            sending = asyncio.ensure_future(client.send(frame(BINARY, b"x" * size) * count))
            await eventually(lambda: connection.reading_paused)
            assert len(connection.upgraded._messages) <= most
            app.go.set()
            for _ in range(count):
                assert len((await client.frame()).data) == size
            await sending
            assert len(app.received) == count

    run(main)


def test_send_waits_while_the_client_takes_nothing() -> None:
    sent = []

    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for number in range(1000):
            await send({"type": "websocket.send", "bytes": b"x" * 65536})
            sent.append(number)

    async def main() -> None:
        async with service_of(app) as service:
            client = WebSocketClient(service, tcp=True)
            await client.open()
            count = -1
            while count != len(sent) or not sent:
                count = len(sent)
                await asyncio.sleep(0.1)
            assert count < 200
            for _ in range(1000):
                assert len((await client.frame()).data) == 65536

    run(main)


def test_a_client_that_takes_nothing_is_cut_after_the_write_timeout() -> None:
    raised = []

    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 65536})
        except OSError as error:
            raised.append(error)

    async def main() -> None:
        async with service_of(app, write_timeout=0.2) as service:
            client = WebSocketClient(service, tcp=True)
            await client.open()
            await eventually(lambda: raised)

    run(main)


# --- ends ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sent", "code", "reason", "echoed"),
    [
        (close(1000), 1000, "", 1000),
        (close(1001, b"leaving"), 1001, "leaving", 1001),
        (close(3000), 3000, "", 3000),
        (close(4999, "é".encode()), 4999, "é", 4999),
        (frame(CLOSE), 1005, "", 1005),
    ],
)
def test_the_application_learns_the_code_and_reason_of_the_client(
    sent: bytes, code: int, reason: str, echoed: int
) -> None:
    async def main() -> None:
        app = Echo()
        async with service_of(app) as service:
            client = await opened(service)
            await client.send(frame(TEXT, b"last words") + sent)
            assert (await client.closed())[0] == echoed
            await eventually(lambda: app.ends == [(code, reason)])
            assert app.received == ["last words"]

    run(main)


def test_a_lost_connection_is_1006_and_send_raises() -> None:
    raised: list[BaseException] = []
    ends: list[Any] = []

    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        ends.append(await receive())
        for _ in range(2):
            try:
                await send({"type": "websocket.send", "text": "x"})
            except OSError as error:
                raised.append(error)
        await send({"type": "websocket.close"})  # needless, and harmless
        assert (await receive())["type"] == "websocket.disconnect"

    async def main() -> None:
        async with service_of(app) as service:
            client = WebSocketClient(service, tcp=True)
            await client.open()
            client.reset()
            await eventually(lambda: len(raised) == 2)
            await eventually(lambda: not service.connections)

    run(main)
    assert ends[0]["code"] == 1006


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ({}, 1000, b""),
        ({"code": 4001, "reason": "enough"}, 4001, b"enough"),
        ({"code": 1008, "reason": None}, 1008, b""),
        ({"reason": "é" * 100}, 1000, "é".encode() * 61),
    ],
)
def test_the_application_closes_with_code_and_reason(message: dict[str, Any], code: int, reason: bytes) -> None:
    after: list[Any] = []

    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", **message})
        after.append(await receive())
        with pytest.raises(OSError):
            await send({"type": "websocket.send", "text": "x"})

    async def main() -> None:
        async with service_of(app) as service:
            client = await opened(service)
            found = await client.frame()
            assert (found.opcode, found.data) == (CLOSE, code.to_bytes(2, "big") + reason)
            await client.send(frame(TEXT, b"crossed the close") + close(code))
            assert await client.rest() == b""

    run(main)
    assert after[0]["type"] == "websocket.disconnect"
    assert after[0]["code"] == code


@pytest.mark.parametrize("code", [0, 1005, 1006, 1015, 2000, 5000, 70000])
def test_a_code_that_cannot_be_sent_is_an_error_of_the_application(code: int, caplog: pytest.LogCaptureFixture) -> None:
    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": code})

    async def main() -> None:
        async with service_of(app) as service:
            assert (await (await opened(service)).frame()).data[:2] == b"\x03\xf3"

    run(main)
    assert "ValueError" in caplog.text


def test_an_application_that_returns_closes_with_1000_and_one_that_raises_with_1011(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/raise":
            raise ValueError("from the application")

    async def main() -> None:
        async with service_of(app) as service:
            assert (await (await opened(service, "/return")).frame()).data == b"\x03\xe8"
            assert not caplog.records
            assert (await (await opened(service, "/raise")).frame()).data[:2] == b"\x03\xf3"
            assert len(caplog.records) == 1

    run(main)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": b"bytes"},
        {"type": "websocket.send", "text": "\ud800"},
        {"type": "websocket.accept"},
        {"type": "http.response.start", "status": 200},
        {"type": "nonsense"},
    ],
)
def test_an_event_out_of_turn_is_an_error_of_the_application(
    message: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send(message)

    async def main() -> None:
        async with service_of(app) as service:
            assert (await (await opened(service)).frame()).data[:2] == b"\x03\xf3"

    run(main)
    assert caplog.records[0].exc_info is not None


def test_a_peer_that_does_not_answer_a_close_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiloop.http._websocket_session.WS_CLOSE_TIMEOUT_S", 0.1)

    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async def main() -> None:
        async with service_of(app) as service:
            client = await opened(service)
            assert (await client.frame()).opcode == CLOSE
            await client.rest()

    run(main)


def test_a_peer_that_answers_no_ping_is_cut_and_one_that_does_is_not() -> None:
    async def main() -> None:
        app = Echo()
        async with service_of(app, ws_ping_interval=0.2, ws_ping_timeout=0.3) as service:
            silent, alive = await opened(service), await opened(service)
            while silent.sock.fileno() >= 0 and not app.ends:
                found = await alive.frame()
                assert found.opcode == PING
                await alive.send(frame(PONG, found.data))
            assert app.ends == [(1006, "no answer to a ping")]
            await silent.rest()
            await alive.send(frame(TEXT, b"still here"))
            found = await alive.frame()
            while found.opcode == PING:
                found = await alive.frame()
            assert found.data == b"still here"

    run(main)


def test_draining_ends_sessions_with_1012() -> None:
    async def main() -> None:
        app = Echo()
        async with service_of(app) as service:
            client = await opened(service)
            service.begin_drain()
            found = await client.frame()
            assert (found.opcode, found.data[:2]) == (CLOSE, b"\x03\xf4")
            await eventually(lambda: app.ends == [(1012, "service restart")])
            await client.send(close(1012))
            assert await client.rest() == b""
            client.close()
            await service.drained()

    run(main)


def test_draining_refuses_a_handshake_that_nobody_answered_yet() -> None:
    ends: list[Any] = []

    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        ends.append(await receive())

    async def main() -> None:
        async with service_of(app) as service:
            client = WebSocketClient(service)
            await client.send(request())
            await eventually(lambda: service.active)
            service.begin_drain()
            reply = await client.reply()
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            await client.rest()

    run(main)
    assert ends[0]["code"] == 1012


def test_the_application_is_never_cancelled_and_its_work_after_the_end_is_done() -> None:
    done = []

    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await asyncio.sleep(0.05)
        done.append(True)

    async def main() -> None:
        async with service_of(app) as service:
            client = WebSocketClient(service, tcp=True)
            await client.open()
            client.reset()
            await eventually(lambda: done)

    run(main)


def test_receive_can_be_given_up_and_asked_again() -> None:
    seen = []

    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receive(), 0.01)
        await send({"type": "websocket.send", "text": "now"})
        seen.append(await receive())

    async def main() -> None:
        async with service_of(app) as service:
            client = await opened(service)
            assert (await client.frame()).data == b"now"
            await client.send(frame(TEXT, b"hello"))
            await eventually(lambda: seen)

    run(main)
    assert seen == [{"type": "websocket.receive", "text": "hello"}]


def test_a_disconnect_that_the_framework_raises_is_not_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    from starlette.websockets import WebSocket

    ended = []

    @websocket_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = WebSocket(scope, receive, send)
        await session.accept()
        try:
            while True:
                await session.receive_text()
        finally:
            ended.append(True)

    async def main() -> None:
        async with service_of(app) as service:
            client = await opened(service)
            await client.send(close(1001))
            await client.closed()
            await eventually(lambda: ended)

    with caplog.at_level(logging.INFO):
        run(main)
    assert not caplog.records
