"""Faults of a running cluster, with real processes: killed, stopped, blocked; and what clients see of it."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.support import wait_until

from .harness import Load, ask, is_alive, pause, receive, send, serving


def test_connections_a_killed_worker_never_received_are_answered_by_others(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        workers = server.wait_ready(2)
        victim = min(workers.values())
        os.kill(victim, signal.SIGSTOP)
        sockets = [server.connect() for _ in range(20)]
        for sock in sockets:
            send(sock)
        os.kill(victim, signal.SIGKILL)
        assert str(victim) not in {receive(sock) for sock in sockets}
        for sock in sockets:
            sock.close()


def test_connections_a_killed_worker_adopted_and_never_read_are_answered_by_others(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        workers = server.wait_ready(2)
        sockets = [server.connect() for _ in range(20)]  # say nothing, so they are adopted and unread
        wait_until(lambda: sum(w["dealt"] for w in server.status()["workers"]) == 20)
        pause(0.1)
        victim = min(workers.values())
        os.kill(victim, signal.SIGSTOP)
        for sock in sockets:
            send(sock)
        os.kill(victim, signal.SIGKILL)
        assert str(victim) not in {receive(sock) for sock in sockets}
        assert server.status()["dealt_again"] >= 10
        for sock in sockets:
            sock.close()


def test_a_connection_a_killed_worker_had_read_from_is_closed_and_nobody_waits(tmp_path: Path) -> None:
    with serving(tmp_path, workers=1) as server:
        (victim,) = server.wait_ready(1).values()
        with server.connect() as sock:
            send(sock, "/slow?30")
            pause(0.2)
            os.kill(victim, signal.SIGKILL)
            with pytest.raises(ConnectionError):
                receive(sock)


def test_a_killed_worker_is_replaced_and_no_fresh_request_fails(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        workers = server.wait_ready(2)
        with Load(server, kept=0, fresh=2) as load:
            for _ in range(2):
                victim = max(workers.values())
                os.kill(victim, signal.SIGKILL)
                wait_until(lambda gone=victim: gone not in server.children() and len(server.workers()) == 2)
                workers = server.workers()
        assert len(load.failures) <= 2 * 2, load.failures  # only what had been read by the killed one
        assert load.replies > 50
        assert "died (SIGKILL)" in server.log


def test_a_stopped_worker_is_routed_around_and_what_it_had_not_received_is_dealt_again(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        workers = server.wait_ready(2)
        victim = min(workers.values())
        os.kill(victim, signal.SIGSTOP)
        started = time.monotonic()
        sockets = [server.connect() for _ in range(20)]
        for sock in sockets:
            send(sock)
        assert str(victim) not in {receive(sock) for sock in sockets}
        assert time.monotonic() - started < 15  # a second, on a quiet machine; it stays stopped
        wait_until(lambda: "is stopped" in server.log)
        for _ in range(10):
            assert server.get(timeout=1) != str(victim)
        os.kill(victim, signal.SIGCONT)
        wait_until(lambda: victim in server.workers().values())
        wait_until(lambda: server.get() == str(victim))
        for sock in sockets:
            sock.close()


def test_a_blocked_loop_is_routed_around_with_its_stack_and_serves_again(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.wait_ready(2)
        with server.connect() as blocking:
            send(blocking, "/block?1.6")
            wait_until(lambda: server.workers("silent"))
            (silent,) = server.workers("silent").values()
            for _ in range(10):
                assert server.get(timeout=1) != str(silent)
            wait_until(lambda: "cluster_app.py" in server.log)
            assert receive(blocking) == str(silent)
        server.wait_ready(2)


@pytest.mark.slow
def test_a_hanging_worker_is_killed_with_its_stack_and_replaced(tmp_path: Path) -> None:
    with serving(tmp_path, hang_timeout=1.5) as server:
        before = server.wait_ready(2)
        with server.connect(timeout=10) as sock:
            send(sock, "/block?60")
            with pytest.raises(ConnectionError):
                receive(sock)
        after = server.wait_ready(2)
        assert len(set(before.values()) & set(after.values())) == 1
        assert "was blocked for" in server.log
        assert "cluster_app.py" in server.log


def test_a_worker_that_spins_in_c_is_killed_too(tmp_path: Path) -> None:
    app = """
