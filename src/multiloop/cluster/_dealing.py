"""Who may have the next connection, and who gets it. Pure: no socket, no clock.

What lives here: `Account` (what is known of one worker) and `Group` (the workers that serve the same listening sockets,
and their policy). What must not: descriptors, accepting, sending (`_dealer`, `_link`).

Each connection that was dealt is in two counts until the worker says otherwise:

    credit        taken by the deal, given back when the worker has adopted it, or it never arrived, or was pulled back
    connections   counted by the deal, until it is closed

A worker is offered to the policy while it is open (ready, its loop turns, not draining), has credit, has room, and is
not congested. One that refused a connection (its server is full) may have as many more in that group as have closed
since, so that what waits is not carried to and fro. Now and then it is asked all the same: a server's limit may have
been raised.
"""

from __future__ import annotations

import sys
from bisect import insort
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from ._policy import Policy

_by_number = attrgetter("number")


class _Full:
    """A server that has refused a connection."""

    __slots__ = ("is_asked", "room")

    def __init__(self) -> None:
        self.room = 0  # connections that it may have: as many as have closed since
        self.is_asked = False  # time has passed, and it was offered one more; it has not refused that


class Account:
    """What is known of one worker; also what a policy sees of it.

    Args:
        number: which worker; never used twice.
        credit: how many connections may be on their way to it.
        seat: the place that it fills.
    """

    __slots__ = (
        "capacity",
        "congested",
        "connections",
        "free",
        "full",
        "groups",
        "is_open",
        "listed",
        "number",
        "seat",
        "total",
    )

    def __init__(self, number: int, credit: int, seat: int = 0) -> None:
        self.number = number
        self.seat = seat
        self.free = credit
        self.capacity = sys.maxsize
        self.connections = 0
        self.total = 0  # connections that it ever got
        self.groups: list[Group] = []
        self.full: dict[Group, _Full] = {}  # where its server has refused
        self.is_open = False  # the supervisor lets it have connections
        self.congested = False  # its socket or its table of descriptors is full: try again later
        self.listed = False  # among those that may be picked, in all its groups

    @property
    def requests(self) -> int:
        """Requests in progress, and on their way."""
        return self.connections

    @property
    def typical_s(self) -> float:
        """How long a request takes there as a rule; 0.0 where that is not known."""
        return 0.0

    @property
    def has_room(self) -> bool:
        """Whether it serves at all and is not full: busy for a moment is not full."""
        return self.is_open and self.connections < self.capacity

    @property
    def may_be_picked(self) -> bool:
        """Whether the next connection may go to this worker."""
        return self.is_open and self.free > 0 and self.connections < self.capacity and not self.congested

    def is_taken_by(self, group: Group) -> bool:
        """Whether its server on this group's sockets takes connections, as far as is known."""
        return group not in self.full or self.full[group].room > 0

    # -- what happens to it --------------------------------------------------------------------------------------------
    def dealt(self, group: Group | None = None) -> None:
        """It got a connection, of this group."""
        if self.full and group in self.full:
            self._use_room(group)
        self.connections += 1
        self.total += 1
        self.free -= 1
        if not self.free or self.connections >= self.capacity:
            self.unlist()

    def undone(self) -> None:
        """A connection did not get to it."""
        self.connections -= 1
        self.free += 1

    def closed(self) -> None:
        """A connection has ended: a server that was full has room for one."""
        self.connections -= 1
        for group, full in self.full.items():
            self._give_room(group, full)

    def refused(self, group: Group | None) -> None:
        """It does not want a connection that it has received: its server on this group's sockets is full."""
        self.connections -= 1
        if group is None or group not in self.groups:
            return
        if self.listed and self.is_taken_by(group):
            group.withdraw(self)
        self.full[group] = _Full()

    def ask_again(self) -> None:
        """Time has passed: offer it one connection where it refused, and any number where it has taken such a one."""
        for group, full in list(self.full.items()):
            if full.is_asked:
                self._give_room(group, full)
                del self.full[group]
            else:
                full.is_asked = True
                if not full.room:
                    self._give_room(group, full)

    def _give_room(self, group: Group, full: _Full) -> None:
        full.room += 1
        if full.room == 1 and self.listed:
            group.offer(self)

    def _use_room(self, group: Group) -> None:
        full = self.full[group]
        if full.room:
            full.room -= 1
            if not full.room and self.listed:
                group.withdraw(self)

    def list(self) -> bool:
        """Offer it, if it may be picked now; whether that is new."""
        if self.listed or not self.may_be_picked:
            return False
        self.listed = True
        for group in self.groups:
            if self.is_taken_by(group):
                group.offer(self)
        return True

    def unlist(self) -> None:
        """Offer it no more."""
        if self.listed:
            self.listed = False
            for group in self.groups:
                if self.is_taken_by(group):
                    group.withdraw(self)


class Group:
    """Workers that serve the same listening sockets, and who of them gets the next connection."""

    __slots__ = ("eligible", "looks", "members", "needs_head", "policy", "waits")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.looks: bool = getattr(policy, "looks_at_connection", True)
        self.waits: bool = getattr(policy, "waits", False)
        self.needs_head: bool = getattr(policy, "needs_head", False)
        self.members: list[Any] = []  # accounts, by number
        self.eligible: list[Any] = []  # those that are offered, by number

    def join(self, account: Account) -> None:
        """Let a worker have connections of this group; twice is once."""
        if account not in self.members:
            insort(self.members, account, key=_by_number)
            account.groups.append(self)
            if account.listed:
                self.offer(account)

    def leave(self, account: Account) -> None:
        """Let it have none any more."""
        if account in self.members:
            if account.listed and account.is_taken_by(self):
                self.withdraw(account)
            self.members.remove(account)
            account.groups.remove(self)
            account.full.pop(self, None)

    def offer(self, account: Account) -> None:
        """It may be picked (again). For `Account`."""
        insort(self.eligible, account, key=_by_number)

    def withdraw(self, account: Account) -> None:
        """It may not be picked. For `Account`."""
        self.eligible.remove(account)

    def offered(self) -> Sequence[Any]:
        """Return the workers that the policy chooses from, by number."""
        if not self.waits:
            return self.eligible
        return [account for account in self.members if account.has_room and account.is_taken_by(self)]

    def pick(self, view: Any) -> Any:
        """Return the account that the policy picks. There must be one to choose from.

        Raises ValueError when it is none of those that were offered, and whatever the policy raises.
        """
        offered = self.offered()
        if len(offered) == 1:
            return offered[0]
        picked = self.policy.pick(view, offered)
        if picked not in offered:
            raise ValueError(f"it picked {picked!r}, which was not offered")
        return picked
