"""From the options' values to the frozen `ServeSettings`, and every combination that makes no sense.

What lives here: `build`. What must not: touching the world beyond looking at the environment (`_preflight` does).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from .._limits import MIN_TOKEN_CHARS
from ..cluster._environment import SLOT
from ..cluster._listeners import activated
from ..cluster._policy import needs_head
from ..cluster._settings import AdminSettings, ListenAddress, ProcessSettings, ServeSettings, SupervisorSettings
from ..errors import ConfigError
from ..http._config import HttpConfig, TlsConfig
from ..http._target import AppTarget
from ..logs import LogSettings
from ._options import OPTIONS
from ._sources import COMMAND_LINE, Settings

# What only a cluster has. Asking for it beside --workers 0 is a mistake, not something to forget silently; what a file or
# the environment says for every run is passed over, so that `--workers 0` is all that debugging needs.
_CLUSTER_ONLY = (
    *("policy", "standby", "startup-timeout", "hang-timeout", "restart-max", "restart-window", "control"),
    *("max-requests", "max-rss", "max-lifetime", "recycle-jitter", "reload", "reload-dir"),
    *("admin", "admin-token", "admin-host", "admin-actions", "metrics-open"),
)


def build(settings: Settings) -> ServeSettings:
    """Make the settings that are served with.

    Raises ConfigError (one line that names the options) for what cannot go together.
    """
    if settings["target"].value is None:
        raise ConfigError("no target: multiloop serve MODULE:ATTRIBUTE, as in multiloop serve main:app")
    fields = _fields(settings)
    workers = _workers(settings)
    reload = settings["reload"].value and workers > 0
    _check_combinations(settings, workers)
    reload_dirs = tuple(os.path.abspath(d) for d in settings["reload-dir"].value or ()) if reload else ()
    app_dir = os.path.abspath(settings["app-dir"].value)
    return ServeSettings(
        **{
            **fields[""],
            "reload": reload,
            "reload_dirs": reload_dirs or ((app_dir,) if reload else ()),
        },
        target=AppTarget(**{**fields["target"], "name": settings["target"].value}),
        listen=_listen(settings),
        supervisor=SupervisorSettings(**fields["supervisor"], workers=workers),
        http=HttpConfig(**fields["http"], log_format=settings["log-format"].value),
        tls=TlsConfig(**fields["tls"]) if settings["tls-cert"].value else None,
        logs=LogSettings(**fields["logs"]),
        process=ProcessSettings(
            **fields["process"], admin=_admin(settings["admin"].value if workers else None, fields["admin"])
        ),
    )


def _admin(address: str | None, fields: dict[str, Any]) -> AdminSettings | None:
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    token = fields["token"]
    if token and (len(token) < MIN_TOKEN_CHARS or not token.isascii() or not token.isprintable() or " " in token):
        raise ConfigError(f"--admin-token: at least {MIN_TOKEN_CHARS} printable characters without spaces are needed")
    return AdminSettings(**{**fields, "host": host.strip("[]"), "port": int(port), "hosts": fields["hosts"] or ()})


def check_together(applications: Sequence[ServeSettings]) -> None:
    """Raise ConfigError for what several applications of one primary cannot have in common, or lack."""
    if len(applications) < 2:
        return
    names: set[str] = set()
    places: dict[object, str] = {}
    for one in applications:
        if one.called in names:
            raise ConfigError(f"two applications are called {one.called!r}: give them other names")
        names.add(one.called)
        if one.supervisor.workers == 0:
            raise ConfigError(f"{one.called}: --workers 0 serves one application, in this process; give it a worker")
        for address in one.listen:
            place = (address.host, address.port, address.path, address.fd)
            if place in places and (address.port or address.host is None):
                raise ConfigError(
                    f"{places[place]} and {one.called} want the same address: give each a port, uds or fd of its own"
                )
            places[place] = one.called


def _fields(settings: Settings) -> dict[str, dict[str, Any]]:
    """Sort the values by the type and field that they fill."""
    fields: dict[str, dict[str, Any]] = {}
    for name, option in OPTIONS.items():
        if option.field:
            owner, _, field = option.field.rpartition(".")
            fields.setdefault(owner, {})[field] = settings[name].value
    return fields


def _workers(settings: Settings) -> int:
    wanted = settings["workers"].value
    if sys.platform == "win32":
        if wanted != 0:
            raise ConfigError("Windows cannot pass sockets between workers: serve with --workers 0 (one process)")
        return 0
    if wanted == "auto":
        return cpu_count()
    return int(wanted)


def cpu_count() -> int:
    """How many workers `auto` starts: the processors that this process may use, also inside a container."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        count = os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        if quota != "max":
            count = min(count, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return count


def _listen(settings: Settings) -> tuple[ListenAddress, ...]:
    """Put the addresses together: a Unix path or a descriptor replaces host and port, unless those are given, too."""
    backlog = settings["backlog"].value
    path, fds = settings["uds"].value, settings["fd"].value
    found: list[ListenAddress] = []
    if path is not None:
        found.append(ListenAddress(path=path, path_mode=settings["uds-mode"].value, backlog=backlog))
    found += [ListenAddress(fd=fd, backlog=backlog) for fd in fds]
    if settings["host"].is_given or settings["port"].is_given:
        found += _hosts(settings, backlog)
    return tuple(found) or activated() or tuple(_hosts(settings, backlog))


def _hosts(settings: Settings, backlog: int) -> list[ListenAddress]:
    hosts = settings["host"].value
    if not hosts:
        raise ConfigError("--host is empty: name an address, or '*' for all")
    return [ListenAddress(host=host, port=settings["port"].value, backlog=backlog) for host in hosts]


def _check_combinations(settings: Settings, workers: int) -> None:
    def given(name: str) -> bool:
        return settings[name].is_given and settings[name].value != OPTIONS[name].default_value()

    if workers == 0:
        for name in _CLUSTER_ONLY:
            source = settings[name].source
            if given(name) and source in (COMMAND_LINE, settings["workers"].source):
                raise ConfigError(f"--{name} needs workers: --workers 0 serves in this process, without a cluster")
    needs = [("uds-mode", "uds"), ("tls-require-client-cert", "tls-ca")]
    needs += [(name, "tls-cert") for name in ("tls-key", "tls-key-password", "tls-ca", "tls-ciphers")]
    for name, needed in needs:
        if given(name) and not settings[needed].value:
            raise ConfigError(f"--{name} is of no use without --{needed}")
    for name in ("admin-token", "admin-host", "admin-actions", "metrics-open"):
        if given(name) and settings["admin"].value is None and settings[name].source == COMMAND_LINE:
            raise ConfigError(f"--{name} is of no use without --admin")
    if given("reload-dir") and not settings["reload"].value:
        raise ConfigError("--reload-dir is of no use without --reload")
    for name in ("log-file", "log-format"):
        if given("log-config") and given(name):
            raise ConfigError(f"--log-config and --{name} cannot go together: say it in the configuration")
    if settings["policy"].value == "reuse_port" and (given("uds") or given("fd")):
        raise ConfigError(
            "--policy reuse_port needs --host and --port: a Unix socket or descriptor cannot be shared so"
        )
    if settings["standby"].value and any(SLOT in value for _, value in settings["env"].value or ()):
        raise ConfigError("--standby and {slot} in --env cannot go together: a spare worker has no slot yet")
    if needs_head(settings["policy"].value) and settings["tls-cert"].value:
        raise ConfigError(
            f"--policy {settings['policy'].value} cannot look into TLS: use --policy sticky, which goes by the address"
        )
    if settings["standby"].value and settings["reload"].value:
        raise ConfigError("--standby and --reload cannot go together: a spare worker holds the code from before")
