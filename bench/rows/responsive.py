"""Answering while CPU-bound tasks keep the pool full."""

from __future__ import annotations

import subprocess
import time

from ..harness.bench import Bench
from ..harness.load import check_answer, wrk
from ..harness.model import Budget, Row, Sample, Side
from ._servers import Launch, node, ours, serving, uvicorn

_NODE = "Node + Piscina"
_PROCESSES = "uvicorn + ProcessPoolExecutor"


def _named(launch: Launch, name: str, **env: str) -> Launch:
    return Launch(name, launch.needs, launch.command, launch.role, env)


def _busy(launch: Launch, *, quick: bool = True) -> Side:
    def measure(bench: Bench) -> list[Sample]:
        seconds = bench.count(5, 3)
        with serving(bench, launch, pin=False) as server:
            check_answer(server.port, "/", b"Hello, World!")
            check_answer(server.port, "/cpu", 4 if "uvicorn" in launch.name or launch.role == "ours" else 6)
            background = subprocess.Popen(
                ["wrk", "-t1", "-c4", f"-d{seconds + 3}s", "--timeout", "10s", f"http://127.0.0.1:{server.port}/cpu"],
                stdout=subprocess.DEVNULL,
            )
            try:
                time.sleep(1)
                before_s = server.cpu_s()
                seen = wrk(server.port, "/", connections=16, seconds=seconds, core=None)
                used_s = server.cpu_s() - before_s
            finally:
                background.terminate()
                background.wait()
        return [
            {
                "p99_ms": seen.p99_ms,
                "p50_ms": seen.p50_ms,
                "rate": seen.requests / seen.seconds,
                "cpu_us": used_s / seen.requests * 1e6,
            }
        ]

    return Side(launch.name, measure, launch.role, (*launch.needs, "wrk"), quick)


RESPONSIVE = Row(
    "responsive",
    "Under CPU load",
    "hello, p99, while CPU tasks keep the pool full",
    (
        _busy(ours("responsive_ours:app")),
        _busy(_named(node("responsive.js"), _NODE)),
        _busy(_named(uvicorn("responsive_standard:app"), _PROCESSES, BENCH_EXECUTOR="process")),
        _busy(_named(uvicorn("responsive_standard:app"), "uvicorn + threads", BENCH_EXECUTOR="thread"), quick=False),
    ),
    metric="p99_ms",
    unit="ms",
    per="",
    budgets=(Budget((_NODE,), 0.5), Budget((_PROCESSES,), 1.0)),
    quick=True,
    quick_rounds=1,
    what="Four clients keep tasks of some tens of milliseconds queued for one worker at nice 10; 16 others ask for hello.",
)

ROWS = (RESPONSIVE,)
