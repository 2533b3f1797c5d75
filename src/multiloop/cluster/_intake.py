"""The worker's end of the handoff: connections come in, acknowledgements and connections that go back go out.

What lives here: `Intake`. What must not: serving a connection (the service does), deciding when to drain (`_worker`).

A connection goes back when it is idle and the worker drains, or when the service refuses it (its server is full).

Each connection gets two acknowledgements: ADOPTED when the service has it, RELEASED at its first byte or its end, which
lets the primary drop its duplicate. On a Unix socket the first byte is acknowledged at once: only for TCP can the
primary ask the kernel instead. That a connection was refused is said in the place of both, before it goes back; and in
its place among those that end, since each of these makes room for another one.

While the primary holds a duplicate, a close here sends nothing to the client. So what ends is acknowledged at the end of
the loop's turn, unless some were a moment ago; the rest is gathered, since one record for many costs what one for one
does.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _limits as limits
from .._wire import messages as wire
from ..ipc._handoff import HandoffSocket

if TYPE_CHECKING:
    from ._service import Adopter

log = logging.getLogger("multiloop.cluster")

_MAX_NUMBERS = 1024  # acknowledgements in one record
_RETURNS_IN_FLIGHT = 32  # given back and not yet confirmed; the primary must hold each of them
_FLUSH_AT = 16  # acknowledgements that go out at once: half of the credit
_RETRY_S = 0.05


_AF_UNIX = getattr(socket, "AF_UNIX", None)


class _Return(NamedTuple):
    """A connection on its way back."""

    sock: socket.socket
    listener: int
    flags: int
    prefix: bytes


class _Adopted:
    """One connection: its acknowledgements; and, for uvloop, as much of a socket as its transports look at.

    A real socket object would cost a system call and a dozen Python calls. The transport closes the descriptor.
    """

    __slots__ = ("_descriptor", "_intake", "_number", "family")

    type = int(socket.SOCK_STREAM)
    proto = 0

    def __init__(self, intake: Intake, number: int, descriptor: int, family: int) -> None:
        self._intake = intake
        self._number = number
        self._descriptor = descriptor
        self.family = family

    def first_byte(self) -> None:
        intake, number = self._intake, self._number
        intake.acks[number] = intake.acks.get(number, 0) | wire.RELEASED
        if intake.timer is None:
            intake.flush_soon()

    def first_byte_on_unix(self) -> None:
        self.first_byte()
        self._intake.flush()

    def closed(self) -> None:
        intake, number = self._intake, self._number
        intake.acks[number] = intake.acks.pop(number, 0) | wire.CLOSED  # the last: in the order of what happened
        if intake.flushing:
            return
        # The client waits for this one. The first goes at the end of this turn, what follows soon after goes together.
        if intake.loop.time() - intake.flushed_at >= limits.ACK_DELAY_S:
            intake.flushing = True
            intake.loop.call_soon(intake.flush)
        elif intake.timer is None:
            intake.flush_soon()

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        """Nothing to do: whoever took the descriptor closes it."""


class Intake:
    """Adopts what the primary deals to this worker.

    Args:
        family_of: gives the address family of a listener, by index.
        before_flush: called before acknowledgements go out: who is told that a connection has spoken may look at once
            how many requests there are now.
        bare: hand descriptors over without a socket object; None: where the loop can take them so (uvloop).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        end: HandoffSocket,
        service: Adopter,
        family_of: Callable[[int], int],
        before_flush: Callable[[], None] | None = None,
        *,
        bare: bool | None = None,
    ) -> None:
        self.loop = loop
        self.acks: dict[int, int] = {}  # by connection: what was not told yet
        self.flushing = False  # the acknowledgements go out at the end of this turn
        self.flushed_at = 0.0  # when they last did
        self._end = end
        self._service = service
        self._before_flush = before_flush
        self._family_of = family_of
        self._is_bare = type(loop).__module__.startswith("uvloop") if bare is None else bare
        self.timer: asyncio.TimerHandle | None = None
        self._returns: deque[_Return] = deque()
        self._in_flight: dict[int, _Return] = {}
        self._next_return = 1
        self._settled: asyncio.Future[None] | None = None
        self._closed = False
        loop.add_reader(end.sock, self.read_one)

    # -- connections come in -------------------------------------------------------------------------------------------
    def read_one(self) -> bool:
        """Read one record; False when there is none."""
        try:
            got = self._end.receive()
        except (EOFError, OSError):  # the primary is gone: the side thread sees to that
            self.loop.remove_reader(self._end.sock)
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
        arrived, acks = len(descriptors), self.acks
        for index, (number, listener, flags, prefix) in enumerate(entries):
            if index >= arrived:  # this process has no room for more descriptors
                acks[number] = wire.NOT_RECEIVED
                continue
            acks[number] = wire.ADOPTED
            family, descriptor = self._family_of(listener), descriptors[index]
            adopted = _Adopted(self, number, descriptor, family)
            sock: Any = adopted
            if not self._is_bare:
                sock = socket.socket(family, socket.SOCK_STREAM, 0, descriptor)
                sock.setblocking(False)
            try:
                taken = self._service.adopt(
                    sock,
                    listener=listener,
                    prefix=prefix,
                    kept=bool(flags & wire.KEPT),
                    on_first_byte=adopted.first_byte_on_unix if family == _AF_UNIX else adopted.first_byte,
                    on_closed=adopted.closed,
                )
            except Exception:
                log.exception("a connection could not be adopted")
                adopted.closed()
                continue
            if taken is False:
                if sock is not adopted:
                    sock.detach()
                acks[number] |= wire.CLOSED | wire.REFUSED
                refused = socket.socket(family, socket.SOCK_STREAM, 0, descriptor)
                self._give_back(_Return(refused, listener, flags, prefix))
        if len(acks) >= _FLUSH_AT:
            self.flush()
        elif self.timer is None:
            self.flush_soon()

    # -- acknowledgements go out ---------------------------------------------------------------------------------------
    def flush_soon(self) -> None:
        """Send what is gathered until then in a moment. Call it only when `timer` is None."""
        self.timer = self.loop.call_later(limits.ACK_DELAY_S, self._delayed_flush)

    def _delayed_flush(self) -> None:
        self.timer = None
        self.flush()

    def flush(self) -> None:
        """Send the acknowledgements gathered so far."""
        self.flushing = False
        self.flushed_at = self.loop.time()
        acks = self.acks
        if not acks or self._closed:
            return
        if self._before_flush is not None:
            self._before_flush()
        numbers = [number << wire.ACK_BITS | flags for number, flags in acks.items()]
        acks.clear()
        try:
            while numbers:
                part = numbers[:_MAX_NUMBERS]
                if not self._end.send(wire.pack_numbers(wire.ACKS, part)):
                    break
                del numbers[:_MAX_NUMBERS]
        except OSError:  # the primary is gone
            return
        if numbers:  # no room: the primary is busy, or stopped
            for value in numbers:
                acks[value >> wire.ACK_BITS] = value & wire.ACK_FLAGS
            if self.timer is None:
                self.timer = self.loop.call_later(_RETRY_S, self._delayed_flush)

    # -- connections go back -------------------------------------------------------------------------------------------
    def give_back(self, sock: socket.socket, listener: int) -> bool:
        """Give an idle connection to the primary; `sock` is a duplicate and ours from now on. False: not possible."""
        if self._closed:
            return False
        self._give_back(_Return(sock, listener, wire.KEPT, b""))
        return True

    def _give_back(self, given: _Return) -> None:
        self._returns.append(given)
        if len(self._returns) == 1:
            self.loop.call_soon(self._send_returns)

    def _send_returns(self) -> None:
        self.flush()  # who refused them is known before they come
        while self._returns and not self._closed:
            room = min(_RETURNS_IN_FLIGHT - len(self._in_flight), len(self._returns))
            if room <= 0:
                return
            batch = [self._returns.popleft() for _ in range(room)]
            entries = []
            for given in batch:
                entries.append((self._next_return, given.listener, given.flags, given.prefix))
                self._in_flight[self._next_return] = given
                self._next_return += 1
            descriptors = [given.sock.fileno() for given in batch]
            try:
                sent = self._end.send(wire.pack_entries(wire.RETURNED, entries), descriptors)
            except OSError:
                self._drop_returns()
                return
            if not sent:
                for entry in reversed(entries):
                    self._returns.appendleft(self._in_flight.pop(entry[0]))
                self.loop.call_later(_RETRY_S, self._send_returns)
                return

    def _taken(self, numbers: Iterable[int]) -> None:
        lost = False
        for value in numbers:
            given = self._in_flight.pop(value >> 1, None)
            if given is None:
                continue
            if value & 1:
                given.sock.close()
            else:  # the primary has no descriptor left: offer it again
                lost = True
                self._returns.append(given)
        if lost:
            self.loop.call_later(_RETRY_S, self._send_returns)
        else:
            self._send_returns()
        self._check_settled()

    def _drop_returns(self) -> None:
        for given in (*self._returns, *self._in_flight.values()):
            given.sock.close()
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
            self._settled = self.loop.create_future()
            await self._settled
        self.flush()

    def close(self) -> None:
        """Take nothing more, and close what was to be given back. Safe to call twice."""
        if not self._closed:
            self.flush()
            self._closed = True
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
            self._drop_returns()
            self.loop.remove_reader(self._end.sock)
            self._end.close()
