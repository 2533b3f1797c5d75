"""Accepts connections and deals them to workers; takes them back from those that stop, die or drain.

What lives here: `Dealer`. What must not: which workers there are and why (`_supervisor`), who is picked (`_policy`).

    listener ─ accept ─▶ policy ─▶ link.batch ═ one sendmsg ═▶ worker
                 ▲                     ▲
              backlog               pending ◀─ pulled back · not received · given back · unread when its worker died

Rules
* The primary accepts only while somebody can take a connection; else the kernel's backlog waits.
* Nothing here makes a task, a future or an object per connection beyond a tuple: this is the hot path of the primary.
* A duplicate of each connection is kept until the worker has read its first byte, at most `max_duplicates` of them, the
  oldest dropped first. While it is kept, a close in the worker sends no FIN: the worker shuts the connection down.
* Without descriptors (EMFILE) accepting pauses and resumes by itself; it never spins.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

from .. import _limits as limits
from .._wire import messages as wire
from ..ipc._handoff import HandoffSocket
from ._link import Link, Waiting, was_read
from ._policy import ConnectionView, Policy

log = logging.getLogger("multiloop.cluster")

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_CLIENT_GONE = (errno.ECONNABORTED, errno.EPROTO, errno.EINTR, errno.EPERM, errno.ECONNRESET)  # while it waited
_by_number = attrgetter("number")


class Dealer:
    """Deals the connections of some listening sockets to some workers, on one loop.

    Args:
        policy: who gets the next one.
        credit: connections that a worker may have been sent and not adopted.
        max_duplicates: connections of which a copy is kept, over all workers.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        policy: Policy,
        *,
        credit: int = limits.HANDOFF_CREDIT,
        max_duplicates: int = limits.MAX_DUPLICATES,
    ) -> None:
        self._loop = loop
        self._policy = policy
        self._looks = getattr(policy, "looks_at_connection", True)
        self._credit = max(1, min(credit, wire.MAX_ENTRIES))
        self._max_held = max_duplicates
        self._held = 0
        self._links: dict[int, Link] = {}
        self._eligible: list[Link] = []
        self._pending: deque[Waiting] = deque()
        self._unanswered: list[tuple[Link, bytes]] = []
        self._sources: dict[int, tuple[socket.socket, int]] = {}  # by descriptor: the socket and its listener's index
        self._reading = False
        self._stalled: asyncio.TimerHandle | None = None
        self._next_id = 1
        self._said_full_at = 0.0
        self.accepted = 0
        self.dealt_again = 0

    @property
    def waiting(self) -> int:
        """Connections that the primary holds because nobody can take them now."""
        return len(self._pending)

    # -- listening sockets ---------------------------------------------------------------------------------------------
    def listen(self, sock: socket.socket, listener: int) -> None:
        """Accept from this socket whenever somebody can take a connection."""
        if sock.fileno() not in self._sources:
            self._sources[sock.fileno()] = (sock, listener)
            if self._reading:
                self._loop.add_reader(sock, self._accept, sock, listener)
            self._update_reading()

    def unlisten(self, sock: socket.socket) -> None:
        """Leave this socket alone (a worker accepts from it, or it is going to be closed)."""
        if self._sources.pop(sock.fileno(), None) is not None and self._reading:
            self._loop.remove_reader(sock)

    def is_listening(self, sock: socket.socket) -> bool:
        """Whether this socket is accepted from."""
        return sock.fileno() in self._sources

    def empty_backlog(self) -> None:
        """Accept everything that has arrived, because the listening sockets are going to be closed."""
        for sock, listener in list(self._sources.values()):
            for _ in range(limits.BACKLOG):
                try:
                    descriptor, _peer = sock._accept()  # type: ignore[attr-defined]
                except OSError:
                    break
                self.accepted += 1
                self._pending.append((descriptor, listener, 0, b""))
        self._deal_pending()

    def _update_reading(self) -> None:
        wanted = bool(self._eligible) and self._stalled is None
        if wanted != self._reading:
            self._reading = wanted
            for sock, listener in self._sources.values():
                if wanted:
                    self._loop.add_reader(sock, self._accept, sock, listener)
                else:
                    self._loop.remove_reader(sock)

    # -- workers -------------------------------------------------------------------------------------------------------
    def add(self, number: int, end: HandoffSocket, theirs: HandoffSocket) -> Link:
        """Take a worker on; it gets nothing until `open`."""
        link = self._links[number] = Link(number, end, theirs, self._credit)
        self._loop.add_reader(end.sock, self._heard, link)
        return link

    def open(self, number: int, capacity: int | None = None) -> None:
        """Let a worker have connections, at most `capacity` at once."""
        link = self._links.get(number)
        if link is not None:
            link.is_open = True
            if capacity is not None:
                link.capacity = max(1, capacity)
            self._list(link)
            self._deal_pending()

    def close(self, number: int, *, pull_back: bool = True) -> None:
        """Let a worker have no more; with `pull_back` what it has not received is dealt to others."""
        link = self._links.get(number)
        if link is not None:
            link.is_open = False
            self._unlist(link)
            if pull_back:
                self._take_back(link)
                self._deal_pending()
            self._update_reading()

    def bury(self, number: int) -> None:
        """A worker is dead: deal again what it never read from, close the rest."""
        link = self._links.pop(number, None)
        if link is None:
            return
        link.is_open = False
        self._unlist(link)
        self._loop.remove_reader(link.end.sock)
        while self._hear_one(link):
            pass
        self._take_back(link)
        self._held -= len(link.held)
        for waiting in link.held.values():
            if was_read(waiting[0]):
                os.close(waiting[0])
            else:
                self.dealt_again += 1
                self._pending.append(waiting)
        link.held.clear()
        link.close()
        self._deal_pending()
        self._update_reading()

    def retry(self) -> None:
        """Time has passed: try again what found no room."""
        for link in self._links.values():
            if link.congested or link.unsent:
                link.retry()
                self._list(link)
        self._deal_pending()

    def shut(self) -> None:
        """Close everything."""
        for sock, _ in list(self._sources.values()):
            self.unlisten(sock)
        for number in list(self._links):
            self.bury(number)
        while self._pending:
            os.close(self._pending.popleft()[0])
        if self._stalled is not None:
            self._stalled.cancel()

    def _list(self, link: Link) -> None:
        if not link.listed and link.may_be_picked:
            link.listed = True
            insort(self._eligible, link, key=_by_number)
            if not self._reading:
                self._update_reading()

    def _unlist(self, link: Link) -> None:
        if link.listed:
            link.listed = False
            self._eligible.remove(link)

    def _take_back(self, link: Link) -> None:
        held = len(link.held)
        pulled = link.pull_back()
        self._held -= held - len(link.held)
        self.dealt_again += len(pulled)
        self._pending.extend(pulled)

    # -- accepting and dealing: the hot path ---------------------------------------------------------------------------
    def _accept(self, sock: Any, listener: int) -> None:
        accept = sock._accept
        touched: list[Link] = []
        eligible = self._eligible
        for _ in range(limits.ACCEPT_BATCH):
            if not eligible:
                break
            try:
                descriptor, peer = accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _CLIENT_GONE:
                    continue
                self._flush(touched)
                touched = []
                self._cannot_accept(error)
                break
            self.accepted += 1
            self._deal((descriptor, listener, 0, b""), peer, touched)
        self._flush(touched)
        if self._pending:  # somebody's socket was full: another one may have room
            self._deal_pending()

    def _deal(self, waiting: Waiting, peer: Any, touched: list[Link]) -> None:
        """Choose a worker and put the connection into its batch. There is at least one to choose from."""
        eligible = self._eligible
        link = eligible[0] if len(eligible) == 1 else self._pick(waiting, peer)
        number = self._next_id
        self._next_id = number + 1
        if not link.batch:
            touched.append(link)
        descriptor, listener, flags, prefix = waiting
        link.batch.append((number, listener, flags, prefix))
        link.batch_descriptors.append(descriptor)
        link.held[number] = waiting
        link.connections += 1
        link.free -= 1
        if not link.free or link.connections >= link.capacity:
            self._unlist(link)
        self._held += 1

    def _pick(self, waiting: Waiting, peer: Any) -> Link:
        view = ConnectionView(waiting[1], peer, waiting[3]) if self._looks else None
        try:
            link: Link = self._policy.pick(view, self._eligible)
            if link.listed:
                return link
            log.error("the policy picked a worker that was not offered; the first one is taken")
        except Exception:
            log.exception("the policy failed; the first worker is taken")
        return self._eligible[0]

    def _flush(self, touched: Iterable[Link]) -> None:
        for link in touched:
            batch, descriptors = link.batch, link.batch_descriptors
            link.batch, link.batch_descriptors = [], []
            try:
                sent = link.end.send(wire.pack_entries(wire.CONNECTIONS, batch), descriptors)
            except OSError:
                sent = False
                link.is_open = False  # it is dying: its exit comes
            if not sent:
                link.congested = True
                self._unlist(link)
                for entry in reversed(batch):
                    self._undo(link, entry[0])
        while self._held > self._max_held:
            self._drop_oldest()
        if not self._eligible:
            self._update_reading()

    def _undo(self, link: Link, number: int) -> None:
        """A connection did not get to its worker: it is the primary's again."""
        link.free += 1
        link.connections -= 1
        waiting = link.held.pop(number, None)
        if waiting is not None:
            self._held -= 1
            self._pending.appendleft(waiting)

    def _deal_pending(self) -> None:
        pending = self._pending
        while pending and self._eligible:
            touched: list[Link] = []
            for _ in range(limits.ACCEPT_BATCH):
                if not pending or not self._eligible:
                    break
                self._deal(pending.popleft(), None, touched)
            self._flush(touched)
        if not pending and self._unanswered:
            answers, self._unanswered = self._unanswered, []
            for link, record in answers:
                link.send_taken(record)

    def _drop_oldest(self) -> None:
        """Close the oldest duplicate. Those of a batch that was not sent yet are the only copies: flush comes first."""
        oldest: Link | None = None
        oldest_id = self._next_id
        for link in self._links.values():
            for number in link.held:
                if number < oldest_id:
                    oldest, oldest_id = link, number
                break
        if oldest is None:
            self._held = 0
            return
        os.close(oldest.held.pop(oldest_id)[0])
        self._held -= 1

    def _cannot_accept(self, error: OSError) -> None:
        """No descriptor is left, mostly: let go of some duplicates, and pause."""
        for _ in range(min(self._held, 1 + self._held // 4) if error.errno in _NO_ROOM else 0):
            self._drop_oldest()
        now = time.monotonic()
        if now - self._said_full_at >= 1.0:
            self._said_full_at = now
            log.warning("cannot accept connections for now: %s", error.strerror)
        if self._stalled is None:
            self._stalled = self._loop.call_later(limits.ACCEPT_RETRY_S, self._resume_accepting)
            self._update_reading()

    def _resume_accepting(self) -> None:
        self._stalled = None
        self._update_reading()

    # -- what workers answer -------------------------------------------------------------------------------------------
    def _heard(self, link: Link) -> None:
        if not self._hear_one(link):
            return
        if not link.listed:
            self._list(link)
        if self._pending or self._unanswered:
            self._deal_pending()

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
        close: Callable[[int], None] = os.close
        for value in numbers:
            number, flags = value >> 3, value & 7
            if flags & wire.ADOPTED:
                link.free += 1
            if flags & wire.CLOSED:
                link.connections -= 1
            if flags & (wire.RELEASED | wire.CLOSED):
                waiting = held.pop(number, None)
                if waiting is not None:
                    self._held -= 1
                    close(waiting[0])
            elif not flags:  # NOT_RECEIVED: the worker has no descriptor left
                self._undo(link, number)
                link.congested = True
                self._unlist(link)

    def _returned(self, link: Link, entries: list[wire.Entry], descriptors: list[int]) -> None:
        """A draining worker gives connections back: they wait for the next generation like any other."""
        answers = []
        for index, (number, listener, flags, prefix) in enumerate(entries):
            arrived = index < len(descriptors)
            answers.append(number << 1 | arrived)
            if arrived:
                self._pending.append((descriptors[index], listener, flags, prefix))
        # Answered when they have found a place: until then the worker sends no more than it has under way.
        self._unanswered.append((link, wire.pack_numbers(wire.TAKEN, answers)))

    # -- looking -------------------------------------------------------------------------------------------------------
    def links(self) -> dict[int, Link]:
        """Return the workers' accounts, for reading."""
        return self._links

    @property
    def duplicates(self) -> int:
        """How many connections the primary keeps a copy of."""
        return self._held
