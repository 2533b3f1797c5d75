"""What the supervisor and its workers are told: frozen, picklable, sent whole to each worker.

What lives here: the types. What must not: where the values come from (`cli`), what is done with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .. import _limits as limits
from ..http._config import HttpConfig, TlsConfig
from ..http._target import AppTarget
from ..logs import LogSettings


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen: host and port, or a Unix path, or an inherited descriptor; exactly one of the three.

    `_listeners.open_listeners` makes the sockets: one host name may become several (IPv4 and IPv6).
    """

    host: str | None = None  # "*" is every address of the machine, IPv4 and IPv6
    port: int = 0
    path: str | None = None
    path_mode: int = 0o600
    fd: int | None = None
    fd_name: str = ""  # what systemd calls the descriptor (LISTEN_FDNAMES)
    backlog: int = limits.BACKLOG


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """How many workers, who gets the next connection, and when a worker is started, given up, replaced or ended."""

    workers: int = 1  # 0: one process without the cluster (cli._single)
    policy: str = "round_robin"  # a name that `_policy.make_policy` takes
    standby: int = 0
    startup_timeout: float = limits.STARTUP_TIMEOUT_S
    hang_timeout: float = limits.HANG_TIMEOUT_S
    grace: float = limits.GRACE_S
    credit: int = limits.HANDOFF_CREDIT
    restart_max: int = limits.RESTART_MAX
    restart_window: float = limits.RESTART_WINDOW_S
    # recycling; 0: off; jitter is the share by which each worker's own limit may be larger
    max_requests: int = 0
    max_rss: int = 0
    max_lifetime: float = 0.0
    recycle_jitter: float = 0.1


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """Where the primary shows the dashboard, metrics and health, and who may see them."""

    host: str = "127.0.0.1"
    port: int = 0
    token: str = ""  # "": one is made at the start and told
    hosts: tuple[str, ...] = ()  # names besides its own under which it may be addressed (behind a proxy)
    actions: bool = False  # reload, scale and restart from the page
    metrics_open: bool = False  # /metrics without the token


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What holds for the whole primary, however many applications it serves."""

    control: str | None = None  # path of the control socket; None: the default place; "": none
    pid_file: str | None = None
    user: str | None = None  # to become once the sockets are open; a name or a number
    group: str | None = None
    umask: int | None = None
    admin: AdminSettings | None = None


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Everything `multiloop serve` was told for one application."""

    target: AppTarget
    listen: tuple[ListenAddress, ...]
    supervisor: SupervisorSettings = field(default_factory=SupervisorSettings)
    http: HttpConfig = field(default_factory=HttpConfig)
    tls: TlsConfig | None = None
    loop: str = "auto"
    logs: LogSettings = field(default_factory=LogSettings)  # multiloop.logs.configure(settings.logs, worker=...)
    env_file: str | None = None  # read by each worker before it imports the application: _env_file.apply(path)
    env: tuple[tuple[str, str], ...] = ()  # each worker's process starts with it; {slot} and {worker} are filled in
    name: str = ""  # in titles, logs and commands; "": the target
    process: ProcessSettings = field(default_factory=ProcessSettings)
    dev: bool = False
    reload: bool = False
    reload_dirs: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """What people call this application."""
        return self.name or self.target.name
