"""The pool's end of one worker: its socket, its page, the tasks that it was sent.

What lives here: writing tasks, reading results, and the revocation of tasks that have not begun. What must not: which
worker gets what (`_engine_local`, `_assign`), how a worker is started or killed (`_bodies`).

    tasks → marshal → socket ║ worker ║ socket → results → the tasks' futures

The heads and words are declared in `_protocol`, with the rules that make the crash of a worker harmless to neighbours.
"""

from __future__ import annotations

import _pickle
import enum
import errno
import marshal
import os
import socket
from asyncio import InvalidStateError
from collections import deque
from collections.abc import Sequence
from random import random
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from . import _protocol as protocol
from ._assign import UNKNOWN_NS
from ._failures import unpack_error
from ._page import make_page
from ._protocol import (
    FINISHED,
    FROM_WORKER,
    HELD,
    HELD_TURN,
    PLAIN,
    REVOKED_FROM,
    REVOKED_TO,
    SENT,
    STARTED,
    TO_WORKER,
    VALUE,
)
from ._rights import LOST, Parcel, claim, close_all, descriptors_of, rights_of
from ._tasks import AsyncTask
from ._values import unpack

if TYPE_CHECKING:
    from ._bodies import Body
    from ._engine_local import LocalEngine
    from ._tasks import Task

_READ_BYTES = 64 * 1024  # some hundred tiny results: a millisecond of the loop
_WORKER_SEND_BYTES = 1024 * 1024  # what a worker may have written and we not read before it waits
_SETTLE_NS = 20_000  # until a word is seen on every core: a store needs far less


class State(enum.Enum):
    """The life of a worker, in this order."""

    BOOTING = "booting"
    READY = "ready"
    STOPPING = "stopping"  # asked to stop its task by itself; gets no other
    LEAVING = "leaving"  # told to leave: its finalizer runs
    KILLED = "killed"  # the signal is sent
    GONE = "gone"


