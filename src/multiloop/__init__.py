"""multiloop: Node.js's concurrency model for Python — event loops that never block, on every core.

What lives here: the public names, found late, so that importing the package costs next to nothing and a worker loads
only what it uses; and the switch to the compiled form. What must not: any code of its own.

Modules: `timers` `events` (one loop, callbacks) · `fs` `net` `dns` `stream` `child_process` `http` (asynchronous I/O) ·
`cluster` (one loop per core) · `worker_threads` `pool` (CPU-bound work beside the loop) · `health` (what blocks it) ·
`testing` (the test kit) · `metrics` `dashboard` (seeing it).
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from . import _speed

if TYPE_CHECKING:
    from . import (
        child_process,
        cluster,
        dashboard,
        dns,
        events,
        fs,
        health,
        http,
        metrics,
        net,
        pool,
        stream,
        testing,
        timers,
        worker_threads,
    )
    from .loop import Limiter, Operation, map_limited, offload, on_uncaught, run

__version__ = "0.1.0"

_speed.install()

__all__ = [
    "Limiter",
    "Operation",
    "child_process",
    "cluster",
    "dashboard",
    "dns",
    "events",
    "fs",
    "health",
    "http",
    "map_limited",
    "metrics",
    "net",
    "offload",
    "on_uncaught",
    "pool",
    "run",
    "stream",
    "testing",
    "timers",
    "worker_threads",
]

_FROM_LOOP = frozenset({"Limiter", "Operation", "map_limited", "offload", "on_uncaught", "run"})


def __getattr__(name: str) -> Any:
    if name in _FROM_LOOP:
        value = getattr(importlib.import_module(".loop", __name__), name)
    elif name in __all__:
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


# Started by cluster.fork(): take the place before anything else runs. (A worker of `serve` has its number there.)
if ":" in os.environ.get("MULTILOOP_WORKER", ""):
    importlib.import_module(".cluster._forks._role", __name__).enter()
