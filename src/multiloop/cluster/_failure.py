"""Why an application did not start, as people want to read it. Pure.

What lives here: `describe`. What must not: sending or logging it.
"""

from __future__ import annotations

import os
import traceback
from types import TracebackType

from .._wire.messages import Failed
from ..errors import ConfigError, PeerError

_MAX_REASON_CHARS = 200
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def describe(error: BaseException) -> Failed:
    """Say in one line what failed, with the traceback of the application's own frames below it."""
    if isinstance(error, ConfigError):
        return Failed(str(error), exit_code=error.exit_code)
    if isinstance(error, PeerError) and error.__cause__ is None:  # the application said why; nothing was raised here
        first, _, rest = str(error).partition("\n")
        return Failed(first, rest)
    shown = error.__cause__ if isinstance(error, PeerError) and error.__cause__ is not None else error
    told = traceback.TracebackException(type(shown), shown, _theirs(shown.__traceback__))
    return Failed(_reason(shown), _text(told).rstrip())


def _reason(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"
    if isinstance(error, SyntaxError):
        return f"{name}: {error.msg} ({error.filename}, line {error.lineno})"
    first = str(error).partition("\n")[0][:_MAX_REASON_CHARS]
    return f"{name}: {first}" if first else name


def _text(told: traceback.TracebackException) -> str:
    """Format a traceback; a source line that spells the message is left out, since the last line says it."""
    message = str(told)
    for index, frame in enumerate(told.stack):
        if message and frame.line and message in frame.line:
            told.stack[index] = traceback.FrameSummary(
                frame.filename, frame.lineno, frame.name, lookup_line=False, line=""
            )
    return "".join(told.format())


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames before the application's own: ours and the import system's."""
    first = trace
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith((_OURS, "<frozen ")) and f"{os.sep}importlib{os.sep}" not in file:
            return trace
        trace = trace.tb_next
    return first
