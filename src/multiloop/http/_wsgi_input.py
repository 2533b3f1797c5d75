"""`wsgi.input`: a request body as a blocking file, filled by the loop while a thread reads it.

What lives here: `WsgiInput`. What must not: the application, the reply.

Guarantees
* Never more of a body in memory than the mark and one read of the socket: the connection is paused above it and goes on
  when the thread has taken half.
* Reads as a file does: `read(n)` waits for n bytes or the end, `b""` is the end. A client that leaves before the end, or
  whose body is refused, makes the read raise (OSError), so half a body never looks whole.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._limits import READ_HIGH_WATER_BYTES
from ._asgi import ClientLeft

if TYPE_CHECKING:
    from collections.abc import Callable


class WsgiInput(io.BufferedIOBase):
    """The body of one request. `feed`, `end` and `cut` are called on the loop, all else on the application's thread.

    Args:
        first: what has come of the body so far.
        pause: called on the loop above the mark.
        resume: called on the thread when there is room again.
        ask: called once on the thread before it waits the first time (a client may wait for "100 Continue").
    """

    def __init__(
        self, first: bytes, pause: Callable[[], None], resume: Callable[[], None], ask: Callable[[], None] | None
    ) -> None:
        super().__init__()
        self._pause = pause
        self._resume = resume
        self._ask = ask
        self._changed = threading.Condition(threading.Lock())
        self._pieces: deque[bytes] = deque((first,) if first else ())
        self._waiting_bytes = len(first)
        self._paused = False
        self._ended = False
        self._cut = False
        # of the thread alone: the piece being read, and how far
        self._piece = b""
        self._position = 0

    # -- called on the loop --------------------------------------------------------------------------------------------
    def feed(self, piece: bytes) -> None:
        """Take a piece of the body."""
        with self._changed:
            self._pieces.append(piece)
            self._waiting_bytes += len(piece)
            if self._waiting_bytes > READ_HIGH_WATER_BYTES and not self._paused:
                self._paused = True
                self._pause()
            self._changed.notify()

    def end(self) -> None:
        """The body is complete."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def cut(self) -> None:
        """The body will never be complete."""
        with self._changed:
            self._cut = True
            self._changed.notify()

    # -- called on the thread ------------------------------------------------------------------------------------------
    def _next_piece(self) -> bool:
        """Wait for the next piece; False at the end of the body."""
        changed = self._changed
        with changed:
            if not self._pieces and not self._ended and self._ask is not None:
                ask, self._ask = self._ask, None
                ask()
            while not self._pieces:
                if self._ended:
                    self._piece = b""
                    self._position = 0
                    return False
                if self._cut:
                    raise ClientLeft("the client left before its body was complete")
                changed.wait()
            self._piece = self._pieces.popleft()
            self._position = 0
            self._waiting_bytes -= len(self._piece)
            resume = self._paused and self._waiting_bytes <= READ_HIGH_WATER_BYTES // 2
            if resume:
                self._paused = False
        if resume:
            self._resume()
        return True

    def readable(self) -> bool:
        """True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes, fewer only at the end; without a size the whole rest."""
        left = -1 if size is None else size
        parts = []
        while left:
            have = len(self._piece) - self._position
            if not have:
                if not self._next_piece():
                    break
                continue
            take = have if left < 0 or have < left else left
            parts.append(self._piece[self._position : self._position + take])
            self._position += take
            if left > 0:
                left -= take
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read1(self, size: int = -1, /) -> bytes:
        """Return what has come, at most `size` bytes; waits only when nothing has."""
        if not size:
            return b""
        if self._position == len(self._piece) and not self._next_piece():
            return b""
        end = len(self._piece) if size < 0 else min(len(self._piece), self._position + size)
        found = self._piece[self._position : end]
        self._position = end
        return found

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return a line with its end, at most `size` bytes of it."""
        left = -1 if size is None else size
        parts = []
        while left:
            if self._position == len(self._piece) and not self._next_piece():
                break
            end = self._piece.find(b"\n", self._position) + 1
            found = end > 0
            if not found:
                end = len(self._piece)
            if 0 < left < end - self._position:
                end = self._position + left
            part = self._piece[self._position : end]
            self._position = end
            parts.append(part)
            if found:
                break
            if left > 0:
                left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Return the lines that are left, or about `hint` bytes of them."""
        lines: list[bytes] = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer; returns how many bytes."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)
