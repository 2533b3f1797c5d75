"""The cluster: a primary that owns the listening sockets, and one worker with one loop on every core.

What lives here: the public names of programs that fork themselves, found late: `multiloop serve` and its workers, whose
parts are in this package as well, need none of them. What must not: code (`_forks` has it).

    if cluster.is_primary:
        for _ in range(cluster.cpu_count()):
            cluster.fork()
        cluster.on("exit", lambda worker, code, signal: cluster.fork())
        multiloop.run(cluster.wait)
    else:
        multiloop.run(main)

The parts: `_settings` `_policy` `_dealing` and `_supervisor` (pure) · `_primary` `_app` and `_worker` (serve) · `_forks`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._forks._api import (
        SCHED_NONE,
        SCHED_RR,
        counter,
        cpu_count,
        disconnect,
        fork,
        setup_primary,
        supervise,
        wait,
    )
    from ._forks._counters import Counter
    from ._forks._locks import Locks
    from ._forks._options import Settings
    from ._forks._peer import Peer
    from ._forks._self import OwnEnd
    from ._forks._supervision import Supervision
    from ._forks._worker import ListeningAddress, State, Worker
    from ._policy import LeastConnections, LeastRequests, RoundRobin, Sticky

    is_primary: bool
    is_worker: bool
    settings: Settings
    workers: dict[int, Any]
    worker: OwnEnd | None
    scheduling_policy: Any
    locks: Locks
    max_connections: int
    broadcast: Callable[[Any], int]
    emit: Callable[..., bool]
    listener_count: Callable[..., int]
    off: Callable[..., Any]
    on: Callable[..., Any]
    once: Callable[..., Any]

__all__ = [
    "SCHED_NONE",
    "SCHED_RR",
    "Counter",
    "LeastConnections",
    "LeastRequests",
    "ListeningAddress",
    "OwnEnd",
    "Peer",
    "RoundRobin",
    "Settings",
    "State",
    "Sticky",
    "Supervision",
    "Worker",
    "broadcast",
    "counter",
    "cpu_count",
    "disconnect",
    "emit",
    "fork",
    "is_primary",
    "is_worker",
    "listener_count",
    "locks",
    "max_connections",
    "off",
    "on",
    "once",
    "scheduling_policy",
    "settings",
    "setup_primary",
    "supervise",
    "wait",
    "worker",
    "workers",
]

_HOMES = {
    "Counter": "_forks._counters",
    "LeastConnections": "_policy",
    "LeastRequests": "_policy",
    "ListeningAddress": "_forks._worker",
    "OwnEnd": "_forks._self",
    "Peer": "_forks._peer",
    "RoundRobin": "_policy",
    "Settings": "_forks._options",
    "State": "_forks._worker",
    "Sticky": "_policy",
    "Supervision": "_forks._supervision",
    "Worker": "_forks._worker",
}


def __getattr__(name: str) -> Any:
    # A part of this package that is being imported comes by here, too: looking among the names would load them all.
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    return importlib.import_module("._forks._api", __name__).find(name)


class _Cluster(ModuleType):
    """This module, with two attributes that may be set."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("scheduling_policy", "max_connections"):
            importlib.import_module("._forks._api", __name__).change(name, value)
        else:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Cluster
