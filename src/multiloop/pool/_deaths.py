"""What the tasks of a dead worker or a broken pool are told.

What lives here: making those errors. What must not: deciding who gets one.

Code that was written for concurrent.futures catches BrokenExecutor or BrokenProcessPool: our errors are those, too,
where the program has them (the latter's module loads all of multiprocessing, which we do not).
"""

from __future__ import annotations

import signal
import sys
from concurrent.futures import BrokenExecutor
from typing import Any

from ..errors import PoolBroken, WorkerDied


class _WorkerDied(WorkerDied, BrokenExecutor):
    def __reduce__(self) -> Any:
        return WorkerDied, (str(self),), {"exit_code": self.exit_code, "signal": self.signal}


class _PoolBroken(PoolBroken, BrokenExecutor):
    def __reduce__(self) -> Any:
        return PoolBroken, (str(self),)


for _kind, _shown in ((_WorkerDied, WorkerDied), (_PoolBroken, PoolBroken)):
    _kind.__name__ = _kind.__qualname__ = _shown.__name__
    _kind.__module__ = _shown.__module__


_with_process_pool: dict[type[Any], type[Any]] = {}


def _known_here(kind: type[Any]) -> type[Any]:
    if "concurrent.futures.process" not in sys.modules:
        return kind
    made = _with_process_pool.get(kind)
    if made is None:
        from concurrent.futures.process import BrokenProcessPool

        made = type(kind.__name__, (kind, BrokenProcessPool), {"__module__": kind.__module__})
        _with_process_pool[kind] = made
    return made


def worker_died(what: str, exit_code: int | None, running: str) -> WorkerDied:
    """Return the error of the task that a worker was running when it ended by itself or by somebody else's signal."""
    doing = f" while it ran {running}" if running else ""
    made: WorkerDied
    if exit_code is not None and exit_code < 0:
        name = signal_name(-exit_code)
        hint = " (was the machine out of memory?)" if name == "SIGKILL" else ""
        made = _known_here(_WorkerDied)(f"{what} was killed by {name}{doing}{hint}", signal=name)
    else:
        made = _known_here(_WorkerDied)(f"{what} ended with exit code {exit_code}{doing}", exit_code=exit_code)
    return made


def worker_gone(text: str) -> WorkerDied:
    """Return the error of the task that a worker on another machine was running when it ended."""
    made: WorkerDied = _known_here(_WorkerDied)(text)
    return made


def pool_broken(why: str) -> PoolBroken:
    """Return the error of all tasks of a pool whose workers cannot start."""
    made: PoolBroken = _known_here(_PoolBroken)(f"the pool is broken: {why}")
    return made


def signal_name(number: int) -> str:
    """Return SIGKILL for 9, and the number itself for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
