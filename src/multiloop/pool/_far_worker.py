"""A worker on another machine that runs tasks in its own process: the body of a Ray actor.

What lives here: `FarWorker`. What must not: Ray (`_engine_ray` wraps it), waiting for tasks, which the engine does.

`work` is called in one thread, `listen` in a second, all else in a third. A task that has to be stopped ends the process:
it is the only way that works whatever the task is doing. What the page says then is all that is known of it.
"""

from __future__ import annotations

import _pickle
import marshal
import os
import signal
import socket
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic_ns
from typing import Any

from ..worker_threads._failures import pack_error
from . import _far_protocol as far
from . import _protocol as protocol
from ._far_protocol import HALF_BYTES, SMALL_BYTES, Boot, Peeked, Started
from ._inside import here
from ._page import Page
from ._protocol import (
    CALLS,
    COOPERATIVE,
    EXPIRED,
    FILLED,
    FINISHED,
    FROM_WORKER,
    GRACE_MS,
    IS_HEARD,
    IS_PLAIN,
    IS_SINGLE,
    PAGE_BYTES,
    REVOKED_FROM,
    REVOKED_TO,
    STARTED,
    STARTED_NS,
    STOP_ASKED,
)
from ._runner import Runner, define
from ._shared import forget, remember

_MESSAGES_AHEAD = 1024  # reports that wait to be fetched before the task waits
_HEAD_BYTES = FROM_WORKER.size
_ANSWER_S = 0.05  # so long the process that is to end has for telling the pool so
_HEARD_NS = 5_000_000_000  # how long the end of a task waits for its messages to be heard: the pool may be gone


