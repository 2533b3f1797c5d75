"""`multiloop run`: a script or module of the user's, with logs, a title and a pid file; alone, or as so many workers.

What lives here: the order of things, and running the script. What must not: what a cluster is (`cluster._forks`).

    multiloop run script.py              the script runs here, and may fork itself with cluster.fork()
    multiloop run --workers 4 script.py  this process is the primary, and keeps four workers of the script going
    (a worker)                           started by either with the same words: runs the script
"""

from __future__ import annotations

import importlib.util
import logging
import os
import runpy
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from .._limits import MAX_WORKERS
from ..cluster._exit_codes import ExitCode
from ..cluster._host import prepared, set_umask
from ..cluster._settings import ProcessSettings
from ..cluster._title import set_title
from ..errors import ConfigError, NeverReady
from ..logs import LogSettings
from ..pool._machine import usable_cores


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What `multiloop run` was told."""

    target: str  # the path of a script, or a module's name
    is_module: bool
    arguments: tuple[str, ...]
    workers: int | None  # None: the script forks itself, or nobody
    ready: str
    grace: float
    name: str  # "": the target
    logs: LogSettings
    process: ProcessSettings

    @property
    def called(self) -> str:
        """What people call it."""
        return self.name or (self.target if self.is_module else os.path.basename(self.target))

    def launcher(self) -> tuple[str, ...]:
        """Return what stands in front of the script in a worker's command line."""
        words = ["-m", "multiloop", "run", "--name", self.called]
        words += ["--log-level", self.logs.level, "--log-format", self.logs.format]
        if self.logs.file is not None:
            words += ["--log-file", self.logs.file]
        if self.logs.config is not None:
            words += ["--log-config", self.logs.config]
        return tuple(words)


def settings_from(params: Mapping[str, Any]) -> RunSettings:
    """Return what click's parameters say. Raises ConfigError."""
    return RunSettings(
        target=params["script"],
        is_module=params["module"],
        arguments=tuple(params["arguments"]),
        workers=_count(params["workers"]),
        ready=params["ready"],
        grace=params["grace"],
        name=params["name"],
        logs=LogSettings(params["log_level"], params["log_format"], params["log_file"], params["log_config"]),
        process=ProcessSettings(pid_file=params["pid_file"]),
    )


def _count(text: str | None) -> int | None:
    if text is None or text == "auto":
        return None if text is None else usable_cores()
    if text.isdecimal() and 1 <= int(text) <= MAX_WORKERS:
        return int(text)
    raise ConfigError(f"--workers {text!r}: a number from 1 to {MAX_WORKERS}, or auto; without it the script runs once")


def run(settings: RunSettings) -> int:
    """Run the script; return the exit code. Raises ConfigError for every mistake, SystemExit as the script does."""
    from .. import logs
    from ..cluster._forks import _command, _role

    _check(settings)
    role = _role.role
    target = ("-m", settings.target) if settings.is_module else (settings.target,)
    _command.launched = _command.read(sys.orig_argv)._replace(
        launcher=settings.launcher(), target=target, arguments=settings.arguments
    )
    if role is not None:
        logs.configure(settings.logs, worker=role.id)
        set_title(f"multiloop: worker {role.id} ({settings.called})")
        return _run_script(settings)
    set_umask(settings.process)
    logs.configure(settings.logs, worker="primary")
    set_title(f"multiloop: primary ({settings.called})")
    with prepared(settings.process):
        return _run_script(settings) if settings.workers is None else _keep_workers(settings, settings.workers)


def _check(settings: RunSettings) -> None:
    """Find the script before anything is started."""
    if not settings.is_module:
        if not os.path.isfile(settings.target):
            raise ConfigError(
                f"run {settings.target}: there is no such file (a module is named with -m)",
                exit_code=ExitCode.NO_TARGET,
            )
        return
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.util.find_spec(settings.target)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise ConfigError(f"run -m {settings.target}: there is no such module", exit_code=ExitCode.NO_TARGET)


def _run_script(settings: RunSettings) -> int:
    """Run it as the interpreter does: it is `__main__`, and its folder comes first on the path."""
    sys.argv[:] = [settings.target, *settings.arguments]
    try:
        if settings.is_module:
            runpy.run_module(settings.target, run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, os.path.dirname(os.path.abspath(settings.target)))
            runpy.run_path(settings.target, run_name="__main__")
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # whatever it is: no mistake of the command line's
        traceback.print_exception(type(error), error, _its_own(error.__traceback__))
        return ExitCode.INTERNAL
    return ExitCode.OK


def _its_own(trace: TracebackType | None) -> TracebackType | None:
    """Leave out what runs the script."""
    own = (__file__, runpy.__file__, "<frozen runpy>")
    while trace is not None and trace.tb_frame.f_code.co_filename in own:
        trace = trace.tb_next
    return trace


def _keep_workers(settings: RunSettings, workers: int) -> int:
    """Be the primary of so many workers of the script, until told to stop."""
    import multiloop
    from multiloop import cluster

    supervision = cluster.supervise(workers, ready=settings.ready, grace=settings.grace)  # type: ignore[arg-type]
    cluster.on("listening", _Announcer())
    try:
        multiloop.run(supervision.wait)
    except NeverReady as error:
        raise ConfigError(f"run {settings.called}: {error}", exit_code=ExitCode.NEVER_READY) from None
    return ExitCode.OK


class _Announcer:
    """Logs each address once."""

    def __init__(self) -> None:
        self._said: set[Any] = set()

    def __call__(self, worker: Any, address: Any) -> None:
        if address not in self._said:
            self._said.add(address)
            host, port = address
            where = host if port is None else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            logging.getLogger("multiloop.cluster").info("the workers listen on %s", where)
