"""Programs: start to the first answer, starting children."""

from __future__ import annotations

import os
import socket
import subprocess
import time

from ..harness.bench import Bench
from ..harness.environments import APPS
from ..harness.model import Row, Sample, Side
from ..harness.processes import Failed, cpu_s, end, free_port
from ._scripts import script
from ._servers import Launch, bun, fastpysgi, granian, gunicorn, hypercorn, node, ours, uvicorn

_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"


def _first_answer(launch: Launch) -> Side:
    def once(bench: Bench) -> Sample:
        port = free_port()
        command = [str(word) for word in launch.command(bench.tools, port)]
        log = bench.log(launch.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as out:
            began_s = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=APPS, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, **launch.env}, start_new_session=True,
            )  # fmt: skip
        try:
            while not _answers(port):
                if process.poll() is not None or time.perf_counter() - began_s > 30:
                    raise Failed(f"{launch.name} does not answer: {log.read_text(errors='replace')[-400:]}")
                time.sleep(0.001)
            return {"wall_ms": (time.perf_counter() - began_s) * 1e3, "cpu_ms": cpu_s(process.pid) * 1e3}
        finally:
            end(process)

    def measure(bench: Bench) -> list[Sample]:
        once(bench)  # its files are read into memory, its bytecode is compiled
        return [once(bench) for _ in range(bench.windows + 1)]

    return Side(launch.name, measure, launch.role, launch.needs)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(_REQUEST)
            return client.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


_LAUNCHES = (
    ours("asgi_apps:hello"),
    ours("asgi_apps:hello", name="multiloop, --workers 0", workers=0),
    uvicorn("asgi_apps:hello"),
    granian("asgi_apps:hello"),
    gunicorn("asgi_apps:hello", "asgi"),
    hypercorn("asgi_apps:hello"),
    fastpysgi("asgi_apps:hello"),
    node("http.js", "hello"),
    bun("hello"),
)

START = Row(
    "first-answer",
    "Programs",
    "start to the first answer",
    tuple(_first_answer(launch) for launch in _LAUNCHES),
    metric="wall_ms",
    unit="ms",
    per="",
    what="From the start of the command to the first reply of its hello; the CPU of all its processes until then.",
)

SPAWN = Row(
    "child-spawn",
    "Programs",
    "start a child and wait for its end",
    (
        script("multiloop", ("ours",), lambda b: [b.tools.ours / "python", "spawn_ours.py"], role="ours", skip=1),
        script("asyncio on uvloop", ("peers",), lambda b: [b.tools.peers / "python", "spawn_peers.py", "asyncio"], skip=1),
        script("Node", ("node",), lambda b: [b.tools.node, "spawn.js"], skip=1),
        script("Bun", ("bun",), lambda b: [b.tools.bun, "spawn.js"], skip=1),
        script(
            "subprocess.run", ("peers",), lambda b: [b.tools.peers / "python", "spawn_peers.py", "run"], role="floor",
            skip=1,
        ),
    ),
    per="child",
    what="/bin/true, one after the other, its output not looked at. CPU of the parent and of the children.",
)  # fmt: skip

ROWS = (START, SPAWN)
