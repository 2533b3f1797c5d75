"""What a pool and a task can be told: frozen, checked once.

What lives here: `PoolConfig` and `TaskOptions` with their checks. What must not: what is done with them.
"""

from __future__ import annotations

import _pickle
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import UsageError
from . import _machine
from ._far_cluster import Resources

Kind = Literal["auto", "process", "interpreter", "thread"]
KINDS = ("auto", "process", "interpreter", "thread")


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How one task is run; `pool.options(...)` makes it. None of `timeout` means the pool's `task_timeout`."""

    timeout: float | None = None
    priority: int = 0
    block: bool = False
    idempotent: bool = False
    on_report: Callable[[Any], Any] | None = None
    callback: Callable[[BaseException | None, Any], Any] | None = None

    def __post_init__(self) -> None:
        check_positive("timeout", self.timeout)
        check_whole("priority", self.priority)
        for name in ("on_report", "callback"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise TypeError(f"{name}={value!r} is not callable")


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """What `Pool(...)` was given, checked, with defaults filled in. See `Pool` for the meaning."""

    workers: int
    kind: Kind
    kind_reason: str
    engine: Executor | None  # somebody else's, on this machine …
    cluster: Any  # … or a FarCluster: workers on other machines
    engine_name: str
    name: str
    max_queue: int | None
    nice: int | None
    cores: tuple[frozenset[int], ...]
    task_timeout: float | None
    recycle_after_tasks: int | None
    recycle_above_rss: int | None
    recycle_after_age: float | None
    initializer: bytes | None  # pickles of (function, arguments) and of a function
    finalizer: bytes | None
    context: tuple[str, ...]
    warm: bool


def check_workers(workers: int | None) -> int:
    """Return the number of workers; None is one for each core that this process may use."""
    if workers is None:
        return _machine.usable_cores()
    check_whole("workers", workers)
    if workers <= 0:
        raise ValueError(f"workers={workers}: at least 1")
    return workers


def check_engine(engine: Any, resources: Resources) -> tuple[Executor | None, Any, str]:
    """Return the executor that runs the tasks or the cluster that does (both None for our own workers), and its name.

    Raises UsageError for an engine that is unknown, not installed, or does not take resources.
    """
    if isinstance(engine, str):
        kind, _, rest = engine.partition("://")
        if engine == "ray" or (kind == "ray" and rest):
            from ._engine_ray import RayCluster

            return None, RayCluster(engine, resources), "ray"
        if kind == "dask" and rest:
            from ._engine_dask import DaskCluster

            return None, DaskCluster(engine, resources), "dask"
    if engine != "local" and not isinstance(engine, Executor):
        raise UsageError(
            f"engine={engine!r} is unknown: 'local', 'ray', 'ray://host:port', 'dask://host:port', or a "
            "concurrent.futures.Executor"
        )
    if resources:
        raise UsageError(
            "cpus, gpus, memory and resources are asked of an engine on other machines: 'ray' or 'dask://…'"
        )
    return (None, None, "local") if engine == "local" else (engine, None, type(engine).__name__)


def check_resources(cpus: Any, gpus: Any, memory: Any, others: Mapping[str, Any] | None) -> Resources:
    """Return what each worker asks of the engine."""
    for name, value in {"cpus": cpus, "gpus": gpus, "memory": memory, **(others or {})}.items():
        if value is not None and (not isinstance(value, int | float) or value < 0):
            raise ValueError(f"{name}={value!r}: a number that is not negative, or None")
    return Resources(cpus, gpus, memory, tuple((others or {}).items()))


def choose_kind(kind: str, has_engine: bool = False) -> tuple[Kind, str]:
    """Return the kind of the workers and why. Raises UsageError for one that does not work here."""
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: one of {', '.join(map(repr, KINDS))}")
    if sys.platform == "win32" and not has_engine:
        raise UsageError("pool: workers need Unix sockets with descriptors, which Windows does not have")
    if kind in ("auto", "process"):
        # Only a process can be stopped whatever it runs, and takes every package; so nothing else is ever chosen.
        return "process", "asked for" if kind == "process" else "a task in a process can always be stopped"
    if kind == "interpreter" and sys.version_info < (3, 14):
        raise UsageError("kind='interpreter' needs Python 3.14 or newer: use kind='process'")
    return kind, "asked for"  # type: ignore[return-value]


def check_cores(cores: Any) -> tuple[frozenset[int], ...]:
    """Return the sets of cores, one for each worker in turn; empty for no pinning."""
    if cores is None:
        return ()
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("cores=...: this system cannot pin processes to cores")
    allowed = os.sched_getaffinity(0)
    if cores == "spread":
        return tuple(frozenset({core}) for core in sorted(allowed))
    sets = tuple(frozenset({core}) if isinstance(core, int) else frozenset(core) for core in cores)
    if not sets or not all(sets):
        raise ValueError(f"cores={cores!r}: 'spread', or a core or set of cores for each worker in turn")
    missing = frozenset().union(*sets) - allowed
    if missing:
        raise ValueError(f"cores={cores!r}: this process may not use {sorted(missing)}, only {sorted(allowed)}")
    return sets


def check_hook(name: str, function: Any, value: Any) -> bytes | None:
    """Return the pickle of an initializer or finalizer. Raises UsageError for one that a worker cannot get."""
    if function is None:
        return None
    if not callable(function):
        raise TypeError(f"{name}={function!r} is not callable")
    try:
        return _pickle.dumps(value, 5)
    except Exception as error:
        raise UsageError(f"{name}={function!r} cannot be sent to a worker: {error}") from error


def check_whole(name: str, value: Any) -> None:
    """Raise TypeError for what is no whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: a whole number")


def check_positive(name: str, value: Any) -> Any:
    """Return `value`, a number above 0 or None."""
    if value is not None and not (isinstance(value, int | float) and value > 0):
        raise ValueError(f"{name}={value!r}: a number above 0, or None")
    return value


def check_names(context: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the context variables to carry."""
    if isinstance(context, str):
        raise TypeError(f"context={context!r}: a list of names")
    return tuple(context)


def check_fit(config: PoolConfig) -> None:
    """Raise UsageError for options that this kind of worker or this engine cannot keep."""
    if config.engine is not None:
        given = {
            "kind": config.kind_reason == "asked for",
            "nice": config.nice is not None,
            "task_timeout": config.task_timeout is not None,
            "recycle_after_tasks": config.recycle_after_tasks is not None,
            "recycle_above_rss": config.recycle_above_rss is not None,
            "recycle_after_age": config.recycle_after_age is not None,
            "initializer": config.initializer is not None,
            "finalizer": config.finalizer is not None,
            "cores": bool(config.cores),
            "warm": config.warm,
        }
        for name, is_given in given.items():
            if is_given:
                raise UsageError(
                    f"{name}=... cannot be kept with an executor as engine, which has workers of its own: "
                    f"give it to {type(config.engine).__name__}, or use engine='local'"
                )

    if config.cluster is not None:
        for name, is_given in {"kind": config.kind_reason == "asked for", "cores": bool(config.cores)}.items():
            if is_given:
                raise UsageError(
                    f"{name}=... cannot be kept on other machines, whose workers are {config.engine_name}'s"
                )
    elif config.kind != "process":
        given = {
            "nice": config.nice is not None,
            "cores": bool(config.cores),
            "recycle_above_rss": config.recycle_above_rss is not None,
        }
        for name, is_given in given.items():
            if is_given:
                raise UsageError(f"{name}=... belongs to a whole process: use kind='process', not {config.kind!r}")

    if config.recycle_above_rss is not None and config.cluster is None and not os.path.exists("/proc/self/statm"):
        raise UsageError("recycle_above_rss=...: this system does not tell the memory of a process")


def check_task_fit(config: PoolConfig, options: TaskOptions) -> None:
    """Raise UsageError for options of a task that this engine cannot keep."""
    if config.engine is not None:
        for name in ("timeout", "on_report"):
            if getattr(options, name) is not None:
                raise UsageError(f"{name}=... cannot be kept with an executor as engine: use engine='local'")
        if options.idempotent:
            raise UsageError("idempotent=True cannot be kept with an executor as engine: use engine='local'")
