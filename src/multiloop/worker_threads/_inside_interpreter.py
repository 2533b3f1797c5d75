"""Making an interpreter look like a place of its own, although it shares a process with others.

What lives here: streams, environment, refused calls and the leash, set up inside the interpreter. What must not: the
side that starts it (`_interpreter`).
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from ..errors import UsageError
from ._leash import Leash
from ._words import Plan

# They would change the whole program, with all its workers (Node refuses the same in its workers).
_REFUSED = (
    *("chdir", "fchdir", "umask", "abort"),
    *("setuid", "setgid", "seteuid", "setegid", "setreuid", "setregid", "setresuid", "setresgid"),
    *("setgroups", "initgroups"),
)


def settle_in(plan: Plan) -> Callable[[], None]:
    """Set everything up; returns what to call when the user's code is over."""
    _own_environment(plan.environment)
    _refuse_what_concerns_all()
    sys.stdin = _reader(plan.stdin)
    sys.stdout = _writer(plan.stdout, sys.stdout)
    sys.stderr = _writer(plan.stderr, sys.stderr)
    own = [sys.stdin, *(each for each, fd in ((sys.stdout, plan.stdout), (sys.stderr, plan.stderr)) if fd >= 0)]
    atexit.register(_close, own)  # the first to be registered is the last to be called
    return Leash(plan.leash).let_go


def _close(streams: list[TextIO]) -> None:
    for stream in streams:
        try:
            stream.close()
        except (OSError, ValueError):  # nobody reads any more; the user has closed it
            pass


def _own_environment(environment: dict[bytes, bytes] | None) -> None:
    """Let os.environ be this interpreter's alone: C's environment belongs to the program."""
    os.putenv = os.unsetenv = _nothing
    if environment is not None:
        data: Any = os.environ._data  # type: ignore[attr-defined]
        data.clear()
        data.update(environment)


def _nothing(*_: Any) -> None:
    return None


def _refuse_what_concerns_all() -> None:
    for name in _REFUSED:
        if hasattr(os, name):
            setattr(os, name, _refusing(name))


def _refusing(name: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> None:
        raise UsageError(f"os.{name}() in a worker of kind 'interpreter' would change the whole program: not allowed")

    refuse.__name__ = name
    return refuse


def _reader(fd: int) -> TextIO:
    """Standard input: a pipe from the parent, or empty. The program's own belongs to the main place."""
    return open(fd if fd >= 0 else os.devnull, encoding="utf-8", errors="surrogateescape")


def _writer(fd: int, inherited: Any) -> Any:
    if fd < 0:
        if hasattr(inherited, "reconfigure"):
            inherited.reconfigure(line_buffering=True)
        return inherited
    return open(fd, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
