"""The listeners that workers asked for: made once, shared by all who want the same, closed with the last one.

What lives here: `Board` and its entries. What must not: dealing (`_dealer`), which it tells who serves what.

    Ask ─▶ entry found, or bound (once, however many ask at the same time) ─▶ Listening ─▶ Join: connections come
    Leave, or the worker is gone ─▶ the last one: the entry is closed

* The n-th listener of a kind in one worker is the n-th of that kind in all of them: so `listen(0)` gives all workers the
  same port, and twice `listen(0)` two ports.
* An error of binding goes to those who asked; the next who asks tries again.
* A listener whose last worker *died* stays open for a while: connections wait in the kernel for its replacement.
* UDP sockets are shared: each worker gets a descriptor and reads from it itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any

from ... import _limits as limits
from ..._wire import forks as wire
from ...errors import UsageError
from ...loop import Operation, begin, offload_to
from ...net import _unix
from ...net._address import Address, from_kernel, readable
from ...net._listen import adopt_fd, bind_tcp
from ...net._provider import ListenOptions
from ...net._udp_options import open_udp
from .._dealer import Dealer
from .._door import Door
from .._policy import ACCEPTING, make_policy
from .._slots import SlotSockets
from ._worker import ListeningAddress, Worker

_MAX_LISTENERS = 65535  # an index has 16 bits in a record


class Bound:
    """A listening or UDP socket, and what else belongs to it."""

    def __init__(self, sock: socket.socket, wanted: wire.Wanted, *, reuse_port: bool = False) -> None:
        self.sock = sock
        self.wanted = wanted
        self.reuse_port = reuse_port
        self.address: Address = from_kernel(sock.getsockname()) if wanted.kind != "unix" else wanted.path
        self.name = str(self.address)
        self.identity: _unix.Identity | None = None  # of a Unix socket's path
        self.backlog = 0

    @property
    def can_be_shared(self) -> bool:
        """Whether it can have twins."""
        return self.reuse_port

    def twin(self) -> socket.socket:
        """Make another socket on the same address."""
        made = socket.socket(self.sock.family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if made.family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(self.wanted.ipv6_only))
            made.setblocking(False)
            made.bind(self.sock.getsockname())
            made.listen(self.backlog)
        except BaseException:
            made.close()
            raise
        return made

    def close(self) -> None:
        """Close it, and remove a Unix socket's path if it is still ours."""
        if self.sock.fileno() >= 0:
            self.sock.close()
            if self.wanted.kind == "unix":
                _unix.unlink_ours(self.wanted.path, self.identity)


class Entry:
    """A listener, and who has it."""

    def __init__(self, index: int, opening: asyncio.Task[Bound]) -> None:
        self.index = index
        self.opening = opening
        self.bound: Bound | None = None
        self.door: Door | None = None
        self.slots: SlotSockets | None = None
        self.members: set[int] = set()  # ids of workers, from their question on
        self.linger: asyncio.TimerHandle | None = None

    @property
    def announced(self) -> ListeningAddress:
        """What 'listening' tells."""
        assert self.bound is not None
        wanted, family = self.bound.wanted, self.bound.sock.family
        version = 6 if family == socket.AF_INET6 else 4
        kind: Any = f"udp{version}" if wanted.kind == "udp" else version if family != _AF_UNIX else -1
        return ListeningAddress(self.bound.address, kind, wanted.fd if wanted.kind == "fd" else None)


_AF_UNIX = getattr(socket, "AF_UNIX", None)


