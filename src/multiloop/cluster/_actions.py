"""What the supervisor wants done. The primary does it, in this order, and knows nothing of why.

What lives here: the actions, frozen. What must not: code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process for a slot; without one it is a standby."""

    number: int
    generation: int
    standby: bool
    slot: int | None = None


@dataclass(frozen=True, slots=True)
class Activate:
    """Tell a standby worker that it is needed."""

    number: int


@dataclass(frozen=True, slots=True)
class Open:
    """Deal connections to it; with reuse_port and shared, give it the listening sockets of its slot."""

    number: int
    slot: int


@dataclass(frozen=True, slots=True)
class Close:
    """Deal no more to it, and pull back what it has not received (unless it shall answer that before it leaves)."""

    number: int
    pull_back: bool = True


@dataclass(frozen=True, slots=True)
class Drain:
    """Tell it to finish and leave."""

    number: int
    grace_s: float
    give_back: bool


@dataclass(frozen=True, slots=True)
class Terminate:
    """Send it SIGTERM: it is not ready yet, so there is nothing to finish."""

    number: int


@dataclass(frozen=True, slots=True)
class Stack:
    """Log why its loop is silent."""

    number: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Send it SIGKILL; after its stack was logged, if so asked."""

    number: int
    stack: bool = False


@dataclass(frozen=True, slots=True)
class Say:
    """Log a line; `detail` goes below it."""

    level: str
    message: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Settled:
    """A reload or a restart is over: tell those who wait for it. `reason` is empty when it worked."""

    tokens: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class BootFailed:
    """No worker became ready; it is tried again (several applications in one primary)."""

    code: int  # what the primary ends with when no application can start


@dataclass(frozen=True, slots=True)
class Exit:
    """Everything is over: end with this code."""

    code: int


Action = Spawn | Activate | Open | Close | Drain | Terminate | Stack | Kill | Say | Settled | BootFailed | Exit
