"""Frames: how messages lie on the byte stream between two processes.

What lives here: `encode` and `Decoder`: bytes in, frames out. What must not: sockets, clocks, what a message means,
descriptors themselves (a frame only names them by id; `ipc` resolves them).

    head     magic u16 · kind u16 · descriptors u32 · buffers u32 · body length u64     (little endian, 20 bytes)
    tables   descriptor ids u64 each · buffer lengths u64 each, the top bit set where the buffer must not be written to
    payload  body · buffers, one after the other

Rules
* A frame may arrive in any pieces; a decoder looks at a byte at most twice, whatever the pieces are.
* What is announced above `max_message_bytes` is refused before any memory is taken for it.
* Large bodies and buffers are collected in memory of their own, taken once, so that the socket can read right into it
  (`Decoder.room`). Body and read-only buffers arrive as bytes, the others as bytearray.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from .._limits import MAX_MESSAGE_BYTES
from ..errors import FrameError, FrameTooLarge
from ._memory import Block, take_block
from ._pickle import dumps as dumps
from ._pickle import loads as loads
from ._pickle import snapshot as snapshot

MESSAGE = 0  # the kind of a pickled value; all others are raw, their meaning is the channel's owner's

_MAGIC = 0x6C6D
_HEAD = struct.Struct("<HHIIQ")
_READ_ONLY = 1 << 63
_JOIN_BYTES = 32 * 1024  # up to this size copying a body behind its head is cheaper than a second write
_DIRECT_BYTES = 64 * 1024  # from this size a body or buffer gets memory of its own that the socket reads into
_MAX_TABLE_ENTRIES = 1 << 20

Buffer = bytes | bytearray | memoryview


class Frame(NamedTuple):
    """One message. `descriptors` are ids on the wire, and real descriptors once `ipc` has resolved them."""

    kind: int
    body: Buffer
    buffers: tuple[Buffer, ...] = ()
    descriptors: tuple[int, ...] = ()


def encode(
    kind: int, body: Buffer, buffers: Sequence[Buffer] = (), descriptors: Sequence[int] = ()
) -> list[bytes | memoryview]:
    """Return the pieces of a frame, to be written in order. Small ones are joined, large ones are not copied."""
    if not buffers and not descriptors:
        head = _HEAD.pack(_MAGIC, kind, 0, 0, len(body))
        if len(body) <= _JOIN_BYTES:
            return [head + body]
        return [head, memoryview(body).cast("B")]
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    sizes = [len(view) | _READ_ONLY if view.readonly else len(view) for view in views]
    head = _HEAD.pack(_MAGIC, kind, len(descriptors), len(sizes), len(body))
    head += struct.pack(f"<{len(descriptors) + len(sizes)}Q", *descriptors, *sizes)
    pieces: list[bytes | memoryview] = []
    small: list[bytes | memoryview] = [head]
    for view in (memoryview(body).cast("B"), *views):
        if len(view) <= _JOIN_BYTES:
            small.append(view)
        else:
            pieces.append(b"".join(small))
            pieces.append(view)
            small = []
    if small:
        pieces.append(b"".join(small))
    return pieces


def lone(data: memoryview) -> tuple[int, bytes] | None:
    """Return kind and body when `data` is exactly one small frame without descriptors or buffers; None otherwise.

    The commonest read by far: this is a third of what a Decoder costs. Only between two frames.
    """
    if len(data) < _HEAD.size:
        return None
    magic, kind, descriptors, buffers, size = _HEAD.unpack_from(data)
    if magic != _MAGIC or descriptors or buffers or size + _HEAD.size != len(data):
        return None
    return kind, bytes(data[_HEAD.size :])


class Decoder:
    """Turns the bytes of a stream into frames.

    Either `feed(data)`, or without a copy: when `room()` gives memory, fill its beginning and call `filled(count)`.
    After an error the stream cannot be read on: frames that came before it are returned first, then every call raises.
    """

    __slots__ = ("_failure", "_filling", "_head", "_max", "_need", "_partial")

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max = max_message_bytes
        self._partial = bytearray()  # the beginning of a frame whose head, tables or small payload is not all here
        self._need = _HEAD.size  # how long _partial must be before looking at it makes sense
        self._filling: _Filling | None = None  # a large payload on its way
        self._failure: FrameError | FrameTooLarge | None = None

    @property
    def failed(self) -> bool:
        """Whether the stream is broken: the next call raises why."""
        return self._failure is not None

    @property
    def is_inside_frame(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return bool(self._partial) or self._filling is not None

    def take_partial(self) -> bytes:
        """Give up the beginning of a small frame that is not complete: for who reads the stream on elsewhere."""
        partial = bytes(self._partial)
        self._partial.clear()
        self._need = _HEAD.size
        return partial

    def feed(self, data: Buffer) -> list[Frame]:
        """Return the frames that are complete with `data`, oldest first.

        Raises:
            FrameError: these bytes are no frame.
            FrameTooLarge: a frame is announced that is larger than this channel takes.
        """
        frames = self._none_or_raise()
        view = memoryview(data)
        if self._filling is not None:
            taken = self._filling.take(view)
            if not self._filling.is_complete:
                return frames
            frames.append(self._filling.frame())
            self._filling = None
            view = view[taken:]
        partial = self._partial
        while partial and view:
            # Only as much as is needed is appended, so that what follows is not copied through here.
            missing = self._need - len(partial)
            partial += view[:missing]
            view = view[missing:]
            if len(partial) < self._need:
                return frames
            whole = bytes(partial)
            partial.clear()
            self._decode(memoryview(whole), frames)
        if self._is_filling and view:
            return frames + self.feed(view)
        if view and not self.failed:
            self._decode(view, frames)
        return frames if frames else self._none_or_raise()

    @property
    def _is_filling(self) -> bool:
        return self._filling is not None

    def room(self) -> memoryview | None:
        """Return memory for the next bytes of the stream, when a large part of a payload is expected; else None."""
        return None if self._filling is None else self._filling.room()

    def filled(self, count: int) -> list[Frame]:
        """Say that the first `count` bytes of what `room()` gave are filled; returns as `feed`."""
        filling = self._filling
        if filling is None:
            raise FrameError("filled() without room()")
        filling.advance(count)
        if not filling.is_complete:
            return []
        self._filling = None
        return [filling.frame()]

    def _none_or_raise(self) -> list[Frame]:
        if self._failure is not None:
            raise self._failure
        return []

    def _decode(self, view: memoryview, frames: list[Frame]) -> None:
        """Take frames off `view`; what is left of it goes to `_partial` or into a large payload."""
        position, end = 0, len(view)
        self._need = _HEAD.size
        while end - position >= _HEAD.size:
            magic, kind, n_descriptors, n_buffers, size = _HEAD.unpack_from(view, position)
            if magic != _MAGIC:
                found = bytes(view[position : position + 8])
                self._failure = FrameError(f"expected a frame, got bytes that begin with {found!r}")
                return
            start = position + _HEAD.size
            if not n_descriptors and not n_buffers:  # most frames
                if size > self._max:
                    self._failure = FrameTooLarge(size, self._max)
                    return
                stop = start + size
                if stop <= end:
                    frames.append(Frame(kind, bytes(view[start:stop])))
                    position = stop
                    continue
                descriptors: tuple[int, ...] = ()
                sizes: tuple[int, ...] = ()
                payload = size
            else:
                entries = n_descriptors + n_buffers
                if entries > _MAX_TABLE_ENTRIES:
                    self._failure = FrameError(f"a frame announces {entries} descriptors and buffers")
                    return
                table, start = start, start + 8 * entries
                if start > end:
                    self._need = start - position
                    break
                numbers = struct.unpack_from(f"<{entries}Q", view, table)
                descriptors, sizes = numbers[:n_descriptors], numbers[n_descriptors:]
                payload = size + sum(length & ~_READ_ONLY for length in sizes)
                if payload > self._max:
                    self._failure = FrameTooLarge(payload, self._max)
                    return
                stop = start + payload
                if stop <= end:
                    frames.append(_cut(kind, view[start:stop], size, sizes, descriptors))
                    position = stop
                    continue
            if payload >= _DIRECT_BYTES:
                self._filling = _Filling(kind, size, sizes, descriptors)
                self._filling.take(view[start:])
                return
            self._need = stop - position
            break
        if position < end:
            self._partial += view[position:]


def _cut(kind: int, view: memoryview, size: int, sizes: tuple[int, ...], descriptors: tuple[int, ...]) -> Frame:
    position = size
    buffers: list[Buffer] = []
    for entry in sizes:
        start, position = position, position + (entry & ~_READ_ONLY)
        part = view[start:position]
        buffers.append(bytes(part) if entry & _READ_ONLY else bytearray(part))
    return Frame(kind, bytes(view[:size]), tuple(buffers), descriptors)


class _Filling:
    """A frame with a large payload, on its way: each part has memory of its own, filled in order."""

    __slots__ = ("_at", "_blocks", "_descriptors", "_kind", "_part")

    def __init__(self, kind: int, size: int, sizes: tuple[int, ...], descriptors: tuple[int, ...]) -> None:
        self._kind = kind
        self._descriptors = descriptors
        self._blocks: list[Block] = [
            take_block(entry & ~_READ_ONLY, bool(entry & _READ_ONLY)) for entry in (size | _READ_ONLY, *sizes)
        ]
        self._part = 0  # the block that is filled next
        self._at = 0  # and how much of it is filled
        self._skip_full()

    @property
    def is_complete(self) -> bool:
        return self._part == len(self._blocks)

    def room(self) -> memoryview | None:
        rest = self._blocks[self._part].view[self._at :]
        return rest if len(rest) >= _DIRECT_BYTES else None

    def advance(self, count: int) -> None:
        self._at += count
        self._skip_full()

    def take(self, view: memoryview) -> int:
        """Copy from the beginning of `view`; returns how many bytes belonged to this frame."""
        taken = 0
        while taken < len(view) and not self.is_complete:
            target = self._blocks[self._part].view
            count = min(len(target) - self._at, len(view) - taken)
            target[self._at : self._at + count] = view[taken : taken + count]
            taken += count
            self.advance(count)
        return taken

    def frame(self) -> Frame:
        body, *buffers = [block.done() for block in self._blocks]
        return Frame(self._kind, body, tuple(buffers), self._descriptors)

    def _skip_full(self) -> None:
        while self._part < len(self._blocks) and self._at == len(self._blocks[self._part].view):
            self._part += 1
            self._at = 0
