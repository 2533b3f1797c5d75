"""What a thread is doing: its stack as plain data, and the frame to blame.

What lives here: `capture`, `capture_loop`, `blame`, `format_stack`. What must not: when to look, which request a frame
serves (`_requests`).

A stack is copied at once into tuples: a frame that is kept would keep the locals of the program alive. There are two ways
to see another thread's stack, and both need the interpreter's lock:
* `sys._current_frames()`. It makes frame objects for the threads of all interpreters, also of those that run under a lock
  of their own at this moment: never used once somebody could have made one.
* faulthandler, which only reads, and only the threads of its own interpreter; its text is taken apart here.
Without a global lock (free-threaded builds) neither is safe, and inside an interpreter of its own neither works: there is
nothing to see then, and the reports say so.
"""

from __future__ import annotations

import _thread
import asyncio.base_events
import asyncio.events
import asyncio.runners
import linecache
import os
import re
import selectors
import sys
import sysconfig
import traceback
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

from ..loop import _run
from ._requests import Served, served_in_frame

_MAX_FRAMES = 120
_BEAT_DEPTH = 4  # of calls below it, itself included: no more

# Interpreters with a lock of their own exist since 3.12; one that cannot have daemon threads is one.
_HAS_GLOBAL_LOCK = bool(getattr(sys, "_is_gil_enabled", lambda: True)())
_IS_INSIDE_ONE = not getattr(_thread, "daemon_threads_allowed", lambda: True)()
_MAKERS = ("concurrent.interpreters", "_xxsubinterpreters")

CAN_CAPTURE = _HAS_GLOBAL_LOCK and not _IS_INSIDE_ONE
WHY_NOT = (
    "an interpreter of its own cannot read the stacks of its threads"
    if _HAS_GLOBAL_LOCK
    else "this Python has no global lock, so the stack of another thread cannot be read safely"
)


class Place(NamedTuple):
    """One frame."""

    file: str
    line: int
    function: str


class Sight(NamedTuple):
    """What was seen of a thread: its stack, outermost first, and the request that one of its frames serves."""

    stack: tuple[Place, ...]
    served: Served | None


class Base(NamedTuple):
    """How a loop looks when nothing blocks it.

    The frame from which one without Python frames of its own (uvloop) was started: both 0 for other loops. And the code of
    the beat: a loop that has come to it is free again.
    """

    frame_id: int = 0
    depth: int = 0
    beat: CodeType | None = None


def find_base(beat: FrameType) -> Base:
    """Return it, given the frame of the beat, which the loop has called."""
    caller = beat.f_back
    if caller is None or caller.f_code.co_filename == _EVENTS:
        return Base(beat=beat.f_code)
    return Base(id(caller), sum(1 for _ in traceback.walk_stack(caller)), beat.f_code)


def is_idle(thread: int, base: Base) -> bool | None:
    """Whether the loop of a thread waits for events; None when that cannot be told cheaply."""
    if not CAN_CAPTURE or _others_may_exist():
        return None
    frame = sys._current_frames().get(thread)
    return None if frame is None else _waits(frame, base)


def capture_loop(thread: int, base: Base) -> Sight | None:
    """Return what a loop's thread is doing; None when it is free (waits, or beats), or when it cannot be seen."""
    if not CAN_CAPTURE:
        return None
    if _others_may_exist():
        stack = _dump(thread)
        is_free = not stack or stack[-1].file == _SELECTORS or len(stack) == base.depth or _is_beating(stack, base)
        return None if is_free else Sight(stack, None)
    frame = sys._current_frames().get(thread)
    return None if frame is None or _waits(frame, base) else copy(frame)


def capture(thread: int) -> Sight | None:
    """Return what any thread is doing; None when it cannot be seen."""
    if not CAN_CAPTURE:
        return None
    if _others_may_exist():
        stack = _dump(thread)
        return Sight(stack, None) if stack else None
    frame = sys._current_frames().get(thread)
    return None if frame is None else copy(frame)


def copy(innermost: FrameType) -> Sight:
    """Return the stack of a frame, as plain data."""
    stack: list[Place] = []
    served: Served | None = None
    frame: FrameType | None = innermost
    while frame is not None and len(stack) < _MAX_FRAMES:
        code = frame.f_code
        stack.append(Place(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname))
        if served is None:
            served = served_in_frame(frame)
        frame = frame.f_back
    return Sight(tuple(reversed(stack)), served)


