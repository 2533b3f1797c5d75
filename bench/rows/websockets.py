"""WebSockets: echo and broadcast."""

from __future__ import annotations

from ..harness.bench import Bench, windows_of
from ..harness.environments import APPS
from ..harness.load import Window
from ..harness.model import Row, Sample, Side
from ..harness.processes import Failed, run
from ._servers import Launch, bun, granian, gunicorn, node, ours, python, serving, uvicorn


def read_load(text: str) -> Window:
    """Read what websocket_load.py printed. Raises Failed when it is something else."""
    try:
        count, took_s, p50_ms, p99_ms = text.split()
        return Window(int(count), float(took_s), float(p50_ms), float(p99_ms))
    except ValueError as error:
        raise Failed(f"not what the load prints: {text.strip()[-200:]!r}") from error


def _side(launch: Launch, mode: str, connections: int) -> Side:
    def measure(bench: Bench) -> list[Sample]:
        with serving(bench, launch) as server:

            def window(seconds: float) -> Window:
                command = [bench.tools.peers / "python", APPS / "websocket_load.py", mode, server.port, connections]
                return read_load(run([*command, seconds], core=bench.load_core, timeout_s=60))

            return windows_of(bench, server, window)

    return Side(launch.name, measure, launch.role, (*launch.needs, "peers"))


def _row(key: str, title: str, mode: str, connections: int, what: str) -> Row:
    launches = (
        python("websockets_native.py", mode, name="multiloop", role="ours", env="ours"),
        ours(f"asgi_apps:{mode}", name="multiloop, ASGI"),
        uvicorn(f"asgi_apps:{mode}"),
        granian(f"asgi_apps:{mode}", "--ws"),
        gunicorn(f"asgi_apps:{mode}", "asgi"),
        node("websocket.js", mode, name="Node with ws"),
        bun(mode),
    )
    return Row(
        key, "WebSockets", title, tuple(_side(launch, mode, connections) for launch in launches), per="message",
        what=what,
    )  # fmt: skip


ROWS = (
    _row(
        "websocket-echo",
        "echo",
        "echo",
        64,
        "64 connections; each sends 120 characters and waits for them to come back.",
    ),
    _row(
        "websocket-broadcast",
        "one to a hundred",
        "broadcast",
        100,
        "One of 100 connections speaks, the server sends it to all; per delivered message.",
    ),
)
