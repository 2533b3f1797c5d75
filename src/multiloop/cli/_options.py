"""Every option of `multiloop serve`, in one table.

What lives here: the table. From it come the flags (`--keep-alive-timeout`), the variables
(`MULTILOOP_KEEP_ALIVE_TIMEOUT`), the keys of files (`keep-alive-timeout`), the help, and the field of `ServeSettings`
that is filled. What must not: reading any of them (`_sources`), what follows from them (`_settings`).

Defaults stand where the field is declared; only options without a field of their own have one here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..cluster._policy import POLICIES, checked_name
from ..cluster._settings import AdminSettings, ListenAddress, ProcessSettings, ServeSettings, SupervisorSettings
from ..http._config import HttpConfig, TlsConfig
from ..http._target import AppTarget
from ..logs import FORMATS, LEVELS, LogSettings
from . import _kinds as kinds
from ._kinds import Kind

_OWNERS = {
    "": ServeSettings,
    "target": AppTarget,
    "supervisor": SupervisorSettings,
    "http": HttpConfig,
    "tls": TlsConfig,
    "logs": LogSettings,
    "listen": ListenAddress,
    "process": ProcessSettings,
    "admin": AdminSettings,
}
_UNSET: Any = object()


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `field` is where its value goes: "http.keep_alive_timeout"; "" when it goes nowhere by itself."""

    name: str
    kind: Kind
    field: str
    help: str
    default: Any = _UNSET
    dev_default: Any = _UNSET  # with --dev, unless it is given
    shown_default: str = ""  # what the help says instead of the value
    in_files: bool = True
    whole: bool = False  # for the whole primary: no application of several can have one of its own

    @property
    def flag(self) -> str:
        """`--keep-alive-timeout`."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """`MULTILOOP_KEEP_ALIVE_TIMEOUT`."""
        return "MULTILOOP_" + self.name.replace("-", "_").upper()

    @property
    def is_secret(self) -> bool:
        """Whether its value is never printed."""
        return self.name.endswith(("password", "token"))

    @property
    def has_dev_default(self) -> bool:
        """Whether --dev changes it."""
        return self.dev_default is not _UNSET

    def default_value(self) -> Any:
        """Return the value when nobody says anything: the field's own default."""
        if self.default is not _UNSET:
            return self.default
        owner, _, name = self.field.rpartition(".")
        found = {f.name: f for f in dataclasses.fields(_OWNERS[owner])}[name]
        return found.default if found.default is not dataclasses.MISSING else None


@dataclass(frozen=True, slots=True)
class Group:
    """Options that belong together in the help."""

    title: str
    options: tuple[Option, ...]


_LISTEN = Group(
    "Where to listen",
    (
        Option(
            "host", kinds.listing("ADDRESS"), "", "Address or name; repeat for several; '*' is all.", ("127.0.0.1",)
        ),
        Option("port", kinds.number(0, 65535, "PORT"), "", "TCP port; 0 takes a free one.", 8000),
        Option("uds", kinds.text("PATH"), "", "Unix socket. A stale one is replaced, a live one never taken.", None),
        Option("uds-mode", kinds.file_mode, "listen.path_mode", "Its file mode."),
        Option("fd", kinds.listing("N", kinds.number(0, 65535)), "", "Inherited listening socket.", ()),
        Option("backlog", kinds.number(1, 65535), "listen.backlog", "Connections that the kernel keeps waiting."),
    ),
)

_APPLICATION = Group(
    "The application",
    (
        Option(
            "interface",
            kinds.choice("auto", "asgi", "wsgi", "handler", "node"),
            "target.interface",
            "How the target is called.",
        ),
        Option("factory", kinds.flag, "target.factory", "The target is a function that returns the application."),
        Option(
            "name",
            kinds.app_name,
            "name",
            "What it is called in titles, logs and commands.",
            "",
            shown_default="TARGET",
        ),
        Option("app-dir", kinds.text("DIR"), "target.app_dir", "Where the target's module is looked for first."),
        Option("env-file", kinds.text("FILE"), "env_file", "Variables that each worker sets before it imports."),
        Option(
            "env",
            kinds.assignments,
            "env",
            "Variable of each worker; {slot} and {worker} in it are its place and number.",
        ),
        Option("lifespan", kinds.choice("auto", "on", "off"), "http.lifespan", "ASGI lifespan."),
        Option("root-path", kinds.text("PATH"), "http.root_path", "Path under which a proxy mounts the application."),
        Option("loop", kinds.choice("auto", "uvloop", "asyncio"), "loop", "Event loop; auto is uvloop where it is."),
    ),
)

