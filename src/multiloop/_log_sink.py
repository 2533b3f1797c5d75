"""Where log lines wait and who writes them: a bounded queue and ONE side thread.

What lives here: `Sink`. What must not: what a line looks like, which loggers there are (that is `logs`).

Guarantees
* `put` and `defer` never wait for the destination, never raise, and cost about a microsecond. When the destination
  takes nothing (a stalled pipe, a full disk) the queue fills to its bound, then records are dropped and counted; when
  it takes again, one line says how many were lost. A closed one (EPIPE, EBADF) loses lines and changes nothing else.
* `flush` and `close` wait at most as long as they are told. The thread is a daemon: one that is stuck in a write does
  not keep the process.
* Lines of several processes on one pipe do not mix as long as each is at most PIPE_BUF bytes.

How: a `put` appends under a re-entrant lock (a log call inside a destructor may interrupt another) and wakes the thread
once for each batch through a SimpleQueue, whose `put` is re-entrant, too. The thread gathers for 20 ms, so that ten
thousand access lines a second are fifty writes; a warning is written at once.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ._limits import LOG_GATHER_S, LOG_KEPT_LINES, MAX_LOG_QUEUE_BYTES, MAX_LOG_QUEUE_RECORDS
from ._log_format import TextFormatter

_PIPE_BYTES = 4096  # PIPE_BUF on Linux: a write of at most this is never mixed with another process's
_FILE_BYTES = 64 * 1024
_DEFERRED_BYTES = 512  # what a deferred call counts for: its size is not known
_POLL_S = 0.5  # how often a writer that waits for a non-blocking descriptor looks whether it should end

_Deferred = tuple[Callable[[Any], None], Any]
# a line; bytes as they are; a call; a flush to answer; None: reopen the file
_Item = str | bytes | _Deferred | threading.Event | None


class Sink:
    """One destination: a file that is opened for appending, or an open descriptor (standard error) when `path` is None."""

    def __init__(self, path: str | None, lost_line: Callable[[int], str], descriptor: int = 2) -> None:
        self._path = path
        self._lost_line = lost_line
        self._fd = _open(path, descriptor)
        self._chunk_bytes = _chunk_bytes(self._fd)
        self._midline = False  # the last write stopped inside a line
        self._lost_unsaid = 0
        self.written = 0
        self.dropped = 0
        self.follower: Callable[[list[str]], None] | None = None  # gets every batch of lines, on the side thread
        self._kept: deque[str] = deque(maxlen=LOG_KEPT_LINES)
        self._closing = False
        self._after_fork()

    def _after_fork(self) -> None:
        """Begin anew: what waits belongs to the parent, whose thread does not exist in a forked child."""
        self._lock = threading.RLock()
        self._items: deque[_Item] = deque()
        self._bytes = 0  # of what waits and of what the thread is writing; so is the next
        self._records = 0
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True: do not gather first
        self._armed = False  # the thread was woken for what waits
        self._busy = False  # the thread writes what it took
        self._thread: threading.Thread | None = None

    @property
    def queued(self) -> int:
        """How many records wait, or are being written."""
        return self._records

    # -- called from anywhere --------------------------------------------------------------------------------------
    def put(self, line: str, urgent: bool = False) -> None:
        """Queue one line (without its newline). `urgent` writes it at once instead of with the next batch."""
        self._add(line, len(line) + 1, urgent)

    def put_bytes(self, data: bytes) -> None:
        """Queue bytes that are written as they are: lines of somebody else's making."""
        self._add(data, len(data), urgent=True)

    def defer(self, function: Callable[[Any], None], argument: Any) -> None:
        """Queue a call that may block: it is made by the side thread. Its exceptions are dropped."""
        self._add((function, argument), _DEFERRED_BYTES, urgent=False)

    def _add(self, item: str | bytes | _Deferred, size_bytes: int, urgent: bool) -> None:
        with self._lock:
            if self._bytes + size_bytes > MAX_LOG_QUEUE_BYTES or self._records >= MAX_LOG_QUEUE_RECORDS:
                self.dropped += 1
                self._lost_unsaid += 1
                return
            self._items.append(item)
            self._bytes += size_bytes
            self._records += 1
            wake = urgent or not self._armed
            self._armed = True
        if wake:
            self._wake_thread(urgent)

    def _wake_thread(self, urgent: bool) -> None:
        self._wake.put(urgent)
        if self._thread is None and not self._start_thread():
            self._write_here()

    def _start_thread(self) -> bool:
        with self._lock:
            if self._closing:
                return False
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="multiloop-logs", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter ends, or there are too many threads
                    return False
                self._thread = thread
        return True

    def reopen(self) -> None:
        """Open the file anew (it was moved away by log rotation). For standard error: nothing."""
        if self._path is not None:
            self._signal(None)

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was queued before is written; False when that took longer."""
        with self._lock:
            if not self._items and not self._busy:
                return True
            if self._closing:  # it had its time
                return False
        done = threading.Event()
        self._signal(done)
        return done.wait(timeout_s)

    def _signal(self, item: threading.Event | None) -> None:
        with self._lock:
            self._items.append(item)
            self._armed = True
        self._wake_thread(urgent=True)

    def close(self, timeout_s: float) -> bool:
        """Flush, end the thread, close the file; False when that took longer (then the file stays open)."""
        deadline = time.monotonic() + timeout_s
        flushed = self.flush(timeout_s)
        self._closing = True
        thread = self._thread
        if thread is not None:
            self._wake.put(True)
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return False
            self._thread = None
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        return flushed

    # -- looking on ------------------------------------------------------------------------------------------------
    def last(self, count: int) -> list[str]:
        """Return the last lines, those that wait to be written included."""
        with self._lock:
            found = [*self._kept, *(item for item in self._items if isinstance(item, str))]
        return found[-count:]

    def note_record(self, record: logging.LogRecord) -> None:
        """A record went to the user's own handlers: followers see it in our form."""
        if self.follower is not None:
            self._note([TextFormatter().format(record)])

    def _note(self, lines: list[str]) -> None:
        with self._lock:
            self._kept.extend(lines)
        follower = self.follower
        if follower is not None and lines:
            follower(lines)

    # -- the side thread -------------------------------------------------------------------------------------------
    def _work(self) -> None:
        while True:
            if not self._wake.get() and not self._closing:
                try:
                    self._wake.get(timeout=LOG_GATHER_S)  # gather more, unless an urgent one comes
                except queue.Empty:
                    pass
            self._drain()
            if self._closing and not self._items:
                return

    def _write_here(self) -> None:
        """Without a thread (the process ends): write if that does not wait, else leave it."""
        if self._fd >= 0 and _takes(self._fd, 0):
            self._drain()

    def _drain(self) -> None:
        with self._lock:
            self._armed = False
            self._busy = True
            items, self._items = self._items, deque()
            size_bytes, records = self._bytes, self._records
            lost, self._lost_unsaid = self._lost_unsaid, 0
        self._note([item for item in items if isinstance(item, str)])
        lines: list[str] = []
        for item in items:
            if isinstance(item, str):
                lines.append(item)
                continue
            self._write_lines(lines)
            lines = []
            if item is None:
                self._reopen_now()
            elif isinstance(item, bytes):
                self._count(1, self._write([item]))
            elif isinstance(item, threading.Event):
                item.set()
            else:
                self._call(item)
        self._write_lines(lines)
        if lost and not self._write([self._lost_line(lost).encode("utf-8", "backslashreplace") + b"\n"]):
            self._lost_unsaid += lost
        with self._lock:
            self._bytes -= size_bytes
            self._records -= records
            self._busy = False

    def _call(self, deferred: _Deferred) -> None:
        function, argument = deferred
        try:
            function(argument)
            self.written += 1
        except Exception:  # a user's handler: it had its own chance to say so
            self.dropped += 1

    def _write_lines(self, lines: list[str]) -> None:
        chunk: list[bytes] = []
        size = 0
        for line in lines:
            data = line.encode("utf-8", "backslashreplace") + b"\n"
            if chunk and size + len(data) > self._chunk_bytes:
                self._count(len(chunk), self._write(chunk))
                chunk, size = [], 0
            chunk.append(data)
            size += len(data)
        if chunk:
            self._count(len(chunk), self._write(chunk))

    def _count(self, records: int, written: bool) -> None:
        if written:
            self.written += records
        else:
            self.dropped += records
            self._lost_unsaid += records

    def _write(self, lines: list[bytes]) -> bool:
        left = memoryview(b"".join(lines) if not self._midline else b"\n" + b"".join(lines))
        total = len(left)
        while left:
            try:
                taken = os.write(self._fd, left)
            except BlockingIOError:
                if _takes(self._fd, _POLL_S) or not self._closing:
                    continue
                break
            except OSError:  # closed, or no space: logging is lost, nothing else
                break
            left = left[taken:]
            self._midline = False
        if left:
            self._midline = len(left) < total
        return not left

    def _reopen_now(self) -> None:
        try:
            fd = _open(self._path, 2)
        except OSError as error:
            self._write_lines([f"the log file {self._path!r} could not be reopened: {error.strerror}"])
            return
        self._fd, before = fd, self._fd
        self._chunk_bytes = _chunk_bytes(fd)
        if before >= 0:
            os.close(before)


def _open(path: str | None, descriptor: int) -> int:
    """Open the destination. A copy of the descriptor is kept: it may be closed and its number become a socket's.

    Raises OSError when the file cannot be opened; a descriptor that is not there gives -1, which takes nothing.
    """
    if path is not None:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        return os.dup(descriptor)
    except OSError:
        return -1


def _chunk_bytes(fd: int) -> int:
    try:
        return _FILE_BYTES if stat.S_ISREG(os.fstat(fd).st_mode) else _PIPE_BYTES
    except OSError:
        return _PIPE_BYTES


def _takes(fd: int, timeout_s: float) -> bool:
    """Whether the descriptor would take bytes within this time."""
    try:
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            return bool(poll.poll(timeout_s * 1000))
        return bool(select.select([], [fd], [], timeout_s)[1])
    except (OSError, ValueError):
        return True  # let the write say what is wrong
