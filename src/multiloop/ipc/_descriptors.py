"""The descriptor half of a channel: descriptors travel in records beside the byte stream, and are acknowledged.

What lives here: `DescriptorHalf`, one for each channel. What must not: the byte stream.

    GIVE ids   + the descriptors themselves      the sender keeps a duplicate until
    GOT ids                                      … they are acknowledged, or
    MISSED ids                                   … the receiver had no room for them (its descriptor limit): sent again,
    GONE ids                                     … at most 3 times; then the frames that name them go on without.
    URGENT frame                                 a small frame that does not wait behind a large one on the stream.

A receiver at its limit of open files loses passed descriptors without an error: hence the acknowledgements. The number
in flight is bounded, since the kernel counts them against the sender's limit (ETOOMANYREFS).
"""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from .._limits import DESCRIPTOR_ATTEMPTS, DESCRIPTOR_RETRY_S, DESCRIPTORS_IN_FLIGHT

_GIVE, _GOT, _MISSED, _GONE, _URGENT = b"D", b"A", b"M", b"X", b"U"
_BATCH = 64  # descriptors in one record; the kernel takes 253
_RECORD_BYTES = 64 * 1024
URGENT_MAX_BYTES = 16 * 1024  # of an urgent frame: a record must fit into an empty socket buffer
_CMSG_BYTES = socket.CMSG_SPACE(_BATCH * array.array("i").itemsize)
_RECEIVE_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0) | socket.MSG_DONTWAIT

LOST = -1  # stands in a frame for a descriptor that never came


