"""`--reload`: a change of a file is a reload.

What lives here: `watch_files`. What must not: reloading.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from ._settings import ServeSettings

log = logging.getLogger("multiloop.cluster")

_GATHER_MS = 300  # an editor or a checkout writes many files: one reload for all


def watch_files(settings: ServeSettings, loop: asyncio.AbstractEventLoop, reload: Callable[[], Any]) -> None:
    """Call `reload` on the loop whenever a Python file below the folders changes (default: the target's folder)."""
    folders = [os.path.abspath(folder) for folder in settings.reload_dirs or (settings.target.app_dir,)]
    log.info("watching %s", ", ".join(folders))
    threading.Thread(target=_watch, args=(folders, loop, reload), name="multiloop-watch", daemon=True).start()


def _watch(folders: list[str], loop: asyncio.AbstractEventLoop, reload: Callable[[], Any]) -> None:
    from watchfiles import PythonFilter, watch

    try:
        for changes in watch(*folders, watch_filter=PythonFilter(), debounce=_GATHER_MS, raise_interrupt=False):
            names = sorted({os.path.relpath(path) for _, path in changes})
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            log.info("changed: %s%s", ", ".join(names[:3]), more)
            loop.call_soon_threadsafe(reload)
    except RuntimeError:  # the loop is closed
        pass
    except Exception:
        log.exception("watching files failed: reload with SIGHUP or `multiloop reload`")
