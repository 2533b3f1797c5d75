"""Am I a worker? Found out once, when multiloop is first imported.

What lives here: `Role` and `enter`. What must not: what a worker does (`_member`).

A worker is started with its id and some descriptors in one variable of its environment. It is taken out at once, so that
no child of the worker believes it; and it is believed only where the descriptor that it names is the very one.
"""

from __future__ import annotations

import os
from typing import NamedTuple

VARIABLE = "MULTILOOP_WORKER"  # the handoff's inode : id : seat : handoff : page : lifeline


class Role(NamedTuple):
    """What a worker was given."""

    id: int
    seat: int
    handoff: int  # descriptors
    page: int
    lifeline: int


role: Role | None = None  # None in a primary, and in a program that forks nobody


def enter() -> None:
    """Become a worker if this process was started as one. Called when the variable is there, at the first import."""
    global role
    text = os.environ.pop(VARIABLE, "")
    try:
        inode, *numbers = map(int, text.split(":"))
        found = Role(*numbers)
        if os.fstat(found.handoff).st_ino != inode:
            return  # a stranger's descriptor: the variable was handed down by somebody
    except (ValueError, TypeError, OSError):
        return
    role = found
    from ._member import become

    become(found)


def write(inode: int, role: Role) -> str:
    """Return the variable's value."""
    return ":".join(map(str, (inode, *role)))
