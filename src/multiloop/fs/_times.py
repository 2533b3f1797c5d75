"""Times as users give them, in the nanoseconds that the kernel takes.

What lives here: `times_ns`. What must not: files.
"""

from __future__ import annotations

import datetime

Time = int | float | datetime.datetime


def times_ns(atime: Time, mtime: Time) -> tuple[int, int]:
    """Turn seconds since 1970 or datetimes into nanoseconds. Raises TypeError for anything else."""
    return _ns(atime), _ns(mtime)


def _ns(time: Time) -> int:
    if isinstance(time, datetime.datetime):
        time = time.timestamp()
    if isinstance(time, bool) or not isinstance(time, int | float):
        raise TypeError(f"a time is seconds since 1970 or a datetime, not {type(time).__name__}")
    return time * 1_000_000_000 if isinstance(time, int) else round(time * 1e9)
