"""The life of a cluster: boot, reload, scale, recycle, stop."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from multiloop.cluster import _control
from multiloop.cluster._control import CommandFailed
from multiloop.errors import ConfigError
from tests.support import wait_until

from .harness import APP, Load, ask, is_alive, pause, receive, send, serving

SLOW = pytest.mark.slow
BROKEN = "raise RuntimeError('no luck today')\n"
REFUSING = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database today"})
"""


# --- boot ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rest", "said"),
    [(BROKEN, "RuntimeError: no luck today"), (REFUSING, "no database today")],
    ids=["import", "lifespan"],
)
def test_an_application_that_cannot_start_is_booted_once_and_told_once(tmp_path: Path, rest: str, said: str) -> None:
    app = "open(__file__ + '.boots', 'a').write('x')\n" + rest
    with serving(tmp_path, app=app, workers=8) as server:
        assert server.wait() == 3
        assert (tmp_path / "cluster_app.py.boots").read_text() == "x"
        assert server.log.count(said) == 1
        assert not server.children()


@pytest.mark.parametrize(
    ("target", "code"), [("nowhere:app", 4), ("cluster_app:nothing", 4), ("cluster_app:VERSION", 5)]
)
def test_a_wrong_target_is_one_line_and_its_exit_code(tmp_path: Path, target: str, code: int) -> None:
    with serving(tmp_path, target=target) as server:
        assert server.wait() == code
        assert len(server.log.strip().splitlines()) == 1


