"""`multiloop serve`: from arguments to a running server, or to `--check`'s answer.

What lives here: the order of things. What must not: any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..cluster._settings import ServeSettings
from ._options import GROUPS, TARGET, Option
from ._preflight import check
from ._settings import build
from ._sources import Settings, gather


def serve(arguments: Mapping[str, Any]) -> int:
    """Serve until told to stop; return the exit code. Raises ConfigError for every mistake."""
    settings = gather(arguments)
    wanted = build(settings)
    check(wanted)
    if settings["check"].value:
        return _check(settings, wanted)
    if wanted.supervisor.workers == 0:
        from ._single import serve as serve_here

        return serve_here(wanted)
    from .. import logs
    from ..cluster._primary import serve as serve_cluster

    logs.configure(wanted.logs, worker="primary")
    return serve_cluster(wanted)


def _check(settings: Settings, wanted: ServeSettings) -> int:
    """Import the target as a worker would, then print every option with who gave its value."""
    from .. import __version__, logs
    from ._application import NEVER_READY, load_application

    logs.configure(wanted.logs)
    loaded = load_application(wanted)
    if loaded is None:
        return NEVER_READY
    _, interface = loaded
    print(f"# multiloop {__version__}: what is in force for {wanted.target.name} ({interface.value})")
    for title, options in (("Target", (TARGET,)), *((group.title, group.options) for group in GROUPS)):
        print(f"\n# {title}")
        for option in options:
            print(_line(option, settings, wanted))
    return 0


def _line(option: Option, settings: Settings, wanted: ServeSettings) -> str:
    """One option in TOML, so that what is printed is a file for --config."""
    value, source = settings[option.name].value, settings[option.name].source
    if value is None:
        return f"# {option.name}: not set"
    if option.name in ("host", "port") and all(address.host is None for address in wanted.listen):
        return f"# {option.name}: not listened on"
    if option.name == "workers" and value == "auto":
        source = f"{source}; {wanted.supervisor.workers} here"
    shown = option.kind.write(value) if "password" not in option.name else '"..."'
    line = f"{option.name} = {shown}" if option.in_files else f"# {option.name} = {shown}"
    return f"{line:<44} # {source}"
