"""Each place's part in the named locks of a tree of workers.

What lives here: the lock as its holder sees it, and the desk that passes words on towards the main place. What must not:
the rules (`_lock_table`), the public functions (`locks`).

    request ─▶ desk ─ up ─▶ … ─▶ main place: LockTable ─ down ─▶ … ─▶ desk ─▶ the awaiter
    a worker has ended ─▶ its parent releases, upwards, all that came from it
"""

from __future__ import annotations

import itertools
import pickle
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from ..errors import LockStolen
from ..loop import AnyOperation, ErrorFirst, begin
from ._exchange import Exchange
from ._link import Link
from ._lock_table import GRANTED, STOLEN, Key, LockTable, Request, Verdict
from ._place import Place
from ._words import LOCK


class LockInfo(NamedTuple):
    """A lock that is held or waited for. `thread_id` is the worker's; 0 is the main program."""

    name: str
    mode: str
    thread_id: int


class LockSnapshot(NamedTuple):
    """What `locks.query()` found, oldest first."""

    held: list[LockInfo]
    pending: list[LockInfo]


class Desk(Protocol):
    """Where a lock is let go."""

    def release(self, key: Key) -> None:
        """It is let go."""


class Lock:
    """A lock that `locks.request` gave. Leave its `async with`, or call `release()`. False when it was not available.

    It is released when it is dropped, and when its worker ends, however that ends.
    """

    __slots__ = ("__weakref__", "_desk", "_key", "is_stolen", "mode", "name")

    def __init__(self, desk: Desk, key: Key | None, name: str, mode: str) -> None:
        self._desk = desk
        self._key = key
        self.name = name
        self.mode = mode
        self.is_stolen = False  # somebody took it with steal=True

    @property
    def held(self) -> bool:
        """Whether it is held now."""
        return self._key is not None and not self.is_stolen

    def __bool__(self) -> bool:
        return self.held

    def release(self) -> None:
        """Let the next have it. Safe to call twice."""
        key, self._key = self._key, None
        if key is not None:
            self._desk.release(key)

    async def __aenter__(self) -> Lock:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        if self.is_stolen and error is None:
            raise LockStolen(f"the lock {self.name!r} was stolen while it was held")

    def __del__(self) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "stolen" if self.is_stolen else "held" if self._key is not None else "not held"
        return f"<Lock {self.name!r} {self.mode} {state}>"


class _Wanted(NamedTuple):
    lock: Lock
    op: AnyOperation[Lock]


class LockDesk:
    """One place's part in the locks: its own requests, and those that pass through it from below."""

    def __init__(self, place: Place, exchange: Exchange) -> None:
        self._place = place
        self._exchange = exchange
        self._numbers = itertools.count(1)
        self._wanted: dict[Key, _Wanted] = {}
        self._held: weakref.WeakValueDictionary[Key, Lock] = weakref.WeakValueDictionary()
        self._queries: dict[Key, AnyOperation[LockSnapshot]] = {}
        self._from: dict[Key, Link] = {}  # which child a request came from
        self._table = LockTable() if place.control is None else None

    # -- this place's own ------------------------------------------------------------------------------------------
    def request(self, name: str, mode: str, if_available: bool, steal: bool, callback: ErrorFirst | None) -> Any:
        op: AnyOperation[Lock] = begin(callback)
        key = (self._place.thread_id, next(self._numbers))
        self._wanted[key] = _Wanted(Lock(self, key, name, mode), op)
        op._stop = lambda: self.release(key)
        self._exchange.use()
        self._ask("request", Request(key, name, mode, if_available, steal))
        return op

    def release(self, key: Key) -> None:
        self._wanted.pop(key, None)
        self._held.pop(key, None)
        self._ask("release", key)

    def query(self, callback: ErrorFirst | None) -> Any:
        op: AnyOperation[LockSnapshot] = begin(callback)
        key = (self._place.thread_id, next(self._numbers))
        self._queries[key] = op
        self._exchange.use()
        self._ask("query", key)
        return op

    # -- up --------------------------------------------------------------------------------------------------------
    def _ask(self, word: str, about: Any) -> None:
        if self._table is None:
            assert self._place.control is not None
            self._place.control.send(LOCK, pickle.dumps((word, about), 5))
            return
        with self._exchange._lock:
            if word == "request":
                verdicts = self._table.request(about)
            elif word == "release":
                verdicts = self._table.release(about)
            else:
                held, waiting = self._table.query()
                self._answer("answer", (about, held, waiting), about)
                return
        for verdict in verdicts:
            self._answer("verdict", verdict, verdict.key)

    def arrived(self, link: Link, body: Any) -> None:
        """A word about locks came from a neighbour."""
        word, about = pickle.loads(body)
        if link is self._place.control:
            self._answer(word, about, about[0])
            return
        if word == "release":
            self._from.pop(about, None)
        else:
            self._from[about.key if word == "request" else about] = link
        self._ask(word, about)

    def neighbour_left(self, link: Link) -> None:
        """A worker has ended: everything that it, or a worker of its own, held or waited for is free."""
        for key in [key for key, origin in self._from.items() if origin is link]:
            del self._from[key]
            self._ask("release", key)

    # -- down ------------------------------------------------------------------------------------------------------
    def _answer(self, word: str, about: Any, key: Key) -> None:
        link = self._from.get(key)
        if link is not None:
            if word == "answer" or about[1] != GRANTED:
                del self._from[key]
            link.send(LOCK, pickle.dumps((word, about), 5))
        elif word == "answer":
            self._answered(key, LockSnapshot(_infos(about[1]), _infos(about[2])))
        else:
            self._decided(Verdict(*about))

    def _answered(self, key: Key, snapshot: LockSnapshot) -> None:
        op = self._queries.pop(key, None)
        if op is not None:
            _on_its_loop(op, lambda: op._succeed(snapshot))

    def _decided(self, verdict: Verdict) -> None:
        key, word = verdict
        if word == STOLEN:
            lock = self._held.pop(key, None)
            if lock is not None:
                lock.is_stolen = True
            return
        wanted = self._wanted.pop(key, None)
        if wanted is None:
            return  # cancelled: the release is on its way
        if word == GRANTED:
            self._held[key] = wanted.lock
        else:
            wanted.lock._key = None
        _on_its_loop(wanted.op, lambda: self._give(wanted))

    def _give(self, wanted: _Wanted) -> None:
        if not wanted.op._succeed(wanted.lock):
            wanted.lock.release()


def _infos(requests: list[Request]) -> list[LockInfo]:
    return [LockInfo(each[1], each[2], each[0][0]) for each in requests]


def _on_its_loop(op: AnyOperation[Any], settle: Callable[[], object]) -> None:
    """Settle an operation later, on its loop: the answer may come inside the call that asks, or on another thread."""
    try:
        op._hub.loop.call_soon_threadsafe(settle)
    except RuntimeError:  # that loop is closed
        pass
