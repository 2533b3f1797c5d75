"""Who gets the connections of a program that forks itself: limits, policies, workers that block or are full."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster.forks.program import ask, running
from tests.cluster.forks.test_serving import all_answer, free_port
from tests.support import wait_until

LIMITED = """
async def main():
    def connected(sock):
        sock.write(b"%d" % os.getpid())
    server = net.create_server(connected, max_connections=2)
    cluster.worker.on("message", lambda value, handle: time.sleep(value))
    await server.listen(0)

if cluster.is_primary:
    cluster.max_connections = 3
    workers = [cluster.fork(), cluster.fork()]
    cluster.on("listening", lambda worker, address: say("listening", address.port))
    cluster.on("drop", lambda where: say("drop", *where["local_address"], *where["remote_address"]))
    multiloop.run(cluster.wait)
else:
    multiloop.run(main)
"""


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.settimeout(10)
    return sock


@pytest.mark.slow
def test_a_full_worker_passes_connections_on_and_a_full_cluster_drops_them(tmp_path: Path) -> None:
    with running(tmp_path, LIMITED) as program:
        port = int(program.until("listening"))
        assert int(program.until("listening")) == port
        open_ones = [connect(port) for _ in range(3)]
        pids = [sock.recv(100) for sock in open_ones]
        assert len(set(pids)) == 2  # two at one, one at the other
        with connect(port) as fourth:
            assert fourth.recv(100) == b""
            here = fourth.getsockname()
        assert program.until("drop") == f"127.0.0.1 {port} 127.0.0.1 {here[1]}"
        open_ones.pop().close()

        def is_admitted() -> bool:  # the primary hears of the end a moment later
            sock = connect(port)
            if sock.recv(100) == b"":
                sock.close()
                return False
            open_ones.append(sock)
            return True

        wait_until(is_admitted)
        for sock in open_ones:
            sock.close()


SERVES = """
async def main():
    server = await http.create_server(answer).listen(int(os.environ["PORT"]))

async def answer(request):
    if request.path == "/block":
        time.sleep(3)
    return str(os.getpid())

if cluster.is_primary:
    for _ in range(2):
        cluster.fork()
    cluster.on("listening", lambda worker, address: say("listening", worker.process.pid))
    cluster.on("exit", lambda worker, code, signal: cluster.fork())
    multiloop.run(cluster.wait)
else:
    multiloop.run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["rr", "none", "reuse_port", "least_connections"])
def test_with_every_policy_all_workers_serve_and_the_one_that_dies_is_replaced(tmp_path: Path, policy: str) -> None:
    port = free_port()
    with running(tmp_path, SERVES, PORT=str(port), MULTILOOP_CLUSTER_SCHED_POLICY=policy) as program:
        first, second = (int(program.until("listening")) for _ in range(2))
        all_answer({first, second}, lambda: ask(port))
        os.kill(first, signal.SIGKILL)
        third = int(program.until("listening"))
        all_answer({second, third}, lambda: ask(port))


@pytest.mark.slow
def test_a_worker_whose_loop_is_blocked_is_passed_over_and_comes_back(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, SERVES, PORT=str(port)) as program:
        pids = {int(program.until("listening")) for _ in range(2)}
        with connect(port) as blocking:
            blocking.sendall(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: "its loop is blocked" in program.err)
            answers = {int(ask(port)) for _ in range(20)}  # each within ten seconds, or this fails
            blocked = int(blocking.recv(1000).split()[-1])
        assert blocked not in answers
        assert answers < pids
        all_answer(pids, lambda: ask(port))


DRAINS = """
async def answer(reader, writer):
    writer.write(await reader.readline())
    await reader.readline()
    writer.write(b"done")
    writer.close()

async def main():
    await (await asyncio.start_unix_server(answer, "plain.sock")).serve_forever()

if cluster.is_primary:
    workers = [cluster.fork() for _ in range(2)]
    for name in ("listening", "draining", "exit"):
        cluster.on(name, lambda worker, *rest, name=name: say(name, worker.id))

    async def program():
        timers.set_interval(lambda: os.path.exists("go") and cluster.disconnect(), 0.02).unref()
        await cluster.wait()
        say("paths", sorted(os.listdir(".")))
    multiloop.run(program)
else:
    multiloop.run(main)
"""


@pytest.mark.slow
def test_a_worker_that_leaves_waits_for_its_connections_and_the_last_one_takes_the_path_along(tmp_path: Path) -> None:
    with running(tmp_path, DRAINS) as program:
        for _ in range(2):
            program.until("listening")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(tmp_path / "plain.sock"))
            sock.sendall(b"first\n")
            assert sock.recv(100) == b"first\n"
            (tmp_path / "go").write_text("")
            assert {program.until("draining") for _ in range(2)} == {"1", "2"}
            free = program.until("exit")  # that without a connection
            sock.sendall(b"second\n")
            assert sock.recv(100) == b"done"
            assert sock.recv(100) == b""
        assert {free, program.until("exit")} == {"1", "2"}
        assert program.until("paths") == "['go', 'program.py']"
        assert program.ended().code == 0


ONE_IS_SLOW = """
async def main():
    await http.create_server(answer).listen(int(os.environ["PORT"]))

async def answer(request):
    await asyncio.sleep(0.05 if cluster.worker.id == 1 else 0)
    return str(cluster.worker.id)

if cluster.is_primary:
    cluster.scheduling_policy = "least_requests"
    for _ in range(3):
        cluster.fork()
    cluster.on("listening", lambda worker, address: say("listening", worker.process.pid))
    multiloop.run(cluster.wait)
else:
    multiloop.run(main)
"""


@pytest.mark.slow
def test_least_requests_deals_to_a_worker_that_only_waits_as_little_as_it_is_slower(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, ONE_IS_SLOW, PORT=str(port)) as program:
        for _ in range(3):
            program.until("listening")
        answered: list[str] = []

        def client() -> None:
            for _ in range(250):
                answered.append(ask(port, "/"))

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        dealt = Counter(answered)
        assert 1 <= dealt["1"] < len(answered) / 100, dealt
        assert min(dealt["2"], dealt["3"]) > len(answered) / 4, dealt
