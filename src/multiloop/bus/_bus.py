"""`Bus`: messages and questions between programs, clusters and machines.

What lives here: `Bus` and `connect`. What must not: how frames travel (`_transport`, `_redis`), what they look like
(`_frames`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from time import monotonic
from typing import Any

from .. import _limits as limits
from ..errors import ClosedError, FrameError, UsageError
from ..events import EventEmitter
from ..loop import Handle, hub
from ..stats import BusStatistics
from ._frames import Frame, Kind, check_topic, pack, unpack
from ._questions import Answerer, Asker
from ._redis import RedisTransport
from ._sequence import Counters, Sequences
from ._subscription import Gap, Message, Subscription
from ._transport import LocalTransport, Transport

_log = logging.getLogger("multiloop.bus")

_TOPIC, _QUESTIONS, _INBOX = "t:", "q:", "i:"  # channels: of a topic, of its questions, of one end


class Bus(EventEmitter, Handle):
    """One end of a bus. `connect` makes it.

    Events: 'gap' (Gap): messages did not come, here or on a subscription; 'connect' (seconds without connection, None at
    first), 'disconnect' (reason). It belongs to the loop on which it was made, and keeps the program running only through
    its subscriptions and what it answers.
    """

    def __init__(self, url: str | None, prefix: str, max_message_size: int, max_waiting: int) -> None:
        Handle.__init__(self)
        self._counted = False
        self.url = url
        self.id = secrets.token_hex(8)
        self._prefix = prefix + ":"
        self._max_bytes = max_message_size
        of = hub()
        self._opened(of)
        self._transport: Transport
        if url is None:
            self._transport = LocalTransport(of, self)
        else:
            self._transport = RedisTransport(url, of, self, max_waiting)
        self._counters = Counters()
        self._sequences = Sequences()
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._asker = Asker(self.id, self._send)
        self._answerer = Answerer(of, self.id, self._send)
        self._answers: dict[str, Answers] = {}
        self._ready: asyncio.Future[None] = of.loop.create_future()
        self._beat: asyncio.TimerHandle | None = None
        self._sent = self._received = self._missed = self._bad = self._outages = 0
        self._is_connected = False
        self._has_complained = False
        self._subscribe(_INBOX + self.id)
        self._transport.start()

    # -- messages --------------------------------------------------------------------------------------------------
    def publish(self, topic: str, value: Any) -> bool:
        """Send a value to all who subscribed to a topic, on this end, too. Values are JSON's, and bytes.

        Returns False when so much waits to be sent that it is better to `await drain()`. While there is no connection
        messages are kept; when that becomes too much the oldest are dropped, and 'gap' says so.

        Raises:
            NotSendable: the value has a part that JSON cannot say; names the path to it.
            FrameTooLarge: it is larger than `max_message_size`.
            ClosedError: the bus is closed.
        """
        self._refuse_if_closed()
        channel = _TOPIC + check_topic(topic)
        data = pack(Frame(Kind.MESSAGE, self.id, topic, 1, value), self._max_bytes)  # refused before it is numbered
        number = self._counters.next(topic, monotonic())
        if number != 1:
            data = pack(Frame(Kind.MESSAGE, self.id, topic, number, value), self._max_bytes + 32)
        self._sent += 1
        self._transport.publish(self._prefix + channel, data)
        self._beat_later()
        return self._transport.waiting_bytes < limits.BUS_HIGH_WATER_BYTES

    def subscribe(self, topic: str) -> Subscription:
        """Hear a topic: `async for message in bus.subscribe(topic)`, or `.on("message", listener)`."""
        self._refuse_if_closed()
        check_topic(topic)
        subscription = Subscription(self._hub, topic, self._left)
        found = self._subscriptions.setdefault(topic, [])
        if not found:
            self._subscribe(_TOPIC + topic)
        found.append(subscription)
        return subscription

    def _left(self, subscription: Subscription) -> None:
        found = self._subscriptions.get(subscription.topic, [])
        if subscription in found:
            found.remove(subscription)
        if not found and self._subscriptions.pop(subscription.topic, None) is not None and self._alive:
            self._transport.unsubscribe(self._prefix + _TOPIC + subscription.topic)
            self._sequences.forget(subscription.topic)

    # -- questions -------------------------------------------------------------------------------------------------
    async def request(self, topic: str, value: Any = None, *, timeout: float = limits.BUS_ASK_S) -> Any:
        """Ask those who answer a topic, and return the reply of the one that was chosen. Its handler runs at most once.

        An outage that is shorter than the timeout costs only time.

        Raises:
            NoAnswer: nobody has answered in time. It is a TimeoutError.
            RemoteError: the handler raised; the message says what.
            NotSendable, FrameTooLarge, ClosedError: as `publish`.
        """
        self._refuse_if_closed()
        check_topic(topic)
        pack(Frame(Kind.GO, self.id, topic, 0, value, self.id, self.id), self._max_bytes)  # refused before it is asked
        return await self._asker.ask(topic, value, timeout)

    def answer(self, topic: str, handler: Callable[[Any], Any]) -> Answers:
        """Answer requests to a topic: `handler(value)` returns the reply, or an awaitable. One for a topic on each end."""
        self._refuse_if_closed()
        check_topic(topic)
        if self._answerer.has(topic):
            raise UsageError(f"this bus answers {topic!r} already")
        self._answerer.handles(topic, handler)
        self._subscribe(_QUESTIONS + topic)
        made = self._answers[topic] = Answers(self, topic)
        return made

    def stop_answering(self, topic: str) -> None:
        """See `Answers.close`."""
        self._answerer.handles(topic, None)
        self._answers.pop(topic, None)
        if self._alive:
            self._transport.unsubscribe(self._prefix + _QUESTIONS + topic)

    def _send(self, frame: Frame, to: str) -> None:
        if not self._alive:
            return
        channel = _INBOX + to if to else _QUESTIONS + frame.topic
        self._transport.publish(self._prefix + channel, pack(frame, self._max_bytes + 1024))

    # -- what the transport tells ----------------------------------------------------------------------------------
    def _subscribe(self, channel: str) -> None:
        self._transport.subscribe(self._prefix + channel)

    def arrived(self, channel: str, data: bytes) -> None:
        """See Owner."""
        try:
            frame = unpack(data, self._max_bytes + 1024)
        except FrameError as error:
            self._bad += 1
            if not self._has_complained:
                self._has_complained = True
                _log.warning("the bus got something on %s that is not a bus's (told once): %s", channel, error)
            return
        if frame.kind is Kind.MESSAGE:
            self._message(frame)
        elif frame.kind is Kind.BEAT:
            if frame.topic in self._subscriptions:
                self._gap_if(self._sequences.beat(frame.sender, frame.topic, frame.number), frame)
        elif frame.kind in (Kind.ASK, Kind.GO):
            self._answerer.arrived(frame)
        else:
            self._asker.arrived(frame)

    def _message(self, frame: Frame) -> None:
        subscriptions = self._subscriptions.get(frame.topic)
        if not subscriptions:
            return
        missed = self._sequences.take(frame.sender, frame.topic, frame.number)
        if missed < 0:
            return  # sent again after an outage
        self._gap_if(missed, frame)
        self._received += 1
        message = Message(frame.topic, frame.value, frame.sender, frame.sender == self.id)
        for subscription in list(subscriptions):
            subscription.take(message)

    def _gap_if(self, missed: int, frame: Frame) -> None:
        if missed > 0:
            self._missed += missed
            self._tell(Gap(frame.topic, missed, "network", frame.sender))

    def _tell(self, gap: Gap) -> None:
        self._hub.call(self.emit, "gap", gap)
        topics = [gap.topic] if gap.topic is not None else list(self._subscriptions)
        for topic in topics:
            for subscription in list(self._subscriptions.get(topic, ())):
                subscription.tell(gap)

    def connected(self, after_s: float | None) -> None:
        """See Owner."""
        self._is_connected = True
        if not self._ready.done():
            self._ready.set_result(None)
        self._hub.call(self.emit, "connect", after_s)
        if after_s is not None:
            self._outages += 1
            self._tell(Gap(None, None, "network", seconds=after_s))

    def lost(self, reason: str) -> None:
        """See Owner."""
        self._is_connected = False
        self._hub.call(self.emit, "disconnect", reason)

    def dropped(self, count: int) -> None:
        """See Owner."""
        self._missed += count
        self._tell(Gap(None, count, "outbox"))

    # -- beats -----------------------------------------------------------------------------------------------------
    def _beat_later(self) -> None:
        if self._beat is None and (wait_s := self._counters.wait_s(monotonic())) is not None:
            self._beat = self._hub.loop.call_later(wait_s + 0.001, self._beat_now)

    def _beat_now(self) -> None:
        self._beat = None
        for topic, number in self._counters.beats(monotonic()):
            frame = Frame(Kind.BEAT, self.id, topic, number)
            self._transport.publish(self._prefix + _TOPIC + topic, pack(frame, self._max_bytes))
        self._beat_later()

    # -- the whole -------------------------------------------------------------------------------------------------
    async def ready(self) -> None:
        """Wait until the first connection is made and the server knows what was subscribed to so far."""
        await asyncio.shield(self._ready)
        await self._transport.drain()

    async def drain(self) -> None:
        """Wait until nothing waits to be sent."""
        await self._transport.drain()

    @property
    def is_connected(self) -> bool:
        """Whether messages travel now."""
        return self._is_connected

    def statistics(self) -> BusStatistics:
        """Return a snapshot."""
        return BusStatistics(
            url="" if self.url is None else self.url.rpartition("@")[2],
            connected=self._is_connected,
            sent=self._sent,
            received=self._received,
            missed=self._missed,
            bad=self._bad,
            outages=self._outages,
            waiting_bytes=self._transport.waiting_bytes,
            subscriptions=sum(map(len, self._subscriptions.values())),
            questions=self._asker.open,
        )

    def _refuse_if_closed(self) -> None:
        if not self._alive:
            raise ClosedError("this bus is closed")

    def close(self) -> None:
        """Leave: subscriptions end, what waits to be sent is dropped (`await drain()` before). Safe to call twice."""
        if not self._alive:
            return
        for subscriptions in list(self._subscriptions.values()):
            for subscription in list(subscriptions):
                subscription.close()
        for answers in list(self._answers.values()):
            answers.close()
        self._ended()
        if self._beat is not None:
            self._beat.cancel()
        self._answerer.close()
        self._transport.close()
        if not self._ready.done():
            self._ready.cancel()

    def _shutdown(self) -> None:
        self.close()

    async def __aenter__(self) -> Bus:
        await self.ready()
        return self

    async def __aexit__(self, *_: Any) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.drain(), limits.BUS_LAST_S)
        self.close()


class Answers(Handle):
    """Open while a bus answers a topic; keeps the program running (`unref()`)."""

    def __init__(self, bus: Bus, topic: str) -> None:
        super().__init__()
        self._bus = bus
        self.topic = topic
        self._opened(bus._hub)

    def close(self) -> None:
        """Answer no more. Safe to call twice."""
        if self._alive:
            self._ended()
            self._bus.stop_answering(self.topic)

    def _shutdown(self) -> None:
        self.close()


def connect(
    url: str | None = None,
    *,
    prefix: str = "multiloop",
    max_message_size: int = limits.BUS_MAX_MESSAGE_BYTES,
    max_waiting: int = limits.BUS_MAX_WAITING_BYTES,
) -> Bus:
    """Return a new end of a bus. It connects by itself, and again whenever it has to; `await bus.ready()` waits for that.

    Args:
        url: None: this process, and all workers of its cluster, without any server of its own.
            "redis://host:port/0" (also rediss://, unix://): all programs that use the same Redis or Valkey.
        prefix: of the channels' names; programs with different ones do not hear each other.
        max_message_size: of one message, in bytes.
        max_waiting: bytes kept while there is no connection.
    """
    if url is not None and url.partition("://")[0] not in ("redis", "rediss", "unix"):
        raise UsageError(f"url={url!r}: None, or redis://host:port")
    return Bus(url, prefix, max_message_size, max_waiting)
