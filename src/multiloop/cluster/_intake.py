"""The worker's end of the handoff: connections come in, acknowledgements and given-back connections go out.

What lives here: `Intake`. What must not: serving a connection (the service does), deciding when to drain (`_worker`).

Each connection gets two acknowledgements: ADOPTED when the service has it, RELEASED at its first byte or its end, which
lets the primary drop its duplicate. They are gathered for a moment, since one record for many costs what one for one
does. On a Unix socket the first byte is acknowledged at once: only for TCP can the primary ask the kernel instead.

A connection that ends before its release was sent is shut down first: while the primary holds a duplicate, a close
would send nothing to the client.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from typing import TYPE_CHECKING

from .. import _limits as limits
from .._wire import messages as wire
from ..ipc._handoff import HandoffSocket

if TYPE_CHECKING:
    from ._service import Service

log = logging.getLogger("multiloop.cluster")

_MAX_NUMBERS = 1024  # acknowledgements in one record
_RETURNS_IN_FLIGHT = 32  # given back and not yet confirmed; the primary must hold each of them
_RETRY_S = 0.05


class _Adopted:
    """One connection's acknowledgements."""

    __slots__ = ("_id", "_intake", "_seen", "_sock")

    def __init__(self, intake: Intake, number: int, sock: socket.socket) -> None:
        self._intake = intake
        self._id = number
        self._sock = sock
        self._seen = False

    def first_byte(self) -> None:
        self._seen = True
        self._intake._note(self._id, wire.RELEASED)

    def first_byte_on_unix(self) -> None:
        self._seen = True
        self._intake._note(self._id, wire.RELEASED)
        self._intake.flush()

    def closed(self) -> None:
        intake = self._intake
        if (not self._seen or intake._unsent(self._id) & wire.RELEASED) and not intake._was_given(self._sock):
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # the client was faster
                pass
        intake._note(self._id, wire.CLOSED)


