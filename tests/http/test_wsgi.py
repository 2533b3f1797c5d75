"""WSGI applications through the server: environ, bodies both ways, failures, threads."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import tempfile
import threading
import wsgiref.validate
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import Client, Reply, eventually, run, service_of

MEGABYTE = 1024 * 1024


def plain(body: bytes = b"ok", status: str = "200 OK", headers: Any = ()) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, list(headers))
        return [body]

    return app


def ask(app: Any, path: str = "/", fields: str = "", method: str = "GET", **options: Any) -> Reply:
    """One request to a service of its own."""

    async def main() -> Reply:
        async with service_of(app, "wsgi", **options) as service:
            return await Client(service, tcp=True).get(path, fields, method)

    return run(main)


def post(body: bytes, fields: str = "") -> bytes:
    return f"POST / HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_the_environ_says_what_the_request_said() -> None:
    seen: dict[str, Any] = {}

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.update(environ)
        start_response("200 OK", [])
        return [b""]

    ask(app, "/caf%C3%A9/x%2Fy?q=%20x&r", "X-Some: a\r\nx-some: b\r\nCookie: c=1\r\nCookie: d=2\r\n", root_path="/api")
    assert seen["REQUEST_METHOD"] == "GET"
    assert seen["SCRIPT_NAME"] == "/api"
    assert seen["PATH_INFO"].encode("latin-1").decode() == "/café/x/y"
    assert seen["QUERY_STRING"] == "q=%20x&r"
    assert seen["REQUEST_URI"] == "/caf%C3%A9/x%2Fy?q=%20x&r"
    assert seen["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("127.0.0.1", "80")
    assert seen["REMOTE_ADDR"] == "127.0.0.1"
    assert seen["HTTP_HOST"] == "a"
    assert seen["HTTP_X_SOME"] == "a,b"
    assert seen["HTTP_COOKIE"] == "c=1; d=2"
    assert seen["wsgi.url_scheme"] == "http"
    assert seen["wsgi.multithread"] is True
    assert seen["wsgi.input_terminated"] is True
    assert "CONTENT_LENGTH" not in seen


def test_a_name_with_an_underscore_and_a_proxy_field_do_not_reach_the_application() -> None:
    seen: dict[str, Any] = {}

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.update(environ)
        start_response("200 OK", [])
        return []

    ask(app, "/", "X_Real: forged\r\nX-Real: true\r\nProxy: http://evil\r\nContent_Length: 7\r\n")
    assert seen["HTTP_X_REAL"] == "true"
    assert "HTTP_PROXY" not in seen
    assert "CONTENT_LENGTH" not in seen


def test_the_standard_library_finds_no_fault() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read(5) + b"".join(environ["wsgi.input"])
        environ["wsgi.errors"].flush()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    async def main() -> None:
        async with service_of(wsgiref.validate.validator(app), "wsgi") as service:
            client = Client(service, tcp=True)
            await client.send(post(b"hello world", "Content-Type: text/plain\r\n"))
            assert (await client.reply()).body == b"hello world"
            await client.send(
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nContent-Type: text/plain\r\n\r\nhel"
            )
            await asyncio.sleep(0)
            await client.send(b"lo worl")
            await client.send(b"d")
            assert (await client.reply()).body == b"hello world"
            assert (await client.get("/?x=1")).body == b""

    run(main)


def test_a_reply_with_a_length_is_one_piece_and_the_connection_is_kept() -> None:
    async def main() -> None:
        async with service_of(plain(b"hello", headers=[("Content-Length", "5")]), "wsgi") as service:
            client = Client(service)
            for _ in range(3):
                reply = await client.get()
                assert (reply.status, reply.body) == (200, b"hello")
                assert reply.headers["content-length"] == "5"
                assert "transfer-encoding" not in reply.headers
            assert (await client.get("/", method="HEAD")).headers["content-length"] == "5"
            assert (await client.get()).body == b"hello"

    run(main)


def test_blocks_leave_while_the_application_makes_the_next() -> None:
    go = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"first"
        assert go.wait(10)
        yield b""
        yield b"second"

    async def main() -> None:
        async with service_of(app, "wsgi") as service:
            client = Client(service)
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.head())[1]["transfer-encoding"] == "chunked"
            assert await client.until(b"first\r\n") == b"5\r\n"
            go.set()
            assert await client.until(b"0\r\n\r\n") == b"6\r\nsecond\r\n"

    run(main)


def test_write_sends_before_the_application_returns() -> None:
    go = threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"first")
        assert go.wait(10)
        write(b"second")
        return [b"third"]

    async def main() -> None:
        async with service_of(app, "wsgi") as service:
            client = Client(service)
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.until(b"first\r\n")
            go.set()
            assert await client.until(b"0\r\n\r\n") == b"6\r\nsecond\r\n5\r\nthird\r\n"

    run(main)


def test_an_upload_is_read_as_it_comes_and_never_held_whole() -> None:
    total = 20 * MEGABYTE
    half = threading.Event()
    go = threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"]
        count = len(body.read(MEGABYTE))
        half.set()
        assert go.wait(10)
        while piece := body.read(65536):
            count += len(piece)
        start_response("200 OK", [])
        return [str(count).encode()]

    async def main() -> None:
        async with service_of(app, "wsgi") as service:
            client = Client(service, tcp=True)
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total
            sending = asyncio.ensure_future(client.send(head + b"x" * total))
            await eventually(half.is_set)
            await asyncio.sleep(0.1)
            assert not sending.done()
            (connection,) = service.connections
            assert connection.current._input._waiting_bytes < MEGABYTE  # type: ignore[union-attr]
            go.set()
            await sending
            assert (await client.reply()).body == str(total).encode()

    run(main)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_input_reads_like_a_file(size: int) -> None:
    text = b"one\ntwo and more\n\nthree\r\nfour without an end"

    def script(file: Any) -> list[Any]:
        found = [file.readline(), file.readline(3), file.readline(), file.read(2), file.read(0), next(file)]
        return [*found, file.readlines(1), file.read1(1), file.readline(0), file.read(), file.read(5), file.readline()]

    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.extend(script(environ["wsgi.input"]))
        start_response("200 OK", [])
        return []

    async def main() -> None:
        async with service_of(app, "wsgi") as service:
            client = Client(service)
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            for start in range(0, len(text), size):
                piece = text[start : start + size]
                await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await asyncio.sleep(0)
            await client.send(b"0\r\n\r\n")
            await client.reply()

    run(main)
    assert seen == script(io.BytesIO(text))


def test_a_client_that_waits_for_it_is_told_to_send_its_body_once_the_application_reads() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read() if environ["PATH_INFO"] == "/read" else b"unread"
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    async def main() -> None:
        async with service_of(app, "wsgi") as service:
            client = Client(service)
            await client.send(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            assert (await client.head())[0] == 100
            await client.send(b"hello")
            assert (await client.reply()).body == b"hello"
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            reply = await client.reply()
            assert (reply.body, reply.headers["connection"]) == (b"unread", "close")

    run(main)


def test_a_client_that_leaves_inside_its_body_makes_the_read_raise() -> None:
    seen: list[BaseException] = []
    called = threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        called.set()
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            seen.append(error)
            raise
        raise AssertionError("half a body looked whole")

    async def main() -> None:
        async with service_of(app, "wsgi") as service:
            client = Client(service, tcp=True)
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
            await eventually(called.is_set)
            client.reset()
            await eventually(lambda: seen)
            await eventually(lambda: not service.active)

    run(main)
    assert isinstance(seen[0], ConnectionError)


def test_a_slow_client_stops_only_its_thread_and_the_end_of_it_ends_the_iteration() -> None:
    made = []
    closed = threading.Event()

    class Endless:
        def __iter__(self) -> Iterator[bytes]:
            while True:
                made.append(1)
                yield b"x" * 65536

        def close(self) -> None:
            closed.set()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Endless() if environ["PATH_INFO"] == "/endless" else [b"quick"]

    async def main() -> None:
        async with service_of(app, "wsgi", wsgi_threads=2) as service:
            slow, quick = Client(service, tcp=True), Client(service)
            await slow.send(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
            count = -1
            while count != len(made) or not made:
                count = len(made)
                await asyncio.sleep(0.1)
            assert count < 200  # what the kernel takes, and no more
            assert (await quick.get("/")).body == b"quick"
            slow.reset()
            await eventually(closed.is_set)

    run(main)


def test_a_client_that_takes_nothing_is_cut_after_the_write_timeout() -> None:
    closed = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed.set()

    async def main() -> None:
        async with service_of(app, "wsgi", write_timeout=0.2) as service:
            client = Client(service, tcp=True)
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(closed.is_set)
            await eventually(lambda: not service.active)

    run(main)


def test_an_exception_is_a_logged_500_and_after_the_first_block_the_connection_is_cut(
    caplog: pytest.LogCaptureFixture,
) -> None:
    closed = []

    class Failing:
        def __init__(self, blocks: int) -> None:
            self.blocks = blocks

        def __iter__(self) -> Iterator[bytes]:
            for _ in range(self.blocks):
                yield b"block"
            raise ValueError("from the application")

        def close(self) -> None:
            closed.append(self.blocks)

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/exit":
            raise SystemExit(1)
        start_response("200 OK", [])
        return Failing(int(environ["PATH_INFO"][1:]))

    async def main() -> None:
        async with service_of(app, "wsgi") as service:
            assert (await Client(service).get("/0")).status == 500
            client = Client(service)
            await client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert not (await client.rest()).endswith(b"0\r\n\r\n")
            assert (await Client(service).get("/exit")).status == 500  # a thread is not ended by it
            await eventually(lambda: sorted(closed) == [0, 1])

    with caplog.at_level(logging.ERROR, "multiloop"):
        run(main)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError, ValueError, SystemExit]


def test_start_response_may_be_called_again_only_with_an_exception() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("X-First", "1")])
        if environ["PATH_INFO"] == "/twice":
            with pytest.raises(RuntimeError):
                start_response("404 Not Found", [])
        if environ["PATH_INFO"] == "/failed":
            try:
                raise ValueError
            except ValueError as error:
                start_response("503 Unavailable", [], (type(error), error, error.__traceback__))
        return [b"body"]

    async def main() -> None:
        async with service_of(app, "wsgi") as service:
            client = Client(service)
            assert (await client.get("/twice")).status == 200
            reply = await client.get("/failed")
            assert (reply.status, "x-first" in reply.headers) == (503, False)

    run(main)


def test_an_exception_that_comes_after_the_head_was_sent_is_raised_again() -> None:
    raised = []

    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [])
        write(b"sent")
        try:
            raise KeyError("late")
        except KeyError as error:
            try:
                start_response("500 Error", [], (type(error), error, error.__traceback__))
            except KeyError as again:
                raised.append(again)
        return []

    reply = ask(app)
    assert (reply.status, reply.body) == (200, b"sent")
    assert len(raised) == 1


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK", [("X-Split", "a\r\nX-Evil: b")]),
        ("200 OK", [("X-Split", "a\nb")]),
        ("200 OK", [("X Space", "a")]),
        ("200 OK", [("X-Wide", "\u20ac")]),
        ("200 OK", [("X-Bytes", b"a")]),
        ("200 OK", [("Transfer-Encoding", "chunked")]),
        ("200 OK", [("Upgrade", "x")]),
        ("200 OK", [("Connection", "upgrade")]),
        ("200 OK", [("Content-Length", "-1")]),
        ("200 OK", [("Content-Length", "1"), ("Content-Length", "2")]),
        ("abc", []),
        ("2000 OK", []),
        ("100 Continue", []),
        (200, []),
    ],
)
def test_what_http_does_not_allow_is_a_logged_500(status: Any, headers: Any, caplog: pytest.LogCaptureFixture) -> None:
    reply = ask(plain(b"x", status, headers))
    assert reply.status == 500
    assert "x-evil" not in reply.headers
    assert [record for record in caplog.records if record.levelno == logging.ERROR]


def test_harmless_connection_fields_are_taken_as_wishes() -> None:
    assert "connection" not in ask(plain(headers=[("Connection", "keep-alive")])).headers
    assert ask(plain(headers=[("Connection", "close")])).headers["connection"] == "close"


def test_a_body_is_held_to_its_length(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        kind = environ["PATH_INFO"]
        start_response("200 OK", [("Content-Length", "5")])
        return {"/more": [b"hello world"], "/blocks": [b"hel", b"lo w", b"orld"], "/less": [b"he", b"l"]}[kind]

    async def main() -> None:
        async with service_of(app, "wsgi") as service:
            client = Client(service)
            assert (await client.get("/more")).body == b"hello"
            assert (await client.get("/blocks")).body == b"hello"
            await client.send(b"GET /less HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.rest()).endswith(b"hel")

    run(main)
    assert len([record for record in caplog.records if "content-length" in record.getMessage()]) == 2


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_reply_without_a_body_has_none_whatever_the_application_returns(status: str) -> None:
    async def main() -> None:
        async with service_of(plain(b"surplus", status), "wsgi") as service:
            client = Client(service)
            for _ in range(2):
                assert (await client.get()).status == int(status[:3])
            assert (await client.get(method="HEAD")).status == int(status[:3])

    run(main)


@pytest.mark.parametrize("result", [[], [b""], None, ["text"], 5])
def test_an_application_that_never_called_start_response_gets_a_500(result: Any) -> None:
    assert ask(lambda environ, start_response: result).status == 500


def test_a_generator_may_start_the_reply_late() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield b""
        start_response("201 Created", [])
        yield b"made"

    reply = ask(app)
    assert (reply.status, reply.body) == (201, b"made")


def test_a_full_queue_is_a_503_with_retry_after() -> None:
    go = threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        assert go.wait(10)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    async def main() -> None:
        async with service_of(app, "wsgi", wsgi_threads=2, wsgi_queue=3) as service:
            clients = [Client(service) for _ in range(5)]
            for count, client in enumerate(clients):
                await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                await eventually(lambda count=count: service.active == count + 1)
                await eventually(lambda count=count: service._runner._tasks.qsize() == max(0, count - 1))
            reply = await Client(service).get()
            assert (reply.status, reply.headers["retry-after"], reply.headers["connection"]) == (503, "1", "close")
            go.set()
            assert {(await client.reply()).status for client in clients} == {200}

    run(main)


def test_a_client_that_left_while_it_waited_for_a_thread_costs_none() -> None:
    go = threading.Event()
    calls = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        calls.append(environ["PATH_INFO"])
        assert go.wait(10)
        start_response("200 OK", [])
        return []

    async def main() -> None:
        async with service_of(app, "wsgi", wsgi_threads=1) as service:
            first, second = Client(service), Client(service, tcp=True)
            await first.send(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: calls)
            await second.send(b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: service.active == 2)
            second.reset()
            await eventually(lambda: len(service.connections) == 1)
            go.set()
            await first.reply()
            await eventually(lambda: not service.active)

    run(main)
    assert calls == ["/first"]


def test_threads_are_named_daemons_and_end_with_the_service() -> None:
    names: set[str] = set()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        names.add(threading.current_thread().name)
        assert threading.current_thread().daemon
        start_response("200 OK", [])
        return []

    before = threading.active_count()

    async def main() -> None:
        async with service_of(app, "wsgi", wsgi_threads=3) as service:
            for _ in range(10):
                await Client(service).get()

    run(main)
    assert names <= {"multiloop-wsgi-1", "multiloop-wsgi-2", "multiloop-wsgi-3"}
    assert threading.active_count() <= before


@pytest.mark.parametrize("size", [10, 3 * MEGABYTE])
def test_a_file_is_sent_from_where_it_stands(size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(b"skipped" + content)
    files: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        file = (tmp_path / "file").open("rb")
        files.append(file)
        file.read(7)
        start_response("200 OK", [("Content-Length", str(size))])
        return environ["wsgi.file_wrapper"](file)

    async def main() -> None:
        async with service_of(app, "wsgi") as service:
            client = Client(service, tcp=True)
            for _ in range(2):
                reply = await client.get()
                assert reply.body == content
            assert (await client.get(method="HEAD")).status == 200
            await eventually(lambda: all(file.closed for file in files))

    run(main)


def test_what_only_looks_like_a_file_is_read_by_the_application_s_thread(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "packed").write_bytes(gzip.compress(b"unpacked" * 20000))

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/packed":
            return environ["wsgi.file_wrapper"](gzip.open(tmp_path / "packed"), 1000)
        if environ["PATH_INFO"] == "/temporary":
            file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - the wrapper closes it
            file.write(b"temporary" * 20000)
            file.seek(0)
            return environ["wsgi.file_wrapper"](file)
        return environ["wsgi.file_wrapper"](io.BytesIO(b"memory"))

    async def main() -> None:
        async with service_of(app, "wsgi") as service:
            client = Client(service)
            assert (await client.get("/packed")).body == b"unpacked" * 20000
            assert (await client.get("/temporary")).body == b"temporary" * 20000
            assert (await client.get("/memory")).body == b"memory"

    run(main)


def test_errors_written_to_the_stream_are_logged_in_one_record(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        print("first line", "second line", sep="\n", file=environ["wsgi.errors"])
        start_response("200 OK", [])
        return []

    ask(app)
    (record,) = [record for record in caplog.records if record.name == "multiloop.wsgi"]
    assert record.getMessage() == "first line"
    assert record.detail == "second line"  # type: ignore[attr-defined]


def test_pipelined_requests_are_answered_in_order() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        body = environ["PATH_INFO"].encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    async def main() -> None:
        async with service_of(app, "wsgi") as service:
            client = Client(service)
            await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(200)))
            for number in range(200):
                assert (await client.reply()).body == b"/%d" % number

    run(main)


def test_a_half_closed_client_gets_its_reply() -> None:
    import socket

    async def main() -> None:
        async with service_of(plain(b"late"), "wsgi") as service:
            client = Client(service, tcp=True)
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.sock.shutdown(socket.SHUT_WR)
            assert (await client.reply()).body == b"late"

    run(main)


def test_each_request_has_context_variables_of_its_own() -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="unset")

    def app(environ: Any, start_response: Any) -> list[bytes]:
        found = variable.get()
        variable.set("left behind")
        start_response("200 OK", [])
        return [found.encode()]

    async def main() -> None:
        async with service_of(app, "wsgi", wsgi_threads=1) as service:
            client = Client(service)
            for _ in range(3):
                assert (await client.get()).body == b"unset"

    run(main)
