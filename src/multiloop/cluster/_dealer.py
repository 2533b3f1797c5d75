"""Accepts connections and deals them to workers; takes them back from those that stop, die or drain.

What lives here: `Dealer`. What must not: which workers there are and why (`_supervisor`), who may be picked and is
(`_dealing`, `_policy`), what workers answer (`_answers`).

    listener ─ accept ─▶ [head read] ─▶ policy ─▶ link.batch ═ one sendmsg ═▶ worker
                 ▲                        ▲
              backlog                  pending ◀─ pulled back · not received · given back · refused · unread at its death

Rules
* The primary accepts only while somebody can take a connection; else the kernel's backlog waits. Whose server is full
  gets one for each that is closed there, and is asked once in `FULL_RETRY_S`.
* Nothing here makes a task, a future or an object per connection beyond a tuple: this is the hot path of the primary.
* A duplicate of each connection is kept until the worker has read its first byte, at most `max_duplicates` of them, the
  oldest dropped first. While it is kept, a close in the worker sends no FIN: the worker shuts the connection down.
* Without descriptors (EMFILE) accepting pauses and resumes by itself; it never spins.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from .. import _limits as limits
from .._wire import messages as wire
from ..ipc._handoff import HandoffSocket
from ..net._full import CLIENT_GONE, NO_ROOM, FullTable
from ._answers import Answers
from ._dealing import Account
from ._door import Door
from ._heads import Heads, Patience, refuse
from ._link import KERNEL, Kernel, Link, Waiting, peer_of
from ._page import Page
from ._policy import ConnectionView, Policy

log = logging.getLogger("multiloop.cluster")

_BATCH_BYTES = 12 * 1024  # of prefixes in one record, so that one more of the longest kind fits


class Dealer(Answers):
    """Deals the connections of some listening sockets to some workers, on one loop.

    Args:
        policy: who gets the next one, where all workers serve all listening sockets. None: there are several doors, and
            `door`, `join` and `leave` say who serves which.
        credit: connections that a worker may have been sent and not adopted.
        max_duplicates: connections of which a copy is kept, over all workers.
        patience: with clients whose head is read here.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        policy: Policy | None = None,
        *,
        credit: int = limits.HANDOFF_CREDIT,
        max_duplicates: int = limits.MAX_DUPLICATES,
        kernel: Kernel = KERNEL,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(loop, kernel)
        self._credit = max(1, min(credit, wire.MAX_ENTRIES))
        self._max_held = max_duplicates
        self._max_undecided = max(8, min(limits.MAX_UNDECIDED, max_duplicates // 2))
        self._common = Door(policy) if policy is not None else None
        self._heads = Heads(loop, self._head_read, self._head_gone, patience)
        self._stalled: asyncio.TimerHandle | None = None
        self._next_id = 1
        self._full = FullTable()
        self._said_policy_at = self._asks_full_at = 0.0
        self.max_connections = 0  # over all workers; above it connections are dropped. 0: no limit
        self.on_drop: Callable[[Any, Any], None] | None = None  # called with the local and the remote address
        self.accepted = 0

    @property
    def waiting(self) -> int:
        """Connections that the primary holds because nobody can take them now."""
        return self._heads.count + sum(len(door.pending) + door.queued for door in self._doors())

    def _doors(self) -> set[Door]:
        return set(self._door_of.values())

    # -- listening sockets ---------------------------------------------------------------------------------------------
    def door(self, policy: Policy) -> Door:
        """Make a door: listening sockets that only those workers serve that `join` it."""
        return Door(policy)

    def listen(self, sock: socket.socket, listener: int, door: Door | None = None) -> None:
        """Accept from this socket whenever somebody can take a connection. `listener` is its index in records."""
        door = self.expect(sock, listener, door)
        if sock.fileno() not in door.sources:
            door.sources[sock.fileno()] = (sock, listener)
            if door.reading:
                self._loop.add_reader(sock, self._accept, sock, listener, door)
            self._update_reading(door)

    def expect(self, sock: socket.socket, listener: int, door: Door | None = None) -> Door:
        """Take connections of this socket that workers give back, whoever accepts from it; returns their door."""
        door = door or self._common
        assert door is not None
        self._door_of[listener] = door
        door.locals[listener] = sock.getsockname()
        return door

    def unlisten(self, sock: socket.socket) -> None:
        """Leave this socket alone (a worker accepts from it, or it is going to be closed)."""
        for door in self._doors():
            if door.sources.pop(sock.fileno(), None) is not None and door.reading:
                self._loop.remove_reader(sock)

    def is_listening(self, sock: socket.socket) -> bool:
        """Whether this socket is accepted from."""
        return any(sock.fileno() in door.sources for door in self._doors())

    def forget(self, listener: int) -> None:
        """The listening socket with this index is gone for good: what waits behind its door is closed."""
        door = self._door_of.pop(listener, None)
        if door is not None and door not in self._doors():
            for account in list(door.members):
                self._requeue(account)
                door.leave(account)
            while door.pending:
                self._close(door.pending.popleft()[0])

    def empty_backlog(self) -> None:
        """Accept everything that has arrived, because the listening sockets are going to be closed."""
        for door in self._doors():
            for sock, listener in list(door.sources.values()):
                for _ in range(limits.MAX_BACKLOG):
                    try:
                        descriptor, _peer = sock._accept()  # type: ignore[attr-defined]
                    except OSError as error:
                        if error.errno in CLIENT_GONE:
                            continue
                        break
                    self.accepted += 1
                    self._wait((descriptor, listener, 0, b""))
        self._heads.hand_on_all()
        self._deal_pending()

    def _update_reading(self, door: Door) -> None:
        undecided = door.queued + self._heads.count
        has_takers = bool(door.eligible) or door.gives_up
        wanted = has_takers and self._stalled is None and undecided < self._max_undecided
        if wanted != door.reading:
            door.reading = wanted
            for sock, listener in door.sources.values():
                if wanted:
                    self._loop.add_reader(sock, self._accept, sock, listener, door)
                else:
                    self._loop.remove_reader(sock)

    # -- workers -------------------------------------------------------------------------------------------------------
    def add(
        self, number: int, end: HandoffSocket, theirs: HandoffSocket, *, seat: int = 0, page: Page | None = None
    ) -> Link:
        """Take a worker on; it gets nothing until `open`."""
        link = self._links[number] = Link(number, end, theirs, self._credit, seat, page, kernel=self._kernel)
        self._loop.add_reader(end.sock, self._heard, link)
        if self._common is not None:
            self._common.join(link)
        return link

    def join(self, number: int, door: Door) -> None:
        """Let a worker serve the listening sockets of a door."""
        link = self._links.get(number)
        if link is not None:
            door.join(link)
            self._update_reading(door)
            self._deal_pending()

    def leave(self, number: int, door: Door) -> None:
        """Let it serve them no more. What it has received of them and does not want, it gives back."""
        link = self._links.get(number)
        if link is not None:
            self._requeue(link)
            door.leave(link)
            self._deal_pending()
            self._update_reading(door)

    def open(self, number: int, capacity: int | None = None, seat: int | None = None) -> None:
        """Let a worker have connections, at most `capacity` at once."""
        link = self._links.get(number)
        if link is not None:
            link.is_open = True
            if capacity is not None:
                link.capacity = max(1, capacity)
            if seat is not None:
                link.seat = seat
            self._list(link)
            self._deal_pending()

    def close(self, number: int, *, pull_back: bool = True) -> None:
        """Let a worker have no more; with `pull_back` what it has not received is dealt to others."""
        link = self._links.get(number)
        if link is not None:
            link.is_open = False
            link.unlist()
            self._requeue(link)
            if pull_back:
                self._take_back(link)
            self._deal_pending()
            self._update_all(link)

    def bury(self, number: int) -> None:
        """A worker is dead: deal again what it never read from, close the rest."""
        link = self._links.pop(number, None)
        if link is None:
            return
        link.is_open = False
        link.unlist()
        self._loop.remove_reader(link.end.sock)
        while self._hear_one(link):
            pass
        self._requeue(link)
        self._take_back(link)
        self._held -= len(link.held)
        for waiting in link.held.values():
            if self._kernel.was_read(waiting[0], len(waiting[3]) + self._read_before.get(waiting[0], 0)):
                self._close(waiting[0])
            else:
                self.dealt_again += 1
                self._wait(waiting)
        link.held.clear()
        link.close()
        groups = list(link.groups)
        for group in groups:
            group.leave(link)
        self._deal_pending()
        for group in groups:
            self._update_reading(group)  # type: ignore[arg-type]

    def retry(self) -> None:
        """Time has passed: try again what found no room."""
        now = time.monotonic()
        if asks := now >= self._asks_full_at:
            self._asks_full_at = now + limits.FULL_RETRY_S
        for link in self._links.values():
            if link.congested or link.unsent or (asks and link.full):
                link.retry()
                if asks:
                    link.ask_again()
                self._list(link)
                self._update_all(link)
        if self._heads.count:
            self._heads.look(now)
        for door in self._doors():
            if door.needs_head:
                self._look_for_somebody(door, now)
        self._deal_pending()

    def _look_for_somebody(self, door: Door, now: float) -> None:
        """Requests that were read cannot go back into the backlog: when nobody comes to take them, say so.

        Those that arrive then are read, too, and told the same, until somebody comes.
        """
        door.seek(now)
        if door.gives_up:
            for _ in range(len(door.pending)):
                waiting = door.pending.popleft()
                if waiting[3]:
                    self._read_before.pop(waiting[0], None)
                    refuse(waiting[0], 503, retry_after_s=1)
                else:
                    door.pending.append(waiting)
            self._update_reading(door)

    def shut(self) -> None:
        """Close everything."""
        for door in self._doors():
            for sock, _ in list(door.sources.values()):
                self.unlisten(sock)
        self._heads.shut()
        for number in list(self._links):
            self.bury(number)
        for door in self._doors():
            while door.pending:
                self._close(door.pending.popleft()[0])
        if self._stalled is not None:
            self._stalled.cancel()

    def _list(self, link: Link) -> None:
        """Offer a worker, if it may be picked now; first it gets what has waited for it."""
        if link.list():
            if link.queue:
                self._serve_queue(link)
            self._update_all(link)

    def _update_all(self, account: Account) -> None:
        for group in account.groups:
            self._update_reading(group)  # type: ignore[arg-type]  # all groups here are doors

    def _serve_queue(self, link: Link) -> None:
        touched: list[Link] = []
        while link.queue and link.may_be_picked:
            waiting = link.queue.popleft()
            self._door_of[waiting[1]].queued -= 1
            self._put(link, waiting, touched)
        self._flush(touched)

    def _requeue(self, link: Link) -> None:
        """What waits for this worker is anybody's."""
        while link.queue:
            waiting = link.queue.popleft()
            if (door := self._door_of.get(waiting[1])) is not None:
                door.queued -= 1
            self._wait(waiting)

    def _take_back(self, link: Link) -> None:
        held = len(link.held)
        pulled = link.pull_back()
        self._held -= held - len(link.held)
        self.dealt_again += len(pulled)
        for waiting in pulled:
            self._wait(waiting)

    # -- accepting and dealing: the hot path ---------------------------------------------------------------------------
    def _accept(self, sock: Any, listener: int, door: Door) -> None:
        accept = sock._accept
        touched: list[Link] = []
        eligible = door.eligible
        for _ in range(limits.ACCEPT_BATCH):
            if not (eligible or door.gives_up) or not door.reading:
                break
            try:
                descriptor, peer = accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in CLIENT_GONE:
                    continue
                self._flush(touched)
                touched = []
                self._cannot_accept(error)
                break
            self.accepted += 1
            if self.max_connections and self._is_full():
                self._drop(descriptor, sock.getsockname(), peer)
            elif door.needs_head:
                self._heads.begin(descriptor, listener, peer, sock.family)
                self._update_reading(door)
            else:
                self._deal((descriptor, listener, 0, b""), peer, touched, door)
        self._flush(touched)
        if self._busy:  # somebody's socket was full: another one may have room
            self._deal_pending()

    def _deal(self, waiting: Waiting, peer: Any, touched: list[Link], door: Door) -> None:
        """Choose a worker and put the connection into its batch, or its queue. There is one to choose from."""
        eligible = door.eligible
        link = eligible[0] if len(eligible) == 1 and not door.waits else self._pick(waiting, peer, door)
        if link.listed:
            self._put(link, waiting, touched)
        else:
            link.queue.append(waiting)
            door.queued += 1
            self._update_reading(door)

    def _put(self, link: Link, waiting: Waiting, touched: list[Link]) -> None:
        number = self._next_id
        self._next_id = number + 1
        descriptor, listener, flags, prefix = waiting
        if prefix:
            if link.batch_bytes + len(prefix) > _BATCH_BYTES:
                self._flush((link,))
            link.batch_bytes += len(prefix)
        if not link.batch:
            touched.append(link)
        link.batch.append((number, listener, flags, prefix))
        link.batch_descriptors.append(descriptor)
        link.held[number] = waiting
        link.dealt(self._door_of.get(listener) if link.full else None)
        self._held += 1

    def _pick(self, waiting: Waiting, peer: Any, door: Door) -> Link:
        descriptor, listener, _, head = waiting
        view = None
        if door.looks:
            local = door.locals.get(listener)
            view = ConnectionView(peer_of(descriptor) if peer is None else peer, local, head)
        try:
            link: Link = door.pick(view)
            return link
        except Exception:
            now = time.monotonic()
            if now - self._said_policy_at >= 1.0:
                self._said_policy_at = now
                log.exception("the policy failed; the first worker is taken")
        first: Link = door.offered()[0]
        return first

    def _flush(self, touched: Iterable[Link]) -> None:
        for link in touched:
            batch, descriptors = link.batch, link.batch_descriptors
            if not batch:
                continue
            link.batch, link.batch_descriptors, link.batch_bytes = [], [], 0
            try:
                sent = link.end.send(wire.pack_entries(wire.CONNECTIONS, batch), descriptors)
            except OSError:
                sent = False
                link.is_open = False  # it is dying: its exit comes
            if not sent:
                link.congested = True
                link.unlist()
                for entry in reversed(batch):
                    self._undo(link, entry[0])
            if not link.listed or link.full:
                self._update_all(link)
        while self._held > self._max_held:
            self._drop_oldest()

    def _deal_pending(self) -> None:
        for door in list(self._busy):
            pending = door.pending
            while pending and door.offered():
                touched: list[Link] = []
                for _ in range(limits.ACCEPT_BATCH):
                    if not pending or not door.offered():
                        break
                    self._deal(pending.popleft(), None, touched, door)
                self._flush(touched)
            if not pending:
                self._busy.pop(door, None)
        if self._unanswered:
            self._answer_returns()

    # -- heads ---------------------------------------------------------------------------------------------------------
    def _head_read(self, descriptor: int, listener: int, peer: Any, head: bytes) -> None:
        door = self._door_of.get(listener)
        if door is None:
            self._close(descriptor)
            return
        waiting = (descriptor, listener, 0, head)
        if door.offered():
            touched: list[Link] = []
            self._deal(waiting, peer, touched, door)
            self._flush(touched)
        else:
            self._wait(waiting)
        self._head_gone(listener)

    def _head_gone(self, listener: int) -> None:
        door = self._door_of.get(listener)
        if door is not None and not door.reading:
            self._update_reading(door)

    # -- limits --------------------------------------------------------------------------------------------------------
    def _is_full(self) -> bool:
        return self.waiting + sum(link.connections for link in self._links.values()) >= self.max_connections

    def _drop(self, descriptor: int, local: Any, remote: Any) -> None:
        self._close(descriptor)
        if self.on_drop is not None:
            self.on_drop(local, remote)

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
        self._close(oldest.held.pop(oldest_id)[0])
        self._held -= 1

    def _cannot_accept(self, error: OSError) -> None:
        """No descriptor is left, mostly: pause; where a pause did not help, let go of some duplicates."""
        if self._stalled is not None:
            return
        pause = self._full.pause(self._loop.time(), self.accepted)
        if error.errno in NO_ROOM and not pause.helped:
            for _ in range(min(self._held, 1 + self._held // 4)):
                self._drop_oldest()
        if pause.is_said:
            log.warning("cannot accept connections for now: %s", error.strerror)
        self._stalled = self._loop.call_later(pause.seconds, self._resume_accepting)
        for door in self._doors():
            self._update_reading(door)

    def _resume_accepting(self) -> None:
        self._stalled = None
        for door in self._doors():
            self._update_reading(door)
