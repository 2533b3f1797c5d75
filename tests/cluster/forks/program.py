"""Programs that fork themselves, run for tests: their output line by line, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.cluster.harness import is_alive
from tests.support import environment, wait_until

# Every program begins so: names for all, and an end that comes with the tests' own.
HEAD = """
import asyncio, ctypes, json, os, signal, socket, sys, time
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG
import multiloop
from multiloop import cluster, events, http, net, timers

def say(*words):
    print(*words, flush=True)

async def pid(request):
    return str(os.getpid())
"""


class Ended(NamedTuple):
    """How a program ended."""

    code: int
    lines: list[str]
    err: str


class Program:
    """A program that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self.err = ""
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.err += line

    def line(self, seconds: float = 60.0) -> str:
        """The next line that it prints."""
        try:
            found = self._queue.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"nothing more is said: {self.lines}\n{self.err}") from None
        assert found is not None, f"it ended: {self.lines}\n{self.err}"
        self.lines.append(found)
        return found

    def until(self, start: str, seconds: float = 60.0) -> str:
        """The next line that begins so, without its beginning."""
        while True:
            line = self.line(seconds)
            if line.startswith(start):
                return line[len(start) :].strip()

    def ended(self, seconds: float = 90.0) -> Ended:
        """Wait for its end."""
        code = self.process.wait(seconds)
        for thread in self._threads:
            thread.join(seconds)
        while not self._queue.empty():
            line = self._queue.get()
            if line is not None:
                self.lines.append(line)
        return Ended(code, self.lines, self.err)

    def children(self) -> set[int]:
        return children_of(self.pid)


def children_of(pid: int) -> set[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            found.update(map(int, (task / "children").read_text().split()))
    return found


@contextlib.contextmanager
def running(
    folder: Path,
    code: str,
    *args: str,
    options: tuple[str, ...] = (),
    command: list[str] | None = None,
    limit: int | None = None,
    **env: str,
) -> Iterator[Program]:
    """Start a program from its text; kill what is left of it at the end."""
    path = folder / "program.py"
    path.write_text(HEAD + textwrap.dedent(code))
    line = command or [sys.executable, "-W", "error", *options, str(path), *args]
    if limit is not None:
        line = ["prlimit", f"--nofile={limit}:{limit}", *line]
    process = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        # Buffered: what is printed by several processes arrives line by line.
        env=environment(PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="", **env),
        start_new_session=True,
    )
    program = Program(process)
    family: set[int] = set()
    try:
        yield program
        family |= program.children()
    finally:
        family |= program.children()
        process.kill()
        for pid in family:
            if is_alive(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        program.ended()
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()


def run(folder: Path, code: str, *args: str, options: tuple[str, ...] = (), **env: str) -> Ended:
    """Run a program to its end; it must leave no process behind."""
    with running(folder, code, *args, options=options, **env) as program:
        return program.ended()


def ask(port: int, path: str = "/") -> str:
    """One request on a connection of its own; returns the body."""
    from tests.cluster.harness import ask as ask_on

    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        return ask_on(sock, path)


def gone(pids: set[int], seconds: float) -> None:
    """Wait until none of these processes is there."""
    wait_until(lambda: not any(map(is_alive, pids)), seconds)
