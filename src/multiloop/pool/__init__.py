"""The pool: CPU-bound functions in workers beside the loop, awaited.

What lives here: public names, found late, because a worker imports this package before anything else. The parts:

* faces: `_pool` `_executor` `_default` `_offloaded` `_iterate` `_streams`; inside of a task: `_inside` `_context`
* the way of a task: `_calls` → `_tasks` → `_core` → `_queue` → `_engine_local` (`_assign`) → `_link` ║ `_worker_main`
* workers: `_crew` `_bodies` `_spawn` ║ `_worker_boot`
* both ends: `_protocol` `_page` `_rights` `_values`; exceptions: `worker_threads._failures`

    pool.run → _queue → _assign → the worker's socket ║ worker main → function ║ result → awaiter
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..errors import RemoteTraceback
    from ._context import traceparent
    from ._default import default_pool, map, options, run, statistics, stream, submit  # noqa: A004
    from ._inside import report, stop_requested, stop_within
    from ._machine import inside_server, usable_cores
    from ._offloaded import Offloaded, offloaded
    from ._pool import Pool

__all__ = [
    "Offloaded",
    "Pool",
    "RemoteTraceback",
    "default_pool",
    "inside_server",
    "map",
    "offloaded",
    "options",
    "report",
    "run",
    "statistics",
    "stop_requested",
    "stop_within",
    "stream",
    "submit",
    "traceparent",
    "usable_cores",
]

_HOMES = {
    "._context": ("traceparent",),
    "._default": ("default_pool", "map", "options", "run", "statistics", "stream", "submit"),
    "._inside": ("report", "stop_requested", "stop_within"),
    "._machine": ("inside_server", "usable_cores"),
    "._offloaded": ("Offloaded", "offloaded"),
    "._pool": ("Pool",),
    "..errors": ("RemoteTraceback",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(module, __name__), name)
    return value