class Intake:
    """Adopts what the primary deals to this worker.

    Args:
        families: the address family of each listener, by index.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, end: HandoffSocket, service: Service, families: tuple[int, ...]
    ) -> None:
        self._loop = loop
        self._end = end
        self._service = service
        self._families = families
        self._is_unix = tuple(family == getattr(socket, "AF_UNIX", None) for family in families)
        self._acks: dict[int, int] = {}
        self._flush_at = limits.HANDOFF_CREDIT // 2
        self._timer: asyncio.TimerHandle | None = None
        self._returns: deque[tuple[socket.socket, int]] = deque()
        self._in_flight: dict[int, tuple[socket.socket, int]] = {}
        self._next_return = 1
        self._given: set[int] = set()  # inodes of sockets that were given back: they must not be shut down
        self._settled: asyncio.Future[None] | None = None
        self._closed = False
        loop.add_reader(end.sock, self.read_one)

    # -- connections come in -------------------------------------------------------------------------------------------
    def read_one(self) -> bool:
        """Read one record; False when there is none."""
        try:
            got = self._end.receive()
        except (EOFError, OSError):  # the primary is gone: the side thread sees to that
            self._loop.remove_reader(self._end.sock)
            return False
        if got is None:
            return False
        record, descriptors = got
        if wire.kind_of(record) == wire.CONNECTIONS:
            self._adopt_all(wire.unpack_entries(record), descriptors)
        else:
            self._taken(wire.unpack_numbers(record))
        return True

    def read_all(self) -> None:
        """Read what there is, before draining."""
        while not self._closed and self.read_one():
            pass

    def _adopt_all(self, entries: list[wire.Entry], descriptors: list[int]) -> None:
        arrived = len(descriptors)
        for index, (number, listener, flags, prefix) in enumerate(entries):
            if index >= arrived:  # this process has no room for more descriptors
                self._note(number, wire.NOT_RECEIVED)
                continue
            sock = socket.socket(self._families[listener], socket.SOCK_STREAM, 0, descriptors[index])
            adopted = _Adopted(self, number, sock)
            self._note(number, wire.ADOPTED)
            try:
                self._service.adopt(
                    sock,
                    listener=listener,
                    prefix=prefix,
                    kept=bool(flags & wire.KEPT),
                    on_first_byte=adopted.first_byte_on_unix if self._is_unix[listener] else adopted.first_byte,
                    on_closed=adopted.closed,
                )
            except Exception:
                log.exception("a connection could not be adopted")
                adopted.closed()
                sock.close()

    # -- acknowledgements go out ---------------------------------------------------------------------------------------
    def _note(self, number: int, flag: int) -> None:
        acks = self._acks
        acks[number] = acks.get(number, 0) | flag
        if len(acks) >= self._flush_at:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(limits.ACK_DELAY_S, self.flush)

    def _unsent(self, number: int) -> int:
        return self._acks.get(number, 0)

    def flush(self) -> None:
        """Send the acknowledgements gathered so far."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        acks = self._acks
        if not acks or self._closed:
            return
        numbers = [number << 3 | flags for number, flags in acks.items()]
        try:
            if len(numbers) <= _MAX_NUMBERS and self._end.send(wire.pack_numbers(wire.ACKS, numbers)):
                acks.clear()
                return
            for start in range(0, len(numbers), _MAX_NUMBERS):
                part = numbers[start : start + _MAX_NUMBERS]
                if not self._end.send(wire.pack_numbers(wire.ACKS, part)):
                    break
                for value in part:
                    del acks[value >> 3]
        except OSError:  # the primary is gone
            acks.clear()
            return
        if acks:
            self._timer = self._loop.call_later(_RETRY_S, self.flush)

    # -- connections go back -------------------------------------------------------------------------------------------
    def give_back(self, sock: socket.socket, listener: int) -> bool:
        """Give an idle connection to the primary; `sock` is a duplicate and ours from now on. False: not possible."""
        if self._closed:
            return False
        self._given.add(os.fstat(sock.fileno()).st_ino)
        self._returns.append((sock, listener))
        if len(self._returns) == 1:
            self._loop.call_soon(self._send_returns)
        return True

    def _was_given(self, sock: socket.socket) -> bool:
        if not self._given:
            return False
        try:
            return os.fstat(sock.fileno()).st_ino in self._given
        except OSError:
            return True  # closed already: nothing to shut down

    def _send_returns(self) -> None:
        while self._returns and not self._closed:
            room = min(_RETURNS_IN_FLIGHT - len(self._in_flight), len(self._returns))
            if room <= 0:
                return
            batch = [self._returns.popleft() for _ in range(room)]
            entries = []
            for sock, listener in batch:
                entries.append(wire.Entry(self._next_return, listener, wire.KEPT))
                self._in_flight[self._next_return] = (sock, listener)
                self._next_return += 1
            try:
                sent = self._end.send(wire.pack_entries(wire.RETURNED, entries), [sock.fileno() for sock, _ in batch])
            except OSError:
                self._drop_returns()
                return
            if not sent:
                for entry in reversed(entries):
                    self._returns.appendleft(self._in_flight.pop(entry.id))
                self._loop.call_later(_RETRY_S, self._send_returns)
                return

    def _taken(self, numbers: object) -> None:
        lost = False
        for value in numbers:  # type: ignore[attr-defined]
            given = self._in_flight.pop(value >> 1, None)
            if given is None:
                continue
            if value & 1:
                given[0].close()
            else:  # the primary has no descriptor left: offer it again
                lost = True
                self._returns.append(given)
        if lost:
            self._loop.call_later(_RETRY_S, self._send_returns)
        else:
            self._send_returns()
        self._check_settled()

    def _drop_returns(self) -> None:
        for sock, _ in (*self._returns, *self._in_flight.values()):
            sock.close()
        self._returns.clear()
        self._in_flight.clear()
        self._check_settled()

    def _check_settled(self) -> None:
        waiter = self._settled
        if waiter is not None and not waiter.done() and not self._returns and not self._in_flight:
            waiter.set_result(None)

    async def settle(self) -> None:
        """Wait until the primary has everything: acknowledgements and connections given back."""
        if self._returns or self._in_flight:
            self._settled = self._loop.create_future()
            await self._settled
        self.flush()

    def close(self) -> None:
        """Take nothing more, and close what was to be given back. Safe to call twice."""
        if not self._closed:
            self.flush()
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._drop_returns()
            self._loop.remove_reader(self._end.sock)
            self._end.close()
