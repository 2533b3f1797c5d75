"""The pool's end of one worker: its socket, its page, the tasks that it was sent.

What lives here: writing tasks, and the revocation of those that have not begun. What must not: reading (`_results`), which
worker gets what (`_engine_local`, `_assign`), how a worker is started or killed (`_bodies`).

    tasks → marshal → socket ║ worker ║ socket → results → the tasks' futures

The heads and words are declared in `_protocol`, with the rules that make the crash of a worker harmless to neighbours.
"""

from __future__ import annotations

import _pickle
import enum
import marshal
import os
import socket
from collections import deque
from collections.abc import Sequence
from random import random
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from . import _protocol as protocol
from ._page import make_page
from ._protocol import (
    FINISHED,
    REVOKED_FROM,
    REVOKED_TO,
    SENT,
    STARTED,
    TO_WORKER,
)
from ._results import Results
from ._rights import close_all, rights_of

if TYPE_CHECKING:
    from ._bodies import Body
    from ._engine_local import LocalEngine
    from ._tasks import Task

_READ_BYTES = 64 * 1024  # some hundred tiny results: a millisecond of the loop
_WORKER_SEND_BYTES = 1024 * 1024  # what a worker may have written and we not read before it waits
_BATCH_BYTES = 256 * 1024  # of calls in one frame: the worker begins when it has all of it
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
        self.results = Results(self, ours, self._page)
        self._number = ours.fileno()
        self.worker_socket = theirs.detach()

    # -- life ------------------------------------------------------------------------------------------------------
    def attach(self) -> None:
        """Begin to read."""
        self.engine.loop.add_reader(self._number, self.results.readable)

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
        self.results.close()
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

    def ended(self) -> None:
        """The worker's end is closed: it is about to die, or somebody closed all its descriptors."""
        if self._number >= 0 and not self.engine.loop.is_closed():
            self.engine.loop.remove_reader(self._number)
        self.engine.link_ended(self)

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
        size = 0
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
            if type(task.call) is bytes:
                size += len(task.call)
                if size > _BATCH_BYTES:
                    self._send_batch(definitions, first, functions, flags, calls)
                    calls, functions, flags, definitions, first, size = [], [], [], [], number, 0
        self.next_number = number
        if calls:
            self._send_batch(definitions, first, functions, flags, calls)

    def _send_batch(self, definitions: Any, first: int, functions: list[int], flags: list[int], calls: Any) -> None:
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