class DescriptorHalf:
    """Sends, receives and acknowledges descriptors on one socket of records."""

    __slots__ = (
        "_attempts",
        "_flush_queued",
        "_flying",
        "_held",
        "_loop",
        "_next_id",
        "_on_arrived",
        "_on_settled",
        "_on_urgent",
        "_records",
        "_retries",
        "_socket",
        "_unsent",
        "_writing",
        "arrived",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_arrived: Callable[[], None],
        on_settled: Callable[[], None],
        on_urgent: Callable[[bytes], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._socket = sock
        self._on_arrived = on_arrived
        self._on_settled = on_settled
        self._on_urgent = on_urgent
        self._next_id = 1
        self._held: dict[int, int] = {}  # id → our duplicate, until it is acknowledged or given up
        self._attempts: dict[int, int] = {}
        self._flying: set[int] = set()  # ids in the kernel or at the receiver, not acknowledged
        self._unsent: deque[int] = deque()  # ids to give
        self._records: deque[bytes] = deque()  # answers and urgent frames to send, before anything else
        self._retries: set[asyncio.TimerHandle] = set()
        self._flush_queued = False
        self._writing = False
        self.arrived: dict[int, int] = {}  # id → descriptor (or LOST) that no frame has asked for yet
        loop.add_reader(sock, self.read)

    # -- sending ---------------------------------------------------------------------------------------------------
    def give(self, descriptors: Sequence[int], own: bool) -> list[int]:
        """Send descriptors; returns their ids. `own`: take them over instead of duplicating them."""
        held = list(descriptors) if own else _duplicate(descriptors)
        ids = []
        for descriptor in held:
            number = self._next_id
            self._next_id += 1
            self._held[number] = descriptor
            self._unsent.append(number)
            ids.append(number)
        self._flush_soon()
        return ids

    def send_urgent(self, frame: bytes) -> None:
        """Send a small frame past the byte stream."""
        self._records.append(_URGENT + frame)
        if not self._writing:
            self._flush()

    @property
    def outstanding(self) -> int:
        """How many descriptors are not acknowledged, and records not sent."""
        return len(self._held) + len(self._records)

    def _flush_soon(self) -> None:
        # Several descriptors given in one turn of the loop leave in one record.
        if not self._flush_queued and not self._writing:
            self._flush_queued = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_queued = False
        if self._socket.fileno() < 0:
            return
        try:
            while self._records:
                self._socket.send(self._records[0])
                self._records.popleft()
            while self._unsent and len(self._flying) < DESCRIPTORS_IN_FLIGHT:
                batch = [self._unsent[index] for index in range(min(_BATCH, len(self._unsent)))]
                fds = array.array("i", [self._held[number] for number in batch])
                self._socket.sendmsg([_pack(_GIVE, batch)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                for number in batch:
                    self._unsent.popleft()
                    self._flying.add(number)
        except (BlockingIOError, InterruptedError):
            self._want_write(True)
            return
        except OSError as error:
            if error.errno in _BUSY:
                self._retry_later(0)
            else:
                self._give_up_sending()  # the other end is gone
            return
        self._want_write(False)
        self._on_settled()

    def _want_write(self, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._socket, self._flush)
            else:
                self._loop.remove_writer(self._socket)

    def _retry_later(self, attempt: int) -> None:
        self._want_write(False)
        timer: asyncio.TimerHandle

        def again() -> None:
            self._retries.discard(timer)
            self._flush()

        timer = self._loop.call_later(DESCRIPTOR_RETRY_S * 2**attempt, again)
        self._retries.add(timer)

    def _give_up_sending(self) -> None:
        self._want_write(False)
        self._records.clear()
        self._unsent.clear()
        self._flying.clear()
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()
        self._on_settled()

    @property
    def has_room(self) -> bool:
        return len(self._held) <= DESCRIPTORS_IN_FLIGHT // 4

    @property
    def unacknowledged(self) -> int:
        return len(self._held)

    # -- receiving -------------------------------------------------------------------------------------------------
    def read(self) -> None:
        """Take every record that is there."""
        news = False
        while self._socket.fileno() >= 0:
            try:
                record, ancillary, _, _ = self._socket.recvmsg(_RECORD_BYTES, _CMSG_BYTES, _RECEIVE_FLAGS)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                record, ancillary = b"", []
            if not record:
                self._loop.remove_reader(self._socket)
                break
            kind, rest = record[:1], record[1:]
            if kind == _URGENT:
                self._on_urgent(rest)
                continue
            ids = struct.unpack(f"<{len(rest) // 8}Q", rest)
            if kind == _GIVE:
                self._received(ids, received_descriptors(ancillary))
                news = True
            elif kind == _GOT:
                self._acknowledged(ids)
            elif kind == _MISSED:
                self._missed(ids)
            elif kind == _GONE:
                self.arrived.update(dict.fromkeys(ids, LOST))
                news = True
        if news:
            self._on_arrived()

    def _received(self, ids: tuple[int, ...], descriptors: list[int]) -> None:
        here = len(descriptors)
        self.arrived.update(zip(ids, descriptors, strict=False))
        if here:
            self._answer(_GOT, ids[:here])
        if here < len(ids):
            self._answer(_MISSED, ids[here:])

    def _answer(self, kind: bytes, ids: Sequence[int]) -> None:
        self._records.append(_pack(kind, ids))
        if not self._writing:
            self._flush()

    def _acknowledged(self, ids: Sequence[int]) -> None:
        for number in ids:
            self._flying.discard(number)
            self._attempts.pop(number, None)
            descriptor = self._held.pop(number, None)
            if descriptor is not None:
                os.close(descriptor)
        if self._unsent:
            self._flush_soon()
        self._on_settled()

    def _missed(self, ids: tuple[int, ...]) -> None:
        again = False
        for number in ids:
            self._flying.discard(number)
            if number not in self._held:
                continue
            tried = self._attempts[number] = self._attempts.get(number, 0) + 1
            if tried >= DESCRIPTOR_ATTEMPTS:
                self._answer(_GONE, [number])
                self._acknowledged((number,))
            else:
                self._unsent.append(number)
                again = True
        if again:
            self._retry_later(max(self._attempts.get(number, 1) for number in ids) - 1)

    # -- the end ---------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Close the socket and everything that was not handed over in either direction."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._want_write(False)
        for timer in self._retries:
            timer.cancel()
        self._retries.clear()
        for descriptor in (*self._held.values(), *self.arrived.values()):
            if descriptor != LOST:
                os.close(descriptor)
        self._held.clear()
        self.arrived.clear()
        self._unsent.clear()
        self._records.clear()
        self._socket.close()


_BUSY = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})  # too much in flight: passes


def _pack(kind: bytes, ids: Sequence[int]) -> bytes:
    return kind + struct.pack(f"<{len(ids)}Q", *ids)


def _duplicate(descriptors: Sequence[int]) -> list[int]:
    made: list[int] = []
    try:
        for descriptor in descriptors:
            made.append(os.dup(descriptor))  # noqa: PERF401 - what was made so far is closed when one fails
    except OSError:
        for descriptor in made:
            os.close(descriptor)
        raise
    return made


def received_descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors in what recvmsg gave beside the data."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def close_all(descriptors: Iterable[int]) -> None:
    """Close the descriptors of a frame, those that came."""
    for descriptor in descriptors:
        if descriptor != LOST:
            os.close(descriptor)
