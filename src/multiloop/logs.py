"""Logging for a whole process: one line for each record, in text or JSON, written by one side thread.

What lives here: which loggers there are, and the access log. What must not: what a line looks like (`_log_format`),
waiting and writing (`_log_sink`).

Guarantees
* A log call never waits for standard error or for a disk: lines go through a bounded queue (see `_log_sink`).
* One record starts one line. Control characters (ESC, CR, LF, NUL, …) in a message are written as `\\xNN`, so that
  nobody can forge a line or command a terminal; tracebacks, stacks and a record's `detail` (`extra={"detail": text}`)
  follow below it, indented. Messages and details are capped in length.
* `logging.getLogger("multiloop...")` and every logger that the application leaves alone end here. An application that
  sets up logging of its own (basicConfig, dictConfig, Django) keeps it, and ours goes on.
* Records say which request they belong to, where requests have ids (`wants_request_ids`, or an access log): text lines
  have it in brackets, JSON as `request_id`.
* With `config` (a logging configuration of the user's) its handlers are used, called by the side thread.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import _log_format as form
from . import _log_streams
from ._limits import LOG_FLUSH_S, MAX_LOG_MESSAGE_CHARS
from ._log_format import JsonFormatter as JsonFormatter
from ._log_format import TextFormatter as TextFormatter
from ._log_format import escape as escape
from ._log_format import request_id as request_id
from ._log_sink import Sink
from .errors import ConfigError
from .stats import LogStatistics

LEVELS = ("critical", "error", "warning", "info", "debug")
FORMATS = ("text", "json")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How a process logs. `file` and `config` are paths; None is standard error, and our own set-up."""

    level: str = "info"
    format: str = "text"
    file: str | None = None
    config: str | None = None


class Access(NamedTuple):
    """One request that was answered, as it stands in the access log."""

    client: str
    method: str
    target: str
    version: str
    status: int
    size_bytes: int
    duration_s: float
    request_id: str


AccessLog = Callable[[Access], None]
"""Writes one line for one request; costs a few microseconds and never waits."""


# --- handlers -----------------------------------------------------------------------------------------------------
class _SinkHandler(logging.Handler):
    """Formats on the caller's thread (arguments may change later), leaves the writing to the sink."""

    def __init__(self, sink: Sink, formatter: logging.Formatter) -> None:
        super().__init__()
        self._sink = sink
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # a log call with wrong arguments, or an argument whose __str__ fails
            place = f"{os.path.basename(record.pathname)}:{record.lineno}"
            line = f"{escape(f'a log call at {place} failed: {error!r}; its message: {record.msg!r}')}"
        self._sink.put(line, urgent=record.levelno >= logging.WARNING)

    def flush(self) -> None:
        """Wait for the lines so far, as long as the end of a process may."""
        self._sink.flush(LOG_FLUSH_S)


class _DeferredHandler(logging.Handler):
    """Stands in for the handlers that a user configured: they are called on the side thread."""

    def __init__(self, sink: Sink, handlers: Sequence[logging.Handler]) -> None:
        super().__init__()
        self._sink = sink
        self._handlers = tuple(handlers)

    def emit(self, record: logging.LogRecord) -> None:
        record.worker = form.worker()
        if not hasattr(record, "request_id"):
            record.request_id = form.request_id.get()
        try:
            record.msg, record.args = record.getMessage(), None
        except Exception as error:
            record.msg, record.args = f"a log call failed: {error!r}; its message: {record.msg!r}", None
        self._sink.defer(self._handle, record)

    def _handle(self, record: logging.LogRecord) -> None:
        self._sink.note_record(record)
        for handler in self._handlers:
            if record.levelno >= handler.level:
                handler.handle(record)

    def flush(self) -> None:
        """Wait for the records so far, then let the user's handlers flush."""
        if self._sink.flush(LOG_FLUSH_S):
            for handler in self._handlers:
                handler.flush()


class _WarningsHandler(logging.Handler):
    """Takes Python's warnings when nobody else does: logging gives their logger a handler that swallows them."""

    def __init__(self, to: logging.Handler) -> None:
        super().__init__()
        self._to = to

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            record.msg, _, record.detail = record.getMessage().rstrip().partition("\n")
            record.args = None
            self._to.emit(record)


