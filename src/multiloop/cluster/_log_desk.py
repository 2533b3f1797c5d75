"""Where the log lines of a whole cluster come together while somebody reads them (`multiloop logs`).

What lives here: `LogDesk`, in the primary, and what `logs` answers. What must not: writing logs (`logs`), a worker's side
(`_log_sender`), who asks.

Every process writes its own log and keeps its last lines. While somebody follows, each worker also sends its lines to the
primary; while nobody does, that costs nothing. What cannot be taken fast enough is dropped and counted: reading a log
never holds up a worker.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

from .. import _limits as limits
from .. import logs
from .._wire import messages as wire
from ._control import CommandFailed, Stream

Line = dict[str, Any]  # app, worker (0: the primary), pid, text

_MAX_LAST_LINES = 10_000


class LogEnd(Protocol):
    """A worker, as the desk talks to it."""

    @property
    def number(self) -> int:
        """Its number."""

    @property
    def app(self) -> str:
        """The name of its application."""

    @property
    def pid(self) -> int:
        """Its process."""

    def send(self, message: Any, /) -> object:
        """Send a message; one to a dead worker is dropped."""


class LogDesk:
    """Gathers lines for those who read them. Used on one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._processes: dict[int, LogEnd] = {}
        self._readers: set[_Reader] = set()
        self._last: dict[int, asyncio.Future[tuple[str, ...]]] = {}

    # -- processes come and go -----------------------------------------------------------------------------------------
    def joined(self, process: LogEnd) -> None:
        """A worker was started."""
        self._processes[process.number] = process
        if self._readers:
            process.send(wire.FollowLogs(0, True))

    def left(self, process: LogEnd) -> None:
        """A worker is gone."""
        self._processes.pop(process.number, None)
        self._answer(process.number, ())

    def heard(self, process: LogEnd, message: wire.LogLines) -> None:
        """A worker sent lines."""
        if message.is_last:
            self._answer(process.number, message.lines)
            return
        for reader in self._readers:
            reader.dropped += message.dropped
            reader.put([_line(process, text) for text in message.lines])

    def _answer(self, number: int, lines: tuple[str, ...]) -> None:
        waiter = self._last.pop(number, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(lines)

    # -- reading -------------------------------------------------------------------------------------------------------
    async def last(self, count: int) -> list[Line]:
        """Return the last lines of all processes, in the order of their times."""
        asked = [process for process in self._processes.values() if process.number not in self._last]
        for process in asked:
            self._last[process.number] = self._loop.create_future()
            process.send(wire.FollowLogs(count, bool(self._readers)))
        waiters = {process: self._last[process.number] for process in self._processes.values()}
        if waiters:
            await asyncio.wait(waiters.values(), timeout=limits.LOG_ASK_S)  # a blocked worker does not answer
        found = [_line(None, text) for text in logs.last(count)]
        for process, waiter in waiters.items():
            if waiter.done():
                found += [_line(process, text) for text in waiter.result()]
            else:
                self._answer(process.number, ())
        found.sort(key=lambda line: line["text"])  # each begins with its time
        return found[-count:] if count else []

    def follow(self) -> AsyncIterator[Line]:
        """Return an iterator over the lines from now on; closing it ends that. Lost ones come as {"dropped": N}."""
        reader = _Reader(self)
        self._readers.add(reader)
        if len(self._readers) == 1:
            self._tell(True)
        return reader.lines()

    def forget(self, reader: _Reader) -> None:
        """Somebody does not read any more."""
        self._readers.discard(reader)
        if not self._readers:
            self._tell(False)

    def _tell(self, follow: bool) -> None:
        logs.follow(self._own if follow else None)
        for process in self._processes.values():
            process.send(wire.FollowLogs(0, follow))

    def _own(self, lines: list[str]) -> None:
        """The primary's own lines, on the thread that writes them."""
        found = [_line(None, text) for text in lines]
        try:
            self._loop.call_soon_threadsafe(self._put, found)
        except RuntimeError:  # the loop is closed
            pass

    def _put(self, lines: list[Line]) -> None:
        for reader in self._readers:
            reader.put(lines)

    def close(self) -> None:
        """Gather no more."""
        logs.follow(None)

    # -- what is asked -------------------------------------------------------------------------------------------------
    async def answer(self, arguments: Mapping[str, Any], is_app: Callable[[str], bool]) -> Any:
        """Answer the command `logs`; `is_app` says whose lines are wanted. Raises CommandFailed."""
        count, worker = arguments.get("last", 0), arguments.get("worker")
        if type(count) is not int or not 0 <= count <= _MAX_LAST_LINES:
            raise CommandFailed(f"logs: a number of lines from 0 to {_MAX_LAST_LINES} is needed")

        def is_wanted(line: Mapping[str, Any]) -> bool:
            return "dropped" in line or (is_app(line["app"]) and (worker is None or line["worker"] == worker))

        if not arguments.get("follow"):
            return {"lines": [line for line in await self.last(count) if is_wanted(line)]}
        following = self.follow()  # from now on, so that no line falls between the two
        lines = [line for line in await self.last(count) if is_wanted(line)]

        async def items() -> AsyncIterator[Any]:
            async for line in following:
                if is_wanted(line):
                    yield line

        return Stream({"lines": lines}, items(), following)


class _Reader:
    """One who follows: a bounded queue."""

    def __init__(self, desk: LogDesk) -> None:
        self._desk = desk
        self._queue: deque[Line] = deque()
        self._arrived = asyncio.Event()
        self.dropped = 0

    def put(self, lines: list[Line]) -> None:
        room = max(0, limits.MAX_LOG_QUEUE_RECORDS - len(self._queue))
        self.dropped += max(0, len(lines) - room)
        self._queue.extend(lines[:room])
        self._arrived.set()

    async def lines(self) -> AsyncIterator[Line]:
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._queue:
                    yield self._queue.popleft()
                if self.dropped:
                    dropped, self.dropped = self.dropped, 0
                    yield {"dropped": dropped}
        finally:
            self._desk.forget(self)


def _line(process: LogEnd | None, text: str) -> Line:
    if process is None:
        return {"app": "", "worker": 0, "pid": os.getpid(), "text": text}
    return {"app": process.app, "worker": process.number, "pid": process.pid, "text": text}
