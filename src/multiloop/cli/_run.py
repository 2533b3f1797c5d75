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
import signal
import sys
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import logs
from ..cluster._exit_codes import ExitCode
from ..cluster._host import find_identity, prepared, set_umask
from ..cluster._policy import make_policy
from ..cluster._title import set_title
from ..errors import ConfigError, NeverReady
from ._run_options import RunSettings

if TYPE_CHECKING:
    from ..cluster._forks._steward import Steward

_SERVICE_MANAGER = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


def run(settings: RunSettings) -> int:
    """Run the script; return the exit code. Raises ConfigError for every mistake, SystemExit as the script does."""
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
        for name in _SERVICE_MANAGER:  # the primary alone speaks to it
            os.environ.pop(name, None)
        os.environ["MULTILOOP_WORKER"] = str(role.id)
        if hasattr(signal, "SIGUSR1"):  # it hits the whole group at times
            signal.signal(signal.SIGUSR1, lambda *_: logs.reopen())
        return _run_script(settings, None)
    find_identity(settings.process.user, settings.process.group)  # raises
    set_umask(settings.process)
    logs.configure(settings.logs, worker="primary")
    set_title(f"multiloop: primary ({settings.called})")
    with prepared(settings.process, () if settings.logs.file is None else (settings.logs.file,)):
        steward = _steward(settings)
        if settings.workers is None:
            return _run_script(settings, steward)
        return _keep_workers(settings, settings.workers)


def _steward(settings: RunSettings) -> Steward:
    """Have the primary looked after, from when its loop runs."""
    from ..cluster._forks import _api
    from ..cluster._forks._steward import Steward, Stewardship

    primary = _api.here()
    told = Stewardship(settings.called, settings.target, settings.process.control, settings.ready, settings.env)
    primary.steward = steward = Steward(primary, told)
    if settings.policy is not None:
        make_policy(settings.policy)
        primary.change_policy(settings.policy)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, steward.signalled)
    return steward


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


def _run_script(settings: RunSettings, steward: Steward | None) -> int:
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
    except Exception as error:
        if steward is not None and error is steward.failure:
            raise
        # Whatever it is: no mistake of the command line's
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

    supervision = cluster.supervise(workers, ready=settings.ready, **settings.supervise)
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
