"""`resource_limits` of a worker of kind `process`: the kernel's limits under readable names.

What lives here: names, units and checks. What must not: setting them (a worker does that itself, `_child`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UsageError

try:
    import resource
except ImportError:  # Windows
    NUMBERS: dict[str, int] = {}
else:
    NUMBERS = {
        "memory": resource.RLIMIT_AS,  # bytes of address space: above it MemoryError, in the worker alone
        "cpu_time": resource.RLIMIT_CPU,  # seconds: above it SIGXCPU
        "open_files": resource.RLIMIT_NOFILE,
        "stack": resource.RLIMIT_STACK,  # bytes, of threads started later
    }


def check_limits(limits: Mapping[str, Any] | None) -> dict[str, float]:
    """Return a copy. Raises UsageError for an unknown name or a value that is no number above 0."""
    for name, value in (limits or {}).items():
        if name not in NUMBERS:
            raise UsageError(
                f"resource_limits: {name!r} is unknown: use {', '.join(NUMBERS) or 'none, on this system'}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
            raise UsageError(f"resource_limits: {name}={value!r} must be a number, at least 1")
    return dict(limits or {})
