"""Named counters that the primary and all its workers share: `await cluster.counter("hits")`.

What lives here: `Counter`, and the primary's `CounterHouse`, which gives each name its place in one shared buffer. What
must not: the memory itself, and what makes it atomic (`worker_threads`).

A name is looked up once, with one message; after that a counter is memory: no message, no waiting, nothing that a killed
worker could take with it.
"""

from __future__ import annotations

from ... import _limits as limits
from ...errors import LimitError
from ...worker_threads import Atomics, SharedBuffer

_FORMAT = "q"
_ITEM_BYTES = 8
_HALF = 1 << 63  # of the numbers that 64 bits have: those below 0, and the others


class Counter:
    """A number of 64 bits that all processes of the cluster see and change. Every change is atomic."""

    __slots__ = ("_buffer", "_place", "name")

    def __init__(self, name: str, buffer: SharedBuffer, place: int) -> None:
        self.name = name
        self._buffer = buffer
        self._place = place

    @property
    def value(self) -> int:
        """What it is now."""
        return Atomics.load(self._buffer, self._place)

    def add(self, amount: int = 1) -> int:
        """Add to it (a negative amount, too); returns what it is then. Beyond 64 bits it goes on from the other end."""
        after = Atomics.add(self._buffer, self._place, amount) + amount
        return (after + _HALF) % (2 * _HALF) - _HALF

    def set(self, value: int) -> None:
        """Make it another number."""
        Atomics.store(self._buffer, self._place, value)

    def compare_exchange(self, expected: int, value: int) -> bool:
        """Make it `value` if it is `expected`; whether it was."""
        return Atomics.compare_exchange(self._buffer, self._place, expected, value) == expected

    def __repr__(self) -> str:
        return f"<Counter {self.name!r} {self.value}>"


class CounterHouse:
    """All counters, in the primary."""

    def __init__(self) -> None:
        self.buffer = SharedBuffer(limits.MAX_COUNTERS * _ITEM_BYTES, _FORMAT)
        self._places: dict[str, int] = {}

    def place(self, name: str) -> int:
        """Return the place of a name; a new one begins with 0. Raises LimitError when there are too many."""
        found = self._places.get(name)
        if found is None:
            if len(self._places) == limits.MAX_COUNTERS:
                raise LimitError(f"cluster.counter({name!r}): there are {limits.MAX_COUNTERS} counters already")
            found = self._places[name] = len(self._places)
        return found

    def counter(self, name: str) -> Counter:
        """Return the counter of this name."""
        return Counter(name, self.buffer, self.place(name))