def _waits(innermost: FrameType, base: Base) -> bool:
    if id(innermost) == base.frame_id or innermost.f_code.co_filename == _SELECTORS:
        return True
    frame: FrameType | None = innermost
    for _ in range(_BEAT_DEPTH):  # behind a block the beat may be let in before us: what it calls did not block
        if frame is None:
            return False
        if frame.f_code is base.beat:
            return True
        frame = frame.f_back
    return False


def _is_beating(stack: tuple[Place, ...], base: Base) -> bool:
    if base.beat is None:
        return False
    file, names = base.beat.co_filename, (base.beat.co_name, base.beat.co_qualname)  # a dump has one or the other
    return any(place.file == file and place.function in names for place in stack[-_BEAT_DEPTH:])


def _others_may_exist() -> bool:
    if sys.hexversion < 0x030C0000:
        return False
    if any(name in sys.modules for name in _MAKERS):
        return True
    low_level = sys.modules.get("_interpreters")  # asyncio loads it, too: there it must have been used
    return low_level is not None and len(low_level.list_all()) > 1


def _dump(thread: int) -> tuple[Place, ...]:
    import faulthandler  # late: it does not load in interpreters of their own
    import tempfile

    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        text = file.read().decode("utf-8", "replace")
    return tuple(_read_dump(text, thread))


def _read_dump(text: str, thread: int) -> list[Place]:
    """Return the stack of one thread, outermost first, out of faulthandler's text."""
    stack: list[Place] = []
    inside = False
    for line in text.splitlines():
        if found := _DUMPED_THREAD.match(line):
            inside = int(found[1], 16) == thread
        elif inside and (found := _DUMPED_FRAME.match(line)):
            stack.append(Place(found[1], int(found[2]) if found[2].isdigit() else 0, found[3]))
    stack.reverse()
    return stack


_DUMPED_THREAD = re.compile(r"(?:Current thread|Thread) 0x([0-9a-f]+) ")
_DUMPED_FRAME = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)$')


def blame(stack: tuple[Place, ...]) -> Place:
    """Return the innermost frame of the user's own code; else of a library; else the innermost of all.

    What started the loop is never it: a worker's `<string>:1`, or a program's line with `run(main)`.
    """
    above = _above_loop(stack)
    for is_candidate in (_is_users, _is_library):
        for place in reversed(above):
            if is_candidate(place.file):
                return place
    return stack[-1]


def format_stack(stack: tuple[Place, ...]) -> str:
    """Return it as a traceback reads: outermost first, with the source lines. What started the loop is left out."""
    lines = []
    for place in _above_loop(stack):
        lines.append(f'File "{place.file}", line {place.line}, in {place.function}')
        source = linecache.getline(place.file, place.line).strip()
        if source:
            lines.append(f"  {source}")
    return "\n".join(lines)


def _above_loop(stack: tuple[Place, ...]) -> tuple[Place, ...]:
    for index in range(len(stack) - 2, -1, -1):
        if stack[index].file in _RUNNERS:
            return stack[index + 1 :]
    return stack


def _folder(path: str | os.PathLike[str]) -> str:
    return os.path.join(os.path.realpath(path), "")


_SELECTORS = selectors.__file__
_EVENTS = asyncio.events.__file__
_RUNNERS = {_EVENTS, asyncio.base_events.__file__, asyncio.runners.__file__, _run.__file__}
_OURS = _folder(Path(__file__).parents[1])
_STANDARD = tuple(
    {_folder(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")} | {_folder(Path(os.__file__).parent)}
)
_LIBRARIES = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)


def package_of(file: str) -> str:
    """Return the installed package that a file belongs to; "" for one of the user's own."""
    for part in _LIBRARIES:
        _, found, after = file.rpartition(part)
        if found:
            return after.partition(os.sep)[0].removesuffix(".py")
    return ""


def is_standard(real: str) -> bool:
    """Whether a file (its real path) is the standard library's."""
    return real.startswith(_STANDARD) and not package_of(real)


def _is_library(file: str) -> bool:
    return bool(package_of(file)) and not os.path.realpath(file).startswith(_OURS)  # ours is installed beside them


def _is_users(file: str) -> bool:
    if file.startswith("<frozen ") or package_of(file):
        return False
    return not os.path.realpath(file).startswith((_OURS, *_STANDARD))
