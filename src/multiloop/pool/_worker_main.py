"""A worker: reads tasks from its socket, runs them one after the other, writes each result before it begins the next.

What lives here: `Worker` (the same in a process, an interpreter or a thread) and its loop. What must not: how the
worker came to life (`_worker_boot`), what users call from a task (`_inside`), any import that its start would feel.

Waiting: a worker that got its last task quickly after the one before looks at the parcel word for at most 100 µs before
it sleeps, because waking a sleeping core takes longer than a tiny task. One that waited long sleeps at once.
Where others want its core it does not look at all: whoever is always awake has used up its turn when it is needed, and
waits for milliseconds, while a sleeper is let in at once. It does not yield either, which costs it its turn, too.
"""

from __future__ import annotations

import _pickle
import _socket
import errno
import sys
import time
from _thread import allocate_lock
from collections import deque
from itertools import repeat
from marshal import dumps as marshal_dumps
from marshal import loads as marshal_loads
from typing import Any

from ..worker_threads._failures import pack_error
from . import _protocol as protocol
from ._page import Page
from ._protocol import (
    FINISHED,
    HELD,
    HELD_TURN,
    IS_PLAIN,
    IS_SINGLE,
    IS_STREAM,
    REVOKED_FROM,
    REVOKED_TO,
    SENT,
    STARTED,
    STARTED_NS,
)
from ._rights import LOST, Parcel, claim, close_all, descriptors_of, rights_of
from ._runner import Runner, define
from ._values import pack, unpack

_SPIN_NS = 100_000  # awake at most this long after a task
_SPIN_AGAIN_NS = 200_000  # a wait shorter than this makes the next one begin awake
_INTERRUPTED_NS = 200_000  # a step of the look that takes so long: somebody else needs this core
_CALM_NS = 50_000_000  # then it sleeps at once for this time, doubled …
_CALM_MOST_NS = 2_000_000_000  # … up to this while it goes on
_READ_BYTES = 128 * 1024
_TINY_NS = 20_000  # a task that took no longer may be followed by another before its result is sent
_HOLD_NS = 100_000  # but not for longer than this
_HELD_MOST_BYTES = 1024
_HELD_ENOUGH_BYTES = protocol.JOURNAL_BYTES - _HELD_MOST_BYTES - protocol.FROM_WORKER.size
_JOIN_BYTES = 64 * 1024  # up to this size copying a result behind its head is cheaper than a second write

_Task = tuple[int, int, int, Any]  # number, function, flags, call
_head = protocol.FROM_WORKER.pack
_now = time.monotonic_ns


class PoolGone(Exception):
    """The pool closed its end of the socket."""


