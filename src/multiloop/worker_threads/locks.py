"""`locks`: named locks across all workers of the tree.

What lives here: `request` and `query`. What must not: the way to the main place (`_lock_desk`), the rules
(`_lock_table`).
"""

from __future__ import annotations

from typing import Any

from ..loop import ErrorFirst
from ._crossing import exchange_of
from ._lock_desk import Lock as Lock
from ._lock_desk import LockDesk
from ._lock_desk import LockInfo as LockInfo
from ._lock_desk import LockSnapshot as LockSnapshot
from ._lock_table import Mode, check_request
from ._place import current

__all__ = ["Lock", "LockInfo", "LockSnapshot", "query", "request"]


def request(
    name: str,
    *,
    mode: Mode = "exclusive",
    if_available: bool = False,
    steal: bool = False,
    callback: ErrorFirst | None = None,
) -> Any:
    """Ask for a lock that all workers of the tree share: `async with locks.request("name") as lock: ...`.

    Or `lock = await locks.request("name")` and `lock.release()`. First come, first served. A cancelled request is
    withdrawn; a worker that ends, killed or not, loses what it holds.

    Args:
        mode: "exclusive", or "shared" with others that ask for "shared".
        if_available: do not wait; the lock that comes is then false.
        steal: take it from whoever holds it; they learn of it by `lock.is_stolen`, and LockStolen at the end of their
            `async with`.
    """
    check_request(name, mode, if_available, steal)
    return _desk().request(name, mode, if_available, steal, callback)


def query(callback: ErrorFirst | None = None) -> Any:
    """Look at all locks of the tree: an operation that gives a LockSnapshot (held, pending)."""
    return _desk().query(callback)


def _desk() -> LockDesk:
    found = exchange_of(current()).desk
    assert isinstance(found, LockDesk)
    return found
