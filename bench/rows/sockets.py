"""Sockets: echo on net, in the forms in which it is written."""

from __future__ import annotations

from ..harness.bench import Bench, windows_of
from ..harness.environments import APPS
from ..harness.load import Window
from ..harness.model import Budget, Row, Sample, Side
from ..harness.processes import run
from ._servers import Launch, node, python, serving
from .websockets import read_load


def _side(launch: Launch, quick: bool = True) -> Side:
    def measure(bench: Bench) -> list[Sample]:
        with serving(bench, launch) as server:

            def window(seconds: float) -> Window:
                command = [bench.tools.peers / "python", APPS / "echo_load.py", server.port, 64, seconds]
                return read_load(run(command, core=bench.load_core, timeout_s=60))

            return windows_of(bench, server, window)

    return Side(launch.name, measure, launch.role, (*launch.needs, "peers"), quick)


def _form(form: str, name: str) -> Launch:
    return python("echo_ours.py", form, name=name, role="ours", env="ours")


ECHO = Row(
    "socket-echo",
    "Sockets",
    "echo",
    (
        _side(_form("iterate", "multiloop")),
        _side(_form("read", "multiloop, read()"), quick=False),
        _side(_form("drain", "multiloop, drain() each time"), quick=False),
        _side(_form("listener", "multiloop, a 'data' listener"), quick=False),
        _side(python("echo_peers.py", "protocol", name="uvloop, protocol", role="floor")),
        _side(python("echo_peers.py", "streams", name="asyncio streams on uvloop"), quick=False),
        _side(node("echo.js")),
    ),
    budgets=(Budget(("uvloop, protocol",), 1.3), Budget(("Node",), 1.0)),
    quick=True,
    per="message",
    what="64 connections; each sends 120 bytes and waits for them to come back. The first form is `async for`.",
)

ROWS = (ECHO,)
