"""What the processes of a cluster share beside their listeners: named locks and counters, in the primary and in a worker.

What lives here: the two ends, made when the first lock or counter is asked for. What must not: locks and counters
themselves (`_locks`, `_counters`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..._wire import forks as wire
from ...errors import ChannelClosed
from ...loop import AnyOperation, ErrorFirst, begin, hub
from ...worker_threads import SharedBuffer
from ...worker_threads._shared import open_shared
from ._counters import Counter, CounterHouse
from ._locks import LockHouse, Locks

if TYPE_CHECKING:
    from ._primary import Primary
    from ._worker import Worker


class PrimaryShares:
    """The primary's end."""

    def __init__(self, primary: Primary) -> None:
        self._primary = primary
        self._house = LockHouse(self._tell)
        self._counters: CounterHouse | None = None
        self.locks = Locks(0, lambda ask: self._house.ask(0, ask))

    def counter(self, name: str, callback: ErrorFirst | None) -> Any:
        """Find a counter, as a worker does."""
        op: AnyOperation[Counter] = begin(callback)
        try:
            found = self._counter_house().counter(name)
        except Exception as error:
            op._hub.loop.call_soon(op._fail, error)
        else:
            op._hub.loop.call_soon(op._succeed, found)
        return op

    def heard(self, worker: Worker, message: wire.LockAsk | wire.CounterAsk) -> None:
        """A worker asks."""
        if isinstance(message, wire.LockAsk):
            self._house.ask(worker.id, message)
            return
        try:
            house = self._counter_house()
            answer = wire.CounterTold(message.number, house.place(message.name))
            worker.send_control(answer, (house.buffer._attachment.fd,))
        except Exception as error:
            worker.send_control(wire.CounterTold(message.number, error=error))

    def gone(self, worker_id: int) -> None:
        """A worker has ended."""
        self._house.gone(worker_id)

    def _counter_house(self) -> CounterHouse:
        if self._counters is None:
            self._counters = CounterHouse()
        return self._counters

    def _tell(self, to: int, message: wire.LockTold) -> None:
        if to:
            if (worker := self._primary.workers.get(to)) is not None:
                worker.send_control(message)
            return
        # Later: it may come inside the call that asks.
        (self._primary.hub or hub()).loop.call_soon(self.locks.told, message)


class WorkerShares:
    """A worker's end.

    Args:
        say: sends a control message to the primary.
        is_connected: whether there still is one.
    """

    def __init__(self, me: int, say: Callable[[Any], None], is_connected: Callable[[], bool]) -> None:
        self._say = say
        self._is_connected = is_connected
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[str, AnyOperation[Counter]]] = {}
        self._buffer: SharedBuffer | None = None
        self.locks = Locks(me, self._ask)

    def _ask(self, message: Any) -> None:
        if not self._is_connected():
            raise ChannelClosed("the primary is gone, or this worker has disconnected")
        self._say(message)

    def counter(self, name: str, callback: ErrorFirst | None) -> Any:
        """Find a counter."""
        op: AnyOperation[Counter] = begin(callback)
        number = next(self._numbers)
        self._asked[number] = (name, op)
        try:
            self._ask(wire.CounterAsk(number, name))
        except ChannelClosed as error:
            op._hub.loop.call_soon(op._fail, error)
        return op

    def heard(self, message: wire.LockTold | wire.CounterTold, descriptors: tuple[int, ...]) -> None:
        """The primary has answered."""
        if isinstance(message, wire.LockTold):
            self.locks.told(message)
            return
        name, op = self._asked.pop(message.number)
        try:
            if message.error is not None:
                raise message.error
            if descriptors[0] < 0:
                raise OSError(24, "no descriptor was left for it", name)
            self._buffer = open_shared(descriptors[0])  # the same object each time
            op._succeed(Counter(name, self._buffer, message.place))
        except Exception as error:
            op._fail(error)

    def lost(self, error: BaseException) -> None:
        """The primary is gone."""
        self.locks.lost(error)
        asked, self._asked = self._asked, {}
        for _, op in asked.values():
            op._fail(error)
