"""`cluster.supervise`: the supervisor of `multiloop serve` for programs that fork themselves."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cluster.forks.program import ask, gone, run, running

SUPERVISED = """
import pathlib
from multiloop.errors import RestartFailed, UsageError
VERSION = pathlib.Path("version")

async def main():
    if VERSION.exists() and VERSION.read_text() == "broken":
        raise RuntimeError("this code is broken")
    await http.create_server(pid).listen(int(os.environ["PORT"]))

async def program():
    supervision = cluster.supervise(2, grace=5, hang_timeout=20)
    cluster.on("listening", lambda worker, address: say("listening", worker.id, address.port))
    while supervision.state != "serving":
        await timers.sleep(0.01)
    try:
        cluster.fork()
    except UsageError as error:
        say("refused", str(error)[:20])

    # One that dies is replaced.
    cluster.workers[1].kill("SIGKILL")
    await events.once(cluster, "exit")
    while supervision.state != "serving":
        await timers.sleep(0.01)
    say("after a death", sorted(cluster.workers), supervision.restarts)

    # A reload replaces all, and one of broken code nobody.
    await supervision.reload()
    while len(cluster.workers) > 2:
        await timers.sleep(0.01)
    say("after a reload", sorted(cluster.workers), supervision.restarts)
    VERSION.write_text("broken")
    try:
        await supervision.reload()
    except RestartFailed as error:
        say("failed:", error)
    VERSION.unlink()
    await supervision.restart(4)
    assert supervision.scale(1) == 1
    while len(cluster.workers) > 1:
        await timers.sleep(0.01)
    say("ready", *(each.state for each in supervision.workers()))
    await supervision.wait()
    say("over", supervision.state, len(cluster.workers))

multiloop.run(program if cluster.is_primary else main)
"""


@pytest.mark.slow
def test_workers_are_kept_reloaded_scaled_and_stopped_with_grace(tmp_path: Path) -> None:
    from tests.cluster.forks.test_serving import free_port

    port = free_port()
    with running(tmp_path, SUPERVISED, PORT=str(port)) as program:
        assert program.until("refused") == "a supervised cluster"
        assert program.until("after a death") == "[2, 3] 1"
        assert program.until("after a reload") == "[4, 5] 1"
        assert "exit code 1" in program.until("failed:")
        assert program.until("ready") == "ready"
        assert int(ask(port)) in program.children()
        os.kill(program.pid, signal.SIGTERM)
        assert program.until("over") == "stopped 0"
        assert program.ended().code == 0


@pytest.mark.slow
def test_a_worker_that_never_becomes_ready_ends_it_with_the_reason(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        if cluster.is_primary:
            multiloop.run(cluster.supervise(3).wait)
        else:
            sys.exit(5)
        """,
    )
    assert ended.code == 1
    assert "multiloop.errors.NeverReady: it died before it was ready (exit code 5)" in ended.err


@pytest.mark.slow
def test_workers_without_servers_are_ready_when_they_run_and_are_recycled_by_age(tmp_path: Path) -> None:
    with running(
        tmp_path,
        """
        if cluster.is_primary:
            cluster.on("exit", lambda worker, code, signal: say("exit", worker.id, worker.exited_after_disconnect, code))
            multiloop.run(cluster.supervise(1, ready="running", max_lifetime=0.5).wait)
        else:
            multiloop.run(asyncio.sleep, 3600)
        """,
    ) as program:
        assert program.until("exit") == "1 True 0"
        assert program.until("exit") == "2 True 0"
        workers = program.children()
        os.kill(program.pid, signal.SIGINT)
        assert program.ended().code == 0
        gone(workers, 5.0)
