"""The functions and attributes of `multiloop.cluster`.

What lives here: what users call, led to the primary or to the worker that this process is. What must not: either of
them (`_primary`, `_member`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Unpack

from ...errors import UsageError
from ...events import EventEmitter
from ...loop import ErrorFirst
from ...pool._machine import usable_cores
from . import _role
from ._options import SettingsKeywords
from ._primary import Primary
from ._supervision import ReadyWhen, SuperviseOptions, Supervision, make_settings
from ._worker import Worker

SCHED_RR = "round_robin"
SCHED_NONE = "shared"

_POLICY_VARIABLE = "MULTILOOP_CLUSTER_SCHED_POLICY"
_NODES_WORDS = {"rr": SCHED_RR, "none": SCHED_NONE}
# What both roles have: the events, and two things that mean the others.
_OF_BOTH = frozenset({*(name for name in dir(EventEmitter) if not name.startswith("_")), "workers", "broadcast"})
_OF_PRIMARY = ("settings", "scheduling_policy", "max_connections")

is_worker = _role.role is not None
is_primary = not is_worker


def _make_primary() -> Primary:
    made = Primary()
    wanted = os.environ.get(_POLICY_VARIABLE)
    if wanted:
        made.scheduling_policy = _NODES_WORDS.get(wanted, wanted)
    return made


def _find_here() -> Any:
    from . import _member

    return _member.member


_here: Any = _find_here() if is_worker else _make_primary()


def here() -> Any:
    """Return the primary, or the worker, that this process is."""
    return _here


def _primary(what: str) -> Primary:
    if is_worker:
        raise UsageError(f"cluster.{what} is the primary's, and this is a worker: ask `cluster.is_primary` first")
    primary: Primary = _here
    return primary


def find(name: str) -> Any:
    """Return an attribute of the module."""
    if name in globals() and not name.startswith("_") and name in _PUBLIC:
        return globals()[name]
    if name in _OF_BOTH:
        return getattr(_here, name)
    if name in _OF_PRIMARY:
        return getattr(_primary(name), name)
    if name == "locks":
        return _here.shares.locks
    if name == "worker":
        return _here.worker if is_worker else None
    raise AttributeError(f"module 'multiloop.cluster' has no attribute {name!r}")


def change(name: str, value: Any) -> None:
    """Set one of the attributes that may be set.

    In a worker it is passed over, as in Node: the line that sets it for the primary often stands above the `if`.
    """
    if is_worker:
        return
    primary = _primary(name)
    if name == "max_connections":
        if not isinstance(value, int) or value < 0:
            raise UsageError(f"cluster.max_connections = {value!r}: a number of connections, 0 for no limit")
        primary.max_connections = value
    else:
        primary.change_policy(_NODES_WORDS.get(value, value) if isinstance(value, str) else value)


# --- the primary ------------------------------------------------------------------------------------------------------
def fork(env: Mapping[str, str] | None = None) -> Worker:
    """Start a worker, at once: this program again, from its command line. Returns the `Worker`.

    Its id is in its environment until it imports multiloop; there `cluster.is_worker` is true. Its channel is read when
    the loop runs, here and there. Once the program ends or `cluster.disconnect()` was called, no worker is started: what
    is returned is dead, and the log says so once. So the usual line `exit → fork` does not fight the end.

    Args:
        env: variables for it, beside those of this process.

    Raises:
        UsageError: this is a worker; or this program cannot be started again (it is typed in), see `setup_primary`.
        OSError: no descriptor is left.
    """
    return _primary("fork()").fork(env)


def setup_primary(**settings: Unpack[SettingsKeywords]) -> None:
    """Change how the next workers are started (`Settings` says what there is). What is not named stays.

    'setup' (settings) is emitted with every call, and with every fork, in the next turn of the loop.
    """
    _primary("setup_primary()").setup_primary(**settings)


def supervise(
    workers: int | None = None,
    *,
    ready: ReadyWhen = "listening",
    signals: bool = True,
    **options: Unpack[SuperviseOptions],
) -> Supervision:
    """Keep workers going, as `multiloop serve` does: `multiloop.run(cluster.supervise(4).wait)`. Returns a `Supervision`.

    They start when the loop runs: one first, the others when it is ready. One that dies, or whose loop is blocked for too
    long, is replaced, with growing delays when that happens often; one that is reloaded or recycled is replaced by one
    that is ready first.

    Args:
        workers: how many; None: one for each core.
        ready: "listening": a worker is ready when it listens. "running": when its loop runs, for workers without servers.
        signals: SIGTERM and SIGINT stop with grace, SIGHUP reloads, SIGTTIN and SIGTTOU change the number by one.
        options: `grace`, `startup_timeout`, `hang_timeout`, `max_lifetime`, `restart_window` in seconds; `max_requests`,
            `restart_max`; `max_rss` in bytes; `recycle_jitter`: as the options of `multiloop serve` with these names.

    Raises:
        UsageError: there are workers already, or supervise was called before; this is a worker; a value cannot be meant.
    """
    primary = _primary("supervise()")
    if ready not in ("listening", "running"):
        raise UsageError(f"supervise(ready={ready!r}): 'listening' or 'running'")
    return primary.supervise(make_settings(workers, options), ready, signals=signals)


def disconnect(grace: float | None = None, *, callback: ErrorFirst | None = None) -> Any:
    """Let all workers go, as `worker.disconnect(grace)`. An operation that is done when they are gone.

    Meanwhile nobody is forked (see `fork`).
    """
    return _primary("disconnect()").disconnect(grace, callback)


async def wait() -> None:
    """Wait until there is no worker left: `multiloop.run(cluster.wait)`."""
    await _primary("wait()").wait()


def counter(name: str, *, callback: ErrorFirst | None = None) -> Any:
    """Find a counter that the primary and all workers share, by its name: an operation that gives a `Counter`.

    A new one begins with 0. Raises LimitError when there are 4096, ChannelClosed in a worker without a primary.
    """
    if not isinstance(name, str):
        raise TypeError(f"cluster.counter() takes a name, not {type(name).__name__}")
    return _here.shares.counter(name, callback)


def cpu_count() -> int:
    """Return how many cores this process may use: its affinity, cut by the CPU quota of its control group."""
    return usable_cores()


_PUBLIC = frozenset(
    {
        "SCHED_RR",
        "SCHED_NONE",
        "is_primary",
        "is_worker",
        "fork",
        "setup_primary",
        "disconnect",
        "wait",
        "cpu_count",
        "counter",
        "supervise",
    }
)
