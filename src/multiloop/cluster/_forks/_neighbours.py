"""The other workers, as one worker has them, and what they send.

What lives here: `Neighbours`. What must not: one of them (`_peer`), the way between them (`_relay`, in the primary).
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from ..._wire import forks as wire
from ..._wire.frames import Frame, loads
from ...child_process._handles import discard, take
from ...child_process._messaging import WITH_HANDLE
from ...errors import ChannelClosed
from ...loop import Hub
from ._peer import Peer

if TYPE_CHECKING:
    from ._member import Member

log = logging.getLogger("multiloop.cluster")

_KEPT_MESSAGES = 256  # until somebody listens


class Neighbours:
    """All other workers of the cluster: `peers`, by id."""

    def __init__(self, member: Member) -> None:
        self.peers: dict[int, Peer] = {}
        self._member = member
        self._kept: deque[tuple[Peer, Any, Any]] = deque()  # messages, until somebody listens

    def changed(self, news: wire.Peers) -> None:
        """Some have come, or gone."""
        for number in news.added:
            self.peers.setdefault(number, Peer(self._member, number))
        for number in news.removed:
            if (peer := self.peers.pop(number, None)) is not None:
                peer.gone(ChannelClosed(f"worker {number} is gone"))

    def lost(self, error: BaseException) -> None:
        """The way to them is closed."""
        for peer in self.peers.values():
            peer.gone(error)
        self.peers.clear()

    def relayed(self, frame: Frame) -> None:
        """Take a frame that one of them has sent."""
        sender, _, kind, body = wire.unpack_relay(frame.body)
        peer = self.peers.get(sender) or Peer(self._member, sender)
        if kind in (wire.REQUEST, wire.REPLY, wire.FAILURE):
            peer._talk(Frame(kind, body, frame.buffers))
            return
        value, handle = loads(body, frame.buffers), None
        if kind == WITH_HANDLE:
            what, value = value
            handle = take(what, frame.descriptors[0])
        if self._is_heard(peer):
            self._tell(peer, value, handle)
        elif len(self._kept) < _KEPT_MESSAGES:
            self._kept.append((peer, value, handle))
        else:
            log.warning(
                "a message of worker %d was dropped: %d wait already, and nobody listens", sender, len(self._kept)
            )
            discard(handle)

    def listeners_changed(self, of: Hub) -> None:
        """Somebody listens, or no more: what was kept may be taken now."""
        if self._kept:
            of.loop.call_soon(self._deliver_kept)

    def _is_heard(self, peer: Peer) -> bool:
        return any(each.listener_count("message") for each in (peer, self._member.worker, self._member))

    def _tell(self, peer: Peer, value: Any, handle: Any) -> None:
        call = self._member._hub.call
        call(peer.emit, "message", value, handle)
        call(self._member.worker.emit, "message", value, handle)
        call(self._member.emit, "message", peer, value, handle)

    def _deliver_kept(self) -> None:
        for _ in range(len(self._kept)):
            peer, value, handle = self._kept.popleft()
            if self._is_heard(peer):
                self._tell(peer, value, handle)
            else:
                self._kept.append((peer, value, handle))
