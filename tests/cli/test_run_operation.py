"""`multiloop run` in operation: commands, service managers, logs, environments; for clusters made of a script, and for
scripts that fork themselves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.harness import get, mistake, multiloop
from tests.cli.test_operation import Manager, control
from tests.cluster.forks.test_serving import free_port
from tests.support import environment, wait_until

PLAIN = """
import asyncio, json, logging, os, sys

async def answer(reader, writer):
    what = (await reader.readline()).decode().strip()
    logging.getLogger("shop").warning("sold %s", what)
    writer.write(json.dumps({"pid": os.getpid(), "env": dict(os.environ), "umask": os.umask(0o77)}).encode())
    await writer.drain()
    writer.close()

async def main():
    async with await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()

asyncio.run(main())
"""
FORKS = """
import asyncio, os, sys
import multiloop
from multiloop import cluster, http

if cluster.is_primary:
    for _ in range(2):
        cluster.fork()
    multiloop.run(cluster.wait)
else:
    async def main():
        await http.create_server(lambda request: {"pid": os.getpid(), "env": dict(os.environ)}).listen(int(sys.argv[1]))
    multiloop.run(main)
"""
UVICORN = """
import os, sys
import uvicorn

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

uvicorn.run(app, port=int(sys.argv[1]), lifespan="off", log_level="warning")
"""


@contextlib.contextmanager
def run(
    folder: Path, code: str, *options: str, **variables: str
) -> Iterator[tuple[subprocess.Popen[bytes], int, Manager]]:
    """Run a script; gives the process, the port that it was told, and its service manager."""
    (folder / "script.py").write_text(code)
    manager, port = Manager(folder), free_port()
    variables |= {"NOTIFY_SOCKET": manager.address, "MULTILOOP_CONTROL": str(folder / "control.sock")}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "multiloop", "run", *options, "script.py", str(port)],
            cwd=folder,
            env=environment(**variables),
            stdout=log,
            stderr=log,
        )
    is_over = threading.Event()

    def listen() -> None:
        while not is_over.wait(0.05):  # the kernel keeps ten messages for one who does not listen
            manager.heard()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        wait_until(lambda: manager.said("READY") or process.poll() is not None, 40)
        assert process.poll() is None, (folder / "log").read_text()
        yield process, port, manager
    finally:
        if process.poll() is None:
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(40)
        process.kill()
        process.wait()
        is_over.set()
        listener.join()
        manager.close()


def ask(port: int, what: str = "shoes") -> Any:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(what.encode() + b"\n")
        data = b""
        while more := sock.recv(65536):
            data += more
    return json.loads(data)


def found(folder: Path) -> Any:
    return json.loads(control(folder, "status", "--json"))


def test_what_only_a_supervisor_can_do_needs_workers(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("")
    assert "--max-rss needs --workers" in mistake(tmp_path, 2, "run", "--max-rss", "1GiB", "script.py")
    assert "--grace '-1': a time of 0 or more" in mistake(tmp_path, 2, "run", "--grace", "-1", "script.py")
    # What the environment says for every run is passed over.
    assert multiloop(tmp_path, "run", "script.py", MULTILOOP_MAX_RSS="1GiB").returncode == 0


@pytest.mark.slow
def test_a_cluster_of_a_script_takes_commands_and_its_service_manager_hears_of_it(tmp_path: Path) -> None:
    options = ("--workers", "2", "--env", "DEVICE=gpu{slot}", "--umask", "027", "--grace", "5", "--name", "shop")
    with run(tmp_path, PLAIN, *options, WATCHDOG_USEC="500000") as (process, port, manager):
        wait_until(lambda: [w["state"] for w in found(tmp_path)["workers"]] == ["ready", "ready"], 40)
        status = found(tmp_path)
        assert status["listen"] == [f"127.0.0.1:{port}"]
        assert (status["name"], status["target"], status["pid"]) == ("shop", "script.py", process.pid)
        answers = [ask(port) for _ in range(4)]
        slots = {worker["pid"]: (str(worker["number"]), str(worker["slot"])) for worker in status["workers"]}
        for answer in answers:
            env = answer["env"]
            assert (env["MULTILOOP_WORKER"], env["MULTILOOP_SLOT"]) == slots[answer["pid"]]
            assert (env["DEVICE"], env["MULTILOOP_APP"]) == (f"gpu{env['MULTILOOP_SLOT']}", "shop")
            assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(env)
        assert answers[0]["umask"] == 0o27
        assert len({answer["pid"] for answer in answers}) == 2
        pings = len(manager.said("WATCHDOG"))
        wait_until(lambda: len(manager.said("WATCHDOG")) >= pings + 3)

        number = status["workers"][0]["number"]
        assert f"worker {number} is replaced by worker" in control(tmp_path, "restart", "--worker", str(number))
        assert control(tmp_path, "reload") == "reloaded: generation 2, 2 workers\n"
        assert manager.said("RELOADING") == ["1"]
        wait_until(lambda: manager.said("READY") == ["1", "1"])
        assert {worker["generation"] for worker in found(tmp_path)["workers"] if worker["state"] == "ready"} == {2}
        assert control(tmp_path, "scale", "1") == "scaling to 1 worker\n"
        wait_until(lambda: len(found(tmp_path)["workers"]) == 1, 40)
        assert "no worker 99" in refused(tmp_path, "restart", "--worker", "99")
        assert "no application 'other' here, only shop" in refused(tmp_path, "reload", "--app", "other")

        ask(port, "boots")
        lines = control(tmp_path, "logs", "--no-follow")
        assert "sold boots" in lines
        assert "the workers listen on" in lines
        assert "stopped" in control(tmp_path, "stop")
        assert process.wait(40) == 0
        assert manager.said("STOPPING") == ["1"]
        assert int(manager.said("EXTEND_TIMEOUT_USEC")[0]) > 5e6


def refused(folder: Path, *arguments: str) -> str:
    done = multiloop(folder, *arguments, "--control", str(folder / "control.sock"))
    assert done.returncode == 8, done
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.mark.slow
def test_a_script_that_forks_itself_is_seen_and_stopped_and_decides_the_rest(tmp_path: Path) -> None:
    with run(tmp_path, FORKS, "--env", "DEVICE=gpu{slot}") as (process, port, manager):
        wait_until(lambda: [w["state"] for w in found(tmp_path)["workers"]] == ["ready", "ready"], 40)
        status = found(tmp_path)
        assert (status["state"], status["listen"]) == ("running", [f"127.0.0.1:{port}"])
        assert "script.py on" in control(tmp_path, "status")
        env = json.loads(get(f"http://127.0.0.1:{port}/"))["env"]
        assert env["DEVICE"] == f"gpu{env['MULTILOOP_SLOT']}"
        assert "NOTIFY_SOCKET" not in env
        for words in (("reload",), ("scale", "3"), ("restart", "--worker", "1")):
            assert "script.py forks its workers itself" in refused(tmp_path, *words)
        assert "stopped" in control(tmp_path, "stop")
        assert process.wait(40) == 128 + signal.SIGTERM  # as if somebody had sent it
        assert manager.said("STOPPING") == ["1"]
        assert not (tmp_path / "control.sock").exists()


@pytest.mark.slow
def test_a_rotated_log_is_opened_anew_by_all_processes(tmp_path: Path) -> None:
    log = tmp_path / "shop.log"
    with run(tmp_path, PLAIN, "--workers", "2", "--log-file", str(log)) as (process, port, _):
        wait_until(lambda: [w["state"] for w in found(tmp_path)["workers"]] == ["ready", "ready"], 40)
        ask(port, "before")
        wait_until(lambda: "sold before" in log.read_text())
        log.rename(tmp_path / "shop.log.1")
        process.send_signal(signal.SIGUSR1)
        wait_until(log.exists)

        def both_have_written() -> bool:
            ask(port, "after")
            return (
                len({line.split()[2] + line.split()[3] for line in log.read_text().splitlines() if "after" in line})
                == 2
            )

        wait_until(both_have_written, 40)


@pytest.mark.slow
def test_a_program_without_workers_lives_through_the_signal_for_its_logs(tmp_path: Path) -> None:
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGUSR1)\nprint('alive', os.environ.get('NOTIFY_SOCKET'))\n"
    (tmp_path / "script.py").write_text(code)
    done = multiloop(tmp_path, "run", "script.py", NOTIFY_SOCKET="/nowhere")
    assert (done.returncode, done.stdout) == (0, "alive /nowhere\n")


@pytest.mark.slow
def test_a_control_socket_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(FORKS)
    said = mistake_of_two(tmp_path, "run", "--control", "/nowhere/at/all", "script.py", str(free_port()))
    assert "--control: cannot listen on unix:/nowhere/at/all: the folder does not exist" in said
    said = mistake_of_two(tmp_path, "run", "--workers", "2", "--control", "/nowhere/at/all", "script.py", "0")
    assert "--control: cannot listen on unix:/nowhere/at/all: the folder does not exist" in said


def mistake_of_two(folder: Path, *arguments: str) -> str:
    done = multiloop(folder, *arguments)
    assert done.returncode == 6, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.slow
def test_uvicorn_is_clustered_unchanged_and_reloads_without_a_lost_request(tmp_path: Path) -> None:
    with run(tmp_path, UVICORN, "--workers", "2") as (process, port, _):
        wait_until(lambda: [w["state"] for w in found(tmp_path)["workers"]] == ["ready", "ready"], 40)
        url = f"http://127.0.0.1:{port}/"
        before = {int(get(url)) for _ in range(10)}
        assert before == {worker["pid"] for worker in found(tmp_path)["workers"]}
        is_over, answered, failed = threading.Event(), [], []

        def load() -> None:
            while not is_over.is_set():
                try:
                    answered.append(int(get(url)))
                except Exception as error:
                    failed.append(error)

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            control(tmp_path, "reload")
            os.kill(process.pid, signal.SIGHUP)
            wait_until(lambda: found(tmp_path)["generation"] == 3 and found(tmp_path)["state"] == "serving", 40)
            time.sleep(0.1)
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        assert not failed
        assert len(set(answered)) >= 4
        assert not before & {worker["pid"] for worker in found(tmp_path)["workers"] if worker["state"] == "ready"}
        process.terminate()
        assert process.wait(40) == 0
        assert "Traceback" not in (tmp_path / "log").read_text()
