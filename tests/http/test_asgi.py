"""ASGI applications through the server: events, framing, flow control, failures, the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from multiloop.http._lifespan import LifespanFailed

from .harness import Client, answer, eventually, read_body, run, service_of


def only_http(app: Any) -> Any:
    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")
        await app(scope, receive, send)

    return wrapped


def test_the_scope_says_what_the_request_said() -> None:
    seen: dict[str, Any] = {}

    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        await answer(send)

    async def main() -> None:
        async with service_of(app, root_path="/api") as service:
            client = Client(service, tcp=True)
            await client.get("/caf%C3%A9/%2F?q=%20x", "X-Some:  two words \r\nX-SOME: again\r\n")
            assert seen["path"] == "/api/café//"
            assert seen["raw_path"] == b"/caf%C3%A9/%2F"
            assert seen["query_string"] == b"q=%20x"
            assert seen["root_path"] == "/api"
            assert seen["headers"] == [(b"host", b"a"), (b"x-some", b"two words"), (b"x-some", b"again")]
            assert (seen["method"], seen["scheme"], seen["http_version"], seen["type"]) == (
                "GET",
                "http",
                "1.1",
                "http",
            )
            assert seen["server"] == ("127.0.0.1", 80)
            assert seen["client"] == client.sock.getsockname()
            assert seen["asgi"]["version"] == "3.0"
            await client.get("http://other/x", "")
            assert seen["path"] == "/api/x"
            assert (b"host", b"other") in seen["headers"]
            client.close()

    run(main)


def test_a_body_arrives_in_order_and_is_not_buffered_without_bound() -> None:
    sizes: list[int] = []

    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        total = b""
        more = True
        while more:
            await asyncio.sleep(0.001)  # slower than the client
            event = await receive()
            sizes.append(len(event["body"]))
            total += event["body"]
            more = event["more_body"]
        await answer(send, str(hash(total)).encode())

    async def main() -> None:
        body = bytes(range(256)) * 8192  # 2 MiB
        async with service_of(app) as service:
            client = Client(service)
            sending = asyncio.ensure_future(
                client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            )
            reply = await client.reply()
            await sending
            assert reply.body == str(hash(body)).encode()
            assert max(sizes) <= 512 * 1024  # the mark and at most one read of the loop
            client.close()

    run(main)


@pytest.mark.parametrize("pieces", [[b"hello"], [b"he", b"llo"], [b"", b"hello", b""]])
def test_a_streamed_reply_is_chunked_and_a_whole_one_has_a_length(pieces: list[bytes]) -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": pieces[-1]})

    async def main() -> None:
        async with service_of(app) as service:
            client = Client(service)
            reply = await client.get()
            assert reply.body == b"hello"
            assert ("content-length" in reply.headers) == (len(pieces) == 1)
            await client.send(b"GET / HTTP/1.0\r\n\r\n")  # no chunks there: the end of the connection ends the body
            reply = await client.reply()
            assert reply.body == b"hello"
            assert "transfer-encoding" not in reply.headers
            client.close()

    run(main)


def test_replies_without_a_body_have_none_whatever_the_application_sends() -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        status = int(scope["path"][1:])
        await answer(send, b"must not be seen", status, [(b"content-length", b"16")])

    async def main() -> None:
        async with service_of(app) as service:
            client = Client(service)
            for status in (204, 304):
                assert (await client.get(f"/{status}")).status == status
            head = await client.get("/200", method="HEAD")
            assert head.headers["content-length"] == "16"
            assert (await client.get("/200")).body == b"must not be seen"  # nothing was left over between them
            client.close()

    run(main)


def test_trailers_and_early_hints_leave_as_http_says() -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"hello"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    async def main() -> None:
        async with service_of(app) as service:
            client = Client(service)
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            said = await client.rest()
            assert said.startswith(
                b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n"
            )
            assert said.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n")

    run(main)


def test_pipelined_requests_are_answered_in_order() -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        if scope["path"] == "/0":
            await asyncio.sleep(0.02)
        await answer(send, scope["path"].encode())

    async def main() -> None:
        async with service_of(app) as service:
            client = Client(service)
            requests = [f"POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy" for n in range(300)]
            sending = asyncio.ensure_future(client.send("".join(requests).encode()))
            for n in range(300):
                assert (await client.reply()).body == f"/{n}".encode()
            await sending
            client.close()

    run(main)


def test_a_flooding_client_is_paused_while_its_first_request_waits() -> None:
    go = asyncio.Event()

    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await answer(send)

    async def main() -> None:
        async with service_of(app) as service:
            client = Client(service)
            flood = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100_000
            sending = asyncio.ensure_future(client.send(flood))
            (connection,) = await until_one(service)
            await eventually(lambda: connection.reading_paused)
            await asyncio.sleep(0.05)
            assert not sending.done()
            assert len(connection._queue) < 400  # one slice and sixteen
            assert service.requests == 0
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
            client.reset()
            go.set()

    run(main)


async def until_one(service: Any) -> Any:
    await eventually(lambda: service.connections)
    return list(service.connections)


def test_an_expecting_client_is_told_to_continue_when_the_body_is_wanted() -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/no":
            await answer(send, b"no", 403)
        else:
            await answer(send, await read_body(receive))

    async def main() -> None:
        async with service_of(app) as service:
            client = Client(service)
            fields = b" HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
            await client.send(b"POST /yes" + fields)
            assert (await client.head())[0] == 100
            await client.send(b"hello")
            assert (await client.reply()).body == b"hello"
            await client.send(b"POST /no" + fields)
            reply = await client.reply()
            assert (reply.status, reply.headers["connection"]) == (403, "close")
            assert await client.rest() == b""
            client.close()

    run(main)


def test_an_application_learns_that_its_client_left_and_is_not_cancelled() -> None:
    events: list[str] = []
    half = asyncio.Event()

    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        events.append((await receive())["type"])
        half.set()
        try:
            while True:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                while True:
                    await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
                    await asyncio.sleep(0)
        except OSError as error:
            events.append(type(error).__name__)
        await asyncio.sleep(0.01)
        events.append("ran to its end")

    async def main() -> None:
        async with service_of(app) as service:
            client = Client(service, tcp=True)
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until_one(service)
            await asyncio.sleep(0.01)
            client.close()
            await eventually(lambda: "ran to its end" in events)
            assert events == ["http.disconnect", "ClientLeft", "ran to its end"]
            await eventually(lambda: not service.connections)

    run(main)


def test_a_request_after_which_the_client_only_listens_is_answered() -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.02)
        await answer(send)

    async def main() -> None:
        async with service_of(app) as service:
            client = Client(service, tcp=True)
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.sock.shutdown(1)
            assert (await client.reply()).body == b"ok"
            assert await client.rest() == b""
            client.close()

    run(main)


def test_send_waits_for_a_client_that_takes_nothing_and_memory_stays_flat() -> None:
    sent = 0

    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(300):
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
            sent += 10_000
        await send({"type": "http.response.body"})

    async def main() -> None:
        async with service_of(app) as service:
            client = Client(service)
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            (connection,) = await until_one(service)
            await eventually(lambda: connection.write_room() is not None)
            await asyncio.sleep(0.05)
            assert sent < 1_000_000
            assert connection.transport.get_write_buffer_size() < 200_000
            assert len((await client.reply()).body) == 3_000_000
            client.close()

    run(main)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x", b"a\r\nset-cookie: b")],
        [(b"x", b"a\nb")],
        [(b"x", b"a\0b")],
        [(b"x\r\ny", b"a")],
        [(b"", b"a")],
        [(b"x y", b"a")],
        [("x", "a")],
        [(b"content-length", b"1_0")],
        [(b"content-length", b"2"), (b"content-length", b"3")],
    ],
)
def test_a_bad_header_from_the_application_is_a_logged_500(headers: Any, caplog: pytest.LogCaptureFixture) -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"ok", 200, headers)

    async def main() -> None:
        async with service_of(app) as service:
            client = Client(service)
            reply = await client.get()
            assert reply.status == 500
            assert set(reply.headers) == {"date", "server", "content-type", "content-length", "connection"}
            assert await client.rest() == b""
            again = Client(service)  # the worker lives
            assert (await again.get()).status == 500
            again.close()

    with caplog.at_level(logging.ERROR, "multiloop.http"):
        run(main)
    assert len([r for r in caplog.records if "the application raised" in r.message]) == 2


@pytest.mark.parametrize("status", [0, 99, 100, 199, 1000, -1, "200"])
def test_a_bad_status_from_the_application_is_a_500(status: Any) -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"ok", status)

    async def main() -> None:
        async with service_of(app) as service:
            assert (await Client(service).get()).status == 500

    run(main)


def test_an_exception_before_the_reply_is_a_500_and_after_its_start_a_cut() -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/before":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        if scope["path"] == "/during":
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise LookupError("no luck")

    async def main() -> None:
        async with service_of(app) as service:
            assert (await Client(service).get("/before")).status == 500
            held = await Client(service).get("/held")  # the head was not on its way yet
            assert held.status == 500
            assert "x" not in held.headers
            client = Client(service)
            with pytest.raises((EOFError, ConnectionResetError)):
                await client.get("/during")

    run(main)


@pytest.mark.parametrize("length", [b"3", b"8"])
def test_a_body_that_differs_from_its_length_never_looks_complete(length: bytes) -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": b"hello"})

    async def main() -> None:
        async with service_of(app) as service:
            client = Client(service)
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            said = await client.rest()
            assert not said.endswith(b"\r\n\r\nhello") or length == b"8"

    run(main)


def test_an_application_that_returns_without_a_reply_gives_500() -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/started":
            await send({"type": "http.response.start", "status": 200, "headers": []})

    async def main() -> None:
        async with service_of(app) as service:
            assert (await Client(service).get("/")).status == 500
            assert (await Client(service).get("/started")).status == 500

    run(main)


def test_an_unread_body_is_dropped_and_the_connection_goes_on() -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, scope["path"].encode())

    async def main() -> None:
        async with service_of(app) as service:
            client = Client(service)
            await client.send(b"POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
            assert (await client.reply()).body == b"/one"
            await client.send(b"x" * 50_000 + b"GET /two HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.reply()).body == b"/two"
            client.close()

    run(main)


def test_too_many_at_once_are_turned_away_with_503() -> None:
    go = asyncio.Event()

    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await answer(send)

    async def main() -> None:
        async with service_of(app, limit_concurrency=2) as service:
            held = [Client(service) for _ in range(2)]
            for client in held:
                await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: service.active == 2)
            reply = await Client(service).get()
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            go.set()
            for client in held:
                assert (await client.reply()).status == 200
                client.close()

    run(main)


def test_lifespan_carries_state_and_ends_once() -> None:
    said: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                event = await receive()
                said.append(event["type"])
                scope["state"]["database"] = "open"
                await send({"type": event["type"] + ".complete"})
                if event["type"] == "lifespan.shutdown":
                    return
        scope["state"]["mine"] = 1
        await answer(send, scope["state"]["database"].encode())

    async def main() -> None:
        async with service_of(app) as service:
            client = Client(service)
            assert (await client.get()).body == b"open"
            assert "mine" not in service.state  # each request has a copy
            client.close()
        await service.stop()

    run(main)
    assert said == ["lifespan.startup", "lifespan.shutdown"]


def test_a_failed_startup_is_fatal_and_says_why() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def main() -> None:
        with pytest.raises(LifespanFailed, match="no database"):
            async with service_of(app):
                pass

    run(main)
