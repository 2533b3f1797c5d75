"""What goes through the tree of workers: broadcasts, the words about locks, and messages to one worker by its id.

What lives here: `Exchange`, one for each place, which passes frames on between its parent, its children and itself.
What must not: what a broadcast, a lock or such a message is (`_broadcast`, `_lock_desk`, `_direct`).

    main ─┬─ w1 ─── w1.1      BROADCAST   up always, down where somebody subscribed; never back where it came from
          └─ w2               SUBSCRIBE   up: this name is (or is no more) wanted here or below
                              LOCK        up to the main place, which decides; the answer down the way that it came
                              DIRECT      up until the target is below, then down to it; the answer the same way

A parent passes on when its loop runs. In a worker the link to the parent is read as long as somebody needs it. In a
cluster's worker process the main place also gives broadcasts to the other processes, through the primary, and gets theirs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import struct
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from ..ipc import _relay
from ..loop import Handle, Hub, hub
from ._link import Link, Packet
from ._message import INLINE, unpack
from ._place import Place, parent_of
from ._transit import close_all
from ._words import BROADCAST, DIRECT, LOCK, SUBSCRIBE

_log = logging.getLogger("multiloop.worker_threads")
_HEAD = struct.Struct("<HB")  # of a broadcast: length of the name, kind of the message; then both


class Listener(Protocol):
    """An open broadcast channel."""

    def take_broadcast(self, packet: Packet) -> None: ...


class Desk(Protocol):
    """What deals with words about locks."""

    def arrived(self, link: Link, body: Any) -> None: ...
    def neighbour_left(self, link: Link) -> None: ...


class Post(Protocol):
    """What deals with messages to one worker."""

    def arrived(self, link: Link, packet: Packet) -> None: ...
    def neighbour_left(self, link: Link) -> None: ...


class Exchange:
    """The crossing of one place. Made by `_crossing.exchange_of`."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._lock = threading.RLock()  # worker threads have places, and loops, of their own; users may have more loops
        self._children: dict[Link, set[str]] = {}  # with the names that each wants
        self._by_id: dict[int, Link] = {}  # the children again
        self._channels: dict[str, list[Listener]] = {}
        self._reader: _ParentReader | None = None
        self.desk: Desk | None = None  # set by exchange_of, both
        self.direct: Post | None = None

    # -- neighbours ------------------------------------------------------------------------------------------------
    def join(self, child: Link, thread_id: int) -> None:
        """A worker was started."""
        with self._lock:
            self._children[child] = set()
            self._by_id[thread_id] = child

    def leave(self, child: Link, thread_id: int) -> None:
        """A worker has ended: what it subscribed to, held and waited for goes with it."""
        with self._lock:
            names = self._children.pop(child, set())
            self._by_id.pop(thread_id, None)
        for name in names:
            self._say_if_unwanted(name)
        if self.desk is not None:
            self.desk.neighbour_left(child)
        if self.direct is not None:
            self.direct.neighbour_left(child)

    def route(self, target: int) -> Link | None:
        """The link that leads to a worker: to a child, or to the parent. None: there is no such worker."""
        below = target
        while below and (above := parent_of(below)) != self.place.thread_id:
            below = above
        if below:
            return self._by_id.get(below)
        return self.place.control

    def is_wanted_by(self, child: Link, name: str) -> bool:
        """Whether a child, or somebody below it, has subscribed to a name."""
        return name in self._children.get(child, ())

    def arrived(self, link: Link, packet: Packet) -> None:
        """A frame of ours came from a neighbour."""
        if packet.kind == BROADCAST:
            self._pass_on(packet, link)
            close_all(packet.fds)
        elif packet.kind == SUBSCRIBE:
            self._subscribed(link, bytes(packet.body[1:]).decode(), wanted=packet.body[:1] == b"+")
        elif packet.kind == LOCK and self.desk is not None:
            if link is not self.place.control:
                self.use()  # the answer will come from the parent
            self.desk.arrived(link, packet.body)
        elif packet.kind == DIRECT and self.direct is not None:
            self.direct.arrived(link, packet)

    # -- broadcasts ------------------------------------------------------------------------------------------------
    def open(self, name: str, channel: Listener) -> None:
        """A channel was opened here."""
        with self._lock:
            was_wanted = self._is_wanted(name)
            self._channels.setdefault(name, []).append(channel)
        if not was_wanted:
            self._tell_parent(SUBSCRIBE, b"+" + name.encode())

    def close(self, name: str, channel: Listener) -> None:
        """A channel was closed here."""
        with self._lock:
            channels = self._channels.get(name, [])
            if channel in channels:
                channels.remove(channel)
            if not channels:
                self._channels.pop(name, None)
        self._say_if_unwanted(name)

    def publish(self, name: str, kind: int, body: bytes, fds: list[int], sender: Listener) -> None:
        """Send a packed message to all other channels of this name in the tree. Closes the descriptors."""
        encoded = name.encode()
        packet = Packet(BROADCAST, _HEAD.pack(len(encoded), kind) + encoded + body, fds)
        self._pass_on(packet, None, sender)
        close_all(fds)

    def _from_cluster(self, name: str, data: bytes) -> None:
        """Another process of the cluster sent it. Called on any thread; fires for what this one sends, too."""
        encoded = name.removeprefix(_relay.BROADCAST).encode()
        packet = Packet(BROADCAST, _HEAD.pack(len(encoded), INLINE) + encoded + data, [])
        self._pass_on(packet, None, is_from_cluster=True)

    def _pass_on(
        self, packet: Packet, origin: Link | None, sender: Listener | None = None, *, is_from_cluster: bool = False
    ) -> None:
        """Give copies of a broadcast to everybody but where it came from."""
        length, kind = _HEAD.unpack_from(packet.body)
        name = bytes(packet.body[_HEAD.size : _HEAD.size + length]).decode()
        body = bytes(packet.body[_HEAD.size + length :])
        with self._lock:
            channels = [each for each in self._channels.get(name, ()) if each is not sender]
            children = [each for each, names in self._children.items() if name in names and each is not origin]
        for channel in channels:
            channel.take_broadcast(Packet(kind, body, [os.dup(fd) for fd in packet.fds], packet.lost))
        if packet.lost:
            return  # nobody else can have it either
        if not is_from_cluster and self.place.control is None and _relay.has_uplink():
            _to_cluster(name, kind, body, packet.fds)
        parent = self.place.control
        for link in [*children, parent] if parent is not None and parent is not origin else children:
            link.send(BROADCAST, bytes(packet.body), [os.dup(fd) for fd in packet.fds])

    def _subscribed(self, child: Link, name: str, *, wanted: bool) -> None:
        with self._lock:
            if child not in self._children:
                return
            was_wanted = self._is_wanted(name)
            if wanted:
                self._children[child].add(name)
            else:
                self._children[child].discard(name)
        if wanted and not was_wanted:
            self._tell_parent(SUBSCRIBE, b"+" + name.encode())
            self.use()
        elif not wanted:
            self._say_if_unwanted(name)

    def _is_wanted(self, name: str) -> bool:
        return name in self._channels or any(name in names for names in self._children.values())

    def _say_if_unwanted(self, name: str) -> None:
        with self._lock:
            if self._is_wanted(name):
                return
        self._tell_parent(SUBSCRIBE, b"-" + name.encode())

    # -- the parent ------------------------------------------------------------------------------------------------
    def _tell_parent(self, kind: int, body: bytes) -> None:
        if self.place.control is not None:
            self.place.control.send(kind, body)
        elif kind == SUBSCRIBE:
            name = _relay.BROADCAST + body[1:].decode()
            (_relay.subscribe if body[:1] == b"+" else _relay.unsubscribe)(name, self._from_cluster)

    def use(self) -> None:
        """Somebody here needs to hear what the parent says: read its link, on the loop that runs now or next."""
        if self.place.control is None:
            return
        if asyncio._get_running_loop() is None:
            if self.use not in self.place.waiting_for_loop:
                self.place.waiting_for_loop.append(self.use)
        elif self._reader is None or not self._reader.is_on(hub()):
            self._reader = _ParentReader(self, self.place.control, hub())

    def read_parent_now(self) -> bool:
        """Read the parent's link without waiting; whether anything came."""
        control = self.place.control
        if control is None:
            return False
        packets = control.receive()
        for packet in packets:
            self.arrived(control, packet)
        return bool(packets)


def _to_cluster(name: str, kind: int, body: bytes, fds: Sequence[int]) -> None:
    """Give a broadcast to the other processes of the cluster: as one pickle, for descriptors do not go there."""
    if kind != INLINE or fds:
        try:
            body = pickle.dumps(unpack(kind, body, [os.dup(fd) for fd in fds]), 5)
        except Exception as error:
            _log.warning("a broadcast on %r did not go to the other processes of the cluster: %s", name, error)
            return
    _relay.send_up(_relay.BROADCAST + name, body)


class _ParentReader(Handle):
    """Reads a worker's link to its parent on one loop; keeps nothing running."""

    def __init__(self, exchange: Exchange, control: Link, here: Hub) -> None:
        super().__init__()
        self._counted = False
        self._exchange = exchange
        self._control = control
        self._opened(here)
        control.attach(here.loop, self._readable, _nothing)
        control.read(True)

    def is_on(self, here: Hub) -> bool:
        return self._alive and self._hub is here

    def _readable(self) -> None:
        self._exchange.read_parent_now()
        if self._control.is_ended:
            self._shutdown()

    def _shutdown(self) -> None:
        self._control.detach()
        self._ended()


def _nothing() -> None:
    return None