class _Acceptee:
    """A worker, as `SlotSockets` talks to it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.number = worker.id

    def send(self, message: Any, descriptors: tuple[int, ...] = ()) -> None:
        """Send it a message of ours."""
        self._worker.send_control(message, descriptors)


class Board:
    """All listeners of a program.

    Args:
        policy: a name or an object, see `_policy.make_policy`. An object is asked for every listener's connections.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, dealer: Dealer, policy: Any) -> None:
        self._loop = loop
        self._dealer = dealer
        self._policy = policy
        self._entries: dict[wire.Wanted, Entry] = {}
        self._by_index: dict[int, Entry] = {}

    async def ask(self, worker: Worker, ask: wire.Ask) -> Entry:
        """Return the entry for what a worker wants, which has it from then on.

        Raises OSError when it cannot be had, UsageError when it cannot be asked for.
        """
        wanted = ask.wanted
        entry = self._entries.get(wanted)
        if entry is None:
            entry = Entry(self._free_index(), self._loop.create_task(self._open(ask)))
            self._entries[wanted] = self._by_index[entry.index] = entry
        if entry.linger is not None:
            entry.linger.cancel()
            entry.linger = None
        entry.members.add(worker.id)
        try:
            bound = await asyncio.shield(entry.opening)
            if entry.bound is None:
                self._opened(entry, bound)
            if ask.tls and entry.door is not None and entry.door.needs_head:
                raise UsageError(
                    "this policy looks into the requests, and cannot with TLS: go by address (sticky), or listen with "
                    "exclusive=True"
                )
        except BaseException:
            self._leave(entry, worker.id, linger=False)
            raise
        return entry

    def _free_index(self) -> int:
        for index in range(_MAX_LISTENERS):
            if index not in self._by_index:
                return index
        raise OSError(24, "too many listeners")

    async def _open(self, ask: wire.Ask) -> Bound:
        wanted = ask.wanted
        if wanted.kind == "udp":
            where = (wanted.host, wanted.port)
            return Bound(open_udp(ask.udp, where), wanted)
        if wanted.kind == "fd":
            copy = os.dup(wanted.fd)
            try:
                return Bound(adopt_fd(copy, ask.backlog), wanted)
            except BaseException:
                os.close(copy)
                raise
        if wanted.kind == "unix":
            op: Operation[_unix.Bound] = begin(discard=_unix.discard)
            offload_to(op, _unix.bind, (wanted.path, ask.path_mode, ask.backlog), discard=_unix.discard)
            sock, identity = await op
            sock.setblocking(False)
            bound = Bound(sock, wanted)
            bound.identity = identity
            return bound
        shared = self._policy == "reuse_port"
        options = ListenOptions(
            host=wanted.host or None, port=wanted.port, backlog=ask.backlog, ipv6_only=wanted.ipv6_only
        )
        sock = await bind_tcp(options)
        if shared:
            # SO_REUSEPORT would let a stranger's server in silently: first it was seen that the address is free.
            where = sock.getsockname()
            sock.close()
            sock = await bind_tcp(
                ListenOptions(
                    host=where[0], port=where[1], backlog=ask.backlog, ipv6_only=wanted.ipv6_only, reuse_port=True
                )
            )
        bound = Bound(sock, wanted, reuse_port=shared)
        bound.backlog = ask.backlog
        return bound

    def _opened(self, entry: Entry, bound: Bound) -> None:
        entry.bound = bound
        if bound.wanted.kind == "udp":
            return
        policy = self._policy
        if policy == "reuse_port" and not bound.can_be_shared:
            policy = "round_robin"  # a Unix socket or a descriptor cannot have twins
        entry.door = self._dealer.door(make_policy(policy))
        entry.slots = SlotSockets(
            policy if policy in ACCEPTING else "", [bound], self._dealer, door=entry.door, first=entry.index
        )

    # -- workers -------------------------------------------------------------------------------------------------------
    def join(self, worker: Worker, index: int) -> Entry | None:
        """Let connections come; returns the entry, None when the worker does not have it."""
        entry = self._by_index.get(index)
        if entry is None or worker.id not in entry.members or entry.bound is None:
            return None
        if entry.door is not None and entry.slots is not None:
            self._dealer.join(worker.id, entry.door)
            entry.slots.open(worker.seat, _Acceptee(worker))
        return entry

    def leave(self, worker_id: int, index: int) -> None:
        """A worker has closed this listener."""
        entry = self._by_index.get(index)
        if entry is not None and worker_id in entry.members:
            self._leave(entry, worker_id, linger=False)

    def silent(self, worker_id: int) -> None:
        """A worker accepts nothing now (its loop is blocked, or it drains): the primary does, where it can."""
        for entry in self._by_index.values():
            if entry.slots is not None and worker_id in entry.members:
                entry.slots.close_for(worker_id)

    def heard(self, worker: Worker) -> None:
        """Its loop turns again."""
        for index, entry in list(self._by_index.items()):
            if entry.door is not None and entry.slots is not None and worker.id in entry.members:
                self.join(worker, index)

    def gone(self, worker_id: int, *, linger: bool) -> None:
        """A worker is gone. `linger`: its listeners wait for the next one for a while."""
        for entry in list(self._by_index.values()):
            if worker_id in entry.members:
                self._leave(entry, worker_id, linger=linger)

    def _leave(self, entry: Entry, worker_id: int, *, linger: bool) -> None:
        entry.members.discard(worker_id)
        if entry.slots is not None and entry.door is not None:
            entry.slots.close_for(worker_id)
            self._dealer.leave(worker_id, entry.door)
        if entry.members:
            return
        if linger and entry.bound is not None and entry.linger is None:
            entry.linger = self._loop.call_later(limits.LISTENER_LINGER_S, self._close, entry)
        elif not linger:
            self._close(entry)

    def _close(self, entry: Entry) -> None:
        if entry.members or self._by_index.get(entry.index) is not entry:
            return
        del self._by_index[entry.index]
        for wanted, other in list(self._entries.items()):
            if other is entry:
                del self._entries[wanted]
        if entry.linger is not None:
            entry.linger.cancel()
        if entry.bound is None:
            entry.opening.add_done_callback(_close_late)
            return
        if entry.slots is not None:
            entry.slots.close()
            self._dealer.forget(entry.index)
        entry.bound.close()

    def close_unused(self) -> None:
        """Nobody comes any more: close what lingers."""
        for entry in list(self._by_index.values()):
            if not entry.members:
                self._close(entry)

    def addresses(self) -> list[str]:
        """Return where is listened, for people."""
        found = [entry.bound for entry in self._by_index.values() if entry.bound is not None]
        return [("udp " if bound.wanted.kind == "udp" else "") + readable(bound.address) for bound in found]

    def close(self) -> None:
        """Close everything."""
        for entry in list(self._by_index.values()):
            entry.members.clear()
            self._close(entry)


def _close_late(opening: asyncio.Task[Bound]) -> None:
    with contextlib.suppress(BaseException):
        opening.result().close()