# --- the process's set-up -----------------------------------------------------------------------------------------
_sink: Sink | None = None
_settings = LogSettings()
_handler: logging.Handler | None = None
_registered = False
_follower: Callable[[list[str]], None] | None = None


def configure(settings: LogSettings, *, worker: int | str | None = None, label: str = "") -> None:
    """Set up logging in this process; `worker` ("primary", or a worker's number) stands in every line.

    With a `label` a worker is called by that and its number (several applications in one primary).

    Raises ConfigError (one line) when the log file or the configuration cannot be used.
    """
    global _sink, _settings, _handler, _registered
    if settings.level not in LEVELS:
        raise ConfigError(f"--log-level {settings.level!r}: use one of {', '.join(LEVELS)}")
    if settings.format not in FORMATS:
        raise ConfigError(f"--log-format {settings.format!r}: use one of {', '.join(FORMATS)}")
    try:
        sink = Sink(settings.file, _lost_line)
    except OSError as error:
        raise ConfigError(f"--log-file {settings.file!r} cannot be opened: {error.strerror}") from None
    shutdown()
    sink.follower = _follower
    form.identify(worker, label)
    _settings = settings
    formatter = JsonFormatter() if settings.format == "json" else TextFormatter()
    _sink, _handler = sink, _SinkHandler(sink, formatter)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").handlers[:] = [_WarningsHandler(_handler)]
    if settings.config is not None:
        _use_config(settings.config, sink)
    else:
        own = logging.getLogger("multiloop")
        own.handlers[:] = [_handler]
        own.propagate = False
        own.setLevel(settings.level.upper())
        logging.getLogger().setLevel(settings.level.upper())
    # What reaches no handler ends here: an application that sets up logging of its own has handlers, and keeps them.
    logging.lastResort = _handler
    if not _registered:
        _registered = True
        atexit.register(shutdown)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork)


def wants_request_ids() -> bool:
    """Whether records are written in a form that shows ids although there is no access log: JSON, or the user's own."""
    return _sink is not None and (_settings.format == "json" or _settings.config is not None)


def is_configured() -> bool:
    """Whether logging was set up in this process (and not shut down)."""
    return _sink is not None


def _after_fork() -> None:
    if _sink is not None:
        _sink._after_fork()
    _log_streams.after_fork()


def queue_streams() -> None:
    """Let `print` never wait: see `_log_streams`. For workers; a debugger wants the real streams."""
    _log_streams.queue_streams()


def reassert() -> None:
    """Undo what an application's own logging set-up did to our loggers; call it after importing the application.

    Django's and many a dictConfig disable every logger that exists already.
    """
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and (name == "multiloop" or name.startswith("multiloop.")):
            logger.disabled = False


def _use_config(path: str, sink: Sink) -> None:
    """Apply a logging configuration file, then put our queue before every handler that it made."""
    import logging.config as logging_config

    try:
        if path.endswith((".json", ".toml")):
            config = _read_config(path)
            config.setdefault("disable_existing_loggers", False)
            logging_config.dictConfig(config)
        else:
            with open(path, encoding="utf-8") as file:
                logging_config.fileConfig(file, disable_existing_loggers=False)
    except OSError as error:
        raise ConfigError(f"--log-config {path!r} cannot be read: {error.strerror}") from None
    except Exception as error:
        cause = f": {error.__cause__}" if error.__cause__ is not None else ""
        text = escape(f"{error}{cause}" if str(error) else repr(error))
        raise ConfigError(f"--log-config {path!r} is no logging configuration: {text}") from None
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in loggers:
        if isinstance(logger, logging.Logger) and logger.handlers:
            logger.handlers[:] = [_DeferredHandler(sink, logger.handlers)]


