"""Real engines on this machine: a Ray head and further nodes, a Dask scheduler and workers, a Redis.

What lives here: how they are started and ended: each in a session of its own, so that it can be killed whole, also when the
tests themselves are killed. What must not: tests.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support import environment, wait_until

BIN = Path(sys.executable).parent


def free_port() -> int:
    """A port that nobody has now, above those that Ray gives its workers."""
    while True:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
        if port > 20_000:
            return port


def answers(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as sock:
        sock.settimeout(0.5)
        return not sock.connect_ex(("127.0.0.1", port))


class Service:
    """A program with all that it starts. Its guard kills it should this process end without doing so."""

    def __init__(self, *command: str, log: Path, **more: str) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command, env=environment(**more), start_new_session=True, stdout=file, stderr=subprocess.STDOUT
            )
        self._guard = subprocess.Popen(
            ["sh", "-c", 'read -r _; kill -KILL "-$0" 2>/dev/null', str(self.process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def wait_for(self, condition: Any, seconds: float = 120.0) -> None:
        """Wait until it is ready; its log is the reason when it ends before."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return bool(condition())

        try:
            wait_until(is_ready, seconds)
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it and its children."""
        for each in (number, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, each)
                self.process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        # The leader is gone; children that were slower share its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._guard.kill()
        self._guard.communicate()


class Folder:
    """A short-lived folder with a short name: Ray's sockets have paths of at most 107 bytes."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="ml-", dir="/tmp"))

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


TOKEN = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}


class RayHead:
    """`ray start --head`."""

    def __init__(
        self, folder: Path, *, cpus: int = 2, port: int = 0, client_port: int = 0, dashboard: bool = False
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.client_port = client_port or free_port()
        for tries in (2, 1, 0):  # Ray gives its own parts 30 s to start, which a machine with much else to do needs
            try:
                self._start(cpus, dashboard)
            except AssertionError:
                if not tries:
                    raise
            else:
                break
        self.address = f"127.0.0.1:{self.port}"

    def _start(self, cpus: int, dashboard: bool) -> None:
        folder = self.folder
        (folder / "head.log").write_bytes(b"")
        self.service = Service(
            str(BIN / "ray"), "start", "--head", "--block", f"--port={self.port}", f"--num-cpus={cpus}",
            f"--ray-client-server-port={self.client_port}", f"--include-dashboard={str(dashboard).lower()}",
            f"--dashboard-port={free_port()}", "--disable-usage-stats", f"--temp-dir={folder / 'ray'}",
            "--object-store-memory=200000000", log=folder / "head.log", **TOKEN,
        )  # fmt: skip
        self.service.wait_for(lambda: b"Ray runtime started" in (folder / "head.log").read_bytes())

    def add_node(self, cpus: int = 1, **resources: float) -> Service:
        """A second node on the same machine."""
        import json

        log = self.folder / f"node-{free_port()}.log"
        service = Service(
            str(BIN / "ray"), "start", "--block", f"--address={self.address}", f"--num-cpus={cpus}",
            f"--resources={json.dumps(resources)}", "--disable-usage-stats", "--object-store-memory=100000000",
            log=log, **TOKEN,
        )  # fmt: skip
        service.wait_for(lambda: b"Ray runtime started" in log.read_bytes())
        return service

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it."""
        self.service.end(number)


class DaskCluster:
    """`dask scheduler` and workers of one thread."""

    def __init__(self, folder: Path, workers: int = 2, port: int = 0, resources: str = "") -> None:
        self.folder = folder
        self.port = port or free_port()
        self.address = f"dask://127.0.0.1:{self.port}"
        self.scheduler = Service(
            str(BIN / "dask"), "scheduler", "--host", "127.0.0.1", "--port", str(self.port),
            "--dashboard-address", f"127.0.0.1:{free_port()}", log=folder / "scheduler.log",
        )  # fmt: skip
        self.scheduler.wait_for(lambda: answers(self.port))
        self.workers = [self.add_worker(resources) for _ in range(workers)]

    def add_worker(self, resources: str = "") -> Service:
        """One more."""
        log = self.folder / f"worker-{free_port()}.log"
        given = ["--resources", resources] if resources else []
        service = Service(
            str(BIN / "dask"), "worker", f"tcp://127.0.0.1:{self.port}", "--nthreads", "1", "--host", "127.0.0.1",
            "--no-dashboard", "--local-directory", str(self.folder), *given, log=log,
        )  # fmt: skip
        service.wait_for(lambda: b"Registered to" in log.read_bytes())
        return service

    def end(self) -> None:
        """End all."""
        for each in (*self.workers, self.scheduler):
            each.end()


class Redis:
    """Debian's redis-server, without a disk."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._start()

    def _start(self) -> None:
        self.service = Service(
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", str(self.folder), log=self.folder / "redis.log",
        )  # fmt: skip
        self.service.wait_for(lambda: answers(self.port))

    def start_again(self) -> None:
        """After `end`: at the same port."""
        self._start()

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it."""
        self.service.end(number)
