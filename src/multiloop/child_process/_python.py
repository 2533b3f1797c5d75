"""How another process of this Python is started.

What lives here: the interpreter and its options. What must not: what runs in it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from ..errors import UsageError


def interpreter() -> list[str]:
    """Return the command that starts this interpreter with its own options, as multiprocessing hands them on.

    Raises UsageError where Python does not know its own path.
    """
    if not sys.executable:
        raise UsageError("sys.executable is empty, so no process of this Python can be started: set it to its path")
    return [sys.executable, *own_flags()]


def own_flags() -> list[str]:
    """Return the options this interpreter was started with."""
    flags: Callable[[], list[str]] | None = getattr(subprocess, "_args_from_interpreter_flags", None)
    return flags() if flags is not None else []
