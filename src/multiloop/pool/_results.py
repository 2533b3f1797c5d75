"""What comes from one worker: the reading half of a link.

What lives here: frames off the socket and out of the journal, and the settling of the tasks that they end. What must
not: writing, revoking and the worker's life (`_link`).
"""

from __future__ import annotations

import _pickle
import errno
import marshal
import socket
from asyncio import InvalidStateError
from collections import deque
from typing import TYPE_CHECKING, Any

from ..worker_threads._failures import unpack_error
from . import _protocol as protocol
from ._assign import UNKNOWN_NS
from ._page import Page
from ._protocol import FROM_WORKER, HELD, HELD_TURN, PLAIN, VALUE
from ._rights import LOST, Parcel, claim, close_all, descriptors_of
from ._tasks import AsyncTask
from ._values import unpack

if TYPE_CHECKING:
    from ._link import Link
    from ._tasks import Task

_READ_BYTES = 64 * 1024  # some hundred tiny results: a millisecond of the loop


class Results:
    """Reads one worker's socket, and its journal."""

    def __init__(self, link: Link, ours: socket.socket, page: Page) -> None:
        self._link = link
        self._engine = link.engine
        self._socket = ours
        self._words = page.words
        self._journal = page.journal
        self._is_over = False
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._large: tuple[tuple[int, int, int, int], bytearray, int] | None = None
        self._came: deque[list[int]] = deque()  # descriptors, by the message that brought them
        self._parcels: deque[Parcel] = deque()  # announced; the frames they belong to come next

    def close(self) -> None:
        """Let go of what was announced and never came."""
        self._is_over = True
        for descriptors in (*self._came, *(descriptors for _, descriptors in self._parcels)):
            close_all(descriptors)
        self._came.clear()
        self._parcels.clear()

    def readable(self) -> None:
        """Read once and settle what has come."""
        if self._read():
            engine = self._engine
            engine.has_read(self._link)
            # A caller that waits for each task asks for the next one at once. With a thread of our own we would keep the
            # interpreter's lock from the caller; while others work, its result will wake us.
            if engine.vigil is not None and len(engine.idle) == len(engine.crew.links):
                engine.vigil.message()

    def drain(self) -> None:
        """Read all that a dead worker has left: in the socket, then in its journal."""
        while not self._is_over and self._read():
            pass
        self._read_journal()

    def peek(self) -> None:
        """Settle the results that a worker holds while it is busy with a long task."""
        turn = self._words[HELD_TURN]
        if self._words[HELD] and not self._filled and self._large is None:
            self._read_journal(turn)
            self._engine.has_read(self._link)

    def _read_journal(self, turn: int | None = None) -> None:
        held = bytes(self._journal[: self._words[HELD]])
        if turn is not None and self._words[HELD_TURN] != turn:
            return  # they have just been sent
        self._settle(memoryview(held), len(held))

    def _read(self) -> bool:
        if self._large is not None:
            return self._read_large()
        try:
            count, ancillary, flags, _ = self._socket.recvmsg_into([self._view[self._filled :]], protocol.RIGHTS_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            count = 0
        if not count:
            self._ended()
            return False
        if ancillary or flags & socket.MSG_CTRUNC:
            self._came.append(descriptors_of(ancillary))
        filled = self._filled + count
        position = filled
        try:
            position = self._settle(self._view, filled)
        finally:
            rest = filled - position
            if rest and position:
                self._view[:rest] = bytes(self._view[position:filled])
            self._filled = rest
        return True

    def _ended(self) -> None:
        self._is_over = True
        self._link.ended()

    def _settle(self, view: memoryview, filled: int) -> int:
        """Take the frames at the beginning of `view`; returns where the first incomplete one begins.

        Small results, most of all that comes, are settled right here, without a call for each step.
        """
        engine, link, position = self._engine, self._link, 0
        outstanding = link.outstanding
        unpack_head, head_size = FROM_WORKER.unpack_from, FROM_WORKER.size
        loads, plain_loads = _pickle.loads, marshal.loads
        waits, runs = engine.waits, engine.runs
        has_more = engine.has_more_to_release
        hub = engine.hub
        settled = 0
        while filled - position >= head_size:
            kind, size, number, began, ended = unpack_head(view, position)
            start = position + head_size
            stop = start + size
            if stop > filled:
                if head_size + size > _READ_BYTES:
                    self._begin_large((kind, number, began, ended), size, view[start:filled])
                    position = filled
                break
            position = stop
            if kind != PLAIN and kind != VALUE:
                self._take(kind, number, began, ended, view[start:stop])
                continue
            if not outstanding or outstanding[0].number != number:
                continue  # the task was given up, or this result has come before
            task = outstanding.popleft()
            try:
                value = (plain_loads if kind == PLAIN else loads)(view[start:stop])
            except BaseException as error:
                self._unreadable(task, error, began, ended)
                continue
            took_ns = ended - began
            function = task.function
            if function.estimate_ns == UNKNOWN_NS:
                function.estimate_ns = took_ns
            else:
                function.estimate_ns += (took_ns - function.estimate_ns) * 0.125
            waits.append(began - task.submitted_ns)
            runs.append(took_ns)
            if has_more or task.parcel is not None:
                engine.release(task)
            else:
                task.call = None
            link.completed += 1
            if task.__class__ is AsyncTask:
                try:
                    task.set_result(value)
                except InvalidStateError:  # it was cancelled
                    continue
                if task._counted:
                    task._counted = False
                    settled += 1
            else:
                task._succeed(value)
        if settled:
            hub.refs -= settled
            if not hub.refs and hub.on_idle is not None:
                hub.on_idle()
        return position

    def _begin_large(self, head: tuple[int, int, int, int], size: int, beginning: memoryview) -> None:
        body = bytearray(size)
        body[: len(beginning)] = beginning
        self._large = (head, body, len(beginning))

    def _read_large(self) -> bool:
        assert self._large is not None
        head, body, filled = self._large
        try:
            count = self._socket.recv_into(memoryview(body)[filled:])
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            count = 0
        if not count:
            self._large = None
            self._ended()
            return False
        filled += count
        if filled < len(body):
            self._large = (head, body, filled)
            return True
        self._large = None
        self._take(*head, memoryview(body))
        return True

    def _take(self, kind: int, number: int, began: int, ended: int, body: memoryview) -> None:
        """Handle a frame that is no small result."""
        if kind == protocol.READY:
            self._engine.link_ready(self._link)
        elif kind == protocol.BROKEN:
            self._link.boot_error = unpack_error(body)
        elif kind == protocol.PARCEL_BEFORE:
            self._parcels.append(claim(self._came, *marshal.loads(body)))
        elif self._link.outstanding and self._link.outstanding[0].number == number:
            self._take_of_task(kind, self._link.outstanding[0], began, ended, body)
        elif kind in protocol.AS_PICKLE:
            close_all(self._parcels.popleft()[1])  # the task was given up

    def _take_of_task(self, kind: int, task: Task, began: int, ended: int, body: memoryview) -> None:
        if kind == protocol.SKIPPED:
            self._link.outstanding.popleft()
            task.link = None
            self._engine.deal_again([task])
            return
        is_end = kind in (PLAIN, VALUE, protocol.VALUE_PARCEL, protocol.FAILED)
        if is_end:
            self._link.outstanding.popleft()
        if kind == protocol.FAILED:
            self._engine.finished(self._link, task, None, unpack_error(body), began, ended)
            return
        try:
            value = self._value(kind, body)
        except BaseException as error:
            if is_end:
                self._unreadable(task, error, began, ended)
            else:
                self._engine.message(task, protocol.AS_PICKLE.get(kind, kind), None, error)
            return
        if is_end:
            self._engine.finished(self._link, task, value, None, began, ended)
        else:
            self._engine.message(task, protocol.AS_PICKLE.get(kind, kind), value, None)

    def _value(self, kind: int, body: memoryview) -> Any:
        if kind == PLAIN:
            return marshal.loads(body)
        if kind not in protocol.AS_PICKLE:
            return _pickle.loads(body)
        parcel_kind, descriptors = self._parcels.popleft()
        if parcel_kind == LOST:
            raise OSError(errno.EMFILE, "too many open files here to receive a large value from a worker")
        return unpack(parcel_kind, body, descriptors)

    def _unreadable(self, task: Task, error: BaseException, began: int, ended: int) -> None:
        """A result came that cannot be made again here: only its task fails."""
        if isinstance(error, Exception):
            error.add_note(f"while the result of {task.function.name} was unpickled")
        self._engine.finished(self._link, task, None, error, began, ended)
