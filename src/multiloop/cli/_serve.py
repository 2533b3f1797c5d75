"""`multiloop serve`: from arguments to a running server, or to `--check`'s answer.

What lives here: the order of things. What must not: any of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..cluster._host import find_identity, set_umask
from ..cluster._settings import ServeSettings
from ..errors import ConfigError
from ._options import GROUPS, OPTIONS, TARGET, Option
from ._preflight import check
from ._settings import build, check_together
from ._sources import Settings, gather_apps


def serve(arguments: Mapping[str, Any]) -> int:
    """Serve until told to stop; return the exit code. Raises ConfigError for every mistake."""
    gathered = gather_apps(arguments)
    applications = [build(settings) for settings in gathered]
    check_together(applications)
    _hide_secrets()
    for wanted in applications:
        _check_one(wanted, len(applications) > 1)
    process = applications[0].process
    find_identity(process.user, process.group)
    if gathered[0]["check"].value:
        return _check(gathered, applications)
    set_umask(process)  # the log file is made by the next line
    if applications[0].supervisor.workers == 0:
        from ._single import serve as serve_here

        return serve_here(applications[0])
    from .. import logs
    from ..cluster._primary import serve as serve_cluster

    logs.configure(applications[0].logs, worker="primary")
    if process.admin is None:
        return serve_cluster(*applications)
    from ..dashboard import Dashboard

    dashboard = Dashboard(process.admin)
    try:
        return serve_cluster(*applications, observer=dashboard)
    finally:
        dashboard.close()


def _check_one(wanted: ServeSettings, is_one_of_several: bool) -> None:
    """Refuse what can be seen before anything is started, and name the application where that is needed."""
    try:
        check(wanted)
    except ConfigError as error:
        if not is_one_of_several:
            raise
        raise ConfigError(f"{wanted.called}: {error}", exit_code=error.exit_code) from None


def _hide_secrets() -> None:
    """Keep the dashboard's token from workers, which get this environment and these arguments."""
    option = OPTIONS["admin-token"]
    os.environ.pop(option.variable, None)
    for index, argument in enumerate(sys.argv):
        if argument.startswith(f"{option.flag}="):
            sys.argv[index] = f"{option.flag}=..."
        elif argument == option.flag and index + 1 < len(sys.argv):
            sys.argv[index + 1] = "..."


def _check(gathered: Sequence[Settings], applications: Sequence[ServeSettings]) -> int:
    """Import each target as a worker would, then print every option with who gave its value."""
    from .. import __version__, logs
    from ._application import NEVER_READY, load_application

    logs.configure(applications[0].logs)
    interfaces = []
    for wanted in applications:
        loaded = load_application(wanted)
        if loaded is None:
            return NEVER_READY
        interfaces.append(f"{wanted.called} ({loaded[1].value})")
    print(f"# multiloop {__version__}: what is in force for {', '.join(interfaces)}")
    several = len(applications) > 1
    if several:
        _print_options(gathered[0], applications[0], lambda option: option.whole)
    for settings, wanted in zip(gathered, applications, strict=True):
        if several:
            print(f"\n[apps.{wanted.called}]")
        _print_options(settings, wanted, lambda option: not (several and (option.whole or option.name == "name")))
    return 0


def _print_options(settings: Settings, wanted: ServeSettings, is_shown: Callable[[Option], bool]) -> None:
    for title, options in (("Target", (TARGET,)), *((group.title, group.options) for group in GROUPS)):
        shown = [option for option in options if is_shown(option)]
        if shown:
            print(f"\n# {title}")
        for option in shown:
            print(_line(option, settings, wanted))


def _line(option: Option, settings: Settings, wanted: ServeSettings) -> str:
    """One option in TOML, so that what is printed is a file for --config."""
    value, source = settings[option.name].value, settings[option.name].source
    if value is None or (option.name in ("name", "env") and not value):
        return f"# {option.name}: not set"
    if option.name in ("host", "port") and all(address.host is None for address in wanted.listen):
        return f"# {option.name}: not listened on"
    if option.name == "workers" and value == "auto":
        source = f"{source}; {wanted.supervisor.workers} here"
    shown = option.kind.write(value) if not option.is_secret or not value else '"..."'
    line = f"{option.name} = {shown}" if option.in_files else f"# {option.name} = {shown}"
    return f"{line:<44} # {source}"