class Link:
    """One worker as the pool sees it. Lives on the driver's loop."""

    def __init__(self, engine: LocalEngine, slot: int) -> None:
        self.engine = engine
        self.slot = slot
        self.state = State.BOOTING
        self.body: Body | None = None
        self.outstanding: deque[Task] = deque()  # sent, no result yet, oldest first
        self.next_number = 1
        self.completed = 0
        self.born_ns = monotonic_ns()
        self.jitter = random()
        self.next_look_ns = 0  # at its memory
        self.deadline: Any = None  # the timer of the task in front
        self.deadline_ns = 0
        self.grace: Any = None  # the timer that ends its patience
        self.boot_error: BaseException | None = None
        self._known: set[int] = set()  # numbers of the functions it has
        self._revoked_from = 0
        self._out: deque[tuple[memoryview, list[int]]] = deque()  # what the socket did not take, with descriptors
        self._came: deque[list[int]] = deque()  # descriptors, by the message that brought them
        self._parcels: deque[Parcel] = deque()  # announced; the frames they belong to come next
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._large: tuple[tuple[int, int, int, int], bytearray, int] | None = None
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _WORKER_SEND_BYTES)
            self._page, self.page_descriptor = make_page()
        except BaseException:
            ours.close()
            theirs.close()
            raise
        self.words = self._page.words
        self._socket = ours
        self._number = ours.fileno()
        self.worker_socket = theirs.detach()

    # -- life ------------------------------------------------------------------------------------------------------
    def attach(self) -> None:
        """Begin to read."""
        self.engine.loop.add_reader(self._number, self.readable)

    def close(self) -> None:
        """Let go of everything; reads what is left first, where that is wanted, with `drain`."""
        if self.state is State.GONE and self._number < 0:
            return
        self.state = State.GONE
        for timer in (self.deadline, self.grace):
            if timer is not None:
                timer.cancel()
        self.deadline = self.grace = None
        if not self.engine.loop.is_closed():
            self.engine.loop.remove_reader(self._number)
            if self._out:
                self.engine.loop.remove_writer(self._number)
        self._number = -1
        self._socket.close()
        for descriptors in (*self._came, *(descriptors for _, descriptors in self._parcels)):
            close_all(descriptors)
        self._came.clear()
        self._parcels.clear()
        self._drop_out()
        self._page.close()

    def hang_up(self) -> None:
        """Let a worker that waits for tasks see the end."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has hung up already

    def forget(self) -> None:
        """In a forked child: close our copies, without a word to the loop, which is the parent's."""
        self._socket.close()
        self._page.close()

    # -- writing ---------------------------------------------------------------------------------------------------
    def send_boot(self, options: dict[str, Any]) -> None:
        """Write what the worker needs to know first."""
        self._send(protocol.BOOT, _pickle.dumps(options, 5))

    def send_tasks(self, tasks: Sequence[Task]) -> None:
        """Write tasks, in this order; they become outstanding."""
        first = number = self.next_number
        definitions = []
        calls, functions, flags = [], [], []
        outstanding = self.outstanding
        last = None
        for task in tasks:
            function = task.function
            if function is not last:
                last = function
                if function.number not in self._known and function.number:
                    self._known.add(function.number)
                    definitions.append((function.number, function.pickled))
            if task.parcel is not None and not self._send_parcel(task):
                continue
            task.link = self
            task.number = number
            number += 1
            calls.append(task.call)
            functions.append(function.number)
            flags.append(task.flags)
            outstanding.append(task)
        self.next_number = number
        batch = definitions, first, _column(functions), _column(flags), calls
        self._send(protocol.TASKS, marshal.dumps(batch, 2))

    def _send_parcel(self, task: Task) -> bool:
        """Send the descriptors of a task ahead of it; without a descriptor to spare it fails, alone."""
        assert task.parcel is not None
        kind, descriptors = task.parcel
        try:
            # These may have to wait, and the task may have to be sent again.
            copies = [os.dup(descriptor) for descriptor in descriptors]
        except OSError as error:
            self.engine.discard(task, error)
            return False
        self._send(protocol.PARCEL, marshal.dumps((kind, len(copies))), copies)
        return True

    def send_credit(self, task: Task, items: int) -> None:
        """Let a stream send that many more items; 0 wakes it so that it sees that it shall stop."""
        self._send(protocol.CREDIT, marshal.dumps((task.number, items)))

    def send_exit(self) -> None:
        """Tell the worker to leave after its tasks."""
        self._send(protocol.EXIT, b"")

    def _send(self, kind: int, body: bytes, descriptors: Sequence[int] = ()) -> None:
        data = TO_WORKER.pack(kind, len(body)) + body
        if self._out or descriptors:
            self._send_later(memoryview(data), list(descriptors))
            return
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return  # it is gone: its end is noticed elsewhere, and its tasks are dealt again
        self.words[SENT] += sent
        if sent < len(data):
            self._send_later(memoryview(data)[sent:], [])

    def _send_later(self, data: memoryview, descriptors: list[int]) -> None:
        was_empty = not self._out
        self._out.append((data, descriptors))
        if was_empty:
            self._write()
            if self._out:
                self.engine.loop.add_writer(self._number, self._write)

    def _write(self) -> None:
        out = self._out
        try:
            while out:
                data, descriptors = out[0]
                if descriptors:
                    sent = self._socket.sendmsg([data], rights_of(descriptors))
                    close_all(descriptors)
                else:
                    sent = self._socket.send(data)
                self.words[SENT] += sent
                if sent < len(data):
                    out[0] = (data[sent:], [])
                else:
                    out.popleft()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # it is gone: its end is noticed elsewhere, and its tasks are dealt again
            self._drop_out()
        if not self.engine.loop.is_closed():
            self.engine.loop.remove_writer(self._number)

    def _drop_out(self) -> None:
        for _, descriptors in self._out:
            close_all(descriptors)
        self._out.clear()

    # -- revoking --------------------------------------------------------------------------------------------------
    def revoke(self, first: int) -> list[Task]:
        """Take back the tasks from number `first` on that have not begun; they are outstanding no more.

        Exact: a task that is returned will never begin here, one that stays outstanding has begun (or the worker will
        say SKIPPED). Tasks before `first` are taken back, too, where an earlier revocation has not been passed yet.
        """
        words = self.words
        if self._revoked_from and words[STARTED] + 1 < words[REVOKED_TO]:
            first = min(first, self._revoked_from)
        self._revoked_from = first
        words[REVOKED_FROM] = first
        words[REVOKED_TO] = self.next_number  # last: before that nothing is revoked that was not before
        until = monotonic_ns() + _SETTLE_NS
        while monotonic_ns() < until:
            pass
        started = words[STARTED]
        back: list[Task] = []
        outstanding = self.outstanding
        while outstanding and outstanding[-1].number >= first and outstanding[-1].number > started:
            task = outstanding.pop()
            task.link = None
            back.append(task)
        back.reverse()
        return back

    # -- reading ---------------------------------------------------------------------------------------------------
    def readable(self) -> None:
        """Read once and settle what has come."""
        if self._read():
            self.engine.has_read(self)

    def drain(self) -> None:
        """Read all that a dead worker has left: in the socket, then in its journal."""
        while self._number >= 0 and self._read():
            pass
        self._read_journal()

    def peek(self) -> None:
        """Settle the results that a worker holds while it is busy with a long task."""
        turn = self.words[HELD_TURN]
        if self.words[HELD] and not self._filled and self._large is None:
            self._read_journal(turn)
            self.engine.has_read(self)

    def _read_journal(self, turn: int | None = None) -> None:
        held = bytes(self._page.journal[: self.words[HELD]])
        if turn is not None and self.words[HELD_TURN] != turn:
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
        """The worker's end is closed: it is about to die, or somebody closed all its descriptors."""
        if self._number >= 0 and not self.engine.loop.is_closed():
            self.engine.loop.remove_reader(self._number)
        self.engine.link_ended(self)

    def _settle(self, view: memoryview, filled: int) -> int:
        """Take the frames at the beginning of `view`; returns where the first incomplete one begins.

        Small results, most of all that comes, are settled right here, without a call for each step.
        """
        engine, outstanding, position = self.engine, self.outstanding, 0
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
            self.completed += 1
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
            self.engine.link_ready(self)
        elif kind == protocol.BROKEN:
            self.boot_error = unpack_error(body)
        elif kind == protocol.PARCEL_BEFORE:
            self._parcels.append(claim(self._came, *marshal.loads(body)))
        elif self.outstanding and self.outstanding[0].number == number:
            self._take_of_task(kind, self.outstanding[0], began, ended, body)
        elif kind in protocol.AS_PICKLE:
            close_all(self._parcels.popleft()[1])  # the task was given up

    def _take_of_task(self, kind: int, task: Task, began: int, ended: int, body: memoryview) -> None:
        if kind == protocol.SKIPPED:
            self.outstanding.popleft()
            task.link = None
            self.engine.deal_again([task])
            return
        is_end = kind in (PLAIN, VALUE, protocol.VALUE_PARCEL, protocol.FAILED)
        if is_end:
            self.outstanding.popleft()
        if kind == protocol.FAILED:
            self.engine.finished(self, task, None, unpack_error(body), began, ended)
            return
        try:
            value = self._value(kind, body)
        except BaseException as error:
            if is_end:
                self._unreadable(task, error, began, ended)
            else:
                self.engine.message(task, protocol.AS_PICKLE.get(kind, kind), None, error)
            return
        if is_end:
            self.engine.finished(self, task, value, None, began, ended)
        else:
            self.engine.message(task, protocol.AS_PICKLE.get(kind, kind), value, None)

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
        self.engine.finished(self, task, None, error, began, ended)

    # -- looking ---------------------------------------------------------------------------------------------------
    @property
    def is_running(self) -> bool:
        """Whether the task in front has begun and its result is not written."""
        return bool(self.outstanding) and self.words[FINISHED] < self.outstanding[0].number <= self.words[STARTED]

    @property
    def unstarted(self) -> int:
        """How many tasks it has that it has not finished, as its page says: results may be on their way."""
        return int(self.next_number - 1 - self.words[FINISHED])


def _column(values: list[int]) -> int | list[int]:
    return values[0] if values and values.count(values[0]) == len(values) else values
