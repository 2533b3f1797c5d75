"""A running `multiloop serve` for the fault matrix: the real command, its log, its control socket, its family."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from multiloop.cluster import _control
from multiloop.testing import RequestChecker
from tests.cluster.harness import is_alive as is_alive
from tests.cluster.harness import receive as receive
from tests.support import environment, wait_until

TARGET = "multiloop.testing.app:app"


class Server:
    """One primary and its workers."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.control = str(folder / "control.sock")
        self.check_log = folder / "check.log"
        self.address: tuple[str, int] = ("127.0.0.1", 0)
        self.began = time.monotonic()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def call(self, command: str, **arguments: Any) -> Any:
        return _control.call(self.control, command, timeout_s=60, **arguments)

    def status(self) -> dict[str, Any]:
        return self.call("status")  # type: ignore[no-any-return]

    def workers(self, state: str = "ready") -> dict[int, int]:
        """The workers in a state: number to pid."""
        return {w["number"]: w["pid"] for w in self.status()["workers"] if w["state"] == state}

    def wait_ready(self, count: int, seconds: float = 30.0) -> dict[int, int]:
        wait_until(lambda: len(self.workers()) == count, seconds)
        return self.workers()

    def wait_settled(self, count: int, seconds: float = 30.0) -> None:
        """Wait until there are just so many workers, all ready, of one generation."""

        def settled() -> bool:
            found = self.status()
            return found["state"] == "serving" and len(found["workers"]) == count

        wait_until(settled, seconds)

    def checker(self, **options: Any) -> RequestChecker:
        self.check_log.touch()
        return RequestChecker(self.address, log=self.check_log, **options)

    def connect(self, timeout: float = 5.0) -> socket.socket:
        return socket.create_connection(self.address, timeout=timeout)

    def get(self, path: str = "/pid", timeout: float = 5.0) -> str:
        with self.connect(timeout) as sock:
            ask(sock, path)
            return receive(sock)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def family(self) -> list[int]:
        """The processes below the primary."""
        found: set[int] = set()
        for task in Path(f"/proc/{self.pid}/task").glob("*"):
            with contextlib.suppress(OSError):
                found.update(map(int, (task / "children").read_text().split()))
        return sorted(found)

    def descriptors(self) -> int:
        """How many descriptors the primary has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@contextlib.contextmanager
def serving(
    folder: Path,
    *arguments: str,
    target: str = TARGET,
    workers: int | str = 2,
    before: Sequence[str] = (),
    ready: int | None = None,
    env: dict[str, str] | None = None,
    port: int = 0,
    stderr: int | None = None,
) -> Iterator[Server]:
    """Serve the checker's application; nothing is left of it afterwards.

    Args:
        before: a command that runs it (prlimit, faketime).
        ready: wait for so many workers; None: all. 0: do not wait.
    """
    log = open(folder / "log", "wb")  # noqa: SIM115
    variables = {"MULTILOOP_CHECK_LOG": str(folder / "check.log"), "MULTILOOP_CONTROL": str(folder / "control.sock")}
    process = subprocess.Popen(
        [
            *(*before, sys.executable, "-m", "multiloop", "serve", target),
            *("--workers", str(workers), "--port", str(port), *arguments),
        ],
        cwd=folder,
        env=environment(**variables, PYTHONDONTWRITEBYTECODE="1", **(env or {})),
        stdout=log,
        stderr=log if stderr is None else stderr,
        start_new_session=True,
    )
    log.close()
    server = Server(process, folder)
    family: set[int] = set()
    try:
        if ready != 0:
            wait_until(lambda: _announced(server) or process.poll() is not None, 30)
            if process.poll() is not None:
                raise AssertionError(f"the server ended: {server.log}")
            server.wait_ready(ready if ready is not None else int(workers))
        yield server
    finally:
        family |= set(server.family())
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.wait()
        for pid in family:
            if is_alive(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _announced(server: Server) -> bool:
    """Whether it says where it listens: in its log, or else (a log that nobody reads) on the control socket."""
    found = re.search(r"http://127\.0\.0\.1:(\d+)", server.log)
    if found is None:
        with contextlib.suppress(Exception):
            found = re.search(r":(\d+)", server.status()["listen"][0].removeprefix("http"))
    if found is not None:
        server.address = ("127.0.0.1", int(found[1]))
    return found is not None


def ask(sock: socket.socket, path: str, *, method: str = "GET", more: str = "") -> None:
    sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> float:
    """Wait until it holds; returns how long that took."""
    began = time.monotonic()
    wait_until(condition, seconds)
    return time.monotonic() - began
