"""Logs whose destination takes nothing: a stalled pipe, a closed one, a full disk. Requests feel none of it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import environment, wait_until

from .harness import ask, free_port

APP = """
import logging
log = logging.getLogger("shop")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    log.info("asked for %s %s", scope["path"], "x" * 500)
    print("printed", "y" * 500)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


@contextlib.contextmanager
def served(folder: Path, *options: str, out: int) -> Iterator[int]:
    """Serve with standard output and error going to a descriptor; gives the port."""
    (folder / "shop.py").write_text(APP)
    port = free_port()
    command = [sys.executable, "-m", "multiloop", "serve", "shop:app", "--workers", "1", "--port", str(port)]
    command += ["--access-log", "--control", str(folder / "control"), *options]
    process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, env=environment())
    try:
        wait_until(lambda: answers(port), 30)
        yield port
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    try:
        return bool(times_of(port, 1))
    except OSError:
        return False


def times_of(port: int, count: int) -> list[float]:
    """How long each of so many requests took, one after the other on one connection."""
    import socket

    found = []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        for _ in range(count):
            began = time.perf_counter()
            assert ask(sock) == "ok"
            found.append(time.perf_counter() - began)
    return sorted(found)


@pytest.fixture
def stalled() -> Iterator[int]:
    """A pipe whose other end nobody reads."""
    reader, writer = os.pipe()
    yield writer
    os.close(reader)
    os.close(writer)


@pytest.mark.faults
def test_a_stalled_pipe_changes_no_latency(tmp_path: Path, stalled: int) -> None:
    with open(os.devnull, "wb") as nowhere, served(tmp_path, out=nowhere.fileno()) as port:
        free = times_of(port, 3000)
    with served(tmp_path, out=stalled) as port:
        held = times_of(port, 3000)  # six megabytes for a pipe that takes 64 KiB
    p99 = 0.99 * len(free)
    assert held[int(p99)] < 3 * free[int(p99)] + 0.01
    assert held[-1] < 1.0


def test_a_closed_pipe_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with served(tmp_path, out=writer) as port:
        os.close(writer)
        assert len(times_of(port, 100)) == 100


def test_a_full_disk_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    with open(os.devnull, "wb") as nowhere, served(tmp_path, "--log-file", "/dev/full", out=nowhere.fileno()) as port:
        assert len(times_of(port, 100)) == 100


@pytest.mark.faults
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_disk_that_fills_up_is_written_again_once_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        filler = disk / "filler"
        filler.write_bytes(b"x" * 900_000)
        with (
            open(os.devnull, "wb") as nowhere,
            served(tmp_path, "--log-file", str(disk / "log"), out=nowhere.fileno()) as port,
        ):
            assert len(times_of(port, 1500)) == 1500  # more than fits
            filler.unlink()
            times_of(port, 10)
            wait_until(lambda: "log records were dropped" in (disk / "log").read_text())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
