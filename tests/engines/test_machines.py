"""The example with several machines: HAProxy before two clusters, a rolling deploy, a chat across both."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.engines.clusters import Folder, Redis, Service, answers, free_port
from tests.engines.conftest import need, need_program
from tests.support import environment, wait_until

MACHINES = Path(__file__).parents[2] / "examples" / "machines"

pytestmark = [pytest.mark.engines, pytest.mark.xdist_group("redis"), pytest.mark.timeout(200)]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"machines_{name}", MACHINES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Machine:
    """A cluster of its own: one "machine" is one port."""

    def __init__(self, name: str, folder: Path, bus_url: str) -> None:
        self.name = name
        self.port = free_port()
        self.folder = folder
        self.leaving = folder / f"{name}.leaving"
        self.control = str(folder / f"{name}.sock")
        self._bus_url = bus_url
        self.start()

    def start(self) -> None:
        self.service = Service(
            sys.executable, "-m", "multiloop", "serve", "app:app", "--app-dir", str(MACHINES), "--port", str(self.port),
            "--workers", "2", "--control", self.control, "--grace", "10",
            log=self.folder / f"{self.name}.log", MACHINE=self.name, LEAVING=str(self.leaving), BUS_URL=self._bus_url,
        )  # fmt: skip
        self.service.wait_for(self.is_serving)

    def is_serving(self) -> bool:
        try:
            return bool(ask(self.port, "/where")[1]["machine"] == self.name)
        except (OSError, http.client.HTTPException):
            return False

    def stop(self) -> None:
        subprocess.run(
            [sys.executable, "-m", "multiloop", "stop", "--control", self.control],
            env=environment(),
            check=True,
            timeout=60,
        )
        assert self.service.process.wait(60) == 0, self.service.log.read_text()
        self.service.end()


class Site:
    """All of it."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.balancer: Service | None = None
        self.machines: list[Machine] = []

    def start(self, folder: Path) -> None:
        for name in ("one", "two"):
            self.machines.append(Machine(name, folder, self.redis.url))
        self.port = free_port()
        self.admin = str(folder / "admin.sock")
        one, two = (f"127.0.0.1:{machine.port}" for machine in self.machines)
        self.balancer = Service(
            need_program("haproxy"), "-db", "-f", str(MACHINES / "haproxy.cfg"), log=folder / "haproxy.log",
            SITE=f"127.0.0.1:{self.port}", ONE=one, TWO=two, ADMIN=self.admin,
        )  # fmt: skip
        self.balancer.wait_for(lambda: os.path.exists(self.admin) and answers(self.port))
        rolling = load("roll")
        for machine in self.machines:
            rolling.wait_for(self.admin, machine.name, "UP")

    def end(self) -> None:
        for service in (self.balancer, *(machine.service for machine in self.machines)):
            if service is not None:
                service.end(signal.SIGKILL)


def ask(port: int, path: str, cookie: str = "") -> tuple[str, Any]:
    """One request; returns the cookie that was set and the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
        reply = connection.getresponse()
        body = reply.read()
        assert reply.status == 200, (reply.status, body)
        return (reply.getheader("Set-Cookie") or "").partition(";")[0], json.loads(body)
    finally:
        connection.close()


@pytest.fixture
def site(redis: Redis, folder: Folder) -> Iterator[Site]:
    need("redis")
    need_program("haproxy")
    made = Site(redis)
    try:
        made.start(folder.path)
        yield made
    finally:
        made.end()


class Visitors:
    """Ask all the time, on kept connections and on new ones, until told to stop."""

    def __init__(self, port: int, count: int = 4) -> None:
        self.port = port
        self.replies: dict[str, int] = {}
        self.failures: list[str] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._visit, args=(number % 2 == 0,)) for number in range(count)]

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _visit(self, keeps: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._over.is_set():
            connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            try:
                connection.request("POST", "/where", body=b"x" * 100)
                reply = connection.getresponse()
                body = reply.read()
                with self._lock:
                    if reply.status == 200:
                        name = json.loads(body)["machine"]
                        self.replies[name] = self.replies.get(name, 0) + 1
                    else:
                        self.failures.append(f"{reply.status} {body[:80]!r}")
            except Exception as error:
                with self._lock:
                    self.failures.append(repr(error))
                connection.close()
                connection = None
            if not keeps and connection is not None:
                connection.close()
                connection = None
            time.sleep(0.005)
        if connection is not None:
            connection.close()


@contextlib.contextmanager
def chat_at(port: int, machine: str) -> Iterator[ClientConnection]:
    """A visitor's socket at one machine, through the balancer."""
    with connect(f"ws://127.0.0.1:{port}/chat", additional_headers={"Cookie": f"MACHINE={machine}"}) as socket:
        assert json.loads(socket.recv(20))["hello"] == machine
        yield socket


def test_a_rolling_deploy_loses_no_request(site: Site) -> None:
    rolling = load("roll")
    before = {machine.name: machine.service.process.pid for machine in site.machines}
    with Visitors(site.port) as visitors:
        wait_until(lambda: sum(visitors.replies.values()) > 50)
        steps = [rolling.Machine(m.name, m.leaving, m.stop, m.start) for m in site.machines]
        rolling.roll(site.admin, steps)
        seen = sum(visitors.replies.values())
        wait_until(lambda: sum(visitors.replies.values()) > seen + 50)
    assert visitors.failures == []
    assert set(visitors.replies) == {"one", "two"}
    assert all(machine.service.process.pid != before[machine.name] for machine in site.machines)


def test_visitors_stay_at_their_machine_while_it_is_ready(site: Site) -> None:
    rolling = load("roll")
    cookie, first = ask(site.port, "/where")
    assert cookie.startswith("MACHINE=")
    assert {ask(site.port, "/where", cookie)[1]["machine"] for _ in range(10)} == {first["machine"]}
    site.machines[0 if first["machine"] == "one" else 1].leaving.touch()
    rolling.wait_for(site.admin, first["machine"], "DOWN")
    assert {ask(site.port, "/where", cookie)[1]["machine"] for _ in range(5)} == {"one", "two"} - {first["machine"]}


def test_the_chat_spans_the_machines_and_tells_of_an_outage_of_the_bus(site: Site) -> None:
    with chat_at(site.port, "one") as one, chat_at(site.port, "two") as two, chat_at(site.port, "two") as third:
        one.send("hello")
        for socket in (one, two, third):
            assert json.loads(socket.recv(20)) == {"said": "hello", "at": "one"}
        assert ask(site.port, "/ask/two", "MACHINE=one")[1]["machine"] == "two"

        with Visitors(site.port, 2) as visitors:
            site.redis.end(signal.SIGKILL)
            time.sleep(float(os.environ.get("REDIS_OUTAGE_S", "3")))  # the outage itself; 10 s by hand
            two.send("while the bus is away")
            site.redis.start_again()
            heard: dict[ClientConnection, list[Any]] = {one: [], two: [], third: []}
            for socket, found in heard.items():
                while not any("gap" in message for message in found) or (
                    socket is not one and not any("said" in message for message in found)
                ):
                    found.append(json.loads(socket.recv(30)))
        assert visitors.failures == []
        one.send("again")
        for socket in (one, two, third):
            while json.loads(socket.recv(30)) != {"said": "again", "at": "one"}:
                pass
