"""What a child is started with: the options of spawn, exec, exec_file and fork, checked once.

What lives here: `SpawnOptions`, its keywords, names of signals. What must not: starting anything.
"""

from __future__ import annotations

import os
import signal as _signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from .._limits import MAX_MESSAGE_BYTES
from ..errors import UsageError

StrPath = str | os.PathLike[str]
Stdio = Any  # "pipe", "ignore", "inherit", a descriptor, something with fileno(); or a sequence of those and "ipc"
SignalLike = str | int

_WORDS = ("pipe", "overlapped", "ignore", "inherit")


class SpawnKeywords(TypedDict, total=False):
    """The options of `spawn`; `SpawnOptions` says what each means."""

    cwd: StrPath | None
    env: Mapping[str, str] | None
    argv0: str | None
    stdio: Stdio
    detached: bool
    uid: int | str | None
    gid: int | str | None
    shell: bool | StrPath
    timeout: float | None
    kill_signal: SignalLike
    pass_fds: Sequence[int]
    max_message_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnOptions:
    """How a child is started.

    Args:
        cwd: its working folder; None: ours.
        env: its whole environment; None: ours.
        argv0: what it finds as its own name, when that is not the command.
        stdio: for stdin, stdout, stderr: "pipe" (a stream here), "ignore" (/dev/null), "inherit" (ours), a descriptor or
            anything with `fileno()`; one for all three or a sequence. "ipc" in the sequence opens a message channel.
        detached: it leads a session of its own and outlives this program; `unref()` lets the program end before it.
        uid, gid: whose process it is, as number or name.
        shell: run the command line by /bin/sh, or by this shell. Arguments are quoted; the command is not. Signals go to
            everything that the shell has started, except with a terminal as stdin (it could not read from that then).
        timeout: seconds after which it gets `kill_signal`; None: never.
        kill_signal: for `timeout`, cancelling, and `kill()` without an argument.
        pass_fds: further descriptors that it inherits, under the same numbers.
        max_message_size: bytes of one message on the channel, in both directions.
    """

    cwd: StrPath | None = None
    env: Mapping[str, str] | None = None
    argv0: str | None = None
    stdio: Stdio = "pipe"
    detached: bool = False
    uid: int | str | None = None
    gid: int | str | None = None
    shell: bool | StrPath = False
    timeout: float | None = None
    kill_signal: SignalLike = "SIGTERM"
    pass_fds: Sequence[int] = ()
    max_message_size: int = MAX_MESSAGE_BYTES

    def __post_init__(self) -> None:
        signal_number(self.kill_signal)
        if self.timeout is not None and not self.timeout > 0:
            raise UsageError(f"timeout={self.timeout!r}: seconds above 0, or None for no timeout")
        if self.env is not None:
            for name, value in self.env.items():
                if not all(isinstance(part, str) for part in (name, value)):
                    raise UsageError(f"env: {name!r} and its value {value!r} must both be strings")

    def wants_group(self) -> bool:
        """Whether the child leads a process group, so that signals reach a shell's commands as well."""
        if not self.shell or self.detached:
            return False
        stdin = self.plan_stdio()[0][0]
        if isinstance(stdin, str) and stdin != "inherit":
            return True
        try:
            return not os.isatty(0 if stdin == "inherit" else stdin if isinstance(stdin, int) else stdin.fileno())
        except (OSError, ValueError):
            return True

    def plan_stdio(self) -> tuple[tuple[Stdio, Stdio, Stdio], bool]:
        """Return what stdin, stdout and stderr are, and whether there is a message channel."""
        if isinstance(self.stdio, str) or not isinstance(self.stdio, Sequence):
            entries = [self.stdio] * 3
        else:
            entries = list(self.stdio)
        channel = False
        for index, entry in enumerate(entries):
            if entry == "ipc":
                if channel:
                    raise UsageError(f"stdio={self.stdio!r}: only one 'ipc'")
                channel = True
                entries[index] = "ignore" if index < 3 else None
            elif entry is None:
                entries[index] = "pipe" if index < 3 else None
            elif isinstance(entry, str) and entry not in _WORDS:
                raise UsageError(f"stdio={entry!r}: use 'pipe', 'ignore', 'inherit', 'ipc', a descriptor or a file")
            elif index >= 3 and entry != "ignore":
                raise UsageError(
                    f"stdio[{index}]={entry!r}: only the first three can be chosen here; pass_fds=[...] hands further "
                    "descriptors on under their own numbers"
                )
        entries += ["pipe"] * (3 - len(entries))
        return (entries[0], entries[1], entries[2]), channel


def signal_number(signal: SignalLike) -> int:
    """Return the number of a signal given as number or name. Raises UsageError for an unknown one."""
    if isinstance(signal, str):
        name = signal.upper()
        found = getattr(_signal, name if name.startswith("SIG") else f"SIG{name}", None)
        if isinstance(found, _signal.Signals):
            return int(found)
    elif 0 <= signal < _signal.NSIG:
        return int(signal)
    raise UsageError(f"signal {signal!r} is unknown: use a name such as 'SIGTERM', or a number")


def signal_name(number: int) -> str:
    """Return the name of a signal: 'SIGKILL'; for real-time signals, which have none, 'SIGRTMIN+3'."""
    try:
        return _signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - _signal.SIGRTMIN}"
