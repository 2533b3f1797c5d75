"""What workers answer on their handoff sockets, and what follows for the connections.

What lives here: `Answers`, the half of the dealer that listens. What must not: the half that accepts and deals
(`_dealer`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from .._wire import messages as wire
from ._door import Door
from ._link import KERNEL, Kernel, Link, Waiting


class Answers:
    """Keeps the accounts of workers by what they answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, kernel: Kernel = KERNEL) -> None:
        self._loop = loop
        self._kernel = kernel
        self._read_before: dict[int, int] = {}  # of those that were given back: what had been read from them by then
        self._links: dict[int, Link] = {}
        self._door_of: dict[int, Door] = {}  # by the listener's index
        self._held = 0  # duplicates, over all workers
        self._busy: dict[Door, None] = {}  # doors behind which connections wait
        self._unanswered: list[tuple[Link, bytes, set[Door]]] = []  # returns, and where they went
        self.dealt_again = 0
        self.refused = 0

    # -- looking -------------------------------------------------------------------------------------------------------
    def links(self) -> dict[int, Link]:
        """Return the workers' accounts, for reading."""
        return self._links

    @property
    def duplicates(self) -> int:
        """How many connections the primary keeps a copy of."""
        return self._held

    # -- for the other half --------------------------------------------------------------------------------------------
    def _list(self, link: Link) -> None:
        raise NotImplementedError

    def _deal_pending(self) -> None:
        raise NotImplementedError

    def _update_all(self, link: Link) -> None:
        raise NotImplementedError

    def _wait(self, waiting: Waiting, *, first: bool = False) -> None:
        """Let a connection wait behind its door; close it when the door is gone."""
        door = self._door_of.get(waiting[1])
        if door is None:
            self._close(waiting[0])
            return
        if first:
            door.pending.appendleft(waiting)
        else:
            door.pending.append(waiting)
        self._busy[door] = None

    def _undo(self, link: Link, number: int) -> None:
        """A connection did not get to its worker: it is the primary's again."""
        link.undone()
        waiting = link.held.pop(number, None)
        if waiting is not None:
            self._held -= 1
            self._wait(waiting, first=True)

    # -- what workers say ----------------------------------------------------------------------------------------------
    def _heard(self, link: Link) -> None:
        was_full = bool(link.full)
        if not self._hear_one(link):
            return
        if not link.listed:
            self._list(link)
        if self._busy or self._unanswered:
            self._deal_pending()
        if was_full or link.full:  # after those that wait here had their turn
            self._update_all(link)

    def _hear_one(self, link: Link) -> bool:
        """Read one record from a worker; False when there is none."""
        try:
            got = link.end.receive()
        except (EOFError, OSError):
            self._loop.remove_reader(link.end.sock)
            return False
        if got is None:
            return False
        record, descriptors = got
        if wire.kind_of(record) == wire.ACKS:
            self._acknowledged(link, wire.unpack_numbers(record))
        else:
            self._returned(link, wire.unpack_entries(record), descriptors)
        return True

    def _acknowledged(self, link: Link, numbers: Iterable[int]) -> None:
        held = link.held
        close = self._close
        for value in numbers:
            number, flags = value >> wire.ACK_BITS, value & wire.ACK_FLAGS
            if flags & wire.ADOPTED:
                link.free += 1
            if flags & wire.REFUSED:
                self.refused += 1
                waiting = held.get(number)
                link.refused(self._door_of.get(waiting[1]) if waiting is not None else None)
            elif flags & wire.CLOSED:
                link.closed()
            if flags & (wire.RELEASED | wire.CLOSED):
                waiting = held.pop(number, None)
                if waiting is not None:
                    self._held -= 1
                    close(waiting[0])
            elif not flags:  # NOT_RECEIVED: the worker has no descriptor left
                self._undo(link, number)
                link.congested = True
                link.unlist()

    def _returned(self, link: Link, entries: list[wire.Entry], descriptors: list[int]) -> None:
        """Connections come back, from a worker that drains or whose server is full: they wait like any other."""
        answers = []
        doors: set[Door] = set()
        for index, (number, listener, flags, prefix) in enumerate(entries):
            arrived = index < len(descriptors)
            answers.append(number << 1 | arrived)
            if (door := self._door_of.get(listener)) is not None:
                doors.add(door)
            if arrived:
                self._remember(descriptors[index], len(prefix))
                self._wait((descriptors[index], listener, flags, prefix))
        # Answered when they have found a place: until then the worker sends no more than it has under way.
        self._unanswered.append((link, wire.pack_numbers(wire.TAKEN, answers), doors))

    def _remember(self, descriptor: int, prefix_bytes: int) -> None:
        """It was read from, but not by whoever has it next: if that one dies, it can be dealt once more.

        The prefix is counted where it is: it travels with the connection.
        """
        try:
            self._read_before[descriptor] = self._kernel.bytes_read(descriptor) - prefix_bytes
        except OSError:  # the client is gone
            self._read_before.pop(descriptor, None)

    def _close(self, descriptor: int) -> None:
        if self._read_before:  # the number will be another connection's
            self._read_before.pop(descriptor, None)
        self._kernel.close(descriptor)

    def _answer_returns(self) -> None:
        unanswered, self._unanswered = self._unanswered, []
        for link, record, doors in unanswered:
            if any(door in self._busy for door in doors):
                self._unanswered.append((link, record, doors))
            else:
                link.send_taken(record)
