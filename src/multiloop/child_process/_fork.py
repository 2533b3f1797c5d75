"""`fork`: a Python file or module as a child, with a message channel.

What lives here: `fork`. What must not: the child's side (`_parent`, `_bootstrap`).

It is no fork of this process (that would copy threads and locks): a new interpreter runs the target.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from ..errors import UsageError
from ..loop import hub
from ._child import ChildProcess
from ._options import SpawnKeywords, SpawnOptions, Stdio, StrPath
from ._python import own_flags

_BOOTSTRAP = Path(__file__).with_name("_bootstrap.py")


class ForkKeywords(SpawnKeywords, total=False):
    """The options of `fork` beside those of `spawn` (without `shell` and `argv0`)."""

    exec_path: StrPath | None
    exec_argv: Sequence[str] | None
    silent: bool


def fork(target: StrPath, args: Sequence[StrPath] = (), **options: Unpack[ForkKeywords]) -> ChildProcess:
    """Start a Python file or module as a child that can `send` and receive; returns it at once.

    A target that ends in .py or has a separator is a file, from the working folder; all others are modules, as for
    `python -m`. It runs as `__main__` with `args` in sys.argv; `multiloop.child_process.parent` is its side of the
    channel. When its top-level code is done and it listens for messages but has not called `multiloop.run`, its loop
    runs until the channel closes. Stdin, stdout and stderr are ours. Options as `spawn`, and:

    Args:
        exec_path: the interpreter (sys.executable).
        exec_argv: its options (those of this interpreter, as -X dev or -W error).
        silent: stdin, stdout and stderr are pipes.

    That the file or the interpreter does not exist is the child's 'error' event (FileNotFoundError with the name), as for
    `spawn`. Raises UsageError for options that cannot be meant.
    """
    settings = dict(options)
    exec_path = settings.pop("exec_path", None) or sys.executable
    exec_argv = settings.pop("exec_argv", None)
    silent = settings.pop("silent", False)
    for name in ("shell", "argv0"):
        if name in settings:
            raise UsageError(f"fork() starts a Python interpreter: {name}= is for spawn()")
    if not exec_path:
        raise UsageError("fork(): this interpreter does not know its own path (sys.executable): give exec_path=")
    stdio: Stdio = settings.pop("stdio", "pipe" if silent else "inherit")
    entries = [stdio] * 3 if isinstance(stdio, str) or not isinstance(stdio, Sequence) else list(stdio)
    settings["stdio"] = entries if "ipc" in entries else [*entries, "ipc"]
    name = os.fspath(target)
    flags = own_flags() if exec_argv is None else list(exec_argv)  # type: ignore[call-overload]
    line = [exec_path, *flags, str(_BOOTSTRAP), name, *args]
    child = ChildProcess(hub(), name, [os.fspath(word) for word in line], SpawnOptions(**settings))  # type: ignore[arg-type]
    missing = _missing_file(name, child._options.cwd)
    if missing is None:
        child._start(line, None)
    else:
        child._fails_to_start(FileNotFoundError(errno.ENOENT, "fork(): no such Python file", missing))
    return child


def _missing_file(name: str, folder: StrPath | None) -> str | None:
    """The path of the file that is not there; None for a file that is, for modules, and for what is no path at all."""
    if not (name.endswith(".py") or os.sep in name) or "\0" in name:
        return None
    path = name if folder is None else os.path.join(folder, name)
    return None if os.path.isfile(path) else path
