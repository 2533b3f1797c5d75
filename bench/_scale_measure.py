"""Measuring the costs that `scale_model` is fed with, on this machine.

What lives here: real servers and clients, and the CPU time of their processes, which other programs on the machine move
least. What must not: the model.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.scale_model import Costs, Plan, predict
from multiloop import bus
from multiloop.pool import Pool

REQUESTS = 4_000
CONNECTIONS = 1_500
IDLE = 1_000
NAP_S = 0.05

APP = """
import asyncio, os, time
from multiloop import bus
state = {}

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        state["bus"] = bus.connect(os.environ.get("BUS_URL"))
        state["heard"] = 0
        def hear(message):
            state["heard"] += 1
        state["bus"].subscribe("topic").unref().on("message", hear)
        await state["bus"].ready()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        state["bus"].close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    if path == "/work":
        end = time.thread_time() + 0.002
        while time.thread_time() < end:
            pass
    elif path == "/publish":
        for number in range(500):
            state["bus"].publish("topic", {"number": number})
            if number % 50 == 0:
                await state["bus"].drain()
                await asyncio.sleep(0)
    body = str(state["heard"]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


def same(value: int) -> int:
    """A tiny task."""
    return value


def nap(seconds: float) -> float:
    """A task that takes time and no CPU: so that two nodes on one machine do not share a core."""
    time.sleep(seconds)
    return seconds


def cpu_s(pid: int) -> float:
    """CPU seconds of the threads that a process has: user and system, to the microsecond where the kernel tells."""
    try:
        used = [int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(used) / 1e9
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_bytes(pid: int) -> int:
    """Memory of a process, shared pages in part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Server:
    """A running `multiloop serve`."""

    def __init__(self, folder: Path, workers: int, bus_url: str | None) -> None:
        (folder / "scale_app.py").write_text(APP)
        self.port = free_port()
        more = {} if bus_url is None else {"BUS_URL": bus_url}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "multiloop", "serve", "scale_app:app", "--app-dir", str(folder), "--port", str(self.port),
             "--workers", str(workers), "--control", str(folder / f"{self.port}.sock")],
            env={**os.environ, **more}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                asyncio.run(ask(self.port, 1, 1))
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                break
        while len(self.workers) < workers:
            time.sleep(0.1)
        time.sleep(0.5)

    @property
    def workers(self) -> list[int]:
        """Their pids."""
        return children(self.process.pid)

    def cpu(self) -> tuple[float, float]:
        """CPU seconds of the primary, and of all workers."""
        return cpu_s(self.process.pid), sum(map(cpu_s, self.workers))

    def end(self) -> None:
        """Stop it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@contextmanager
def server(workers: int = 1, bus_url: str | None = None) -> Iterator[Server]:
    """A server for a while."""
    with tempfile.TemporaryDirectory() as folder:
        made = Server(Path(folder), workers, bus_url)
        try:
            yield made
        finally:
            made.end()


async def ask(port: int, count: int, clients: int, path: str = "/", *, fresh: bool = False) -> None:
    """Ask so many times, on kept connections or each on a new one."""
    line = f"GET {path} HTTP/1.1\r\nHost: x\r\n{'Connection: close' + chr(13) + chr(10) if fresh else ''}\r\n".encode()

    async def client(times: int) -> None:
        streams: Any = None
        for _ in range(times):
            if streams is None:
                streams = await asyncio.open_connection("127.0.0.1", port)
            reader, writer = streams
            writer.write(line)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            if fresh:
                writer.close()
                streams = None
        if streams is not None:
            streams[1].close()

    await asyncio.gather(*(client(count // clients) for _ in range(clients)))


def requests_and_connections(costs: Costs) -> Costs:
    """The server's own costs."""
    with server(1) as one:
        asyncio.run(ask(one.port, 500, 10))
        before = one.cpu()
        asyncio.run(ask(one.port, REQUESTS, 20))
        after = one.cpu()
        request = (after[1] - before[1]) / REQUESTS
        before = one.cpu()
        asyncio.run(ask(one.port, CONNECTIONS, 10, fresh=True))
        after = one.cpu()
        primary = (after[0] - before[0]) / CONNECTIONS
        worker = max(0.0, (after[1] - before[1]) / CONNECTIONS - request)
        [pid] = one.workers
        small = pss_bytes(pid)
        idle = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(IDLE)]
        for sock in idle:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for sock in idle:
            sock.recv(1000)
        large = pss_bytes(pid)
        for sock in idle:
            sock.close()
        return replace(
            costs, request=request, connection_primary=primary, connection_worker=worker,
            connection_bytes=max(0.0, (large - small) / IDLE), worker_bytes=float(small),
            primary_bytes=float(pss_bytes(one.process.pid)),
        )  # fmt: skip


def messages_through_the_primary(costs: Costs) -> Costs:
    """A message from one worker to another."""
    with server(2) as two:
        before = two.cpu()
        asyncio.run(ask(two.port, 10, 1, "/publish"))
        time.sleep(1.0)
        after = two.cpu()
        each = (after[0] - before[0]) / 5000
        workers = (after[1] - before[1]) / 5000  # one publishes and hears, the other hears
        return replace(
            costs,
            relay_publish=each / 2,
            relay_deliver=each / 2,
            message_publish=workers / 3,
            message_deliver=workers / 3,
        )


def messages_through_redis(costs: Costs) -> Costs:
    """What Redis uses for a message to one, and to twenty connections."""
    if shutil.which("redis-server") is None or importlib.util.find_spec("redis") is None:
        print("no redis-server, or no redis: its costs are those of another machine", file=sys.stderr)
        return costs
    port = free_port()
    redis = subprocess.Popen(["redis-server", "--port", str(port), "--save", ""], stdout=subprocess.DEVNULL)

    async def publish(hearers: int) -> float:
        ends = [bus.connect(f"redis://127.0.0.1:{port}/0") for _ in range(hearers + 1)]
        for end in ends[1:]:
            end.subscribe("topic").unref().on("message", lambda message: None)
        for end in ends:
            await end.ready()
        before = cpu_s(redis.pid)
        for number in range(4000):
            ends[0].publish("topic", number)
            if number % 100 == 0:
                await ends[0].drain()
        await ends[0].drain()
        while ends[-1].statistics().received < 4000:
            await asyncio.sleep(0.01)
        used = cpu_s(redis.pid) - before
        for end in ends:
            end.close()
        return used / 4000

    try:
        while True:
            with socket.socket() as sock:
                if not sock.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.05)
        few, many = asyncio.run(publish(1)), asyncio.run(publish(20))
    finally:
        redis.terminate()
        redis.wait(10)
    deliver = max(1e-7, (many - few) / 19)
    return replace(costs, redis_deliver=deliver, redis_publish=max(1e-7, few - deliver))


async def _caller_s(pool: Pool, count: int, *, single: bool) -> float:
    async def tasks() -> None:
        if single:
            for number in range(count):
                await pool.run(same, number)
        else:
            await asyncio.gather(*(pool.run(same, number) for number in range(count)))

    await tasks()
    begun = time.process_time()
    await tasks()
    return (time.process_time() - begun) / count


def tasks_of_pools(costs: Costs) -> Costs:
    """What giving a task away costs the process that does it."""

    async def local() -> float:
        async with Pool(1) as pool:
            return await _caller_s(pool, 10_000, single=False)

    costs = replace(costs, task_local_caller=asyncio.run(local()))
    if importlib.util.find_spec("ray") is None:
        print("no ray: its costs are those of another machine", file=sys.stderr)
        return costs

    async def far() -> tuple[float, float]:
        async with Pool(1, engine="ray", cpus=0.1) as pool:
            await pool.ready()
            return await _caller_s(pool, 5000, single=False), await _caller_s(pool, 300, single=True)

    many, single = asyncio.run(far())
    return replace(costs, task_far_caller=many, task_far_single=single)


def measure(costs: Costs) -> Costs:
    """Measure all that can be measured here."""
    for step in (requests_and_connections, messages_through_the_primary, messages_through_redis, tasks_of_pools):
        costs = step(costs)
    return costs


# --- predictions against what is ----------------------------------------------------------------------------------
def check() -> list[tuple[str, float, float]]:
    """(what, predicted, measured): with one and two workers, and with one and two Ray nodes' worth of workers.

    The costs are measured with one worker; what two need is predicted. CPU seconds, because the cores are shared here.
    """
    costs = requests_and_connections(Costs())
    rows = []
    for workers in (1, 2):
        with server(workers) as made:
            asyncio.run(ask(made.port, 200, 10, "/work"))
            readings = []
            for _ in range(3):
                before = made.cpu()
                asyncio.run(ask(made.port, 600, 12, "/work"))
                after = made.cpu()
                readings.append(600 / (sum(after) - sum(before)))
            plan = Plan(cores=workers, requests=100.0, handler=2e-3, new_connections=0, connections=0, messages=0)
            most = predict(plan, costs).most_requests / workers
            rows.append((f"requests for a CPU second, {workers} workers", most, statistics.median(readings)))
            memory = sum(map(pss_bytes, made.workers)) + pss_bytes(made.process.pid)
            rows.append(
                (f"bytes, {workers} workers", costs.primary_bytes + workers * costs.worker_bytes, float(memory))
            )
    if importlib.util.find_spec("ray") is not None:
        rows += _check_ray()
    return rows


def _check_ray() -> list[tuple[str, float, float]]:
    """One Ray node of one core, then two: what one gives is measured, what two give is predicted."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    os.environ["RAY_ADDRESS"] = cluster.address
    rows = []
    overhead_s: float | None = None
    try:
        for nodes in (1, 2):
            if nodes == 2:
                cluster.add_node(num_cpus=1)
            overhead_s, rate = asyncio.run(_ray_rate(nodes, overhead_s))
            rows.append((f"tasks of 50 ms a second, {nodes} Ray nodes", nodes / (NAP_S + overhead_s), rate))
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
    return rows


async def _ray_rate(nodes: int, overhead_s: float | None) -> tuple[float, float]:
    """Return what a single task takes beyond its own time (unless it is known), and tasks a second with all nodes busy."""
    async with Pool(nodes, engine="ray", cpus=1) as pool:
        await pool.ready()

        async def run(count: int) -> float:
            begun = time.perf_counter()
            await asyncio.gather(*(pool.run(nap, NAP_S) for _ in range(count)))
            return time.perf_counter() - begun

        await run(10 * nodes)
        if overhead_s is None:
            overhead_s = statistics.median([await run(1) for _ in range(20)]) - NAP_S
        return overhead_s, 40 * nodes / await run(40 * nodes)
