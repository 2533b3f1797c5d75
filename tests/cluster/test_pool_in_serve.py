"""Pools inside of `multiloop serve`: their share of the machine, tasks that nobody waits for, the end of a worker."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from multiloop.pool import usable_cores
from tests.cluster.harness import ask, is_alive, receive, send, serving
from tests.support import wait_until

APP = """
import os, pathlib, time
from multiloop import pool

HERE = pathlib.Path(__file__).parent

def work(name, seconds):
    (HERE / (name + ".begun")).write_text(str(os.getpid()))
    time.sleep(seconds)
    (HERE / (name + ".done")).write_text("")

def niceness():
    return os.nice(0)

async def app(request):
    if request.path == "/share":
        return f"{pool.default_pool().statistics().limit} {await pool.run(niceness) - os.nice(0)}"
    if request.path == "/wait":
        await pool.run(work, "wait", float(request.query["s"]))
    elif request.path == "/leave":  # for nobody in particular
        pool.submit(work, "leave", float(request.query["s"]))
    return str(os.getpid())
"""


def pid_of(path: Path) -> int:
    """The worker of the pool that has begun a task."""
    wait_until(lambda: path.exists() and path.read_text())
    return int(path.read_text())


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_default_pool_gets_its_share_of_the_cores_and_gives_way_to_the_loop(tmp_path: Path, workers: int) -> None:
    with serving(tmp_path, app=APP, workers=workers) as server:
        server.wait_ready(workers)
        assert server.get("/share") == f"{max(1, usable_cores() // workers)} 10"


def test_a_handler_whose_client_leaves_stops_its_task(tmp_path: Path) -> None:
    with serving(tmp_path, app=APP, workers=1) as server:
        server.wait_ready(1)
        with server.connect() as sock:
            send(sock, "/wait?s=60")
            worker = pid_of(tmp_path / "wait.begun")
            sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER, 0 s: a reset
        wait_until(lambda: not is_alive(worker))
        assert not (tmp_path / "wait.done").exists()
        assert server.get("/share").endswith(" 10")  # it was replaced


@pytest.mark.parametrize("path", [pytest.param("/wait", marks=pytest.mark.slow), "/leave"])
def test_the_drain_waits_for_tasks_that_run(tmp_path: Path, path: str) -> None:
    name = path[1:]
    with serving(tmp_path, app=APP, workers=1) as server:
        server.wait_ready(1)
        with server.connect() as sock:
            send(sock, f"{path}?s=1")
            worker = pid_of(tmp_path / f"{name}.begun")
            server.signal(signal.SIGTERM)
            assert receive(sock)
        assert server.wait() == 0
        assert (tmp_path / f"{name}.done").exists()
        wait_until(lambda: not is_alive(worker))


@pytest.mark.slow
def test_the_drain_waits_for_a_task_no_longer_than_the_grace(tmp_path: Path) -> None:
    with serving(tmp_path, app=APP, workers=1, grace=0.5) as server:
        server.wait_ready(1)
        with server.connect() as sock:
            ask(sock, "/leave?s=60")
            worker = pid_of(tmp_path / "leave.begun")
        server.signal(signal.SIGTERM)
        stopped = time.monotonic()
        assert server.wait() == 0
        assert time.monotonic() - stopped < 5
        wait_until(lambda: not is_alive(worker))


LIFESPAN = """
import contextlib, os, pathlib, time
from multiloop.pool import Pool

HERE = pathlib.Path(__file__).parent
made = []

def work():
    (HERE / "leave.begun").write_text(str(os.getpid()))
    time.sleep(60)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        async with Pool(workers=1) as pool:
            made.append(pool)
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        (HERE / "ended").write_text("")
        await send({"type": "lifespan.shutdown.complete"})
        return
    made[0].submit(work)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
"""


def test_a_lifespan_that_closes_its_pool_ends_when_the_grace_is_over(tmp_path: Path) -> None:
    with serving(tmp_path, app=LIFESPAN, workers=1, grace=0.3) as server:
        server.wait_ready(1)
        with server.connect() as sock:
            ask(sock)
            pid_of(tmp_path / "leave.begun")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert (tmp_path / "ended").exists()


@pytest.mark.slow
def test_a_worker_that_is_killed_takes_its_pool_with_it(tmp_path: Path) -> None:
    with serving(tmp_path, app=APP, workers=1) as server:
        (pid,) = server.wait_ready(1).values()
        with server.connect() as sock:
            ask(sock, "/leave?s=60")
            worker = pid_of(tmp_path / "leave.begun")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(worker))
