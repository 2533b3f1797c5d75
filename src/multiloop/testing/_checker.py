"""Asks a server all the time, knows every request by its id, and tells what became of each.

What lives here: `RequestChecker` and its `Verdict`. What must not: faults (a test makes them meanwhile), the
application (`app`).

    clients (kept and fresh connections) ─ id ─▶ server ─▶ application ─▶ its log: "began ID", "ended ID"
    the reply must have the same id and the body that belongs to it; afterwards both sides are compared

Words: a request is *lost* when it was sent whole and no complete reply came. It was lost *in the worker* when the
application had begun it, *with its connection* when that had been used before and so belonged to a worker: a process that
dies takes both with it, and no server can help it. What is lost *unread* was on a new connection, and nobody had begun it.
It is *doubled* when the application began it twice, *mixed up* when somebody else's reply came, *unlogged* when it was
answered and the application knows nothing of it. A refused connection is counted apart: nothing was accepted.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .app import body_for

Address = tuple[str, int] | str


@dataclass(frozen=True, slots=True)
class Failure:
    """One request without a good reply."""

    request_id: str
    what: str  # refused | reset | closed | timeout | truncated | mixed up | status 503
    sent: bool  # whole
    kept: bool  # on a connection that had been used before
    path: str
    at: float  # time.monotonic
    seconds: float  # since it was begun


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the requests. `requests` counts all, `replies` the good ones."""

    requests: int
    replies: int
    refused: int
    lost_in_worker: int
    lost_with_connection: int
    lost_unread: int
    doubled: int
    mixed_up: int
    unlogged: int
    failures: tuple[Failure, ...]
    seconds: tuple[float, ...]  # of each good reply, sorted

    @property
    def is_clean(self) -> bool:
        """Whether nothing that the server can help went wrong."""
        return not (self.lost_unread or self.doubled or self.mixed_up or self.unlogged)

    def quantile(self, share: float) -> float:
        """Return the time within which this share of the good replies came."""
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))] if self.seconds else 0.0

    def __str__(self) -> str:
        return (
            f"{self.requests} requests: {self.replies} replies, {self.refused} refused, lost {self.lost_in_worker} in a "
            f"worker, {self.lost_with_connection} with its connection and {self.lost_unread} unread, {self.doubled} "
            f"doubled, {self.mixed_up} mixed up, {self.unlogged} unlogged"
        )


