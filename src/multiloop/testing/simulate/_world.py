"""Time, events and processes of a simulation.

What lives here: `World` (the clock and what happens next), `Machine` (one simulated process: it runs, stops, dies) and
`Loop` (as much of an event loop as the product's code uses in it). What must not: what the processes do.

Events at the same time happen in an order that the seed chooses. What a stopped process has to do waits until it goes
on; what a dead one had to do is dropped.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

Callback = Callable[..., object]
_LATENCY_S = 0.002  # of a wake-up, a message, a packet: uniform up to this


class World:
    """The clock and the queue of events."""

    def __init__(self, seed: int) -> None:
        self.now = 1000.0
        self.events = 0
        self.chance = random.Random(f"{seed} order")
        self.history: list[str] = []
        self._queue: list[tuple[float, float, int, Event]] = []
        self._number = 0

    def at(self, delay: float, machine: Machine | None, callback: Callback, *args: Any) -> Event:
        """Let something happen after a while, in a process (or outside of all)."""
        event = Event(self.now + max(0.0, delay), machine, callback, args)
        self.push(event)
        return event

    def push(self, event: Event) -> None:
        """Queue an event at its time, or now if that has passed."""
        self._number += 1
        heapq.heappush(self._queue, (max(event.time, self.now), self.chance.random(), self._number, event))

    def soon(self) -> float:
        """Return how long something that happens at once takes."""
        return self.chance.random() * _LATENCY_S

    def note(self, text: str) -> None:
        """Write a line of history."""
        self.history.append(f"{self.now - 1000.0:9.4f}  {text}")

    def run(self, until: float, after_each: Callable[[], None]) -> None:
        """Let time pass to `until`; `after_each` is called after every event."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, _, event = heapq.heappop(queue)
            machine = event.machine
            if event.is_cancelled or (machine is not None and machine.is_dead):
                continue
            if machine is not None and machine.is_stopped:
                machine.waiting.append(event)
                continue
            self.events += 1
            event.callback(*event.args)
            after_each()
        self.now = max(self.now, until)


class Event:
    """One thing that will happen; also what `call_later` returns."""

    __slots__ = ("args", "callback", "is_cancelled", "machine", "time")

    def __init__(self, time: float, machine: Machine | None, callback: Callback, args: tuple[Any, ...]) -> None:
        self.time = time
        self.machine = machine
        self.callback = callback
        self.args = args
        self.is_cancelled = False

    def cancel(self) -> None:
        """Let it not happen."""
        self.is_cancelled = True


class Machine:
    """A simulated process."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.is_stopped = False
        self.is_dead = False
        self.stopped_at = self.resumed_at = 0.0
        self.waiting: list[Event] = []
        self.loop = Loop(world, self)

    def __repr__(self) -> str:
        return self.name

    def stop(self) -> None:
        """SIGSTOP, or a loop that is blocked."""
        if not self.is_stopped:
            self.is_stopped, self.stopped_at = True, self.world.now

    def resume(self) -> None:
        """SIGCONT."""
        if self.is_stopped and not self.is_dead:
            self.is_stopped = False
            waiting, self.waiting = self.waiting, []
            for index, event in enumerate(waiting):  # in the order in which they came
                event.time = self.world.now + index * 1e-7
                self.world.push(event)
            self.resumed_at = self.world.now

    def die(self) -> None:
        """It is gone."""
        self.is_dead = True
        self.waiting.clear()
        self.loop.readers.clear()


class Loop:
    """As much of an event loop as the product's code uses."""

    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self._machine = machine
        self.readers: dict[Any, tuple[Callback, tuple[Any, ...]]] = {}
        self._woken: set[Any] = set()

    def time(self) -> float:
        """Return the time."""
        return self._world.now

    def call_later(self, delay: float, callback: Callback, *args: Any) -> Event:
        """Call it after a while."""
        return self._world.at(delay, self._machine, callback, *args)

    def call_soon(self, callback: Callback, *args: Any) -> Event:
        """Call it in the next turn."""
        return self._world.at(0.0, self._machine, callback, *args)

    def call_soon_threadsafe(self, callback: Callback, *args: Any) -> Event:
        """As `call_soon`: there are no threads."""
        return self.call_soon(callback, *args)

    def create_future(self) -> Future:
        """Return something that gets a result once."""
        return Future()

    def add_reader(self, sock: Any, callback: Callback, *args: Any) -> None:
        """Call it whenever there is something to read."""
        self.readers[sock] = (callback, args)
        sock.watched_by(self)
        self.wake(sock)

    def remove_reader(self, sock: Any) -> bool:
        """Look at it no more."""
        return self.readers.pop(sock, None) is not None

    def wake(self, sock: Any) -> None:
        """Something may have come to a socket."""
        if sock in self.readers and sock not in self._woken and sock.is_readable():
            self._woken.add(sock)
            self._world.at(self._world.soon(), self._machine, self._read, sock)

    def _read(self, sock: Any) -> None:
        self._woken.discard(sock)
        found = self.readers.get(sock)
        if found is not None and sock.is_readable():
            found[0](*found[1])
            self.wake(sock)


class Future:
    """A result that comes once."""

    def __init__(self) -> None:
        self._results: list[Any] = []

    def done(self) -> bool:
        """Whether it is there."""
        return bool(self._results)

    def set_result(self, result: Any) -> None:
        """Give it."""
        self._results.append(result)

    def result(self) -> Any:
        """Return it."""
        return self._results[0]
