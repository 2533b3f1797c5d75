"""Named locks across the primary and all its workers: `cluster.locks`.

What lives here: `Locks`, one process's part, and `LockHouse`, the primary's, which decides. What must not: the rules
(`worker_threads._lock_table`, shared with its locks), the lock as its holder sees it (`worker_threads._lock_desk`).

    request ─ LockAsk ─▶ house: LockTable ─ LockTold ─▶ the awaiter
    a worker is gone ─▶ the house releases all that it held or waited for
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from ..._wire import forks as wire
from ...loop import AnyOperation, ErrorFirst, begin
from ...worker_threads._lock_desk import Lock
from ...worker_threads._lock_table import GRANTED, STOLEN, Key, LockTable, Mode, Request, Verdict, check_request


class LockInfo(NamedTuple):
    """A lock that is held or waited for. `worker` is the id of who; 0 is the primary."""

    name: str
    mode: str
    worker: int


class LockSnapshot(NamedTuple):
    """What `cluster.locks.query()` found, oldest first."""

    held: list[LockInfo]
    pending: list[LockInfo]


class Locks:
    """Named locks that the primary and all its workers share.

    Args:
        me: the id of this worker; 0 in the primary.
        ask: sends a word to the house. Raises ChannelClosed when the primary is gone.
    """

    def __init__(self, me: int, ask: Callable[[wire.LockAsk], None]) -> None:
        self._me = me
        self._ask = ask
        self._numbers = itertools.count(1)
        self._thread_id = 0  # of the loop
        self._on_loop: Callable[..., object] = lambda *_: None
        self._wanted: dict[Key, tuple[Lock, AnyOperation[Lock]]] = {}
        self._held: weakref.WeakValueDictionary[Key, Lock] = weakref.WeakValueDictionary()
        self._queries: dict[Key, AnyOperation[LockSnapshot]] = {}

    def request(
        self,
        name: str,
        *,
        mode: Mode = "exclusive",
        if_available: bool = False,
        steal: bool = False,
        callback: ErrorFirst | None = None,
    ) -> Any:
        """Ask for a lock: `async with cluster.locks.request("name") as lock: ...`, or `lock.release()`.

        First come, first served. A cancelled request is withdrawn; a worker that ends, killed or not, loses what it holds.

        Args:
            mode: "exclusive", or "shared" with others that ask for "shared".
            if_available: do not wait; the lock that comes is then false.
            steal: take it from whoever holds it; they learn of it by `lock.is_stolen`, and LockStolen at the end of their
                `async with`.

        Raises:
            ChannelClosed: the primary is gone, or this worker has disconnected.
        """
        check_request(name, mode, if_available, steal)
        key = (self._me, next(self._numbers))
        op: AnyOperation[Lock] = begin(callback)
        self._thread_id, self._on_loop = threading.get_ident(), op._hub.loop.call_soon_threadsafe
        self._wanted[key] = (Lock(self, key, name, mode), op)
        op._stop = lambda: self.release(key)
        self._try(op, wire.LockAsk("request", Request(key, name, mode, if_available, steal)))
        return op

    def query(self, *, callback: ErrorFirst | None = None) -> Any:
        """Look at all locks: an operation that gives a LockSnapshot (held, pending)."""
        op: AnyOperation[LockSnapshot] = begin(callback)
        key = (self._me, next(self._numbers))
        self._queries[key] = op
        self._try(op, wire.LockAsk("query", key))
        return op

    def _try(self, op: AnyOperation[Any], ask: wire.LockAsk) -> None:
        try:
            self._ask(ask)
        except Exception as error:
            op._hub.loop.call_soon(op._fail, error)

    def release(self, key: Key) -> None:
        """A lock is let go, or waited for no longer (for `Lock`, which may be collected on any thread)."""
        if threading.get_ident() != self._thread_id:
            self._on_loop(self.release, key)
            return
        self._wanted.pop(key, None)
        self._held.pop(key, None)
        try:
            self._ask(wire.LockAsk("release", key))
        except Exception:  # the primary is gone, and its locks with it
            pass

    def told(self, message: wire.LockTold) -> None:
        """The house has answered."""
        key, word, about = message
        if word == "snapshot":
            if (query := self._queries.pop(key, None)) is not None:
                query._succeed(LockSnapshot(*([LockInfo(*each) for each in infos] for infos in about)))
        elif word == STOLEN:
            if (stolen := self._held.pop(key, None)) is not None:
                stolen.is_stolen = True
        elif (wanted := self._wanted.pop(key, None)) is not None:  # else it was cancelled: the release is on its way
            lock, op = wanted
            if word == GRANTED:
                self._held[key] = lock
            else:
                lock._key = None
            if not op._succeed(lock):
                lock.release()

    def lost(self, error: BaseException) -> None:
        """The primary is gone: nothing will be answered."""
        waiting = [*self._queries.values(), *(op for _, op in self._wanted.values())]
        self._queries.clear()
        self._wanted.clear()
        for op in waiting:
            op._fail(error)


class LockHouse:
    """All locks, in the primary.

    Args:
        tell: tells a worker, or the primary's own `Locks` (id 0).
    """

    def __init__(self, tell: Callable[[int, wire.LockTold], None]) -> None:
        self._table = LockTable()
        self._tell = tell
        self._keys: dict[int, set[Key]] = {}  # of each worker: what it may hold or wait for

    def ask(self, worker: int, ask: wire.LockAsk) -> None:
        """Take what a worker says; its keys are its own, whatever it claims."""
        if ask.word == "request":
            request = Request(*ask.about)
            self._keys.setdefault(worker, set()).add(request.key)
            self._decide(self._table.request(request._replace(key=(worker, request.key[1]))))
        elif ask.word == "release":
            self._release((worker, ask.about[1]))
        else:
            about = tuple(
                [(each.name, each.mode, each.key[0]) for each in requests] for requests in self._table.query()
            )
            self._tell(worker, wire.LockTold((worker, ask.about[1]), "snapshot", about))

    def gone(self, worker: int) -> None:
        """A worker has ended."""
        for key in self._keys.pop(worker, ()):
            self._decide(self._table.release(key))

    def _release(self, key: Key) -> None:
        self._keys.get(key[0], set()).discard(key)
        self._decide(self._table.release(key))

    def _decide(self, verdicts: list[Verdict]) -> None:
        for verdict in verdicts:
            if verdict.word != GRANTED:
                self._keys.get(verdict.key[0], set()).discard(verdict.key)
            self._tell(verdict.key[0], wire.LockTold(verdict.key, verdict.word))
