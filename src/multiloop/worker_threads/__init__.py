"""Worker threads: code beside the loop, in processes, interpreters or threads, and messages between them.

What lives here: the public names, found late: a worker's start loads only what it uses. What must not: code.

`is_main_thread`, `parent_port`, `thread_id` and `worker_data` are looked up at each use: they belong to the worker whose
thread asks.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import locks
    from ._atomic_ops import Atomics
    from ._broadcast import BroadcastChannel
    from ._cpu import CpuUsage
    from ._direct import off, on, once, post_message_to_thread
    from ._inbox import Received, receive_message_on_port
    from ._marks import (
        is_marked_as_uncloneable,
        is_marked_as_untransferable,
        mark_as_uncloneable,
        mark_as_untransferable,
    )
    from ._place import get_environment_data, set_environment_data
    from ._port import MessageChannel, MessagePort
    from ._shared import SharedBuffer
    from ._worker import Worker
    from ._zombies import Zombie, zombies

    is_main_thread: bool
    parent_port: MessagePort | None
    resource_limits: dict[str, float]
    thread_id: int
    thread_name: str
    worker_data: Any

__all__ = [
    "Atomics",
    "BroadcastChannel",
    "CpuUsage",
    "MessageChannel",
    "MessagePort",
    "Received",
    "SharedBuffer",
    "Worker",
    "Zombie",
    "get_environment_data",
    "is_main_thread",
    "is_marked_as_uncloneable",
    "is_marked_as_untransferable",
    "locks",
    "mark_as_uncloneable",
    "mark_as_untransferable",
    "off",
    "on",
    "once",
    "parent_port",
    "post_message_to_thread",
    "receive_message_on_port",
    "resource_limits",
    "set_environment_data",
    "thread_id",
    "thread_name",
    "worker_data",
    "zombies",
]

_HOMES = {
    "Atomics": "_atomic_ops",
    "BroadcastChannel": "_broadcast",
    "CpuUsage": "_cpu",
    "MessageChannel": "_port",
    "MessagePort": "_port",
    "Received": "_inbox",
    "SharedBuffer": "_shared",
    "Worker": "_worker",
    "Zombie": "_zombies",
    "get_environment_data": "_place",
    "is_marked_as_uncloneable": "_marks",
    "is_marked_as_untransferable": "_marks",
    "mark_as_uncloneable": "_marks",
    "mark_as_untransferable": "_marks",
    "off": "_direct",
    "on": "_direct",
    "once": "_direct",
    "post_message_to_thread": "_direct",
    "receive_message_on_port": "_inbox",
    "set_environment_data": "_place",
    "zombies": "_zombies",
}
_OF_THE_PLACE = {
    "is_main_thread": "is_main",
    "resource_limits": "resource_limits",
    "thread_id": "thread_id",
    "thread_name": "name",
    "worker_data": "worker_data",
}


def __getattr__(name: str) -> Any:
    if name in _OF_THE_PLACE or name == "parent_port":
        from ._place import current

        place = current()
        return place.port_to_parent() if name == "parent_port" else getattr(place, _OF_THE_PLACE[name])
    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    elif name == "locks":
        value = importlib.import_module(".locks", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