class RequestChecker:
    """Clients that ask until they are told to stop. They run on a thread of their own; use it as a context manager.

        with RequestChecker(("127.0.0.1", 8000), log="check.log") as checker:
            ...                                        # kill, reload, block
        assert checker.verdict().is_clean

    The server serves `multiloop.testing.app:app` with $MULTILOOP_CHECK_LOG set to `log`; without a log only what clients
    see is judged.

    Args:
        address: (host, port), or a Unix socket's path.
        kept: clients that keep their connection; `fresh`: those that take a new one for each request.
        paths: what they ask for, chosen at random for each request; `/echo` is a POST.
        timeout: seconds for one request, from connecting to the last byte.
        pause: seconds between two requests of a client, at most.
        most: requests in all; then the clients end by themselves.
        seed: of everything random.
    """

    def __init__(
        self,
        address: Address,
        *,
        log: str | os.PathLike[str] | None = None,
        kept: int = 8,
        fresh: int = 8,
        paths: Sequence[str] = ("/", "/slow?0.3"),
        timeout: float = 10.0,
        pause: float = 0.0,
        most: int | None = None,
        seed: int = 0,
    ) -> None:
        self.address = address
        self.failures: list[Failure] = []
        self.requests = 0
        self.replies = 0
        self._log = log
        self._kept = kept
        self._clients = kept + fresh
        self._paths = tuple(paths)
        self._timeout = timeout
        self._pause = pause
        self._most = most
        self._seed = seed
        self._prefix = f"{os.getpid():x}-{time.monotonic_ns():x}"
        self._answered: set[str] = set()
        self._seconds: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="request-checker", daemon=True)

    def __enter__(self) -> RequestChecker:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let every client finish its request, and end."""
        self._stop.set()
        self._thread.join()

    def wait(self) -> None:
        """Wait until `most` requests were made."""
        self._thread.join()

    # -- the clients ---------------------------------------------------------------------------------------------------
    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number, number < self._kept) for number in range(self._clients)))

    async def _client(self, number: int, keeps: bool) -> None:
        choose = random.Random(f"{self._seed} {number}")
        connection: _Connection | None = None
        while not self._stop.is_set() and (self._most is None or self.requests < self._most):
            self.requests += 1
            request_id = f"{self._prefix}-{self.requests:x}"
            path = choose.choice(self._paths)
            connection = await self._ask(connection, request_id, path, keeps, choose)
            if self._pause:
                await asyncio.sleep(self._pause * choose.random())
            elif connection is None and self.failures and not keeps:
                await asyncio.sleep(0.001)
        if connection is not None:
            connection.close()

    async def _ask(
        self, connection: _Connection | None, request_id: str, path: str, keeps: bool, choose: random.Random
    ) -> _Connection | None:
        """One request; returns the connection if it can be used again."""
        began, kept = time.monotonic(), connection is not None
        one = connection or _Connection()
        try:
            async with asyncio.timeout(self._timeout):
                if connection is None:
                    await one.open(self.address)
                body = choose.randbytes(choose.randrange(1, 4096)) if path == "/echo" else b""
                what, may_stay = await one.ask(request_id, path, body, keeps)
        except TimeoutError:
            what, may_stay = "timeout", False
        except (OSError, EOFError) as error:
            what, may_stay = _name(error), False
            if what == "refused":
                await asyncio.sleep(0.02)
        took = time.monotonic() - began
        if what:
            self.failures.append(Failure(request_id, what, one.sent, kept, path, time.monotonic(), took))
        else:
            self.replies += 1
            self._answered.add(request_id)
            self._seconds.append(took)
        if keeps and may_stay and not what:
            return one
        one.close()
        return None

    # -- the verdict ---------------------------------------------------------------------------------------------------
    def verdict(self) -> Verdict:
        """Compare what clients saw with what the application did. Call it when the clients have stopped."""
        began: Counter[str] = Counter()
        if self._log is not None:
            with open(self._log, "rb") as file:
                for line in file:
                    words = line.split()
                    if len(words) == 4 and words[0] == b"began" and words[1].startswith(self._prefix.encode()):
                        began[words[1].decode()] += 1
        lost = [failure for failure in self.failures if failure.sent and failure.what != "mixed up"]
        in_worker = sum(1 for failure in lost if began[failure.request_id])
        with_connection = sum(1 for failure in lost if failure.kept and not began[failure.request_id])
        return Verdict(
            requests=self.requests,
            replies=self.replies,
            refused=sum(1 for failure in self.failures if failure.what == "refused"),
            lost_in_worker=in_worker,
            lost_with_connection=with_connection,
            lost_unread=len(lost) - in_worker - with_connection,
            doubled=sum(1 for count in began.values() if count > 1),
            mixed_up=sum(1 for failure in self.failures if failure.what == "mixed up"),
            unlogged=sum(1 for one in self._answered if not began[one]) if self._log is not None else 0,
            failures=tuple(self.failures),
            seconds=tuple(sorted(self._seconds)),
        )


class _Connection:
    """One HTTP/1.1 connection, as strict as it is small."""

    def __init__(self) -> None:
        self.sent = False
        self._reader: Any = None
        self._writer: Any = None

    async def open(self, address: Address) -> None:
        if isinstance(address, str):
            self._reader, self._writer = await asyncio.open_unix_connection(address)
        else:
            self._reader, self._writer = await asyncio.open_connection(*address)

    async def ask(self, request_id: str, path: str, body: bytes, keeps: bool) -> tuple[str, bool]:
        """Send one request; returns what was wrong with the reply ("" for nothing), and whether it may be used again."""
        self.sent = False
        method = "POST" if path == "/echo" else "GET"
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        close = "" if keeps else "Connection: close\r\n"
        head = f"{method} {path} HTTP/1.1\r\nHost: check\r\nX-Request-Id: {request_id}\r\n{length}{close}\r\n"
        self._writer.write(head.encode() + body)
        await self._writer.drain()
        self.sent = True
        try:
            reply = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            return ("truncated" if error.partial else "closed"), False
        status, headers = _parse(reply)
        size = int(headers.get("content-length", "0"))
        try:
            received = await self._reader.readexactly(size)
        except asyncio.IncompleteReadError:
            return "truncated", False
        may_stay = headers.get("connection", "").lower() != "close"
        if status != 200:
            return f"status {status}", may_stay
        expected = body if path == "/echo" else body_for(request_id.encode())
        right = received == expected or path.startswith(("/stream", "/pid"))
        if headers.get("x-request-id") != request_id or not right:
            return "mixed up", False
        if body and headers.get("x-received") != hashlib.sha256(body).hexdigest():
            return "mixed up", False
        return "", may_stay

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.lower()] = value.strip()
    return int(first.split(" ", 2)[1]), headers


def _name(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return "refused"
    if isinstance(error, EOFError):
        return "closed"
    return "reset" if isinstance(error, ConnectionError) else type(error).__name__