_WORKERS = Group(
    "Workers",
    (
        Option("workers", kinds.workers, "", "Processes; auto is one a core; 0 serves here.", "auto", 1),
        Option(
            "policy",
            Kind("|".join((*POLICIES, "MODULE:ATTRIBUTE")), checked_name),
            "supervisor.policy",
            "Who gets the next connection.",
        ),
        Option("standby", kinds.number(0, 1024), "supervisor.standby", "Spare workers that are imported and waiting."),
        Option("startup-timeout", kinds.seconds(0.1), "supervisor.startup_timeout", "For a worker to become ready."),
        Option("hang-timeout", kinds.seconds(1), "supervisor.hang_timeout", "A blocked worker is replaced after it."),
        Option("grace", kinds.seconds(), "supervisor.grace", "For a leaving worker to finish what it began."),
        Option(
            "restart-max", kinds.number(1), "supervisor.restart_max", "Failed starts in the window before backing off."
        ),
        Option("restart-window", kinds.seconds(1), "supervisor.restart_window", "The window that they are counted in."),
        Option(
            "max-requests", kinds.number(0), "supervisor.max_requests", "Replace a worker after N requests; 0: off."
        ),
        Option("max-rss", kinds.size(), "supervisor.max_rss", "Replace a worker that is larger; 0: off."),
        Option("max-lifetime", kinds.seconds(), "supervisor.max_lifetime", "Replace a worker that is older; 0: off."),
        Option(
            "recycle-jitter", kinds.share, "supervisor.recycle_jitter", "So much later at most, different for each."
        ),
    ),
)

_PROCESS = Group(
    "The server's process",
    (
        Option(
            "control",
            kinds.text("PATH"),
            "process.control",
            "Socket for status, reload, scale, logs and stop; '' for none.",
            shown_default="$XDG_RUNTIME_DIR/multiloop/PID.sock",
            whole=True,
        ),
        Option("pid-file", kinds.text("PATH"), "process.pid_file", "Holds its number while it lives.", whole=True),
        Option(
            "user",
            kinds.text("NAME"),
            "process.user",
            "Become this user once the sockets are open (as root).",
            whole=True,
        ),
        Option("group", kinds.text("NAME"), "process.group", "And this group; default: the user's.", whole=True),
        Option("umask", kinds.umask, "process.umask", "For files that it and its workers make.", whole=True),
    ),
)

_DEVELOPMENT = Group(
    "Development",
    (
        Option("dev", kinds.flag, "dev", "Reload, access log, one worker; calls that block are named."),
        Option("reload", kinds.flag, "reload", "Reload when a Python file changes.", dev_default=True),
        Option("reload-dir", kinds.listing("DIR"), "reload_dirs", "What is watched.", shown_default="--app-dir"),
    ),
)

_DEADLINES = Group(
    "Deadlines (each covers its whole phase)",
    (
        Option("first-byte-timeout", kinds.seconds(0.1), "http.first_byte_timeout", "A new connection that is silent."),
        Option("header-timeout", kinds.seconds(0.1), "http.header_timeout", "The whole head of a request."),
        Option("body-idle-timeout", kinds.seconds(0.1), "http.body_idle_timeout", "No byte of an awaited body."),
        Option("body-min-rate", kinds.size(), "http.body_min_rate", "Slower bodies are cut, bytes a second; 0: off."),
        Option(
            "keep-alive-timeout", kinds.seconds(0.1), "http.keep_alive_timeout", "A kept connection without a request."
        ),
        Option("write-timeout", kinds.seconds(0.1), "http.write_timeout", "A peer that takes nothing of a reply."),
        Option("tls-handshake-timeout", kinds.seconds(0.1), "http.tls_handshake_timeout", "The whole TLS handshake."),
    ),
)

_LIMITS = Group(
    "Limits",
    (
        Option(
            "limit-concurrency",
            kinds.number(0),
            "http.limit_concurrency",
            "Requests at once, a worker; 503 above; 0: off.",
        ),
        Option("max-body-size", kinds.size(), "http.max_body_size", "Body of a request; 413 above; 0: off."),
        Option("max-target-size", kinds.size(256), "http.max_target_size", "Path and query; 414 above."),
        Option("max-header-line", kinds.size(256), "http.max_header_line", "One header field; 431 above."),
        Option("max-header-size", kinds.size(256), "http.max_header_size", "All header fields; 431 above."),
        Option("max-header-count", kinds.number(1), "http.max_header_count", "How many header fields; 431 above."),
        Option(
            "max-requests-per-connection",
            kinds.number(0),
            "http.max_requests_per_connection",
            "Then the connection is closed; 0: off.",
        ),
    ),
)

