"""What is over already, once for each loop: who need not wait gets this, and nothing is made for him.

What lives here: `Settled`, found with `settled()`. What must not: anything that can still change.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from ..loop import Operation


class Settled(NamedTuple):
    """A future and an operation with the result None: both are over, so nobody can change what others see."""

    future: asyncio.Future[None]  # exactly this class: a task looks into it without asking
    operation: Operation[None]


def settled(loop: asyncio.AbstractEventLoop) -> Settled:
    """Return the ones of this loop."""
    try:
        return loop._multiloop_settled  # type: ignore[attr-defined,no-any-return]
    except AttributeError:
        made = Settled(asyncio.Future(loop=loop), Operation(loop=loop))
        made.future.set_result(None)
        made.operation._counted = False  # nobody retained the hub for it
        made.operation.set_result(None)
        loop._multiloop_settled = made  # type: ignore[attr-defined]
        return made
