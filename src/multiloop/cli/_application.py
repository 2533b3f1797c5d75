"""Importing the application into this process, for `--check` and `--workers 0`.

What lives here: `load_application`. What must not: serving it.
"""

from __future__ import annotations

import logging
from typing import Any

from .. import logs
from ..cluster import _env_file
from ..cluster._exit_codes import ExitCode
from ..cluster._failure import describe
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
        failed = describe(error)
        log.error("%s failed: %s", settings.target.name, failed.reason, extra={"detail": failed.details})
        return None
    logs.reassert()
    return found