_WEBSOCKET = Group(
    "WebSocket and WSGI",
    (
        Option("ws-max-size", kinds.size(1), "http.ws_max_size", "One message, all fragments."),
        Option("ws-max-fragments", kinds.number(1), "http.ws_max_fragments", "Fragments of one message."),
        Option("ws-max-queue", kinds.number(1), "http.ws_max_queue", "Messages that wait before reading pauses."),
        Option("ws-ping-interval", kinds.seconds(), "http.ws_ping_interval", "Between pings; 0: none."),
        Option("ws-ping-timeout", kinds.seconds(0.1), "http.ws_ping_timeout", "For the pong."),
        Option("ws-deflate", kinds.flag, "http.ws_deflate", "Compress messages."),
        Option(
            "wsgi-threads", kinds.number(1, 1024), "http.wsgi_threads", "Threads of each worker for a WSGI application."
        ),
        Option("wsgi-queue", kinds.number(0), "http.wsgi_queue", "Requests that wait for one; 503 above."),
    ),
)

_TLS = Group(
    "TLS",
    (
        Option("tls-cert", kinds.text("FILE"), "tls.cert", "Certificate chain, PEM. Given, TLS is on."),
        Option("tls-key", kinds.text("FILE"), "tls.key", "Private key, if not in the same file."),
        Option("tls-key-password", kinds.text("TEXT"), "tls.key_password", "Better in MULTILOOP_TLS_KEY_PASSWORD."),
        Option("tls-ca", kinds.text("FILE"), "tls.ca", "Verify clients against these certificates."),
        Option("tls-require-client-cert", kinds.flag, "tls.require_client_cert", "Refuse clients without one."),
        Option("tls-ciphers", kinds.text("LIST"), "tls.ciphers", "In OpenSSL's form."),
    ),
)

_PROXIES = Group(
    "Proxies and headers",
    (
        Option(
            "trusted-proxies",
            kinds.listing("LIST"),
            "http.proxy_headers",
            "Addresses, networks or unix, whose X-Forwarded-For and -Proto are believed.",
        ),
        Option("proxy-protocol", kinds.flag, "http.proxy_protocol", "Every connection begins with a PROXY header."),
        Option("server-header", kinds.flag, "http.server_header", "Send Server."),
        Option("date-header", kinds.flag, "http.date_header", "Send Date."),
    ),
)

_LOGS = Group(
    "Logs (standard error, unless --log-file)",
    (
        Option("log-level", kinds.choice(*LEVELS), "logs.level", "How much is said.", whole=True),
        Option("log-format", kinds.choice(*FORMATS), "logs.format", "One line for each record.", whole=True),
        Option("log-file", kinds.text("FILE"), "logs.file", "Reopened on SIGUSR1.", whole=True),
        Option(
            "log-config",
            kinds.text("FILE"),
            "logs.config",
            "A logging configuration of yours: .json, .toml or .ini.",
            whole=True,
        ),
        Option("access-log", kinds.flag, "http.access_log", "A line for each request.", dev_default=True),
    ),
)

_ADMIN = Group(
    "Dashboard, metrics and health (served by the primary)",
    (
        Option("admin", kinds.address, "", "Serve them here; a port alone is one of 127.0.0.1.", None, whole=True),
        Option(
            "admin-token",
            kinds.text("TEXT"),
            "admin.token",
            "Better in MULTILOOP_ADMIN_TOKEN.",
            shown_default="a new one, printed at the start",
            whole=True,
        ),
        Option("admin-host", kinds.listing("NAME"), "admin.hosts", "Another name for it, behind a proxy.", whole=True),
        Option("admin-actions", kinds.flag, "admin.actions", "Reload, scale and restart from the page.", whole=True),
        Option("metrics-open", kinds.flag, "admin.metrics_open", "/metrics needs no token.", whole=True),
    ),
)

_CONFIGURATION = Group(
    "Configuration",
    (
        Option(
            "config",
            kinds.text("FILE"),
            "",
            "Options from a TOML file; [apps.NAME] tables are several applications.",
            None,
            in_files=False,
            whole=True,
        ),
        Option(
            "check",
            kinds.flag,
            "",
            "Check everything, print the options in force, serve nothing.",
            False,
            in_files=False,
            whole=True,
        ),
    ),
)

TARGET = Option("target", kinds.text("MODULE:ATTRIBUTE"), "target.name", "What is served.", None)

GROUPS = (
    _LISTEN,
    _APPLICATION,
    _WORKERS,
    _PROCESS,
    _DEVELOPMENT,
    _DEADLINES,
    _LIMITS,
    _WEBSOCKET,
    _TLS,
    _PROXIES,
    _LOGS,
    _ADMIN,
    _CONFIGURATION,
)
OPTIONS: dict[str, Option] = {option.name: option for group in GROUPS for option in group.options}

# Those of `multiloop run`. The first are of the supervisor: a script that forks itself decides these things itself.
RUN_WITH_WORKERS = (
    *("grace", "startup-timeout", "hang-timeout", "restart-max", "restart-window"),
    *("max-requests", "max-rss", "max-lifetime", "recycle-jitter"),
)
RUN_FOR_ALL = (
    *("policy", "env", "name", "control", "pid-file", "user", "group", "umask"),
    *("log-level", "log-format", "log-file", "log-config"),
)