class Worker(Runner):
    """One worker's state and loop."""

    def __init__(
        self, socket: _socket.socket, page: Page, *, may_spin: bool, ends_with: tuple[type[BaseException], ...] = ()
    ) -> None:
        super().__init__(page.words)
        self._ends_with = ends_with  # what is raised in a worker that is no process to end it
        self._journal = page.journal
        self._held = 0  # bytes of it
        self._held_since = 0
        self._is_spinner = may_spin
        self._socket = socket
        self._tasks: deque[_Task] = deque()
        self._parcels: deque[Parcel] = deque()  # of the tasks that are parcels
        self._came: deque[list[int]] = deque()  # descriptors, by the message that brought them
        self._boot: Any = None
        self._leave = False
        self.is_forked = False
        self._write_lock = allocate_lock()  # user threads may report while a result is written
        self._buffer = bytearray(_READ_BYTES)
        self._filled = 0
        self._received = 0  # bytes
        self._may_spin = False
        self._calm = _CALM_NS
        self._calm_from = 0

    # -- the loop --------------------------------------------------------------------------------------------------
    def boot_options(self) -> Any:
        """Wait for the BOOT frame and return its dictionary. Raises PoolGone."""
        while self._boot is None:
            self._read()
        return self._boot

    def serve(self) -> None:
        """Run tasks until the pool says EXIT or is gone."""
        words, tasks, functions = self.words, self._tasks, self._functions
        journal, lock, ends_with = self._journal, self._write_lock, self._ends_with
        while not self._leave:
            while tasks:
                number, function, flags, call = tasks.popleft()
                words[STARTED_NS] = began = _now()
                words[STARTED] = number
                if words[REVOKED_TO] > number >= words[REVOKED_FROM]:
                    self._skip(number, flags)
                    continue
                try:
                    if flags == IS_SINGLE:
                        value = functions[function](call)
                    elif flags == IS_PLAIN:
                        value = functions[function](*call)
                    elif flags == 0:
                        value = functions[function](*_pickle.loads(call))
                    else:
                        value = self._run_other(number, function, flags, call)
                    if type(value) in protocol.PLAIN_TYPES:
                        kind, body, parcel = protocol.PLAIN, marshal_dumps(value, 2), None
                    else:
                        kind, (body, parcel) = protocol.VALUE, _pack(value, "the result")
                except ends_with:
                    raise
                except BaseException as error:
                    kind, body, parcel = protocol.FAILED, pack_error(error), None
                ended = _now()
                held = self._held
                if (
                    ended - began < _TINY_NS
                    and tasks
                    and tasks[0][1] == function  # another like it follows, which will be as short
                    and parcel is None
                    and len(body) <= _HELD_MOST_BYTES
                    and held < _HELD_ENOUGH_BYTES
                    and not flags & IS_STREAM
                ):
                    with lock:
                        frame = _head(kind, len(body), number, began, ended) + body
                        until = held + len(frame)
                        journal[held:until] = frame
                        self._held = words[HELD] = until
                        if not held:
                            self._held_since = ended
                        elif ended - self._held_since > _HOLD_NS:
                            self._release_held()
                else:
                    self._write(kind, body, parcel, number, began, ended)
                words[FINISHED] = number
                del body, parcel
                value = call = None  # nothing of a task stays alive while the worker waits
            try:
                self._wait()
            except PoolGone:
                return

    def forget(self) -> None:
        """In a forked child: let nothing of the worker be touched. This ends the loop if the task returns here."""
        self.is_forked = True
        self._pool_is_gone()
        self._socket.close()
        self.words.release()

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def _wait(self) -> None:
        """Read more, after a short look whether more is on its way."""
        idle_since = _now()
        if self._may_spin and idle_since > self._calm_from:
            self._look(idle_since)
        self._read()
        self._may_spin = self._is_spinner and _now() - idle_since < _SPIN_AGAIN_NS

    def _look(self, now: int) -> None:
        """Stay awake until more has been sent, for a moment."""
        words, received = self.words, self._received
        until = now + _SPIN_NS
        while words[SENT] <= received:
            for _ in range(16):
                if words[SENT] > received:
                    return
            before, now = now, _now()
            if now - before > _INTERRUPTED_NS:
                self._calm_from = now + self._calm
                self._calm = min(2 * self._calm, _CALM_MOST_NS)
                return
            if now > until:
                break
        self._calm = max(_CALM_NS, self._calm - _CALM_NS // 1000)

    # -- what the runner asks for ----------------------------------------------------------------------------------
    def _load(self, flags: int, call: Any) -> Any:
        if flags & protocol.IS_PARCEL:
            kind, descriptors = self._parcels.popleft()
            if kind == LOST:
                raise OSError(errno.EMFILE, "this worker has too many open files to receive the task's arguments")
            return unpack(kind, call, descriptors)
        return call if flags & IS_PLAIN else _pickle.loads(call)

    def _send(self, kind: int, value: Any, what: str, number: int) -> None:
        body, parcel = _pack(value, what)
        self._write(kind, body, parcel, number)

    def _wait_for_credit(self, number: int) -> None:
        self._read()

    def _skip(self, number: int, flags: int) -> None:
        if flags & protocol.IS_PARCEL:
            close_all(self._parcels.popleft()[1])
        self._write(protocol.SKIPPED, b"", None, number)

    # -- writing ---------------------------------------------------------------------------------------------------
    def announce(self, kind: int, body: bytes = b"") -> None:
        """Send READY or BROKEN."""
        self._write(kind, body, None, 0)

    def _write(
        self, kind: int, body: bytes, parcel: Parcel | None, number: int, began: int = 0, ended: int = 0
    ) -> None:
        try:
            with self._write_lock:
                if self._held:
                    self._release_held()
                if parcel is not None:
                    kind = protocol.AS_PARCEL[kind]
                    self._announce(*parcel)
                head = _head(kind, len(body), number, began, ended)
                if len(body) < _JOIN_BYTES:
                    self._socket.sendall(head + body)
                else:
                    self._socket.sendall(head)
                    self._socket.sendall(body)
        except OSError:
            self._pool_is_gone()
        finally:
            if parcel is not None:
                close_all(parcel[1])

    def _pool_is_gone(self) -> None:
        self._leave = True
        self._tasks.clear()

    def _release_held(self) -> None:
        """Send the results that are held. They stay in the journal until they are sent."""
        words, held = self.words, self._held
        words[HELD_TURN] += 1
        try:
            self._socket.sendall(self._journal[:held])
        except OSError:
            self._pool_is_gone()
        self._held = words[HELD] = 0

    def _announce(self, kind: int, descriptors: list[int]) -> None:
        body = marshal_dumps((kind, len(descriptors)))
        frame = _head(protocol.PARCEL_BEFORE, len(body), 0, 0, 0) + body
        sent = 0
        if descriptors:
            sent = self._socket.sendmsg([frame], rights_of(descriptors))
        self._socket.sendall(frame[sent:])

    # -- reading ---------------------------------------------------------------------------------------------------
    def _read(self) -> None:
        """Wait for bytes and take the frames that are complete. Raises PoolGone at the end."""
        view = memoryview(self._buffer)
        try:
            count, ancillary, flags, _ = self._socket.recvmsg_into([view[self._filled :]], protocol.RIGHTS_BYTES)
        except OSError:
            count, ancillary, flags = 0, [], 0
        if not count:
            self._leave = True
            raise PoolGone
        if ancillary or flags & _socket.MSG_CTRUNC:
            self._came.append(descriptors_of(ancillary))
        self._received += count
        self._filled += count
        self._take_frames(view)

    def _take_frames(self, view: memoryview) -> None:
        position, filled = 0, self._filled
        head = protocol.TO_WORKER
        while filled - position >= head.size:
            kind, size = head.unpack_from(view, position)
            start = position + head.size
            if start + size > filled:
                if head.size + size > len(self._buffer):
                    self._read_large(kind, size, view[start:filled])
                    position = filled
                break
            self._take(kind, view[start : start + size])
            position = start + size
        rest = filled - position
        if rest and position:
            view[:rest] = bytes(view[position:filled])
        self._filled = rest

    def _read_large(self, kind: int, size: int, beginning: memoryview) -> None:
        """Read the rest of a frame that is larger than the buffer into memory of its own."""
        body = bytearray(size)
        view = memoryview(body)
        view[: len(beginning)] = beginning
        at = len(beginning)
        while at < size:
            count = self._socket.recv_into(view[at:])
            if not count:
                self._leave = True
                raise PoolGone
            at += count
            self._received += count
        self._take(kind, view)

    def _take(self, kind: int, body: memoryview) -> None:
        if kind == protocol.TASKS:
            definitions, first, functions, flags, calls = marshal_loads(body)
            for number, definition in definitions:
                self._functions[number] = define(definition)
            if type(functions) is int:
                functions = repeat(functions)
            if type(flags) is int:
                flags = repeat(flags)
            self._tasks.extend(zip(range(first, first + len(calls)), functions, flags, calls, strict=False))
        elif kind == protocol.CREDIT:
            number, items = marshal_loads(body)
            if number in self._credits:
                self._credits[number] += items
        elif kind == protocol.PARCEL:
            self._parcels.append(claim(self._came, *marshal_loads(body)))
        elif kind == protocol.EXIT:
            self._leave = True
        elif kind == protocol.BOOT:
            self._boot = _pickle.loads(body)


def _pack(value: Any, what: str) -> tuple[bytes, Parcel | None]:
    try:
        kind, body, descriptors = pack(value)
    except Exception as error:
        cloudpickle = sys.modules.get("cloudpickle")
        if cloudpickle is not None:  # the call came by it, so the result may have to go by it
            try:
                return cloudpickle.dumps(value, 5), None
            except Exception:
                pass  # the error of the ordinary pickle says more
        raise _pickle.PicklingError(f"{what} cannot be sent back: {error}") from error.__cause__
    return body, (kind, descriptors) if kind else None
