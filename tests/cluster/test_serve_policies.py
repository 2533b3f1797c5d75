"""The policies of `multiloop serve`, with real clients: sticky sessions, the least busy worker, a policy of one's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import statistics
import threading
import time
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
import socketio  # type: ignore[import-untyped]

import multiloop
from tests.support import wait_until

from .harness import Server, ask, receive, serving

SLOW = pytest.mark.slow

SESSIONS = """
import asyncio, json, os

inboxes = {}  # by session: in the memory of this worker alone

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    name = dict(scope["headers"]).get(b"cookie", b"").partition(b"=")[2].decode()
    body, status = b"", 200
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/login":
        inboxes[name] = asyncio.Queue()
        reply = str(os.getpid())
    elif name not in inboxes:
        status, reply = 404, "no such session here"
    elif scope["path"] == "/send":
        await inboxes[name].put(body.decode())
        reply = "sent"
    else:
        reply = await inboxes[name].get()
    reply = reply.encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(reply))]})
    await send({"type": "http.response.body", "body": reply})
"""


def call(server: Server, path: str, session: str, body: str = "") -> str:
    """One request of a client, on a connection of its own."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nCookie: sid={session}\r\nContent-Length: {len(body)}\r\n\r\n"
    with server.connect(15.0) as sock:
        sock.sendall((head + body).encode())
        return receive(sock)


def from_address(server: Server, host: str) -> socket.socket:
    """A connection that comes from another address of this machine."""
    sock = socket.socket()
    sock.settimeout(5)
    sock.bind((host, 0))
    sock.connect(server.address)
    return sock


def test_clients_keep_their_worker_by_address(tmp_path: Path) -> None:
    with serving(tmp_path, workers=3, policy="sticky") as server:
        server.wait_ready(3)
        homes: dict[str, set[str]] = {}
        for host in [f"127.0.0.{number}" for number in range(2, 14)] * 3:
            with from_address(server, host) as sock:
                homes.setdefault(host, set()).add(ask(sock))
        assert all(len(pids) == 1 for pids in homes.values())
        assert len({pid for pids in homes.values() for pid in pids}) == 3


def test_a_burst_of_one_client_stays_with_its_worker(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2, policy="sticky") as server, contextlib.ExitStack() as opened:
        server.wait_ready(2)
        clients = [opened.enter_context(server.connect()) for _ in range(150)]  # more than a worker's credit
        assert len({ask(client) for client in clients}) == 1


