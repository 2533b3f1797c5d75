"""A bus through Redis or Valkey: pub/sub, and what to do when the server goes away.

What lives here: `RedisTransport`. What must not: frames' contents; an import of redis before the first use.

    publish → waiting ─ writer ─→ PUBLISH        reader ←─ SUBSCRIBE ─ the server
                 ↑ kept while there is no connection, up to a limit; then the oldest go, and that is told

One task connects, subscribes, reads, and begins again with growing pauses when anything fails. A server that says nothing is
asked (PING) after a while, so that a connection that was cut in silence is noticed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from random import random
from time import monotonic
from typing import Any

from .. import _limits as limits
from ..errors import UsageError
from ..loop import Hub
from ._transport import Owner

_log = logging.getLogger("multiloop.bus")

_BATCH = 256  # messages sent in one write


def import_redis() -> Any:
    """Return redis.asyncio. Raises UsageError where it is not installed."""
    try:
        import redis.asyncio
    except ImportError as error:
        raise UsageError("a bus with url='redis://…' needs redis: pip install 'multiloop[redis]'") from error
    return redis.asyncio


class RedisTransport:
    """One end's two connections to a server."""

    def __init__(self, url: str, of: Hub, owner: Owner, max_waiting_bytes: int) -> None:
        self._redis = import_redis()
        self._url = url
        self._hub = of
        self._owner = owner
        self._max_waiting_bytes = max_waiting_bytes
        self._channels: set[str] = set()
        self._waiting: deque[tuple[str, bytes]] = deque()
        self.waiting_bytes = 0
        self._has_work = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._pubsub: Any = None
        self._changes: set[asyncio.Task[Any]] = set()
        self._task: asyncio.Task[None] | None = None
        self._is_connected = False
        self._lost_at: float | None = None

    def start(self) -> None:
        """See Transport."""
        self._task = self._hub.loop.create_task(self._live())

    # -- the connection --------------------------------------------------------------------------------------------
    async def _live(self) -> None:
        pause_s = 0.0
        while True:
            begun = monotonic()
            client = self._redis.Redis.from_url(
                self._url,
                socket_connect_timeout=limits.BUS_CONNECT_S,
                socket_keepalive=True,
                retry=None,
                single_connection_client=False,
            )
            try:
                await self._serve(client)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self._note_loss(error)
            finally:
                self._pubsub = None
                await _close(client)
            if monotonic() - begun > limits.BUS_PAUSE_MAX_S:
                pause_s = 0.0
            pause_s = min(limits.BUS_PAUSE_MAX_S, max(limits.BUS_PAUSE_S, pause_s * 2))
            await asyncio.sleep(pause_s * (0.5 + random() / 2))

    async def _serve(self, client: Any) -> None:
        """Subscribe, say that it works, and read and write until something fails."""
        pubsub = client.pubsub()
        try:
            await pubsub.subscribe(limits.BUS_PROBE_CHANNEL, *self._channels)
            self._pubsub = pubsub
            after_s = None if self._lost_at is None else monotonic() - self._lost_at
            self._lost_at = None
            self._is_connected = True
            self._owner.connected(after_s)
            reader = asyncio.ensure_future(self._read(pubsub))
            writer = asyncio.ensure_future(self._write(client))
            try:
                await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (reader, writer):
                    task.cancel()
                results = await asyncio.gather(reader, writer, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result
        finally:
            await _close(pubsub)

    def _note_loss(self, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        if self._is_connected or self._lost_at is None:
            self._is_connected = False
            self._lost_at = monotonic()
            _log.warning("the bus at %s is not reachable: %s; trying again", _without_password(self._url), reason)
            self._owner.lost(reason)

    async def _read(self, pubsub: Any) -> None:
        asked_at = 0.0
        while True:
            message = await pubsub.get_message(timeout=limits.BUS_SILENCE_S)
            if message is None:
                if asked_at and monotonic() - asked_at > limits.BUS_SILENCE_S:
                    raise ConnectionError(f"the server has not answered for {2 * limits.BUS_SILENCE_S:g} s")
                asked_at = asked_at or monotonic()
                await pubsub.ping()
                continue
            asked_at = 0.0
            if message["type"] == "message":
                self._owner.arrived(message["channel"].decode(), message["data"])

    async def _write(self, client: Any) -> None:
        while True:
            await self._has_work.wait()
            while self._waiting:
                batch = [self._waiting[index] for index in range(min(_BATCH, len(self._waiting)))]
                pipeline = client.pipeline(transaction=False)
                for channel, data in batch:
                    pipeline.publish(channel, data)
                await asyncio.wait_for(pipeline.execute(), limits.BUS_SILENCE_S)
                for sent in batch:  # what was dropped meanwhile is no longer at the front
                    if self._waiting and self._waiting[0] is sent:
                        self._waiting.popleft()
                        self.waiting_bytes -= len(sent[1])
            self._has_work.clear()
            self._is_empty.set()

    # -- what the bus asks for -------------------------------------------------------------------------------------
    def publish(self, channel: str, data: bytes) -> None:
        """See Transport."""
        self._waiting.append((channel, data))
        self.waiting_bytes += len(data)
        self._is_empty.clear()
        self._has_work.set()
        dropped = 0
        while self.waiting_bytes > self._max_waiting_bytes and len(self._waiting) > 1:
            _, oldest = self._waiting.popleft()
            self.waiting_bytes -= len(oldest)
            dropped += 1
        if dropped:
            self._owner.dropped(dropped)

    def subscribe(self, channel: str) -> None:
        """See Transport."""
        self._channels.add(channel)
        self._change(lambda pubsub: pubsub.subscribe(channel))

    def unsubscribe(self, channel: str) -> None:
        """See Transport."""
        self._channels.discard(channel)
        self._change(lambda pubsub: pubsub.unsubscribe(channel))

    def _change(self, how: Callable[[Any], Any]) -> None:
        if self._pubsub is None:
            return  # the next connection subscribes to all
        pubsub = self._pubsub

        async def work() -> None:
            try:
                await how(pubsub)
            except Exception:
                pass  # the reader notices, and the next connection does it

        task = self._hub.loop.create_task(work())
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    async def drain(self) -> None:
        """See Transport."""
        while self._changes:
            await asyncio.gather(*self._changes, return_exceptions=True)
        await self._is_empty.wait()

    def close(self) -> None:
        """See Transport."""
        if self._task is not None:
            self._task.cancel()
            self._hub.retain()  # the program goes on until the connections are closed
            self._task.add_done_callback(lambda task: self._hub.release())
            self._task = None


async def _close(thing: Any) -> None:
    """Close, also where this task is cancelled (once more) meanwhile: a loop must not end with a connection open."""
    again: asyncio.CancelledError | None = None
    for _ in range(3):
        try:
            await asyncio.wait_for(thing.aclose(), limits.BUS_CLOSE_S)
        except asyncio.CancelledError as error:
            again = error
        except Exception:
            break  # the connection is gone
        else:
            break
    if again is not None:
        raise again


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
