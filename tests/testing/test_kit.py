"""The test kit's own parts: the checker tells the truth, the proxy does what it says."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support import environment, wait_until

from multiloop.testing import FakeClock, FaultProxy, Faults, MemoryConnection, RequestChecker, check_policy
from multiloop.testing.app import body_for


# --- the checker --------------------------------------------------------------------------------------------------
@contextmanager
def served(folder: Path) -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*(sys.executable, "-m", "multiloop", "serve", "multiloop.testing.app:app"),
         *("--workers", "1", "--port", str(port), "--control", "")],
        cwd=folder,
        env=environment(MULTILOOP_CHECK_LOG=str(folder / "check.log")),
    )  # fmt: skip
    try:
        wait_until(lambda: (folder / "check.log").exists())
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.wait(15)


def test_a_good_server_gets_a_clean_verdict(tmp_path: Path) -> None:
    with served(tmp_path) as address:
        paths = ("/", "/echo", "/slow?0.01", "/stream?100000")
        with RequestChecker(address, log=tmp_path / "check.log", kept=3, fresh=3, paths=paths, most=200) as checker:
            checker.wait()
        verdict = checker.verdict()
    assert verdict.is_clean
    assert verdict.failures == ()
    assert verdict.replies == verdict.requests >= 200
    assert 0 < verdict.quantile(0.5) <= verdict.quantile(0.99)


def wrong_server(answer: Callable[[str], bytes]) -> tuple[socket.socket, tuple[str, int]]:
    """A server of one thread that answers as it is told; `answer` gets the request's id."""
    listener = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                data = b""
                while b"\r\n\r\n" not in data and (more := sock.recv(65536)):
                    data += more
                lines = dict(line.split(": ", 1) for line in data.decode().split("\r\n")[1:] if ": " in line)
                if lines:
                    sock.sendall(answer(lines["X-Request-Id"]))

    threading.Thread(target=work, daemon=True).start()
    return listener, listener.getsockname()


def reply(request_id: str, body: bytes | None = None, shown: str | None = None) -> bytes:
    body = body_for(request_id.encode()) if body is None else body
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nX-Request-Id: {shown or request_id}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


@pytest.mark.parametrize(
    ("answer", "field", "what"),
    [
        (lambda i: b"", "lost_unread", "closed"),
        (lambda i: reply(i)[:-3], "lost_unread", "truncated"),
        (lambda i: reply(i, body_for(b"another")), "mixed_up", "mixed up"),
        (lambda i: reply(i, shown="another"), "mixed_up", "mixed up"),
        (lambda i: b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "lost_unread", "status 503"),
    ],
    ids=["closed", "truncated", "other body", "other id", "refused by status"],
)
def test_every_kind_of_wrong_reply_is_seen(answer: Any, field: str, what: str) -> None:
    listener, address = wrong_server(answer)
    with listener, RequestChecker(address, kept=0, fresh=2, paths=("/",), most=6) as checker:
        checker.wait()
    verdict = checker.verdict()
    assert getattr(verdict, field) == verdict.requests
    assert {failure.what for failure in verdict.failures} == {what}
    assert not verdict.is_clean