import re
def handler(request):
    if request.path == "/c":
        re.match(r"(a+)+$", "a" * 60 + "b")  # years in C code that holds the interpreter's lock
    return "ok"
"""
    with serving(tmp_path, app=app, target="cluster_app:handler", hang_timeout=1.5) as server:
        before = server.wait_ready(2)
        with server.connect(timeout=10) as sock:
            send(sock, "/c")
            with pytest.raises(ConnectionError):
                receive(sock)
        after = server.wait_ready(2)
        assert len(set(before.values()) & set(after.values())) == 1
        assert "cluster_app.py" in server.log  # the stack, although nothing could run in there


def test_all_workers_leave_when_the_primary_is_killed_and_the_port_is_free(tmp_path: Path) -> None:
    with serving(tmp_path, workers=3, standby=1) as server:
        workers = server.wait_ready(3)
        wait_until(lambda: server.workers("standby"))
        family = server.children()
        assert len(family) == 4
        with server.connect() as sock:
            send(sock, "/slow?0.4")
            pause(0.1)
            os.kill(server.pid, signal.SIGKILL)
            assert int(receive(sock)) in workers.values()  # what had begun is finished
        wait_until(lambda: not any(is_alive(pid) for pid in family))
        server.process.wait()
        with socket.create_server(server.address):
            pass


@pytest.mark.slow
def test_a_blocked_worker_leaves_too_when_the_primary_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.wait_ready(2)
        family = server.children()
        with server.connect() as sock:
            send(sock, "/block?20")
            pause(0.3)
            os.kill(server.pid, signal.SIGKILL)
            wait_until(lambda: not any(is_alive(pid) for pid in family), 15)  # of the 20 that it blocks


def test_workers_serve_open_connections_while_the_primary_is_stopped(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.wait_ready(2)
        with server.connect() as sock:
            pid = ask(sock)
            os.kill(server.pid, signal.SIGSTOP)
            try:
                for _ in range(20):
                    assert ask(sock) == pid
                pause(1.5)
                assert ask(sock) == pid
            finally:
                os.kill(server.pid, signal.SIGCONT)
        assert server.get() in {str(pid) for pid in server.wait_ready(2).values()}
        assert "blocked" not in server.log


@pytest.mark.slow
def test_requests_that_kill_never_leave_the_server_without_workers(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.wait_ready(2)
        for _ in range(10):
            with pytest.raises(ConnectionError):
                server.get("/die", timeout=10)
        assert server.get(timeout=10)
        server.wait_ready(2)


def test_a_full_table_of_descriptors_pauses_accepting_without_spinning(tmp_path: Path) -> None:
    with serving(tmp_path, limit=64) as server:
        server.wait_ready(2)
        sockets = []
        for _ in range(150):
            sockets.append(server.connect())
            send(sockets[-1])
        pause(0.5)
        family = [server.pid, *server.children()]
        before = sum(_cpu_s(pid) for pid in family)
        pause(1.5)
        assert sum(_cpu_s(pid) for pid in family) - before < 0.75  # who spins uses 1.5 s
        for sock in sockets:
            sock.close()
        assert server.get()
        assert len(server.wait_ready(2)) == 2
        assert server.status()["restarts"] == 0


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_twenty_five_kills_under_load_lose_nothing_that_was_not_read(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.wait_ready(2)
        with Load(server, kept=0, fresh=2) as load:
            for _ in range(25):
                victim = max(server.wait_ready(2).values())
                os.kill(victim, signal.SIGKILL)
                pause(1.0)
        assert len(load.failures) <= 25 * 2, load.failures[:5]
        assert server.wait_ready(2)
