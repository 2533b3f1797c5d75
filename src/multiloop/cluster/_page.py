"""The page of memory that a worker shares with the primary: its heartbeats, and room for its stack when it hangs.

What lives here: `Page`, used by both ends. What must not: what a missed heartbeat leads to (`_supervisor`).

The worker's loop writes the time of its last turn (CLOCK_MONOTONIC is one clock for all processes); the primary looks
when it likes. So a heartbeat costs no message and no wake-up, and a worker that is stopped needs no one to say so.

Beside it stands how many requests are in progress there, for policies that ask.

The watchdog's thread writes another time whenever it runs, at least each half second: it tells a loop that Python code
blocks (that watchdog reports it) from C code that holds the interpreter's lock, under which nothing in the worker can
report anything.

The stack is written by faulthandler, from a C signal handler: also under that lock. It goes into the same file behind
the page, so that the primary can log it in one piece.
"""

from __future__ import annotations

import mmap
import os
import struct

_BEAT = struct.Struct("<d")
_COUNT = struct.Struct("<q")
_THREAD_BEAT_AT, _REQUESTS_AT = 8, 16
_SIZE = mmap.PAGESIZE
_MAX_STACK_BYTES = 64 * 1024


class Page:
    """One worker's page. `descriptor` is what the other process maps."""

    __slots__ = ("_map", "descriptor")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, _SIZE)

    @classmethod
    def create(cls) -> Page:
        """Make a new page; it has no name in any file system."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("multiloop-page")
        else:  # macOS
            import tempfile

            descriptor, path = tempfile.mkstemp(prefix="multiloop-page-")
            os.unlink(path)
        try:
            os.ftruncate(descriptor, _SIZE)
            os.lseek(descriptor, _SIZE, os.SEEK_SET)  # both ends share this offset: the stack goes behind the page
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def beat(self, now: float) -> None:
        """Say that the loop turned at this time (time.monotonic)."""
        _BEAT.pack_into(self._map, 0, now)

    def last_beat(self) -> float:
        """Return when the loop last turned; 0.0 when it never did."""
        value: float = _BEAT.unpack_from(self._map, 0)[0]
        return value

    def thread_beat(self, now: float) -> None:
        """Say that a side thread could run Python code at this time."""
        _BEAT.pack_into(self._map, _THREAD_BEAT_AT, now)

    def last_thread_beat(self) -> float:
        """Return when a side thread last ran; 0.0 when it never did."""
        value: float = _BEAT.unpack_from(self._map, _THREAD_BEAT_AT)[0]
        return value

    def set_requests(self, count: int) -> None:
        """Say how many requests are in progress."""
        _COUNT.pack_into(self._map, _REQUESTS_AT, count)

    def requests(self) -> int:
        """Return how many requests were in progress when the worker last said so."""
        value: int = _COUNT.unpack_from(self._map, _REQUESTS_AT)[0]
        return value

    def take_stack(self) -> str:
        """Return what faulthandler wrote since the last call, and make room for the next."""
        text = os.pread(self.descriptor, _MAX_STACK_BYTES, _SIZE)
        if text:
            os.ftruncate(self.descriptor, _SIZE)
            os.lseek(self.descriptor, _SIZE, os.SEEK_SET)
        return text.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Unmap and close; safe to call twice."""
        self._map.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
