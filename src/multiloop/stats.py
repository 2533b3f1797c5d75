"""Frozen snapshots: what each `statistics()` returns.

What lives here: types only, picklable, so that dashboards and logs read copies and never live objects. Times are
seconds, sizes bytes; counters only grow.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpStatistics:
    """An HTTP service: `active_requests` and `connections` are now, `requests` and `refused` since the start."""

    connections: int
    active_requests: int
    requests: int
    refused: int
    websockets: int
    draining: bool
