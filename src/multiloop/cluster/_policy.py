"""Who gets the next connection. Pure: no socket, no clock.

What lives here: the policies, what they see of a worker and of a connection, and how they are named. What must not:
descriptors, credit (`_dealing` offers only workers that may be picked: ready, not draining, with credit and room), what
is sticky about a connection (`_sticky`).

A policy is any object with `pick(connection, workers)`. `workers` is never empty and ordered by `number`; the answer is
one of them. Three attributes of a policy change what it is given:

    looks_at_connection = False   None for the connection, which saves making the view of it
    needs_head = True             the head of the request, read by the primary (8 KiB at most), as `connection.head`
    waits = True                  workers that have no credit at the moment, too; a connection for one of them waits
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import ConfigError
from ._sticky import BY, host_of, is_token, key_in_cookie, key_in_header, pick_by_key

_MUCH_SLOWER = 4.0  # times as long: chance does not make the usual durations of alike workers that different
_SLOWER_MAX = 64.0
_QUICK_S = 0.001  # below, nobody is slow
_UNKNOWN_S = 1e9


class WorkerView(Protocol):
    """What a policy sees of a worker."""

    number: int  # which worker; counts up, never used twice
    seat: int  # the place that it fills; the worker that replaces it has the same
    connections: int  # dealt to it and not closed

    @property
    def requests(self) -> int:
        """In progress there, and on their way to it."""

    @property
    def typical_s(self) -> float:
        """How many seconds a request takes there as a rule (the geometric mean of the last); 0.0: not known."""


@dataclass(frozen=True, slots=True)
class ConnectionView:
    """What a policy sees of a connection."""

    peer: Any  # the client's address: (host, port, …), or "" on a Unix socket
    local: Any  # the address that it came to
    head: bytes = b""  # what the primary has read of it, for a policy with `needs_head`


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


class LeastRequests:
    """The worker with the fewest requests in progress; idle kept connections do not count. Equals take turns.

    A worker in which requests take over four times as long as in the quickest counts for as many times more, up to 64: that
    it has the fewest is no sign then that it will be done soon. While nothing ends there, what is known of it fades, so
    that it is tried again after seconds.
    """

    __slots__ = ("_last",)
    looks_at_connection = False

    def __init__(self) -> None:
        self._last = 0

    def pick(self, connection: Any, workers: Sequence[Any], /) -> Any:
        """Return the least busy worker."""
        last, quickest_s, slowest_s = self._last, _UNKNOWN_S, 0.0
        for worker in workers:
            typical_s = getattr(worker, "typical_s", 0.0)
            if typical_s > slowest_s:
                slowest_s = typical_s
            if 0.0 < typical_s < quickest_s:
                quickest_s = typical_s
        quickest_s = max(quickest_s, _QUICK_S)
        if slowest_s <= quickest_s * _MUCH_SLOWER:
            worker = min(workers, key=lambda w: (w.requests, w.number <= last, w.number))
        else:
            worker = min(workers, key=lambda w: (_weighed(w, quickest_s), w.number <= last, w.number))
        self._last = worker.number
        return worker


def _weighed(worker: Any, quickest_s: float) -> float:
    """How much there is to do in a worker once it has one request more, where others are quicker."""
    ratio: float = worker.typical_s / quickest_s
    return (worker.requests + 1) * (min(ratio, _SLOWER_MAX) if ratio > _MUCH_SLOWER else 1.0)  # type: ignore[no-any-return]


class Sticky:
    """The same worker for the same client, for as long as that worker is there; then the same other one.

    Args:
        by: "address" (the client's host), "header" or "cookie".
        name: of the header or cookie.

    Clients are spread by a hash over the workers' seats, so that a replacement has its predecessor's clients and nobody
    else moves. A connection without a key (no such header or cookie, a Unix socket) goes round robin.

    Raises ConfigError for what cannot be looked at.
    """

    __slots__ = ("_others", "by", "name", "needs_head")
    waits = True  # a client whose worker is busy for a moment waits for it

    def __init__(self, by: str = "address", name: str = "") -> None:
        if by not in BY:
            raise ConfigError(f"the sticky policy goes by one of {', '.join(BY)}, not by {by!r}")
        if (by == "address") == bool(name):
            raise ConfigError(f"the sticky policy by {by} needs {'no name' if name else 'the name of one'}")
        if name and not is_token(name):
            raise ConfigError(f"the sticky policy: {name!r} cannot be the name of a {by}")
        self.by = by
        self.name = name
        self.needs_head = by != "address"
        self._others = RoundRobin()

    def pick(self, connection: ConnectionView, workers: Sequence[Any], /) -> Any:
        """Return the worker of this client."""
        if self.by == "address":
            key = host_of(connection.peer)
        elif self.by == "header":
            key = key_in_header(connection.head, self.name)
        else:
            key = key_in_cookie(connection.head, self.name)
        return pick_by_key(key, workers) if key else self._others.pick(None, workers)


DEALING: dict[str, Callable[[], Policy]] = {
    "round_robin": RoundRobin,
    "least_connections": LeastConnections,
    "least_requests": LeastRequests,
    "sticky": Sticky,
}
ACCEPTING = ("reuse_port", "shared")  # the workers accept themselves; what the primary must deal goes round robin
POLICIES = (*DEALING, *ACCEPTING)
_HOW = f"use one of {', '.join(POLICIES)}, sticky:header=NAME, sticky:cookie=NAME, or module:attribute"
_USERS_OWN = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")


def make_policy(wanted: Any, app_dir: str | None = None) -> Policy:
    """Return a new policy of this name, or the policy that a user gave: an object with `pick`, or what makes one.

    Args:
        wanted: "round_robin", …; "sticky:header=NAME" or "sticky:cookie=NAME"; "module:attribute"; or an object.
        app_dir: where a module is looked for first.

    Raises ConfigError (one line) for what is none.
    """
    if not isinstance(wanted, str):
        return _checked(wanted, f"the policy {wanted!r}")
    if wanted in ACCEPTING:
        return RoundRobin()
    if wanted in DEALING:
        return DEALING[wanted]()
    word, _, how = wanted.partition(":")
    if word == "sticky":
        by, _, name = how.partition("=")
        return Sticky(by, name)
    if not _USERS_OWN.fullmatch(wanted):
        raise ConfigError(f"--policy {wanted!r}: {_HOW}")
    return _checked(_imported(word, how, app_dir), f"--policy {wanted!r}")


def checked_name(wanted: Any) -> str:
    """Return the name of a policy, whose module is not imported. Raises ValueError for what can be none."""
    if isinstance(wanted, str):
        if wanted in POLICIES or (not wanted.startswith("sticky:") and _USERS_OWN.fullmatch(wanted)):
            return wanted
        if wanted.startswith("sticky:"):
            try:
                make_policy(wanted)
            except ConfigError as error:
                raise ValueError(str(error)) from None
            return wanted
    raise ValueError(_HOW)


def needs_head(wanted: Any) -> bool:
    """Whether a policy of this name reads from connections in the primary, which cannot be done with TLS."""
    return isinstance(wanted, str) and wanted.startswith(("sticky:header", "sticky:cookie"))


def asks_for_requests(wanted: Any) -> bool:
    """Whether a policy of this name looks at `requests`: then workers say often how many they have."""
    return not isinstance(wanted, str) or wanted == "least_requests" or is_users_own(wanted)


def is_users_own(wanted: str) -> bool:
    """Whether this names a policy of the user's: "module:attribute"."""
    return ":" in wanted and not wanted.startswith("sticky:")


def _imported(module: str, attribute: str, app_dir: str | None) -> Any:
    folder = os.path.abspath(app_dir) if app_dir is not None else ""
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except Exception as error:
        raise ConfigError(f"--policy '{module}:{attribute}': {type(error).__name__}: {error}") from error
    return found


def _checked(found: Any, what: str) -> Policy:
    if isinstance(found, type) or (callable(found) and not hasattr(found, "pick")):
        try:
            found = found()
        except Exception as error:
            raise ConfigError(f"{what}: making it failed: {type(error).__name__}: {error}") from error
    if not callable(getattr(found, "pick", None)):
        raise ConfigError(f"{what} has no pick(connection, workers): a policy is an object with that method")
    policy: Policy = found
    return policy
