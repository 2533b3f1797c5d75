"""Who serves: how each server is started, and the usual round of load on it.

What lives here: `Launch`, one for each server, and `served`, which makes a side of one. What must not: rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..harness.bench import Bench, windows_of
from ..harness.environments import APPS, Tools
from ..harness.load import Window, check_answer, wrk
from ..harness.model import Role, Sample, Side
from ..harness.processes import Running, free_port, started

Command = Callable[[Tools, int], list[object]]


@dataclass(frozen=True, slots=True)
class Launch:
    """One server with one application."""

    name: str
    needs: tuple[str, ...]
    command: Command
    role: Role = "peer"
    env: dict[str, str] = field(default_factory=dict)


def ours(
    target: str, *options: str, name: str = "multiloop", workers: int = 1, env: dict[str, str] | None = None
) -> Launch:
    """`multiloop serve`."""

    def command(tools: Tools, port: int) -> list[object]:
        return [tools.ours / "multiloop", "serve", target, "--host", "127.0.0.1", "--port", port, "--workers", workers,
                "--log-level", "warning", *options]  # fmt: skip

    return Launch(name, ("ours",), command, "ours", env or {})


def pure(target: str, *options: str) -> Launch:
    """The same in plain Python."""
    return replace(ours(target, *options, name="multiloop, not compiled", env={"MULTILOOP_PURE": "1"}), role="peer")


def uvicorn(target: str, *options: str, workers: int = 1) -> Launch:
    """uvicorn with uvloop and httptools."""

    def command(tools: Tools, port: int) -> list[object]:
        more = ["--workers", workers] if workers > 1 else []
        return [tools.peers / "uvicorn", target, "--port", port, "--no-access-log", "--log-level", "warning",
                "--loop", "uvloop", "--http", "httptools", *more, *options]  # fmt: skip

    return Launch("uvicorn", ("peers",), command)


def granian(target: str, *options: str, interface: str = "asgi", workers: int = 1) -> Launch:
    """granian, one process for each worker, on uvloop."""

    def command(tools: Tools, port: int) -> list[object]:
        loop = ["--loop", "uvloop"] if interface == "asgi" else []
        return [tools.peers / "granian", "--interface", interface, "--port", port, "--no-log", "--workers", workers,
                *loop, *options, target]  # fmt: skip

    return Launch("granian", ("peers",), command)


def gunicorn(target: str, kind: str, *options: str, workers: int = 1) -> Launch:
    """gunicorn with one of its kinds of workers."""

    def command(tools: Tools, port: int) -> list[object]:
        return [tools.peers / "gunicorn", target, "-k", kind, "-b", f"127.0.0.1:{port}", "-w", workers,
                "--log-level", "warning", *options]  # fmt: skip

    return Launch(f"gunicorn {kind}", ("peers",), command)


def hypercorn(target: str) -> Launch:
    """hypercorn on uvloop."""

    def command(tools: Tools, port: int) -> list[object]:
        return [tools.peers / "hypercorn", target, "-k", "uvloop", "-b", f"127.0.0.1:{port}", "--log-level", "warning"]

    return Launch("hypercorn", ("peers",), command)


def fastpysgi(target: str) -> Launch:
    """fastpysgi."""

    def command(tools: Tools, port: int) -> list[object]:
        return [tools.peers / "fastpysgi", target, "--host", "127.0.0.1", "-p", port, "-l", "0"]

    return Launch("fastpysgi", ("peers",), command)


def node(script: str, *arguments: str, name: str = "Node", role: Role = "peer") -> Launch:
    """A script under the newest Node."""

    def command(tools: Tools, port: int) -> list[object]:
        return [tools.node, APPS / script, *arguments, port]

    return Launch(name, ("node",), command, role)


def bun(*arguments: str, name: str = "Bun") -> Launch:
    """bun.js under Bun."""

    def command(tools: Tools, port: int) -> list[object]:
        return [tools.bun, APPS / "bun.js", *arguments, port]

    return Launch(name, ("bun",), command)


def python(script: str, *arguments: str, name: str, role: Role = "peer", env: str = "peers") -> Launch:
    """A Python program that serves by itself."""

    def command(tools: Tools, port: int) -> list[object]:
        return [(tools.ours if env == "ours" else tools.peers) / "python", APPS / script, *arguments, port]

    return Launch(name, (env,), command, role)


@contextmanager
def serving(bench: Bench, launch: Launch, *, pin: bool = True, env: dict[str, str] | None = None) -> Iterator[Running]:
    """The server, listening, on its core."""
    port = free_port()
    node_path = {"NODE_PATH": str(bench.tools.modules / "node_modules")}
    with started(
        launch.command(bench.tools, port), port=port, log=bench.log(launch.name), cwd=APPS,
        env={**node_path, "PYTHONDONTWRITEBYTECODE": "1", "NODE_ENV": "production", **launch.env, **(env or {})},
        core=bench.server_core if pin else None,
    ) as server:  # fmt: skip
        yield server


@dataclass(frozen=True, slots=True)
class Load:
    """What the server is asked, and what it must answer."""

    path: str = "/"
    expected: int | bytes = b"Hello, World!"
    connections: int = 64
    script: Path | None = None
    data: bytes | None = None
    pin: bool = True


def served(
    launch: Launch, load: Load, *, quick: bool = True, env: Callable[[Bench], dict[str, str]] | None = None
) -> Side:
    """A side that serves under wrk."""

    def measure(bench: Bench) -> list[Sample]:
        with serving(bench, launch, pin=load.pin, env=env(bench) if env else None) as server:
            check_answer(server.port, load.path, load.expected, data=load.data)

            def window(seconds: float) -> Window:
                return wrk(server.port, load.path, connections=load.connections, seconds=seconds,
                           core=bench.load_core, script=load.script)  # fmt: skip

            return windows_of(bench, server, window)

    return Side(launch.name, measure, launch.role, (*launch.needs, "wrk"), quick)