class FarWorker(Runner):
    """One worker's state."""

    def __init__(self, boot: Boot, place: str, folder: str | None, cloud: Callable[[], far.Dumps]) -> None:
        """Begin. Raises NotTheSame, and what the initializer raises."""
        from .. import __version__

        far.check_same(boot, __version__, sys.version_info[:2], socket.gethostname())
        sys.path += [entry for entry in boot.path if entry not in sys.path]
        descriptor, self._page_path = tempfile.mkstemp(prefix=f"multiloop-{os.getpid()}-", suffix=".page", dir=folder)
        try:
            os.ftruncate(descriptor, PAGE_BYTES)
            self._page = Page(descriptor)
        finally:
            os.close(descriptor)
        super().__init__(self._page.words)
        self._journal = self._page.journal
        self._place = place
        self._cloud = cloud
        self._boot = boot
        self.context_names = boot.context
        self._buffers: Sequence[Any] = ()  # of the call that runs
        self._messages: deque[tuple[int, int, bytes, list[Any]]] = deque()
        self._told = threading.Condition()  # of messages, credits and stops
        self._is_heard = False  # whether the pool listens to the task that runs …
        self._has_told = False  # … and whether that has sent anything
        self._listens = 0  # how often the pool has asked …
        self._fetched = 0  # … and when it got messages last; it has dealt with them once it asks again
        here.worker = self
        os.register_at_fork(after_in_child=self._forked)
        if boot.nice is not None:
            os.nice(boot.nice)
        if boot.initializer is not None:
            initializer, args = _pickle.loads(boot.initializer)
            initializer(*args)

    def started(self) -> Started:
        """Say who this is."""
        return Started(os.getpid(), socket.gethostname(), self._place, self._page_path)

    # -- tasks -----------------------------------------------------------------------------------------------------
    def work(self, call: int, blob: bytes, buffers: Sequence[Any], shared: Mapping[int, Any]) -> Any:
        """Run tasks until all are done, the call's half of the page is full, or the others are revoked."""
        definitions, number, functions, flags, calls, dropped = marshal.loads(blob)
        forget(dropped)
        for key, value in shared.items():
            remember(key, value)
        for function, pickled in definitions:
            self._functions[function] = define(pickled)
        words = self.words
        half = call & 1
        words[FILLED + half] = 0
        words[CALLS + half] = call
        self._buffers = buffers
        frames: list[bytes] = []
        out: list[Any] = []
        filled = 0
        for place, argument in enumerate(calls):
            if HALF_BYTES - filled < SMALL_BYTES + _HEAD_BYTES:
                break  # the others are sent again
            words[STARTED_NS] = began = monotonic_ns()
            words[STARTED] = number
            if words[REVOKED_TO] > number >= words[REVOKED_FROM]:
                number += 1
                continue
            flag = flags[place]
            self._is_heard = bool(flag & IS_HEARD)
            made = self._outcome(number, functions[place], flag & ~IS_HEARD, argument, began, out)
            if self._has_told:
                self._wait_until_heard()
            calls[place] = argument = None  # nothing of a task stays alive while the worker waits
            frames.append(made)
            kept = made if len(made) <= SMALL_BYTES + _HEAD_BYTES else far.frame(far.RAN, number, 0, b"")
            at = half * HALF_BYTES + filled
            filled += len(kept)
            self._journal[at : at + len(kept)] = kept
            words[FILLED + half] = filled
            words[FINISHED] = number
            number += 1
        self._buffers = ()
        return b"".join(frames), out, _rss_bytes() if self._boot.tells_rss else 0

    def _outcome(self, number: int, function: int, flags: int, call: Any, began: int, out: list[Any]) -> bytes:
        """Run one task and return its frame."""
        before = len(out)
        try:
            if flags == IS_SINGLE:
                value = self._functions[function](call)
            elif flags == IS_PLAIN:
                value = self._functions[function](*call)
            else:
                value = self._run_other(number, function, flags, call)
            took_ns = monotonic_ns() - began
            if self.words[EXPIRED] == number:
                return far.frame(far.EXPIRED_FRAME, number, took_ns, b"")
            return self._value_frame(number, took_ns, value, out)
        except BaseException as error:
            del out[before:]
            return far.frame(protocol.FAILED, number, monotonic_ns() - began, pack_error(error))

    def _value_frame(self, number: int, took_ns: int, value: Any, out: list[Any]) -> bytes:
        try:
            return far.value_frame(number, took_ns, value, self._cloud, out)
        except Exception as error:
            raise _pickle.PicklingError(f"the result cannot be sent back: {error}") from error

    def _load(self, flags: int, call: Any) -> Any:
        if flags & protocol.IS_PARCEL:
            pickled, first, count = call
            # Copies: the task may write into its arguments, which the engine's store does not let it.
            return _pickle.loads(pickled, buffers=[bytearray(each) for each in self._buffers[first : first + count]])
        return call if flags & IS_PLAIN else _pickle.loads(call)

    # -- what tasks send -------------------------------------------------------------------------------------------
    def _send(self, kind: int, value: Any, what: str, number: int) -> None:
        try:
            body, buffers = far.pack_far(value, self._cloud)
        except Exception as error:
            raise _pickle.PicklingError(f"{what} cannot be sent back: {error}") from error
        if not self._is_heard:
            return
        with self._told:
            self._has_told = True
            while len(self._messages) >= _MESSAGES_AHEAD and self.words[STOP_ASKED] != number:
                self._told.wait()
            self._messages.append((number, kind, body, buffers))
            self._told.notify_all()

    def _wait_for_credit(self, number: int) -> None:
        with self._told:
            if self._credits[number] <= 0 and self.words[STOP_ASKED] != number:
                self._told.wait()

    def _wait_until_heard(self) -> None:
        """Let the end of a task not overtake its messages: the pool asks again once it has dealt with what it got."""
        until = monotonic_ns() + _HEARD_NS
        with self._told:
            while (self._messages or self._listens <= self._fetched) and monotonic_ns() < until:
                self._told.wait(0.1)
            self._has_told = False

    def listen(self) -> list[tuple[int, int, bytes, list[Any]]]:
        """Wait for messages of tasks, for a second at most, and return them."""
        with self._told:
            self._listens += 1
            self._told.notify_all()
            if not self._messages:
                self._told.wait_for(lambda: self._messages, 1.0)
            fetched = list(self._messages)
            if fetched:
                self._messages.clear()
                self._fetched = self._listens
                self._told.notify_all()
        return fetched

    def credit(self, number: int, items: int) -> None:
        """Let a stream send more."""
        with self._told:
            if number in self._credits:
                self._credits[number] += items
                self._told.notify_all()

    # -- what is not wanted any more -------------------------------------------------------------------------------
    def peek(self, to: int) -> Peeked:
        """Keep all tasks but the one that runs from beginning, and say what is known."""
        words = self.words
        # The range first, then a look at what has begun: `work` writes and looks the other way round.
        words[REVOKED_FROM] = words[STARTED] + 1
        words[REVOKED_TO] = to
        started = words[STARTED]
        halves = sorted((0, 1), key=lambda half: words[CALLS + half])
        return Peeked(
            started,
            words[FINISHED] < started,
            monotonic_ns() - words[STARTED_NS],
            tuple(words[CALLS + half] for half in halves),
            tuple(bytes(self._half(half)) for half in halves),
            _rss_bytes(),
        )

    def _half(self, half: int) -> memoryview:
        at = half * HALF_BYTES
        return self._journal[at : at + self.words[FILLED + half]]

    def stop(self, number: int, to: int) -> Peeked:
        """A task is not wanted any more. If it runs and has not promised to look, this process ends, a moment later."""
        seen = self.peek(to)
        if seen.started == number and seen.is_running:
            self._halt(number)
        return seen

    def expire(self, number: int, timeout_s: float, to: int) -> tuple[Peeked, bool]:
        """A task may have run out of time. Returns whether it has; then it is stopped."""
        seen = self.peek(to)
        is_over = seen.started == number and seen.is_running and seen.for_ns >= timeout_s * 1e9
        if is_over:
            self.words[EXPIRED] = number
            self._halt(number)
        return seen, is_over

    def _halt(self, number: int) -> None:
        """End the running task: let it end by itself if it has promised to, else end this process."""
        words = self.words
        delay_s = _ANSWER_S
        if words[COOPERATIVE] == number and words[GRACE_MS]:
            delay_s = words[GRACE_MS] / 1000
            with self._told:
                words[STOP_ASKED] = number
                self._told.notify_all()
        timer = threading.Timer(delay_s, self._end_if_running, (number,))
        timer.daemon = True
        timer.start()

    def _end_if_running(self, number: int) -> None:
        if self.words[STARTED] == number and self.words[FINISHED] < number:
            os.kill(os.getpid(), signal.SIGKILL)

    # -- the end ---------------------------------------------------------------------------------------------------
    def leave(self) -> None:
        """Run the finalizer, and leave nothing behind."""
        try:
            if self._boot.finalizer is not None:
                _pickle.loads(self._boot.finalizer)()
        finally:
            remove_page(self._page_path)

    def _forked(self) -> None:
        if here.worker is self:
            here.worker = None


def _rss_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def remove_page(path: str) -> None:
    """Remove a worker's page; nothing happens when it is gone."""
    try:
        os.unlink(path)
    except OSError:
        pass


def read_page(path: str) -> tuple[Peeked, int] | None:
    """Return what the page of a dead worker tells, and the task whose time was over; removes it. None: it is gone."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return None
    remove_page(path)
    if len(data) != PAGE_BYTES:
        return None
    words = memoryview(data)[: protocol.WORDS_BYTES].cast("Q")
    journal = memoryview(data)[protocol.WORDS_BYTES :]
    halves = sorted((0, 1), key=lambda half: words[CALLS + half])
    frames = tuple(bytes(journal[half * HALF_BYTES :][: words[FILLED + half]]) for half in halves)
    started, finished = words[STARTED], words[FINISHED]
    is_running = finished < started and not words[REVOKED_TO] > started >= words[REVOKED_FROM]
    calls = tuple(words[CALLS + half] for half in halves)
    return Peeked(started, is_running, monotonic_ns() - words[STARTED_NS], calls, frames, 0), words[EXPIRED]