def test_what_the_application_knows_is_compared(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def answer(request_id: str) -> bytes:
        count = answer_count[0] = answer_count[0] + 1
        if count % 3 == 0:
            return reply(request_id)  # answered by nobody the log knows
        with open(log, "a") as file:
            file.write(f"began {request_id} 1 1\n" * (2 if count % 3 == 1 else 1))  # doubled, or begun and lost
        return reply(request_id) if count % 3 == 1 else b""

    answer_count = [0]
    listener, address = wrong_server(answer)
    with listener, RequestChecker(address, log=log, kept=0, fresh=1, paths=("/",), most=9) as checker:
        checker.wait()
    verdict = checker.verdict()
    assert (verdict.doubled, verdict.unlogged, verdict.lost_in_worker, verdict.lost_unread) == (3, 3, 3, 0)


def test_refused_connections_are_counted_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    with RequestChecker(address, kept=1, fresh=1, paths=("/",), most=4) as checker:
        checker.wait()
    verdict = checker.verdict()
    assert verdict.refused == verdict.requests
    assert verdict.is_clean


# --- the proxy ----------------------------------------------------------------------------------------------------
async def echo_server() -> tuple[asyncio.Server, tuple[str, int]]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()


async def through(faults: Any, data: bytes, *, seconds: float = 5.0) -> tuple[bytes, str, float]:
    """Send through a proxy: what came back, how it ended, how long it took."""
    server, address = await echo_server()
    loop = asyncio.get_running_loop()
    async with server, FaultProxy(address, faults) as proxy:
        reader, writer = await asyncio.open_connection(*proxy.address)
        began, received, end = loop.time(), b"", "end"
        try:
            async with asyncio.timeout(seconds):
                writer.write(data)
                while len(received) < len(data) and (more := await reader.read(65536)):
                    received += more
        except ConnectionError:
            end = "reset"
        except TimeoutError:
            end = "silence"
        writer.transport.abort()
        return received, end, loop.time() - began


def test_without_faults_everything_comes_through() -> None:
    data = os.urandom(3_000_000)
    received, end, _ = asyncio.run(through(Faults(), data))
    assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
    assert end == "end"


def test_latency_and_drip_take_their_time_and_lose_nothing() -> None:
    received, _, took = asyncio.run(through(Faults(latency=0.1), b"x" * 100))
    assert received == b"x" * 100
    assert took >= 0.2  # there and back
    received, _, took = asyncio.run(through(Faults(rate=2000), b"x" * 400))
    assert received == b"x" * 400
    assert took >= 0.2


@pytest.mark.parametrize(("how", "end"), [("reset", "reset"), ("close", "end"), ("hang", "silence")])
def test_a_cut_is_of_the_kind_that_was_asked_for(how: str, end: str) -> None:
    received, ended, _ = asyncio.run(through(Faults(cut_down=50, end=how), b"x" * 100, seconds=0.4))
    assert len(received) <= 50
    assert ended == end


def test_each_connection_has_faults_of_its_own_and_the_seed_says_which() -> None:
    async def main() -> list[int]:
        seen: list[int] = []

        def choose(number: int, chance: Any) -> Faults:
            seen.append(chance.randrange(1000))
            return Faults()

        server, address = await echo_server()
        async with server, FaultProxy(address, choose, seed=5) as proxy:
            for _ in range(3):
                _, writer = await asyncio.open_connection(*proxy.address)
                writer.close()
            while proxy.connections < 3:
                await asyncio.sleep(0.001)
        return seen

    assert asyncio.run(main()) == asyncio.run(main())
    with pytest.raises(ValueError, match="reset"):
        Faults(end="explode")


# --- the others ---------------------------------------------------------------------------------------------------
def test_a_memory_connection_answers_without_a_socket() -> None:
    async def main() -> None:
        connection = MemoryConnection(lambda request: f"hello {request.path}")
        request = b"GET /you HTTP/1.1\r\nHost: x\r\n\r\n"
        for byte in request:
            connection.feed(bytes([byte]))
        await connection.settle()
        assert connection.output.startswith(b"HTTP/1.1 200")
        assert connection.output.endswith(b"hello /you")
        connection.output.clear()
        connection.feed(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
        await connection.settle()
        assert connection.output.startswith(b"HTTP/1.1 400")
        connection.close()
        assert connection.is_closed

    asyncio.run(main())


def test_a_clock_goes_on_only_when_it_is_told_to() -> None:
    clock = FakeClock(5.0)
    assert (clock(), clock()) == (5.0, 5.0)
    assert clock.advance(2.5) == clock() == 7.5
    with pytest.raises(ValueError):
        clock.advance(-1)


class Stranger:
    looks_at_connection = False

    def pick(self, connection: Any, workers: Any) -> Any:
        return type(workers[0])(99)


class Favourite:
    looks_at_connection = False

    def pick(self, connection: Any, workers: Any) -> Any:
        return workers[0]


def test_policies_are_checked_against_their_contract() -> None:
    from multiloop.cluster._policy import LeastConnections, RoundRobin

    check_policy(RoundRobin)
    check_policy(LeastConnections)
    with pytest.raises(AssertionError, match="not offered"):
        check_policy(Stranger)
    with pytest.raises(AssertionError, match="got nothing"):
        check_policy(Favourite)
