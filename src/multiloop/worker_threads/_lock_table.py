"""Who holds which lock, who waits: the rules, without any I/O.

What lives here: `LockTable`, used by the main place only, and by a cluster's primary. What must not: where requests
come from.

Rules
* First come, first served. Neighbours in the queue that ask for "shared" hold it together; "exclusive" holds it alone.
* `steal` takes it at once: all holders lose it. `if_available` never waits.
* A request is known by its key, (id of the client, number); releasing one that waits withdraws it.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

from ..errors import UsageError

Mode = Literal["exclusive", "shared"]
Key = tuple[int, int]

GRANTED, UNAVAILABLE, STOLEN = "granted", "unavailable", "stolen"


class Request(NamedTuple):
    """Somebody wants a lock."""

    key: Key
    name: str
    mode: str
    if_available: bool = False
    steal: bool = False


def check_request(name: object, mode: object, if_available: bool, steal: bool) -> None:
    """Raise TypeError or UsageError for a request that cannot be meant as it is."""
    if not isinstance(name, str):
        raise TypeError(f"locks.request() takes the name of a lock, not {type(name).__name__}")
    if mode not in ("exclusive", "shared"):
        raise UsageError(f"locks.request(mode={mode!r}): use 'exclusive' or 'shared'")
    if steal and (if_available or mode != "exclusive"):
        raise UsageError("locks.request(steal=True) is for exclusive locks, and never waits: no if_available")


class Verdict(NamedTuple):
    """What to tell somebody."""

    key: Key
    word: str


class LockTable:
    """All locks of a tree of workers."""

    def __init__(self) -> None:
        self._held: dict[str, list[Request]] = {}
        self._waiting: dict[str, deque[Request]] = {}
        self._names: dict[Key, str] = {}  # of everything held or waiting

    def request(self, request: Request) -> list[Verdict]:
        """Take a request; returns what is decided by it."""
        if request.steal:
            return self._steal(request)
        holders = self._held.get(request.name, [])
        queue = self._waiting.get(request.name)
        if not queue and _fits(request, holders):
            return [self._grant(request)]
        if request.if_available:
            return [Verdict(request.key, UNAVAILABLE)]
        self._names[request.key] = request.name
        self._waiting.setdefault(request.name, deque()).append(request)
        return []

    def _steal(self, request: Request) -> list[Verdict]:
        lost = self._held.pop(request.name, [])
        for holder in lost:
            del self._names[holder.key]
        return [*(Verdict(holder.key, STOLEN) for holder in lost), self._grant(request)]

    def _grant(self, request: Request) -> Verdict:
        self._held.setdefault(request.name, []).append(request)
        self._names[request.key] = request.name
        return Verdict(request.key, GRANTED)

    def release(self, key: Key) -> list[Verdict]:
        """Somebody is done with a lock, or waits for it no longer; returns who gets it now. Unknown keys are ignored."""
        name = self._names.pop(key, None)
        if name is None:
            return []
        self._held[name] = [each for each in self._held.get(name, ()) if each.key != key]
        queue = deque(each for each in self._waiting.get(name, ()) if each.key != key)
        granted: list[Verdict] = []
        while queue and _fits(queue[0], self._held[name]):
            granted.append(self._grant(queue.popleft()))
        self._waiting[name] = queue
        if not queue:
            del self._waiting[name]
        if not self._held[name]:
            del self._held[name]
        return granted

    def query(self) -> tuple[list[Request], list[Request]]:
        """What is held and what waits, oldest first."""
        held = [each for requests in self._held.values() for each in requests]
        return held, [each for requests in self._waiting.values() for each in requests]


def _fits(request: Request, holders: list[Request]) -> bool:
    return not holders or (request.mode == "shared" and all(each.mode == "shared" for each in holders))
