"""The pool that a program has without making one.

What lives here: `default_pool` and the module-level functions that use it. What must not: options of their own.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterable, Callable, Iterable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from ..loop import Operation
from ..stats import PoolStatistics
from . import _machine
from ._iterate import Mapping
from ._pool import Configured, Pool
from ._pools import active
from ._statistics import statistics_of
from ._streams import Stream

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")

_lock = threading.Lock()
_made: Pool | None = None


def default_pool() -> Pool:
    """Return the pool of this process, made now if need be: its share of the machine's cores. It is never closed."""
    global _made
    with _lock:
        if _made is None or _made._core.is_closed:
            _made = Pool(workers=_machine.share_of_cores(), name="default")
        return _made


def run(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Operation[T]:
    """Run `function(*args, **kwargs)` in a worker of the default pool: see `Pool.run`."""
    return (_made or default_pool()).run(function, *args, **kwargs)


def submit(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Run a function in a worker of the default pool and return a Future: see `Pool.submit`."""
    return default_pool().submit(function, *args, **kwargs)


def map(  # noqa: A001
    function: Callable[[Item], T],
    items: Iterable[Item] | AsyncIterable[Item],
    *,
    ordered: bool = True,
    buffer: int | None = None,
    progress: bool = False,
) -> Mapping[T]:
    """Run a function for every item in workers of the default pool: see `Pool.map`."""
    return default_pool().map(function, items, ordered=ordered, buffer=buffer, progress=progress)


def stream(function: Callable[P, Iterable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
    """Iterate what a generator function yields in a worker of the default pool: see `Pool.stream`."""
    return default_pool().stream(function, *args, **kwargs)


def options(**given: Any) -> Configured:
    """Return the default pool with options for its tasks: see `Pool.options`."""
    return default_pool().options(**given)


def statistics() -> list[PoolStatistics]:
    """Return a snapshot of every pool of this process that has workers."""
    return [statistics_of(core) for core in active()]
