"""A running `multiloop serve` for tests: its own processes, log and control socket."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multiloop.cluster import _control
from multiloop.cluster._settings import ListenAddress, ProcessSettings, ServeSettings, SupervisorSettings
from multiloop.http._target import AppTarget
from tests.support import environment, wait_until

APP = """
import asyncio, os, pathlib, sys, time
HERE = pathlib.Path(__file__).parent
VERSION = "one"

def note(name):
    with open(HERE / name, "a") as file:
        file.write("x")

note("boots")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                note("startups")
            else:
                note("shutdowns")
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] != "http":
        return
    path, query = scope["path"], scope["query_string"].decode()
    if path == "/slow":
        await asyncio.sleep(float(query or 0.3))
    elif path == "/block":
        time.sleep(float(query))
    elif path == "/die":
        os.kill(os.getpid(), 9)
    while (await receive()).get("more_body"):
        pass
    body = VERSION.encode() if path == "/version" else str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""

RUN = """
import ctypes, pickle, sys
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: leave nothing behind when the tests are killed
from multiloop import logs
from multiloop.cluster._primary import serve
from multiloop.errors import ConfigError
with open(sys.argv[1], "rb") as file:
    settings = pickle.load(file)
logs.configure(settings.logs, worker="primary")
try:
    code = serve(settings)
except ConfigError as error:
    print(f"multiloop: {error}", file=sys.stderr)
    code = error.exit_code
sys.exit(code)
"""


class Server:
    """One primary and its workers."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, address: Any, control: str) -> None:
        self.process = process
        self.folder = folder
        self.address = address
        self.control = control

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def count(self, name: str) -> int:
        """How often the application noted something."""
        path = self.folder / name
        return len(path.read_text()) if path.exists() else 0

    def status(self) -> dict[str, Any]:
        return _control.call(self.control, "status")  # type: ignore[no-any-return]

    def workers(self, state: str = "ready") -> dict[int, int]:
        """The workers in a state: number to pid."""
        return {w["number"]: w["pid"] for w in self.status()["workers"] if w["state"] == state}

    def wait_ready(self, count: int, seconds: float = 15.0) -> dict[int, int]:
        wait_until(lambda: self._ready_count() == count, seconds)
        return self.workers()

    def _ready_count(self) -> int:
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended: {self.log}")
        try:
            return len(self.workers())
        except Exception:
            return -1

    def connect(self, timeout: float = 5.0) -> socket.socket:
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        sock.connect(self.address)
        return sock

    def get(self, path: str = "/pid", timeout: float = 5.0) -> str:
        """One request on a connection of its own."""
        with self.connect(timeout) as sock:
            return ask(sock, path)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 10.0) -> int:
        return self.process.wait(seconds)

    def children(self) -> set[int]:
        found: set[int] = set()
        for task in Path(f"/proc/{self.pid}/task").glob("*"):
            with contextlib.suppress(OSError):
                found.update(map(int, (task / "children").read_text().split()))
        return found


def ask(sock: socket.socket, path: str = "/pid", *, close: bool = False) -> str:
    """One request on a connection; returns the body."""
    send(sock, path, close=close)
    return receive(sock)


def send(sock: socket.socket, path: str = "/pid", *, close: bool = False) -> None:
    more = "Connection: close\r\n" if close else ""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())


def receive(sock: socket.socket) -> str:
    """Read one reply; ConnectionError when the server closes instead."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head.lower()).group(1))  # type: ignore[union-attr]
    while len(body) < length:
        body += _some(sock)
    if not head.startswith(b"HTTP/1.1 200"):
        raise AssertionError(head.decode())
    return body.decode()


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise ConnectionError("closed")
    return data


def is_alive(pid: int) -> bool:
    """A zombie is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def serving(
    folder: Path,
    *,
    app: str = APP,
    target: str = "cluster_app:app",
    port: int | None = None,
    path: str | None = None,
    limit: int | None = None,
    loop: str = "auto",
    watch: bool = False,
    dev: bool = False,
    **supervisor: Any,
) -> Iterator[Server]:
    """Start a server in a folder of its own; kill what is left of it at the end."""
    (folder / "cluster_app.py").write_text(app)
    control = str(folder / "control.sock")
    port = free_port() if port is None else port
    listen = ListenAddress(path=path) if path is not None else ListenAddress(host="127.0.0.1", port=port)
    settings = ServeSettings(
        target=AppTarget(target, app_dir=str(folder)),
        listen=(listen,),
        supervisor=SupervisorSettings(**{"workers": 2, **supervisor}),
        loop=loop,
        process=ProcessSettings(control=control),
        reload=watch,
        dev=dev,
        reload_dirs=(str(folder),) if watch else (),
    )
    (folder / "settings").write_bytes(pickle.dumps(settings))
    command = [sys.executable, "-W", "error", "-c", RUN, str(folder / "settings")]
    if limit is not None:
        command = ["prlimit", f"--nofile={limit}:{limit}", *command]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment(PYTHONDONTWRITEBYTECODE="1"), start_new_session=True
        )
    server = Server(process, folder, path if path is not None else ("127.0.0.1", port), control)
    family: set[int] = set()
    try:
        yield server
        family |= server.children()
    finally:
        family |= server.children()
        process.kill()
        process.wait()
        for pid in family:
            if is_alive(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Load:
    """Clients that ask all the time; counts replies and failures."""

    def __init__(self, server: Server, *, kept: int = 4, fresh: int = 2, fresh_path: str = "/pid") -> None:
        self.server = server
        self.replies = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._fresh_path = fresh_path
        self._threads = [threading.Thread(target=self._run, args=(i < kept,)) for i in range(kept + fresh)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, keep: bool) -> None:
        import http.client

        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(*self.server.address, timeout=5)
                connection.request("GET", "/pid" if keep else self._fresh_path)
                response = connection.getresponse()
                response.read()
                failure = "" if response.status == 200 else str(response.status)
                if not keep or (response.getheader("connection") or "").lower() == "close":
                    connection.close()
                    connection = None
            except Exception as error:
                failure, connection = repr(error), None
            with self._lock:
                self.replies += 1
                if failure:
                    self.failures.append(failure)
        if connection is not None:
            connection.close()


def pause(seconds: float) -> None:
    """For faults that need time to be felt: nothing to wait for."""
    time.sleep(seconds)
