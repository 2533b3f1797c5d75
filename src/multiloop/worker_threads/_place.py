"""Where code runs: in the main program, or in one worker.

What lives here: `Place`, and `current()`, which finds the one of the calling thread. What must not: sockets, loops,
imports of anything heavy: this is part of the start of every worker.

A process and an interpreter are one place each. A worker of the kind `thread` shares its interpreter with others, so its
place is found through the thread; threads that it starts itself belong to the main place.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    from ..loop import Hub
    from ._exchange import Exchange
    from ._link import Link
    from ._port import MessagePort
    from ._shared import SharedBuffer

_NESTED = 1_000_000  # more workers than one worker ever starts: ids of nested ones are made of their parents' ids


class Place:
    """What belongs to the main program or to one worker."""

    def __init__(self, thread_id: int = 0, name: str = "main", kind: str | None = None) -> None:
        self.thread_id = thread_id
        self.name = name
        self.kind = kind  # None in the main program
        self.worker_data: Any = None
        self.resource_limits: dict[str, float] = {}
        self.environment: dict[Any, Any] = {}
        self.control: Link | None = None  # to the parent's place
        self.parent_port: MessagePort | None = None
        self.make_parent_port: Callable[[], MessagePort] | None = None  # on first use: it needs asyncio
        self.exchange: Exchange | None = None  # broadcast and locks; made on first use
        self.buffers: weakref.WeakValueDictionary[bytes, SharedBuffer] = weakref.WeakValueDictionary()
        self.ports: weakref.WeakSet[Any] = weakref.WeakSet()  # open ports and broadcast channels
        self.hub: weakref.ref[Hub] | None = None  # of the loop that was started here last
        self.is_stopping = False  # a worker thread was asked to stop
        self.waiting_for_loop: list[Callable[[], None]] = []  # what attaches itself to the next loop that runs here
        self.at_end: list[Callable[[], None]] = []  # called when the worker ends, last added first
        self._children = itertools.count(1)

    @property
    def is_main(self) -> bool:
        return self.kind is None

    def next_thread_id(self) -> int:
        """An id for a new worker: unique in the whole tree without asking anybody."""
        return self.thread_id * _NESTED + next(self._children)

    def port_to_parent(self) -> MessagePort | None:
        """The worker's end of the channel to its parent; None in the main program."""
        if self.parent_port is None and self.make_parent_port is not None:
            self.parent_port = self.make_parent_port()
        return self.parent_port


class _OfThread(threading.local):
    place: Place | None = None


_root = Place()
_of_thread = _OfThread()


def parent_of(thread_id: int) -> int:
    """The id of the place that started a worker."""
    return thread_id // _NESTED


def current() -> Place:
    """The place that the calling thread belongs to."""
    return _of_thread.place or _root


def become(place: Place) -> None:
    """Make this process or interpreter a worker's place."""
    global _root
    _root = place


def enter_thread(place: Place | None) -> None:
    """Make the calling thread a worker's place; None: it is one no more."""
    _of_thread.place = place


def get_environment_data(key: Any) -> Any:
    """Return what `set_environment_data` set under this key, here or in a parent before this worker started."""
    return current().environment.get(key)


def set_environment_data(key: Any, value: Any) -> None:
    """Give every worker that is started from here later a copy of `value`, and so on downwards. None deletes it.

    Raises UsageError for a key that is not hashable; a value that cannot be pickled is refused when a worker starts.
    """
    try:
        hash(key)
    except TypeError as error:
        raise UsageError(f"set_environment_data: the key {key!r} is not hashable") from error
    if value is None:
        current().environment.pop(key, None)
    else:
        current().environment[key] = value
