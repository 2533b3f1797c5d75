"""Messages from worker to worker, which pass through the primary unopened.

What lives here: `Relay`. What must not: what is in them.

A worker that takes nothing must not fill the primary's memory: above a mark its senders are told (their `send` returns
False, `drain()` waits), and above a cap what is sent to it is dropped; the log says so, and a request fails.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ... import _limits as limits
from ..._wire import forks as wire
from ..._wire.frames import Frame
from ...errors import ChannelClosed, LimitError
from ...worker_threads._failures import pack_error

if TYPE_CHECKING:
    from ._worker import Worker

log = logging.getLogger("multiloop.cluster")


class Relay:
    """Passes frames on between workers.

    Args:
        workers: those that there are, by id.
    """

    def __init__(self, workers: Mapping[int, Worker]) -> None:
        self._workers = workers
        self._congested: dict[int, set[int]] = {}  # a worker that takes nothing: who was told
        self._said_at = 0.0
        self.dropped = 0

    def pass_on(self, sender: Worker, frame: Frame) -> None:
        """Send a frame on to whom it is for."""
        _, receiver, kind, body = wire.unpack_relay(frame.body)
        if receiver == wire.EVERYBODY:
            for worker in list(self._workers.values()):
                if worker is not sender:
                    self._deliver(sender, worker, kind, body, frame)
        else:
            found = self._workers.get(receiver)
            if found is None or not self._deliver(sender, found, kind, body, frame):
                self._fail(sender, receiver, kind, body, "is gone" if found is None else "takes no more messages")
        for descriptor in frame.descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def _deliver(self, sender: Worker, receiver: Worker, kind: int, body: memoryview, frame: Frame) -> bool:
        channel = receiver.process.channel
        waiting = channel.buffered_bytes if channel is not None else 0
        is_whole = all(descriptor >= 0 for descriptor in frame.descriptors)  # none was lost on the way to here
        if waiting > limits.RELAY_MAX_BYTES or not receiver.process.connected or not is_whole:
            self._drop(sender, receiver)
            return False
        receiver.forward(frame, wire.pack_relay(sender.id, receiver.id, kind, body))
        if waiting > limits.RELAY_HIGH_WATER_BYTES:
            told = self._congested.setdefault(receiver.id, set())
            if sender.id not in told:
                told.add(sender.id)
                sender.send_control(wire.Congested(receiver.id, True))
        return True

    def _drop(self, sender: Worker, receiver: Worker) -> None:
        self.dropped += 1
        now = time.monotonic()
        if receiver.process.connected and now - self._said_at >= 1.0:
            self._said_at = now
            log.warning(
                "messages from worker %d to worker %d are dropped: it takes none (%d so far)",
                *(sender.id, receiver.id, self.dropped),
            )

    def _fail(self, sender: Worker, receiver: int, kind: int, body: memoryview, why: str) -> None:
        """A request that cannot be delivered is answered with why."""
        if kind == wire.REQUEST:
            error = (ChannelClosed if why == "is gone" else LimitError)(f"worker {receiver} {why}")
            failure = bytes(body[: wire.NUMBER.size]) + pack_error(error)
            relayed = wire.pack_relay(receiver, sender.id, wire.FAILURE, failure)
            sender.forward(Frame(wire.RELAY, b""), relayed)

    def look(self) -> None:
        """Time has passed: who is congested no more?"""
        for number, told in list(self._congested.items()):
            worker = self._workers.get(number)
            channel = worker.process.channel if worker is not None else None
            if channel is None or channel.buffered_bytes <= limits.RELAY_HIGH_WATER_BYTES // 2:
                del self._congested[number]
                for sender in told:
                    if (waiting := self._workers.get(sender)) is not None:
                        waiting.send_control(wire.Congested(number, False))