def test_a_busy_port_is_one_line_and_starts_no_worker(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with serving(tmp_path, port=port) as server:
            assert server.wait() == 6
            assert f"127.0.0.1:{port}" in server.log
            assert len(server.log.strip().splitlines()) == 1
            assert server.count("boots") == 0


def test_sixty_four_kept_connections_are_dealt_sixteen_to_each_of_four_workers(tmp_path: Path) -> None:
    with serving(tmp_path, workers=4) as server:
        server.wait_ready(4)
        sockets = [server.connect() for _ in range(64)]
        dealt = Counter(ask(sock) for sock in sockets)
        assert sorted(dealt.values()) == [16, 16, 16, 16]
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize(
    "policy", ["reuse_port", pytest.param("least_connections", marks=SLOW), pytest.param("shared", marks=SLOW)]
)
def test_other_policies_serve_with_all_workers_and_survive_a_kill_and_a_reload(tmp_path: Path, policy: str) -> None:
    with serving(tmp_path, policy=policy) as server:
        workers = server.wait_ready(2)
        seen: set[str] = set()
        wait_until(lambda: seen.add(server.get()) or len(seen) == 2)  # type: ignore[func-returns-value]
        with Load(server, kept=2, fresh=2) as load:
            _control.call(server.control, "reload", timeout_s=20)
            pause(0.3)
        assert not load.failures
        victim = max(server.workers().values())
        assert victim not in workers.values()
        os.kill(victim, signal.SIGKILL)
        assert victim not in {int(server.get(timeout=3)) for _ in range(20)}
        server.wait_ready(2)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.slow
def test_a_stopped_worker_with_its_own_socket_loses_no_connection(tmp_path: Path) -> None:
    with serving(tmp_path, policy="reuse_port") as server:
        victim = min(server.wait_ready(2).values())
        os.kill(victim, signal.SIGSTOP)
        sockets = [server.connect() for _ in range(20)]
        for sock in sockets:
            send(sock)
        assert str(victim) not in {receive(sock) for sock in sockets}
        for sock in sockets:
            sock.close()
        os.kill(victim, signal.SIGKILL)


def test_serving_on_a_unix_socket_and_on_plain_asyncio(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    with serving(tmp_path, path=path, loop="asyncio") as server:
        workers = server.wait_ready(2)
        assert {server.get() for _ in range(4)} == {str(pid) for pid in workers.values()}
        sockets = [server.connect() for _ in range(6)]
        wait_until(lambda: sum(w["dealt"] for w in server.status()["workers"]) == 6)
        victim = min(workers.values())
        os.kill(victim, signal.SIGSTOP)
        for sock in sockets:
            send(sock)
        os.kill(victim, signal.SIGKILL)
        assert str(victim) not in {receive(sock) for sock in sockets}
        for sock in sockets:
            sock.close()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not os.path.exists(path)


# --- reload -------------------------------------------------------------------------------------------------------
def test_reloads_under_load_lose_no_request_and_bring_the_new_code(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.wait_ready(2)
        with Load(server, kept=4, fresh=2, fresh_path="/slow?0.1") as load:
            for round_ in range(2):
                (tmp_path / "cluster_app.py").write_text(APP.replace('"one"', f'"{round_}"'))
                outcome = _control.call(server.control, "reload", timeout_s=30)
                assert outcome == {"generation": round_ + 2, "workers": 2}
                assert server.get("/version") == str(round_)
        assert not load.failures
        assert load.replies > 100
        wait_until(lambda: len(server.children()) == 2)
        assert server.status()["restarts"] == 0


def test_an_idle_kept_connection_moves_to_the_new_generation_without_a_word(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        before = server.wait_ready(2)
        sockets = [server.connect() for _ in range(40)]
        assert {int(ask(sock)) for sock in sockets} == set(before.values())
        _control.call(server.control, "reload", timeout_s=30)
        wait_until(lambda: len(server.children()) == 2)
        after = server.workers()
        dealt = Counter(int(ask(sock)) for sock in sockets)
        assert set(dealt) == set(after.values())
        assert not set(before.values()) & set(after.values())
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize("policy", ["shared", pytest.param("reuse_port", marks=SLOW)])
def test_idle_connections_that_workers_accepted_themselves_move_as_well(tmp_path: Path, policy: str) -> None:
    with serving(tmp_path, policy=policy) as server:
        before = server.wait_ready(2)
        sockets = [server.connect() for _ in range(20)]
        silent, spoken = sockets[:10], sockets[10:]
        assert {int(ask(sock)) for sock in spoken} <= set(before.values())
        _control.call(server.control, "reload", timeout_s=30)
        wait_until(lambda: len(server.children()) == 2)
        assert {int(ask(sock)) for sock in (*spoken, *silent)} <= set(server.workers().values())
        for sock in sockets:
            sock.close()


def test_a_reload_to_broken_code_leaves_the_old_generation_and_says_why(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        workers = server.wait_ready(2)
        with Load(server, kept=2, fresh=2) as load:
            (tmp_path / "cluster_app.py").write_text(BROKEN)
            with pytest.raises(CommandFailed, match="RuntimeError: no luck today"):
                _control.call(server.control, "reload", timeout_s=30)
        assert not load.failures
        assert server.workers() == workers
        wait_until(lambda: len(server.children()) == 2)
        assert server.status()["generation"] == 1


@pytest.mark.slow
def test_a_storm_of_signals_ends_in_one_generation_with_the_right_number(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.wait_ready(2)
        for _ in range(300):
            server.signal(signal.SIGHUP)
        server.signal(signal.SIGTTIN)
        server.wait_ready(3)
        wait_until(lambda: server.status()["state"] == "serving" and len(server.children()) == 3, 20)
        status = server.status()
        assert {w["generation"] for w in status["workers"]} == {status["generation"]}
        assert status["generation"] <= 4


def test_a_changed_file_is_a_reload_and_broken_code_waits_for_the_next_change(tmp_path: Path) -> None:
    with serving(tmp_path, app=BROKEN, workers=1, watch=True) as server:
        wait_until(lambda: "waiting for a change" in server.log)
        (tmp_path / "cluster_app.py").write_text(APP)
        server.wait_ready(1)
        (tmp_path / "cluster_app.py").write_text(APP.replace('"one"', '"two"'))
        wait_until(lambda: server.get("/version") == "two")


# --- number of workers --------------------------------------------------------------------------------------------
def test_scaling_by_command_and_by_signal(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.wait_ready(2)
        assert _control.call(server.control, "scale", workers=4) == {"workers": 4}
        server.wait_ready(4)
        with pytest.raises(CommandFailed, match="from 1 to"):
            _control.call(server.control, "scale", workers=0)
        _control.call(server.control, "scale", workers=1)
        server.wait_ready(1)
        server.signal(signal.SIGTTIN)
        server.wait_ready(2)
        server.signal(signal.SIGTTOU)
        server.wait_ready(1)
        wait_until(lambda: len(server.children()) == 1)


def test_a_standby_takes_over_without_importing_again(tmp_path: Path) -> None:
    with serving(tmp_path, workers=1, standby=1) as server:
        (victim,) = server.wait_ready(1).values()
        wait_until(lambda: server.workers("standby"))
        assert server.count("startups") == 1  # the standby's lifespan has not begun
        (spare,) = server.workers("standby").values()
        os.kill(victim, signal.SIGKILL)
        assert server.get() == str(spare)  # which has imported the application long before
        wait_until(lambda: server.workers("standby"))


@pytest.mark.slow
def test_workers_are_recycled_by_requests_without_a_lost_one(tmp_path: Path) -> None:
    with serving(tmp_path, max_requests=50) as server:
        server.wait_ready(2)
        with Load(server, kept=3, fresh=1) as load:
            wait_until(lambda: server.status()["generation"] == 1 and server.count("boots") >= 6, 20)
        assert not load.failures
        assert server.status()["restarts"] == 0


def test_a_worker_that_gets_sigterm_drains_and_is_replaced(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        workers = server.wait_ready(2)
        with server.connect() as sock, server.connect() as idle:
            first, second = ask(sock), ask(idle)
            assert first != second
            send(sock, "/slow?0.5")
            pause(0.1)
            os.kill(int(first), signal.SIGTERM)
            assert receive(sock) == first  # what runs is finished
        wait_until(lambda: not is_alive(int(first)))
        assert len(server.wait_ready(2)) == 2
        assert int(second) in server.workers().values()
        assert server.status()["restarts"] == 0
        assert set(workers.values()) != set(server.workers().values())


# --- stop ---------------------------------------------------------------------------------------------------------
def test_sigterm_finishes_what_runs_ends_each_lifespan_once_and_exits_0(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.wait_ready(2)
        family = server.children()
        with server.connect() as first, server.connect() as second:
            send(first, "/slow?0.6")
            send(second, "/slow?0.6")
            pause(0.2)
            server.signal(signal.SIGTERM)
            assert receive(first) != receive(second)
        assert server.wait() == 0
        assert server.count("shutdowns") == server.count("startups") == 2
        assert not any(is_alive(pid) for pid in family)
        assert not os.path.exists(server.control)


def test_the_grace_bounds_the_drain(tmp_path: Path) -> None:
    with serving(tmp_path, grace=0.5) as server:
        server.wait_ready(2)
        with server.connect() as sock:
            send(sock, "/slow?30")
            pause(0.2)
            server.signal(signal.SIGTERM)
            stopped = time.monotonic()
            assert server.wait() == 0
            assert time.monotonic() - stopped < 15  # of the request's 30
        assert server.count("shutdowns") == 2


@pytest.mark.slow
def test_the_second_sigterm_is_fast(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.wait_ready(2)
        with server.connect() as sock:
            send(sock, "/slow?30")
            pause(0.2)
            server.signal(signal.SIGTERM)
            pause(0.3)
            server.signal(signal.SIGTERM)
            stopped = time.monotonic()
            assert server.wait() == 0
            assert time.monotonic() - stopped < 15  # of the request's 30


def test_connections_in_the_backlog_are_answered_before_the_end(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.wait_ready(2)
        os.kill(server.pid, signal.SIGSTOP)
        sockets = [server.connect() for _ in range(20)]
        for sock in sockets:
            send(sock)
        server.signal(signal.SIGTERM)
        os.kill(server.pid, signal.SIGCONT)
        assert all(receive(sock) for sock in sockets)
        assert server.wait() == 0
        for sock in sockets:
            sock.close()


def test_stop_by_command_waits_until_the_server_is_gone(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.wait_ready(2)
        assert _control.call(server.control, "stop", until_gone=True) == {"pid": server.pid}
        assert server.process.poll() == 0
        with pytest.raises(ConfigError, match="no such socket"):
            _control.call(server.control, "status")


@pytest.mark.slow
def test_twenty_reloads_under_load_lose_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.wait_ready(2)
        with Load(server, kept=8, fresh=4, fresh_path="/slow?0.3") as load:
            for _ in range(20):
                server.signal(signal.SIGHUP)
                pause(1.2)
        assert not load.failures
        assert load.replies > 1000
        wait_until(lambda: server.status()["state"] == "serving" and len(server.children()) == 2, 20)


@pytest.mark.slow
def test_sigterm_under_load_loses_no_request_that_was_accepted(tmp_path: Path) -> None:
    for _ in range(5):
        with serving(tmp_path) as server:
            server.wait_ready(2)
            with Load(server, kept=6, fresh=3, fresh_path="/slow?0.1") as load:
                pause(0.5)
                server.signal(signal.SIGTERM)
                assert server.wait() == 0
            lost = [failure for failure in load.failures if "Refused" not in failure]
            assert not lost, lost[:3]
