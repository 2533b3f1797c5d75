"""Memory: at rest, and for each idle kept connection, 5 000 of them."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack

from ..harness.bench import Bench
from ..harness.model import Budget, Row, Sample, Side
from ..harness.processes import memory_kb
from ._servers import Launch, bun, fastpysgi, granian, node, ours, python, serving, uvicorn

CONNECTIONS = 5000
_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"


def _idle(launch: Launch, *, quick: bool = True) -> Side:
    def measure(bench: Bench) -> list[Sample]:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        with serving(bench, launch) as server, ExitStack() as kept:
            for _ in range(20):  # what a first request imports is not the connections'
                _ask(server.port).close()
            rest_mb = memory_kb(server.pid, shared_once=True) / 1024
            before_kb = memory_kb(server.pid)
            for _ in range(CONNECTIONS):
                kept.enter_context(_ask(server.port))
            grown_kb = memory_kb(server.pid) - before_kb
            full_mb = memory_kb(server.pid, shared_once=True) / 1024
        return [{"kb": grown_kb / CONNECTIONS, "rest_mb": rest_mb, "full_mb": full_mb}]

    return Side(launch.name, measure, launch.role, launch.needs, quick)


def _ask(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(_REQUEST)
    client.recv(4096)
    return client


IDLE = Row(
    "idle-connections",
    "Memory",
    "memory of an idle kept connection",
    (
        _idle(ours("handlers:hello", "--keep-alive-timeout", "120")),
        _idle(python("floor.py", name="uvloop, fixed reply", role="floor")),
        _idle(ours("asgi_apps:hello", "--keep-alive-timeout", "120", name="multiloop, ASGI"), quick=False),
        _idle(bun("hello")),
        _idle(granian("asgi_apps:hello", "--backlog", "8192")),
        _idle(uvicorn("asgi_apps:hello", "--timeout-keep-alive", "120"), quick=False),
        _idle(fastpysgi("asgi_apps:hello"), quick=False),
        _idle(node("http.js", "hello"), quick=False),
    ),
    metric="kb",
    unit="KB",
    per="connection",
    budgets=(Budget(("uvloop, fixed reply",), 1.2, at_most=2.5),),
    quick=True,
    quick_rounds=1,
    what="5 000 connections that have asked once and stay open: growth of resident memory over 5 000, all processes. "
    "At rest and with them: proportional memory (PSS) of all processes, one worker.",
)

ROWS = (IDLE,)
