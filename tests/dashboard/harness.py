"""A server with its dashboard for tests, and a client that follows its events."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from multiloop.cluster import _control
from tests.support import environment, wait_until

APP = """\
import asyncio, os, re, time
from multiloop import metrics, pool

ORDERS = metrics.counter("shop_orders", "Orders placed.", labels=("country",))
SIZE = metrics.histogram("shop_size", "Sizes.", buckets=(1, 10))
OPEN = metrics.gauge("shop_open", "Open orders.", across="max")

def square(number):
    return number * number

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    path, query = scope["path"], scope["query_string"].decode()
    status = 200
    if path == "/block":
        time.sleep(float(query.partition("&")[0]))
    elif path == "/spin":
        re.match(r"(a+)+$", "a" * 24 + "b")
    elif path == "/order":
        ORDERS.labels(country=query).inc()
        SIZE.observe(3)
        OPEN.set(os.getpid())
    elif path == "/pool":
        await pool.run(square, 7)
    elif path == "/fail":
        status = 500
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass
class Admin:
    """A running server: where it serves, and where its dashboard is."""

    process: subprocess.Popen[str]
    folder: Path
    port: int
    link: str

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def admin_port(self) -> int:
        port = urlsplit(self.link).port
        assert port is not None
        return port

    @property
    def token(self) -> str:
        return self.link.partition("token=")[2]

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.admin_port}"

    def get(self, path: str = "/", port: int | None = None, timeout: float = 20) -> tuple[int, str]:
        """Ask the application, or whoever is at this port."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, dict[str, str], str]:
        """Ask the dashboard, with the token as a bearer unless `Authorization` says otherwise ("": none)."""
        given = {"Authorization": f"Bearer {self.token}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=20)
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body)
            if data is not None:
                given.setdefault("Content-Type", "application/json")
            connection.request(method, path, data, {name: value for name, value in given.items() if value})
            reply = connection.getresponse()
            text = reply.read().decode()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, text

    def everything(self) -> Any:
        return json.loads(self.ask("/api/state")[2])

    def workers(self, state: str = "ready") -> dict[int, int]:
        """The workers in a state: number to pid."""
        found = self.everything()["state"]
        return {w["n"]: w["pid"] for w in found.get("workers", ()) if w["state"] == state}

    def metrics(self) -> Samples:
        status, headers, text = self.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert status == 200, text
        assert headers["content-type"].startswith("application/openmetrics-text")
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def call(self, command: str, **arguments: Any) -> Any:
        return _control.call(str(self.folder / "control.sock"), command, **{"timeout_s": 60, **arguments})

    @contextlib.contextmanager
    def following(self) -> Iterator[Events]:
        """Follow the page's events."""
        with socket.create_connection(("127.0.0.1", self.admin_port), timeout=20) as sock:
            head = f"GET /events HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {self.token}\r\n\r\n"
            sock.sendall(head.encode())
            with sock.makefile("rb") as file:
                yield Events(file)


class Events:
    """The server-sent events of one connection, in order."""

    def __init__(self, file: Any) -> None:
        self._file = file
        assert b" 200 " in file.readline()
        while file.readline().strip():
            pass
        self._waiting = b""

    def _line(self) -> bytes:
        while b"\n" not in self._waiting:
            size = int(self._file.readline(), 16)
            assert size, "the stream ended"
            self._waiting += self._file.read(size)
            self._file.readline()
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line

    def next(self, kind: str) -> Any:
        """The next event of a kind; others are passed over."""
        while True:
            if self._line() == f"event: {kind}".encode():
                return json.loads(self._line().removeprefix(b"data: "))

    def until(self, kind: str, condition: Any, most: int = 60) -> Any:
        """The first event of a kind for which a condition holds."""
        for _ in range(most):
            found = self.next(kind)
            if condition(found):
                return found
        raise AssertionError(f"waited in vain, last: {json.dumps(found)[:2000]}")


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a metric over the labels that are not named."""
    return sum(
        value for (sample, found), value in samples.items() if sample == name and set(labels.items()) <= set(found)
    )


@contextlib.contextmanager
def serving(
    folder: Path, *arguments: str, app: str = APP, module: str = "shop", workers: int = 2, **variables: str
) -> Iterator[Admin]:
    """Serve an application with a dashboard, both on free ports."""
    (folder / f"{module}.py").write_text(app)
    log = folder / "log"
    command = [sys.executable, "-W", "error", "-m", "multiloop", "serve", f"{module}:app", "--port", "0"]
    command += ["--workers", str(workers), *(() if "--admin" in arguments else ("--admin", "127.0.0.1:0")), *arguments]
    with open(log, "w") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(MULTILOOP_CONTROL=str(folder / "control.sock"), **variables),
            stdout=out,
            stderr=out,
            text=True,
            start_new_session=True,
        )
    try:
        wait_until(lambda: f"serving {module}:app" in log.read_text() or process.poll() is not None, 60)
        port = re.search(r"on http://127\.0\.0\.1:(\d+)", log.read_text())
        assert port is not None, log.read_text()
        link = re.search(r"dashboard: (http://\S+)", log.read_text())
        assert link is not None, log.read_text()
        address = link[1] if "token=" in link[1] else f"{link[1]}?token={variables['MULTILOOP_ADMIN_TOKEN']}"
        found = Admin(process, folder, int(port[1]), address)
        wait_until(lambda: len(found.workers()) == workers, 60)
        yield found
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()
