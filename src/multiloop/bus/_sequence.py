"""Noticing what did not come. Pure: numbers in, gaps out.

What lives here: `Sequences` (the receiver's side) and `Counters` (the sender's). What must not: clocks, sockets.

Each sender numbers its messages to each topic from 1. A receiver takes the first number that it sees of a sender as the
beginning; from then on a number that is not the next one is a gap, or has come twice.
"""

from __future__ import annotations

from collections import OrderedDict

_SENDERS_MOST = 10_000  # remembered by one receiver; the ones that were silent for longest are forgotten


class Sequences:
    """What was heard last, by sender and topic."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], int] = OrderedDict()

    def take(self, sender: str, topic: str, number: int) -> int:
        """A message has come. Returns how many are missing before it, -1 when it has come before."""
        key = sender, topic
        last = self._last.get(key)
        if last is not None and number <= last:
            return -1
        self._remember(key, number)
        return 0 if last is None else number - last - 1

    def beat(self, sender: str, topic: str, number: int) -> int:
        """A sender says what its last message was. Returns how many have not come."""
        key = sender, topic
        last = self._last.get(key)
        if last is None:
            self._remember(key, number)
            return 0
        if number <= last:
            return 0
        self._remember(key, number)
        return number - last

    def forget(self, topic: str) -> None:
        """Nobody here listens to a topic any more."""
        for key in [key for key in self._last if key[1] == topic]:
            del self._last[key]

    def _remember(self, key: tuple[str, str], number: int) -> None:
        self._last[key] = number
        self._last.move_to_end(key)
        if len(self._last) > _SENDERS_MOST:
            self._last.popitem(last=False)


class Counters:
    """Numbers of the messages of one sender, and which topics have something to beat about.

    After its last message to a topic a sender beats a few times, with growing pauses: so a lost last message is noticed,
    and a silent bus is silent.
    """

    PAUSES_S = (1.0, 5.0, 30.0)

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._due: dict[str, tuple[float, int]] = {}  # when the next beat is due, and which it is

    def next(self, topic: str, now_s: float) -> int:
        """Number the next message."""
        number = self._numbers[topic] = self._numbers.get(topic, 0) + 1
        self._due[topic] = now_s + self.PAUSES_S[0], 0
        return number

    def beats(self, now_s: float) -> list[tuple[str, int]]:
        """Return the topics whose beat is due, with their last numbers."""
        due = [topic for topic, (at, _) in self._due.items() if at <= now_s]
        for topic in due:
            _, step = self._due.pop(topic)
            if step + 1 < len(self.PAUSES_S):
                self._due[topic] = now_s + self.PAUSES_S[step + 1], step + 1
        return [(topic, self._numbers[topic]) for topic in due]

    def wait_s(self, now_s: float) -> float | None:
        """How long until a beat is due; None: there is none."""
        return max(0.0, min(at for at, _ in self._due.values()) - now_s) if self._due else None
