"""The page of memory that a worker shares with the primary: its heartbeats, and room for its stack when it hangs.

What lives here: `Page`, used by both ends. What must not: what a missed heartbeat leads to (`_supervisor`).

The worker's loop writes the time of its last turn (CLOCK_MONOTONIC is one clock for all processes); the primary looks
when it likes. So a heartbeat costs no message and no wake-up, and a worker that is stopped needs no one to say so.

Beside it stands how many requests are in progress there, and how long one takes as a rule, for policies that ask.

The watchdog's thread writes another time whenever it runs, at least each half second: it tells a loop that Python code
blocks (that watchdog reports it) from C code that holds the interpreter's lock, under which nothing in the worker can
report anything.

While a worker is measured, its server counts replies here (`http._meter`), and its watchdog writes where the loop is
blocked while it is: the primary can tell both without an answer of the worker.

The stack is written by faulthandler, from a C signal handler: also under that lock. It goes into the same file behind
the page, so that the primary can log it in one piece.

    0 the loop's beat · 8 the side thread's · 16 requests in progress · 24 sequence and size of the block
    32 the usual seconds of a request · 64 replies
    8192 the block as JSON
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from dataclasses import asdict, replace

from ..http._meter import SIZE_BYTES, Replies, read_meter
from ..stats import BlockedLoop

_SECONDS = struct.Struct("<d")
_COUNT = struct.Struct("<q")
_THREAD_BEAT_AT, _REQUESTS_AT = 8, 16
_BLOCK = struct.Struct("<II")  # a sequence number, odd while it is written, and the size of the JSON
_BLOCK_AT = 24
_TYPICAL_AT = 32
_METER_AT = 64
_TEXT_AT = 8 * 1024
_SIZE = 32 * 1024  # a multiple of every page size that we know
_MAX_TEXT_BYTES = _SIZE - _TEXT_AT
_MAX_BLOCK_STACK_CHARS = 8000  # its innermost part: the JSON of it has to fit
_MAX_STACK_BYTES = 64 * 1024
assert _METER_AT + SIZE_BYTES <= _TEXT_AT


class Page:
    """One worker's page. `descriptor` is what the other process maps."""

    __slots__ = ("_block_written", "_map", "descriptor")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, _SIZE)
        self._block_written = 0

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
            os.fchmod(descriptor, 0o600)  # the kernel makes it 0777, whatever the umask
            os.ftruncate(descriptor, _SIZE)
            os.lseek(descriptor, _SIZE, os.SEEK_SET)  # both ends share this offset: the stack goes behind the page
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def beat(self, now: float) -> None:
        """Say that the loop turned at this time (time.monotonic)."""
        _SECONDS.pack_into(self._map, 0, now)

    def last_beat(self) -> float:
        """Return when the loop last turned; 0.0 when it never did."""
        value: float = _SECONDS.unpack_from(self._map, 0)[0]
        return value

    def thread_beat(self, now: float) -> None:
        """Say that a side thread could run Python code at this time."""
        _SECONDS.pack_into(self._map, _THREAD_BEAT_AT, now)

    def last_thread_beat(self) -> float:
        """Return when a side thread last ran; 0.0 when it never did."""
        value: float = _SECONDS.unpack_from(self._map, _THREAD_BEAT_AT)[0]
        return value

    def set_load(self, requests: int, typical_s: float) -> None:
        """Say how many requests are in progress, and how long one takes as a rule (0.0: not known)."""
        _COUNT.pack_into(self._map, _REQUESTS_AT, requests)
        _SECONDS.pack_into(self._map, _TYPICAL_AT, typical_s)

    def requests(self) -> int:
        """Return how many requests were in progress when the worker last said so."""
        value: int = _COUNT.unpack_from(self._map, _REQUESTS_AT)[0]
        return value

    def typical_s(self) -> float:
        """Return how long a request took as a rule when the worker last said so; 0.0 when it never did."""
        value: float = _SECONDS.unpack_from(self._map, _TYPICAL_AT)[0]
        return value

    def meter_memory(self) -> memoryview:
        """Return where replies are counted; for the worker, which never unmaps the page."""
        return memoryview(self._map)[_METER_AT : _METER_AT + SIZE_BYTES]

    def replies(self) -> Replies:
        """Return what the worker's server has counted."""
        return read_meter(self._map, _METER_AT)  # type: ignore[arg-type]

    def show_block(self, block: BlockedLoop | None) -> None:
        """Say where the loop is blocked now; None: nowhere. From any thread of the worker, one at a time."""
        if block is None and not self._block_written:
            return
        data = b""
        if block is not None:
            data = json.dumps(asdict(replace(block, stack=block.stack[-_MAX_BLOCK_STACK_CHARS:]))).encode()
            if len(data) > _MAX_TEXT_BYTES:
                data = json.dumps(asdict(replace(block, stack=""))).encode()[:_MAX_TEXT_BYTES]
        sequence = _BLOCK.unpack_from(self._map, _BLOCK_AT)[0] | 1
        _BLOCK.pack_into(self._map, _BLOCK_AT, sequence, 0)
        self._map[_TEXT_AT : _TEXT_AT + len(data)] = data
        _BLOCK.pack_into(self._map, _BLOCK_AT, (sequence + 1) & 0xFFFFFFFF, len(data))
        self._block_written = len(data)

    def shown_block(self) -> BlockedLoop | None:
        """Return where the worker's loop is blocked, if its watchdog has seen it; None also while that is written."""
        before, size = _BLOCK.unpack_from(self._map, _BLOCK_AT)
        if before & 1 or not 0 < size <= _MAX_TEXT_BYTES:
            return None
        data = self._map[_TEXT_AT : _TEXT_AT + size]
        if _BLOCK.unpack_from(self._map, _BLOCK_AT)[0] != before:
            return None
        try:
            return BlockedLoop(**json.loads(data))
        except (ValueError, TypeError):
            return None

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
