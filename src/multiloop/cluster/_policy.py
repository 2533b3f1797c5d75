"""Who gets the next connection. Pure: no socket, no clock.

What lives here: the policies and what they see of a worker and of a connection. What must not: descriptors, credit
(only workers that may be picked are offered: ready, not draining, with credit and room).

A policy is any object with `pick(connection, workers)`. `workers` is never empty and ordered by `number`; the answer is
one of them. One with `looks_at_connection = False` gets None for the connection, which saves making the view of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import ConfigError


class WorkerView(Protocol):
    """What a policy sees of a worker."""

    number: int  # which worker; counts up, never used twice
    connections: int  # dealt to it and not closed
    requests: int  # in progress, as of its last report (about one second old)


@dataclass(frozen=True, slots=True)
class ConnectionView:
    """What a policy sees of a connection."""

    listener: int
    peer: Any  # the address that accept() gave; None when it comes back from a worker
    prefix: bytes = b""  # what the primary has read of it, if it was told to read the head


class Policy(Protocol):
    """Decides for one connection after the other."""

    def pick(self, connection: Any, workers: Sequence[Any], /) -> Any:
        """Return one of `workers`."""


class RoundRobin:
    """Each worker in its turn. One that is not offered (no credit, not ready) misses that turn and no other."""

    __slots__ = ("_last",)
    looks_at_connection = False

    def __init__(self) -> None:
        self._last = 0

    def pick(self, connection: Any, workers: Sequence[Any], /) -> Any:
        """Return the worker after the one picked before, in the order of their numbers."""
        last = self._last
        for worker in workers:
            if worker.number > last:
                break
        else:
            worker = workers[0]
        self._last = worker.number
        return worker


class LeastConnections:
    """The worker with the fewest open connections; among equals the one whose turn it is."""

    __slots__ = ("_last",)
    looks_at_connection = False

    def __init__(self) -> None:
        self._last = 0

    def pick(self, connection: Any, workers: Sequence[Any], /) -> Any:
        """Return the least loaded worker."""
        last = self._last
        # Ranked by load, then by whether it comes after the last one in the cycle, then by place.
        worker = min(workers, key=lambda w: (w.connections, w.number <= last, w.number))
        self._last = worker.number
        return worker


DEALING: dict[str, Callable[[], Policy]] = {"round_robin": RoundRobin, "least_connections": LeastConnections}
ACCEPTING = ("reuse_port", "shared")  # the workers accept themselves; what the primary must deal goes round robin
POLICIES = (*DEALING, *ACCEPTING)


def make_policy(name: str) -> Policy:
    """Return a new policy of this name. Raises ConfigError for a name that is none."""
    if name in ACCEPTING:
        return RoundRobin()
    try:
        return DEALING[name]()
    except KeyError:
        raise ConfigError(f"--policy {name!r}: use one of {', '.join(POLICIES)}") from None
