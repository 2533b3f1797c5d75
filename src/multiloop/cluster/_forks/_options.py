"""What workers are started with: the settings of `setup_primary`, which add up.

What lives here: `Settings`. What must not: starting anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from ..._limits import MAX_MESSAGE_BYTES
from ...errors import UsageError


class ByKey:
    """Attributes that brackets lead to as well: `settings["args"]`, as Node's objects are read."""

    __slots__ = ()

    def __getitem__(self, name: Any) -> Any:
        try:
            return getattr(self, name)
        except (AttributeError, TypeError):
            raise KeyError(name) from None


class SettingsKeywords(TypedDict, total=False):
    """The arguments of `setup_primary`; `Settings` says what each means."""

    exec: str | None
    args: Sequence[str] | None
    exec_argv: Sequence[str] | None
    exec_path: str | None
    cwd: str | None
    env: Mapping[str, str] | None
    silent: bool
    stdio: Any
    uid: int | str | None
    gid: int | str | None
    max_message_size: int


@dataclass(frozen=True, slots=True)
class Settings(ByKey):
    """How the next workers are started.

    Args:
        exec: the program: a path (it ends in .py or has a separator), else a module. None: the one that runs here.
        args: its arguments; None: those of this one.
        exec_argv: the interpreter's options (as -X dev); None: those of this one.
        exec_path: the interpreter; None: this one.
        cwd: its working folder; None: this one's.
        env: variables beside those of this process; `fork(env)` adds its own.
        silent: its output comes through pipes: `worker.process.stdout`.
        stdio: what its stdin, stdout and stderr are, as for `child_process.spawn`.
        uid, gid: whose process it is.
        max_message_size: bytes of one message, in both directions.
    """

    exec: str | None = None
    args: Sequence[str] | None = None
    exec_argv: Sequence[str] | None = None
    exec_path: str | None = None
    cwd: str | None = None
    env: Mapping[str, str] | None = None
    silent: bool = False
    stdio: Any = None
    uid: int | str | None = None
    gid: int | str | None = None
    max_message_size: int = MAX_MESSAGE_BYTES

    def merged(self, changes: Mapping[str, Any]) -> Settings:
        """Return these settings with some of them changed. Raises UsageError for one that there is not."""
        known = {field.name for field in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise UsageError(f"setup_primary({name}=...): there is {', '.join(sorted(known))}")
        return dataclasses.replace(self, **changes)
