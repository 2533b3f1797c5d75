"""What a thread is doing: its stack as plain data, and the frame to blame.

What lives here: `capture`, `blame`, `format_stack`, and naming the request that a stack serves. What must not: when to
look.

A stack is copied at once into tuples: a frame that is kept would keep the locals of the program alive. Reading another
thread's frames is safe only under the interpreter's lock: without it (free-threaded builds) there is nothing to see.
"""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

_MAX_FRAMES = 120

CAN_CAPTURE = bool(getattr(sys, "_is_gil_enabled", lambda: True)())
WHY_NOT = "this interpreter has no global lock, so the stack of another thread cannot be read safely"


class Place(NamedTuple):
    """One frame."""

    file: str
    line: int
    function: str


class Sight(NamedTuple):
    """What was seen of a thread: its stack, outermost first, and the request that one of its frames serves."""

    stack: tuple[Place, ...]
    request: str | None


_describers: dict[CodeType, Callable[[FrameType], str | None]] = {}


def describe_frames(code: CodeType, describe: Callable[[FrameType], str | None]) -> None:
    """Let `describe(frame)` name the request of a frame that runs `code`: for servers, at no cost per request."""
    _describers[code] = describe


def is_idle(thread: int, base: int) -> bool | None:
    """Whether the loop of a thread waits for events; None when the thread is gone or cannot be looked at.

    `base` is the id of the frame from which a loop without frames of its own (uvloop) was started.
    """
    frame = sys._current_frames().get(thread) if CAN_CAPTURE else None
    return None if frame is None else _waits(frame, base)


def capture(thread: int, base: int) -> Sight | None:
    """Return what a thread is doing; None when its loop waits for events, or when it cannot be seen."""
    frame = sys._current_frames().get(thread) if CAN_CAPTURE else None
    if frame is None or _waits(frame, base):
        return None
    stack: list[Place] = []
    request: str | None = None
    while frame is not None and len(stack) < _MAX_FRAMES:
        code = frame.f_code
        stack.append(Place(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname))
        if request is None and code in _describers:
            request = _describe(frame)
        frame = frame.f_back
    return Sight(tuple(reversed(stack)), request)


def _waits(frame: FrameType, base: int) -> bool:
    return id(frame) == base or frame.f_code.co_filename == _SELECTORS


def _describe(frame: FrameType) -> str | None:
    try:
        return _describers[frame.f_code](frame)
    except Exception:  # it looks at a foreign frame in any state: no reason to lose the report
        return None


def blame(stack: tuple[Place, ...]) -> Place:
    """Return the innermost frame of the user's own code; else of a library; else the innermost of all."""
    for is_candidate in (_is_users, _is_library):
        for place in reversed(stack):
            if is_candidate(place.file):
                return place
    return stack[-1]


def format_stack(stack: tuple[Place, ...]) -> str:
    """Return it as a traceback reads: outermost first, with the source lines."""
    lines = []
    for place in stack:
        lines.append(f'File "{place.file}", line {place.line}, in {place.function}')
        source = linecache.getline(place.file, place.line).strip()
        if source:
            lines.append(f"  {source}")
    return "\n".join(lines)


def _folder(path: str | os.PathLike[str]) -> str:
    return os.path.join(os.path.realpath(path), "")


_SELECTORS = sys.modules["selectors"].__file__ if "selectors" in sys.modules else ""
_OURS = _folder(Path(__file__).parents[1])
_STANDARD = tuple(
    {_folder(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")} | {_folder(Path(os.__file__).parent)}
)
_LIBRARIES = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)


def _is_library(file: str) -> bool:
    return any(part in file for part in _LIBRARIES)


def _is_users(file: str) -> bool:
    if file.startswith("<frozen ") or _is_library(file):
        return False
    real = os.path.realpath(file)
    return not real.startswith((_OURS, *_STANDARD))
