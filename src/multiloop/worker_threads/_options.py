"""The options of a `Worker`, checked, and which kind keeps which.

What lives here: `Options` and the table of refusals. What must not: choosing a kind (`_choose`), starting one.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import UsageError
from ._place import Place
from ._resource_limits import check_limits
from ._target import Target

KindName = Literal["auto", "process", "interpreter", "thread"]
KINDS = ("auto", "process", "interpreter", "thread")


@dataclass(frozen=True, slots=True)
class Options:
    """What a worker is to be."""

    target: Target
    name: str
    env: dict[str, str] | None
    argv: tuple[str, ...]
    stdin: bool
    stdout: bool
    stderr: bool
    resource_limits: dict[str, float]
    max_message_bytes: int


def checked(
    target: Target,
    *,
    name: str,
    env: Mapping[Any, Any] | None,
    argv: Sequence[Any],
    streams: tuple[bool, bool, bool],
    resource_limits: Mapping[str, float] | None,
    max_message_size: int,
) -> Options:
    """Check what can be checked without a kind. Raises TypeError and UsageError, which name the option."""
    _require("name", name, str, "a string")
    for option, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
        _require(option, stream, bool, "True or False")
    if env is not None:
        _require("env", env, Mapping, "a mapping of strings, or None")
        for key, value in env.items():
            if not isinstance(key, str) or not isinstance(value, str) or "\0" in key + value or "=" in key or not key:
                raise UsageError(f"Worker(env=...): {key!r}: {value!r} is no environment variable: both are strings")
    if isinstance(argv, str):
        raise UsageError(f"Worker(argv={argv!r}): a list of arguments, not one string")
    _require("argv", argv, Iterable, "a list of arguments")
    if resource_limits is not None:
        _require("resource_limits", resource_limits, Mapping, 'a mapping such as {"memory": bytes}, or None')
    _require("max_message_size", max_message_size, int, "a whole number of bytes")
    if max_message_size < 1:
        raise UsageError(f"Worker(max_message_size={max_message_size}): bytes, at least 1")
    return Options(
        target,
        name,
        None if env is None else dict(env),
        tuple(str(each) for each in argv),
        *streams,
        check_limits(resource_limits),
        max_message_size,
    )


def require_transfer_list(transfer_list: Any) -> None:
    """Raise TypeError for what is no list; what is in it is looked at when the message is packed."""
    _require("transfer_list", transfer_list, Collection, "a list of objects")


def _require(option: str, value: Any, kind: type, wanted: str) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"Worker({option}={value!r:.80}): {wanted}, not {type(value).__name__}")


def _python_version() -> tuple[int, int]:
    return sys.version_info[:2]


def refusal(kind: str, options: Options, place: Place) -> str | None:
    """Why this kind cannot be started here, or cannot keep one of the options; None: it can."""
    if kind == "interpreter":
        if _python_version() < (3, 14):
            return "kind='interpreter' needs Python 3.14: use kind='process'"
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            return "kind='interpreter' is not safe on a free-threaded Python: use 'process' or 'thread'"
        if options.resource_limits:
            return "kind='interpreter' cannot keep resource_limits, which hold for a whole process: use kind='process'"
    if kind == "thread":
        given = {
            "env": options.env is not None,
            "argv": bool(options.argv),
            "stdin": options.stdin,
            "stdout": options.stdout,
            "stderr": options.stderr,
            "resource_limits": bool(options.resource_limits),
        }
        refused = [name for name, is_given in given.items() if is_given]
        if refused:
            return (
                f"kind='thread' cannot keep {', '.join(refused)}, which it shares with the program: use kind='process'"
            )
    if kind in ("interpreter", "thread") and place.kind == "interpreter":
        return f"a worker of kind 'interpreter' cannot start one of kind {kind!r} (it has no daemon threads): use 'process'"
    return None
