"""PostgreSQL: one query, and twenty, for each request."""

from __future__ import annotations

import json

from ..harness import postgres
from ..harness.bench import Bench, windows_of
from ..harness.load import Window, ask, wrk
from ..harness.model import Row, Sample, Side
from ..harness.processes import Failed
from ._servers import Launch, bun, granian, node, ours, serving, uvicorn


def _check(port: int, queries: int) -> None:
    status, body = ask(port, f"/{queries}")
    rows = json.loads(body) if status == 200 else []
    if len(rows) != queries or not all(1 <= row["id"] <= 10_000 and row["randomnumber"] for row in rows):
        raise Failed(f"/{queries} answered {status} {body[:200]!r}")


def _side(launch: Launch, queries: int) -> Side:
    def measure(bench: Bench) -> list[Sample]:
        address = bench.once("postgres", lambda: postgres.server(bench.load_core))
        with serving(bench, launch, env={"BENCH_POSTGRES": address}) as server:
            _check(server.port, queries)

            def window(seconds: float) -> Window:
                return wrk(server.port, f"/{queries}", connections=32, seconds=seconds, core=bench.load_core)

            return windows_of(bench, server, window)

    return Side(launch.name, measure, launch.role, (*launch.needs, "postgres", "wrk"))


def _row(key: str, title: str, queries: int) -> Row:
    launches = (
        ours("postgres_apps:handler", name="multiloop and asyncpg"),
        ours("postgres_apps:app", name="multiloop, ASGI and asyncpg"),
        uvicorn("postgres_apps:app"),
        granian("postgres_apps:app"),
        node("http.js", "pg", name="Node and pg"),
        bun("pg", name="Bun and its SQL"),
    )
    return Row(
        key,
        "PostgreSQL",
        title,
        tuple(_side(launch, queries) for launch in launches),
        what="32 clients, 16 connections to the database, prepared statements by primary key, JSON out; twenty "
        "queries go one after the other. CPU of the server without the database, which has the core of the load.",
    )


ROWS = (_row("postgres-1", "one query", 1), _row("postgres-20", "twenty queries", 20))
