"""Importing the application into this process, for `--check` and `--workers 0`.

What lives here: `load_application`. What must not: serving it.
"""

from __future__ import annotations

import logging
import traceback
from types import TracebackType
from typing import Any

from .. import logs
from ..cluster import _env_file
from ..cluster._exit_codes import ExitCode
from ..cluster._settings import ServeSettings
from ..errors import ConfigError
from ..http._target import Interface, load

NEVER_READY = int(ExitCode.NEVER_READY)

log = logging.getLogger("multiloop.cli")


def load_application(settings: ServeSettings) -> tuple[Any, Interface] | None:
    """Import the target as a worker would. None when it raised; its traceback is in the log, once.

    Raises ConfigError when it is not there or is no application.
    """
    if settings.env_file is not None:
        _env_file.apply(settings.env_file)
    try:
        found = load(settings.target)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        text = "".join(traceback.format_exception(type(error), error, _theirs(error.__traceback__)))
        log.error("%s could not be imported", settings.target.name, extra={"detail": text.rstrip()})
        return None
    logs.reassert()
    return found


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames before the application's own: ours and the import system's."""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not (file.startswith("<frozen importlib") or "/multiloop/" in file or "/importlib/" in file):
            return trace
        trace = trace.tb_next
    return trace
