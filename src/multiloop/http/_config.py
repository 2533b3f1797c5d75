"""What an HTTP server may be told: one frozen configuration, with every deadline and cap.

What lives here: `HttpConfig`. What must not: reading it from anywhere (that is the command line's), enforcing it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import _limits as limits


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """Options of an HTTP server. Times are seconds, sizes bytes; 0 switches a cap off where the comment says so."""

    # deadlines
    first_byte_timeout: float = limits.FIRST_BYTE_TIMEOUT_S
    header_timeout: float = limits.HEADER_TIMEOUT_S
    body_idle_timeout: float = limits.BODY_IDLE_TIMEOUT_S
    body_min_rate: int = limits.BODY_MIN_RATE_BYTES_S  # 0: off
    keep_alive_timeout: float = limits.KEEP_ALIVE_TIMEOUT_S
    write_timeout: float = limits.WRITE_TIMEOUT_S
    tls_handshake_timeout: float = limits.TLS_HANDSHAKE_TIMEOUT_S
    # caps
    max_header_line: int = limits.MAX_HEADER_LINE_BYTES
    max_header_size: int = limits.MAX_HEADER_BYTES
    max_header_count: int = limits.MAX_HEADER_COUNT
    max_target_size: int = limits.MAX_TARGET_BYTES
    max_body_size: int = limits.MAX_BODY_BYTES  # 0: off
    max_requests_per_connection: int = 0  # 0: off
    limit_concurrency: int = 0  # requests being served at once, 503 above; 0: off
    # WebSocket
    ws_max_size: int = limits.WS_MAX_MESSAGE_BYTES
    ws_max_fragments: int = limits.WS_MAX_FRAGMENTS
    ws_max_queue: int = limits.WS_MAX_QUEUE
    ws_ping_interval: float = limits.WS_PING_INTERVAL_S  # 0: off
    ws_ping_timeout: float = limits.WS_PING_TIMEOUT_S
    ws_deflate: bool = True
    # WSGI
    wsgi_threads: int = limits.WSGI_THREADS
    wsgi_queue: int = limits.WSGI_QUEUE
    # what the application is told
    root_path: str = ""
    proxy_headers: tuple[str, ...] = ()  # addresses or networks that may set X-Forwarded-*; "unix" for Unix sockets
    proxy_protocol: bool = False  # every connection starts with a PROXY protocol header (v1 or v2)
    lifespan: str = "auto"  # auto | on | off
    # headers of ours
    server_header: bool = True
    date_header: bool = True
    # logs
    access_log: bool = False
    log_format: str = "text"  # text | json


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """TLS of a listener: paths of PEM files. Session tickets do not resume across workers."""

    cert: str
    key: str | None = None
    key_password: str | None = None
    ca: str | None = None  # verify clients against these
    require_client_cert: bool = False
    ciphers: str | None = None
