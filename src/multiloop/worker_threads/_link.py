"""A socket with frames and descriptors, usable with and without a loop, and movable to another process.

What lives here: `Link`. What must not: pickling (`_message`), events (`_port`), asyncio: a worker that computes before,
or without, a loop sends and receives through it too.

Why not `ipc.Channel`: that needs a running loop from its first moment to its last, and a transport does not give back
what it has not written. A port must be usable in a worker's top-level code, be read synchronously, and move to another
worker with everything that is in it.

Rules
* `send` writes at once, on the caller's thread: a worker that computes for an hour has sent what it sent. What the
  kernel does not take waits in the outbox for the loop, or for `flush`.
* Descriptors travel with the first byte of their frame. The kernel ends a read behind the bytes that came with
  descriptors, so each frame that has some finds exactly one batch of them, in order. A batch that was cut (this process
  is at its limit of open files) makes its frame `lost`, never silently incomplete.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .._wire.frames import Decoder, encode, lone
from ..errors import FrameError, FrameTooLarge
from ._transit import close_all

if TYPE_CHECKING:
    import asyncio

_READ_BYTES = 64 * 1024
_CMSG_BYTES = socket.CMSG_SPACE(256 * 4)
_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_RETRY_S = 0.05  # when too many descriptors are in flight: nothing tells when there is room again
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.ENOTCONN)


class Packet(NamedTuple):
    """A frame that arrived. Its descriptors belong to whoever takes it; `lost`: they did not all arrive."""

    kind: int
    body: Any
    fds: Sequence[int] = ()
    lost: bool = False


class Unsent(NamedTuple):
    """The rest of a frame, with the descriptors that go with its first byte."""

    data: memoryview
    fds: list[int]


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.memory = memoryview(bytearray(_READ_BYTES))
        self.list = [self.memory]


_scratch = _Scratch()


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a link, not inheritable."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


class _Socket(socket.socket):
    """A socket that a dropped port closes without a warning: dropping one is allowed."""

    def __del__(self) -> None:
        self.close()


class Link:
    """One end of a stream of frames. Belongs to one thread at a time."""

    __slots__ = (
        "_batches",
        "_decoder",
        "_is_reading",
        "_is_refused",
        "_loop",
        "_on_drained",
        "_on_readable",
        "_outbox",
        "_retry",
        "_socket",
        "_writer_set",
        "error",
        "is_closed",
        "is_ended",
        "is_peer_gone",
        "outbox_bytes",
    )

    def __init__(self, sock: socket.socket) -> None:
        self._socket = _Socket(fileno=sock.detach())
        self._socket.setblocking(False)
        self._decoder = Decoder()
        self._batches: deque[tuple[list[int], bool]] = deque()  # descriptors that arrived before their frame did
        self._outbox: deque[Unsent] = deque()
        self.outbox_bytes = 0
        self.is_ended = False  # everything the peer sent was read, and there will be no more
        self.is_peer_gone = False  # nobody will read what we send
        self.is_closed = False
        self.error: BaseException | None = None  # the stream is no stream of frames
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_readable: Callable[[], None] | None = None
        self._on_drained: Callable[[], None] | None = None
        self._is_reading = False
        self._writer_set = False
        self._is_refused = False  # the kernel takes no more descriptors for now
        self._retry: Any = None

    def fileno(self) -> int:
        """The socket's descriptor; -1 when closed."""
        return self._socket.fileno()

    # -- sending ---------------------------------------------------------------------------------------------------
    def send(self, kind: int, body: bytes, fds: list[int] | None = None) -> None:
        """Send a frame; its descriptors belong to the link from now on. Dropped when the peer is gone."""
        if fds:
            data = b"".join(encode(kind, body, (), range(len(fds))))
        else:
            data = b"".join(encode(kind, body))
        if self.is_closed or self.is_peer_gone:
            close_all(fds or ())
            return
        if not self._outbox:
            sent = self._write(data, fds)
            if sent == len(data) or self.is_peer_gone:
                return
            if sent:
                self._queue(memoryview(data)[sent:], [])
                return
        self._queue(memoryview(data), fds or [])

    def _queue(self, data: memoryview, fds: list[int]) -> None:
        self._outbox.append(Unsent(data, fds))
        self.outbox_bytes += len(data)
        self._watch_writable()

    def _write(self, data: bytes | memoryview, fds: list[int] | None) -> int:
        """Write what the kernel takes now; returns how much. Descriptors that went along are closed here."""
        try:
            if fds:
                rights = array.array("i", fds)
                sent = self._socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                close_all(fds)
            else:
                sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            if error.errno in (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM):
                self._is_refused = True
                self._retry_later()
                return 0
            if error.errno not in _GONE:
                raise
            close_all(fds or ())
            self._lose_peer()
            return 0
        self._is_refused = False
        return sent

    def _lose_peer(self) -> None:
        self.is_peer_gone = True
        for unsent in self._outbox:
            close_all(unsent.fds)
        self._outbox.clear()
        self.outbox_bytes = 0

    def write_outbox(self) -> None:
        """Write what waits, as far as the kernel takes it."""
        while self._outbox:
            data, fds = self._outbox[0]
            sent = self._write(data, fds)
            if not sent:
                if not self._outbox:  # the peer is gone
                    break
                return
            self.outbox_bytes -= sent
            if sent == len(data):
                self._outbox.popleft()
            else:
                self._outbox[0] = Unsent(data[sent:], [])
        self._unwatch_writable()
        if self._on_drained is not None:
            self._on_drained()

    def flush(self, timeout_s: float | None) -> bool:
        """Block until everything is written, or the peer is gone. False: the time was over before."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        poll = select.poll()
        while True:
            self.write_outbox()
            if not self._outbox:
                return True
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            if self._is_refused:
                time.sleep(_RETRY_S)
                continue
            poll.register(self._socket, select.POLLOUT)
            poll.poll(None if left is None else left * 1000)

    # -- receiving -------------------------------------------------------------------------------------------------
    def receive(self) -> list[Packet]:
        """Read without blocking, once, or until a frame that has begun is complete.

        An empty list: there is nothing in the socket; `is_ended` is set when nothing will come any more.
        """
        while not self.is_ended and not self.is_closed:
            packets = self._receive_once()
            if packets is None:
                break
            if packets:
                return packets
        return []

    def _receive_once(self) -> list[Packet] | None:
        """Read once; None when there was nothing."""
        try:
            count, ancillary, flags, _ = self._socket.recvmsg_into(_scratch.list, _CMSG_BYTES, _FLAGS)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            count, ancillary, flags = 0, [], 0
        if ancillary or flags & socket.MSG_CTRUNC:
            self._batches.append((_descriptors(ancillary), bool(flags & socket.MSG_CTRUNC)))
        elif not self._decoder.is_inside_frame and (found := lone(_scratch.memory[:count])) is not None:
            return [Packet(*found)]
        if not count:
            self.is_ended = True
            return None
        try:
            frames = self._decoder.feed(_scratch.memory[:count])
        except (FrameError, FrameTooLarge) as error:
            self.error = error
            self.is_ended = True
            return None
        return [
            self._with_batch(frame.kind, frame.body, len(frame.descriptors))
            if frame.descriptors
            else Packet(frame.kind, frame.body)
            for frame in frames
        ]

    def _with_batch(self, kind: int, body: Any, wanted: int) -> Packet:
        fds, lost = self._batches.popleft() if self._batches else ([], True)
        if lost or len(fds) != wanted:
            close_all(fds)
            return Packet(kind, body, lost=True)
        return Packet(kind, body, fds)

    def wait_readable(self, timeout_s: float | None) -> bool:
        """Block until `receive` has something to do."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))

    # -- with a loop -----------------------------------------------------------------------------------------------
    def attach(
        self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None], on_drained: Callable[[], None]
    ) -> None:
        """Let this loop write the outbox, and read once `read(True)` was said."""
        self._loop = loop
        self._on_readable = on_readable
        self._on_drained = on_drained
        if self._outbox:
            self._watch_writable()

    def read(self, wanted: bool) -> None:
        """Start or stop calling `on_readable`."""
        if self._loop is None or wanted == self._is_reading:
            return
        self._is_reading = wanted
        if wanted:
            assert self._on_readable is not None
            self._loop.add_reader(self._socket.fileno(), self._on_readable)
        else:
            self._loop.remove_reader(self._socket.fileno())

    def detach(self) -> None:
        """Leave the loop."""
        if self._loop is not None:
            self.read(False)
            self._unwatch_writable()
            if self._retry is not None:
                self._retry.cancel()
                self._retry = None
            self._loop = self._on_readable = self._on_drained = None

    def _watch_writable(self) -> None:
        if self._loop is not None and not self._writer_set and self._retry is None:
            self._writer_set = True
            self._loop.add_writer(self._socket.fileno(), self.write_outbox)

    def _unwatch_writable(self) -> None:
        if self._writer_set and self._loop is not None:
            self._writer_set = False
            self._loop.remove_writer(self._socket.fileno())

    def _retry_later(self) -> None:
        if self._loop is not None and self._retry is None:
            self._unwatch_writable()
            self._retry = self._loop.call_later(_RETRY_S, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._watch_writable()

    # -- the end, or another place ---------------------------------------------------------------------------------
    def close(self) -> None:
        """Close at once; what was not written is dropped, what was not read is lost. Safe to call twice."""
        if self.is_closed:
            return
        self.detach()
        self.is_closed = True
        self._socket.close()
        self._lose_peer()
        for fds, _ in self._batches:
            close_all(fds)
        self._batches.clear()

    def snapshot(self) -> tuple[bytes, list[tuple[list[int], bool]], list[tuple[bytes, list[int]]]]:
        """What has to move with the socket: a partial frame, descriptors that wait for it, the outbox."""
        partial = self._decoder.take_partial()
        self._decoder.feed(partial)
        return partial, list(self._batches), [(bytes(data), fds) for data, fds in self._outbox]

    @classmethod
    def revive(
        cls,
        sock: socket.socket,
        partial: bytes,
        batches: Sequence[tuple[list[int], bool]],
        outbox: Sequence[tuple[bytes, list[int]]],
    ) -> Link:
        """Go on where `snapshot` was taken."""
        link = cls(sock)
        link._decoder.feed(partial)
        link._batches.extend(batches)
        for data, fds in outbox:
            link._queue(memoryview(data), fds)
        return link

    def __del__(self) -> None:
        if not getattr(self, "is_closed", True):
            self._socket.close()
            for fds, _ in self._batches:
                close_all(fds)
            for unsent in self._outbox:
                close_all(unsent.fds)


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            fds += numbers
    if not _FLAGS:
        for fd in fds:
            os.set_inheritable(fd, False)
    return fds