def test_long_polling_across_four_workers_by_cookie(tmp_path: Path) -> None:
    with serving(tmp_path, app=SESSIONS, workers=4, policy="sticky:cookie=sid") as server:
        server.wait_ready(4, 60)
        names = [f"client-{number}" for number in range(16)]
        homes = {name: call(server, "/login", name) for name in names}
        assert len(set(homes.values())) >= 3
        polled: dict[str, list[str]] = {name: [] for name in names}

        def poll(name: str) -> None:
            for _ in range(5):
                polled[name].append(call(server, "/poll", name))

        threads = [threading.Thread(target=poll, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for number in range(5):
            for name in names:
                assert call(server, "/send", name, f"{name}: {number}") == "sent"
        for thread in threads:
            thread.join(20)
        assert polled == {name: [f"{name}: {number}" for number in range(5)] for name in names}


def test_a_dead_workers_clients_go_to_one_other_and_back_to_its_replacement(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2, policy="sticky:header=X-User") as server:
        server.wait_ready(2)

        def home(user: str) -> str:
            with server.connect() as sock:
                sock.sendall(f"GET /pid HTTP/1.1\r\nHost: x\r\nX-User: {user}\r\n\r\n".encode())
                return receive(sock)

        users = [f"user{number}" for number in range(12)]
        before = {user: home(user) for user in users}
        dead = before[users[0]]
        os.kill(int(dead), signal.SIGKILL)
        wait_until(lambda: home(users[0]) != dead)
        server.wait_ready(2)
        after = {user: home(user) for user in users}
        assert {before[user] == after[user] for user in users if before[user] != dead} == {True}
        assert len({after[user] for user in users if before[user] == dead}) == 1
        assert {after[user] for user in users if before[user] == dead}.isdisjoint(before.values())


def test_a_policy_of_ones_own_is_named_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class First:\n"
        "    needs_head = True\n"
        "    def pick(self, connection, workers):\n"
        "        return workers[-1 if b'/last' in connection.head else 0]\n"
    )
    with serving(tmp_path, workers=3, policy="mine:First") as server:
        workers = server.wait_ready(3)
        assert {server.get("/pid") for _ in range(5)} == {str(workers[min(workers)])}
        assert {server.get("/last") for _ in range(5)} == {str(workers[max(workers)])}


def test_a_policy_that_is_none_ends_the_start_with_one_line(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2, policy="mine:nothing") as server:
        assert server.wait() == 2
        assert server.log.splitlines() == [
            "multiloop: --policy 'mine:nothing': ModuleNotFoundError: No module named 'mine'"
        ]


SLOW_ONE = """
import asyncio, os, pathlib, time

try:
    (pathlib.Path(__file__).parent / "slow").touch(exist_ok=False)
    DELAY = 0.05
except FileExistsError:
    DELAY = 0

async def handler(request):
    WAIT
    return str(os.getpid())
"""


def _latencies(address: tuple[str, int], seconds: float) -> list[float]:
    """Eight clients that make a new connection for each request."""
    found: list[float] = []
    end = time.monotonic() + seconds

    def client() -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            with socket.create_connection(address, 10) as sock:
                ask(sock)
            found.append(time.monotonic() - began)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@SLOW
@pytest.mark.parametrize("wait", ["time.sleep(DELAY)", "await asyncio.sleep(DELAY)"], ids=["blocks", "waits"])
def test_least_requests_halves_the_p99_of_round_robin_when_one_worker_is_slow(tmp_path: Path, wait: str) -> None:
    p99 = {}
    app = SLOW_ONE.replace("WAIT", wait)
    for policy in ("round_robin", "least_requests"):
        folder = tmp_path / policy
        folder.mkdir()
        with serving(folder, app=app, target="cluster_app:handler", workers=4, policy=policy) as server:
            server.wait_ready(4, 60)
            p99[policy] = statistics.quantiles(_latencies(server.address, 4.0), n=100)[98]
    assert p99["least_requests"] <= 0.5 * p99["round_robin"], p99


SOCKET_IO = """
import os
import socketio

server = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(server)
names = {}

@server.event
async def connect(sid, environ, auth):
    names[sid] = auth["name"]

@server.event
async def echo(sid, data):
    return f"{names[sid]} {os.getpid()} {data}"

@server.event
async def shout(sid, data):
    await server.emit("heard", data, to=sid)
"""


@SLOW
@pytest.mark.parametrize("transports", [["polling"], ["polling", "websocket"]], ids=["polling", "upgrade"])
def test_socket_io_works_across_four_workers_with_long_polling(tmp_path: Path, transports: list[str]) -> None:
    with serving(tmp_path, app=SOCKET_IO, workers=4, policy="sticky:header=X-Client") as server:
        server.wait_ready(4, 60)
        host, port = server.address

        async def client(number: int) -> str:
            name = f"client{number}"
            # The client's own headers= go with its first request only; every poll has to say who it is.
            session = aiohttp.ClientSession(headers={"X-Client": name})
            async with session, socketio.AsyncSimpleClient(http_session=session) as simple:
                await simple.connect(f"http://{host}:{port}", auth={"name": name}, transports=transports)
                pid = ""
                for round_ in range(5):
                    seen, pid, said = (await simple.call("echo", f"n{round_}", timeout=10)).split()
                    assert (seen, said) == (name, f"n{round_}")
                    await simple.emit("shout", f"{name} {round_}")
                    assert await simple.receive(timeout=10) == ["heard", f"{name} {round_}"]
                return pid

        async def main() -> Counter[str]:
            return Counter(await asyncio.gather(*(client(number) for number in range(12))))

        assert len(multiloop.run(main)) >= 3
