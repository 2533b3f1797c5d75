"""Connections: one request on each, and how evenly kept ones are dealt."""

from __future__ import annotations

import socket
from collections import Counter

from ..harness.bench import Bench, windows_of
from ..harness.load import Window, ab, check_answer
from ..harness.model import Budget, Row, Sample, Side
from ._servers import Launch, granian, gunicorn, node, ours, serving, uvicorn

_KEPT = 64
_WORKERS = 4


def _one_each(launch: Launch) -> Side:
    def measure(bench: Bench) -> list[Sample]:
        with serving(bench, launch, pin=False) as server:
            check_answer(server.port, "/", b"Hello, World!")

            def window(seconds: float) -> Window:
                return ab(server.port, requests=int(4000 * seconds), connections=32)

            return windows_of(bench, server, window)

    return Side(launch.name, measure, launch.role, (*launch.needs, "ab"))


def _pids(port: int) -> list[bytes]:
    """Ask on 64 connections that all stay open which process serves them."""
    kept, answers = [], []
    try:
        for _ in range(_KEPT):
            client = socket.create_connection(("127.0.0.1", port), timeout=10)
            kept.append(client)
            client.sendall(b"GET /pid HTTP/1.1\r\nHost: bench\r\n\r\n")
            reply = b""
            while not reply.partition(b"\r\n\r\n")[2]:
                piece = client.recv(4096)
                if not piece:
                    raise ConnectionError("closed before it answered")
                reply += piece
            answers.append(reply.partition(b"\r\n\r\n")[2])
    finally:
        for client in kept:
            client.close()
    return answers


def _balance(launch: Launch) -> Side:
    def measure(bench: Bench) -> list[Sample]:
        with serving(bench, launch, pin=False) as server:
            for _ in range(200):  # workers come up one after the other: ask until all have answered
                if len(set(_pids(server.port))) == _WORKERS:
                    break
            busiest = max(Counter(_pids(server.port)).values())
        return [{"skew": busiest / (_KEPT / _WORKERS)}]

    return Side(launch.name, measure, launch.role, launch.needs)


ONE_EACH = Row(
    "connections",
    "Connections",
    "one request per connection, round robin",
    (
        _one_each(ours("handlers:hello", "--policy", "round_robin")),
        _one_each(node("cluster.js", "1", name="Node cluster")),
    ),
    per="connection",
    budgets=(Budget(("Node cluster",), 0.5),),
    quick=True,
    what="A primary that deals to one worker; 32 clients at once, each request on a new connection. CPU of both processes.",
)

BALANCE = Row(
    "balance",
    "Connections",
    "64 kept connections on 4 workers",
    (
        _balance(ours("asgi_apps:pid", workers=_WORKERS)),
        _balance(node("cluster.js", str(_WORKERS), name="Node cluster")),
        _balance(uvicorn("asgi_apps:pid", workers=_WORKERS)),
        _balance(granian("asgi_apps:pid", workers=_WORKERS)),
        _balance(gunicorn("asgi_apps:pid", "asgi", workers=_WORKERS)),
    ),
    metric="skew",
    unit="busiest ÷ mean",
    per="",
    take="median",
    budgets=(Budget(at_most=1.0),),
    quick=True,
    quick_rounds=1,
    what="How many of 64 connections the busiest of 4 workers has, over the 16 that would be its share.",
)

ROWS = (ONE_EACH, BALANCE)