def _read_config(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        if path.endswith(".json"):
            found = json.load(file)
        else:
            import tomllib

            found = tomllib.load(file)
    if not isinstance(found, dict):
        raise ValueError("it is not a table")
    found.setdefault("version", 1)
    return found


def _lost_line(count: int) -> str:
    record = logging.makeLogRecord(
        {
            "name": "multiloop",
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": f"{count} log records were dropped: their destination took nothing",
        }
    )
    formatter = _handler.formatter if _handler is not None else None
    return (formatter or TextFormatter()).format(record)


def reopen() -> None:
    """Open the log file anew, after it was moved away (SIGUSR1)."""
    if _sink is not None:
        _sink.reopen()


def flush(timeout_s: float = LOG_FLUSH_S) -> bool:
    """Wait until what was logged so far is written; False when that took longer."""
    return _sink is None or _sink.flush(timeout_s)


def shutdown(timeout_s: float = LOG_FLUSH_S) -> None:
    """Write what waits and end the side thread, within this time. Called at the end of the process by itself."""
    global _sink
    sink, _sink = _sink, None
    _log_streams.close(timeout_s)
    if sink is not None:
        sink.close(timeout_s)


def last(count: int) -> list[str]:
    """Return the last lines of this process's log, at most `_limits.LOG_KEPT_LINES`."""
    return [] if _sink is None or count <= 0 else _sink.last(count)


def follow(function: Callable[[list[str]], None] | None) -> None:
    """Call `function` with every batch of lines from now on, on the thread that writes them; None ends that."""
    global _follower
    _follower = function
    if _sink is not None:
        _sink.follower = function


def statistics() -> LogStatistics:
    """Return the counts of this process's log."""
    sink = _sink
    return LogStatistics() if sink is None else LogStatistics(sink.written, sink.dropped, sink.queued)


# --- the access log -----------------------------------------------------------------------------------------------
def access_logger() -> AccessLog:
    """Return the function that writes the access log; get it once, after `configure` (or without, for the defaults)."""
    if _sink is None:
        configure(_settings)
    assert _sink is not None
    if _settings.config is not None:
        return _access_through_logging()
    return _access_json(_sink) if _settings.format == "json" else _access_text(_sink)


def _access_text(sink: Sink) -> AccessLog:
    put: Callable[[str], None] = sink.put
    stamp, who, clock = form.Stamp(), form.who(), time.time

    def access(found: Access) -> None:
        client, method, target, version, status, size_bytes, duration_s, request_id = found
        if '"' in target or "\\" in target or not target.isprintable() or len(target) > MAX_LOG_MESSAGE_CHARS:
            target = form.quoted(target)
        put(
            f"{stamp(clock())} INFO     {who}: {client} "
            f'"{method} {target} HTTP/{version}" {status} {size_bytes} {duration_s * 1000:.1f}ms {request_id}'
        )

    return access


def _access_json(sink: Sink) -> AccessLog:
    stamp, worker, pid = form.Stamp(), form.worker(), os.getpid()
    app = {"app": form.label()} if form.label() else {}

    def access(found: Access) -> None:
        fields = {
            "time": stamp(time.time()),
            "level": "info",
            "logger": "multiloop.access",
            "worker": worker,
            "pid": pid,
            **app,
            "request_id": found.request_id,
            "client": found.client,
            "method": found.method,
            "target": found.target[:MAX_LOG_MESSAGE_CHARS],
            "version": found.version,
            "status": found.status,
            "bytes": found.size_bytes,
            "duration": round(found.duration_s, 6),
        }
        sink.put(json.dumps(fields))

    return access


def _access_through_logging() -> AccessLog:
    """With a configuration of the user's: records of the logger `multiloop.access`, every field as an attribute."""
    logger = logging.getLogger("multiloop.access")

    def access(found: Access) -> None:
        if logger.isEnabledFor(logging.INFO):
            client, method, target, version, status, size_bytes, duration_s, request_id = found
            target = form.quoted(target)
            logger.info(
                '%s "%s %s HTTP/%s" %d %d %.1fms',
                *(client, method, target, version, status, size_bytes, duration_s * 1000),
                extra={
                    "client": client,
                    "method": method,
                    "target": target,
                    "version": version,
                    "status": status,
                    "bytes": size_bytes,
                    "duration": duration_s,
                    "request_id": request_id,
                },
            )

    return access
