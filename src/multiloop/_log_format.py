"""What a line of the log looks like: escaping, and the text and JSON forms of a record.

What lives here: `escape`, `quoted`, `TextFormatter`, `JsonFormatter`, who this process is (`identify`) and which request
a record belongs to (`request_id`). What must not: which loggers there are (`logs`), writing (`_log_sink`).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from contextvars import ContextVar
from typing import Any

from ._limits import MAX_LOG_DETAIL_CHARS, MAX_LOG_MESSAGE_CHARS

# --- escaping -----------------------------------------------------------------------------------------------------
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROL |= {0x2028: "\\u2028", 0x2029: "\\u2029"}  # some readers take these for the end of a line
_QUOTED = {**_CONTROL, ord('"'): "\\x22", ord("\\"): "\\x5c"}  # nginx's way inside quotes
_DETAIL = {code: text for code, text in _CONTROL.items() if code not in (9, 10)}


def escape(text: str, limit: int = MAX_LOG_MESSAGE_CHARS) -> str:
    """Make text safe for one line of a log: control characters as `\\xNN`, cut to `limit` characters."""
    if len(text) > limit:
        text = f"{text[:limit]}... ({len(text) - limit} more characters)"
    return text if text.isprintable() else text.translate(_CONTROL)


def quoted(text: str) -> str:
    """Make text safe between double quotes on one line of a log."""
    if len(text) > MAX_LOG_MESSAGE_CHARS:
        text = text[:MAX_LOG_MESSAGE_CHARS] + "..."
    return text.translate(_QUOTED)


def _detail(record: logging.LogRecord, formatter: logging.Formatter) -> str:
    """What stands below the line: the record's detail, its traceback, its stack."""
    parts: list[str] = []
    if detail := getattr(record, "detail", None):
        parts.append(str(detail))
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    text = "\n".join(parts)
    if len(text) > MAX_LOG_DETAIL_CHARS:
        half = MAX_LOG_DETAIL_CHARS // 2
        text = f"{text[:half]}\n... ({len(text) - 2 * half} more characters)\n{text[-half:]}"
    return text


# --- the request ------------------------------------------------------------------------------------------------------
request_id: ContextVar[str | None] = ContextVar("multiloop.request_id", default=None)
"""The id of the request that this code works for; set by the server where somebody will read it (see `logs`)."""


def trace() -> tuple[str, str] | None:
    """Return the ids of the current trace and span, in hex; None when there is none, or nobody traces."""
    module = sys.modules.get("opentelemetry.trace")
    if module is None:
        return None
    context = module.get_current_span().get_span_context()
    return (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else None


# --- formatters ---------------------------------------------------------------------------------------------------
_worker: int | str | None = None
_label = ""


def identify(worker: int | str | None, label: str = "") -> None:
    """Say who this process is: a worker's number, "primary", or None for a process on its own; and of what."""
    global _worker, _label
    _worker, _label = worker, label


def label() -> str:
    """Return what the worker belongs to; "" when that goes without saying."""
    return _label


def worker() -> int | str | None:
    """Return what `identify` was told."""
    return _worker


def who() -> str:
    """Return how text lines name this process: `worker 3 (PID)`, or `shop worker 3 (PID)` with the label `shop`."""
    name = f"worker {_worker}" if isinstance(_worker, int) else _worker
    name = f"{escape(_label)} {name}" if _label and name else name
    return f"{name} ({os.getpid()})" if name else f"({os.getpid()})"


class Stamp:
    """UTC times as text, made once a second: 2026-10-19T12:00:00.123Z."""

    __slots__ = ("_prefix", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._prefix = ""

    def __call__(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._second = second
        return f"{self._prefix}{int((now - second) * 1000):03d}Z"


def _request_of(record: logging.LogRecord) -> str | None:
    """The request's id: what the record says, else that of the code which logs."""
    return getattr(record, "request_id", None) or request_id.get()


class TextFormatter(logging.Formatter):
    """`TIME LEVEL WHO (PID): [REQUEST] message`, then the traceback or detail, indented by four spaces."""

    def __init__(self) -> None:
        super().__init__()
        self._stamp = Stamp()

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, and below it what is indented."""
        name = "" if record.name.startswith("multiloop") else f"{record.name}: "
        if (served := _request_of(record)) is not None:
            name = f"[{served}] {name}"
        message = escape(name + record.getMessage())
        line = f"{self._stamp(record.created)} {record.levelname:<8} {who()}: {message}"
        detail = _detail(record, self)
        if not detail:
            return line
        return "\n    ".join([line, *detail.translate(_DETAIL).split("\n")])


class JsonFormatter(logging.Formatter):
    """One JSON object: time, level, logger, worker, pid, message, request_id, what `extra=` gave, detail for a traceback.

    Where OpenTelemetry is loaded and a span is current: trace_id and span_id.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stamp = Stamp()

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        fields: dict[str, Any] = {
            "time": self._stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "worker": _worker,
            "pid": os.getpid(),
            "message": record.getMessage()[:MAX_LOG_MESSAGE_CHARS],
        }
        if _label:
            fields["app"] = _label
        if (served := _request_of(record)) is not None:
            fields["request_id"] = served
        if (ids := trace()) is not None:
            fields["trace_id"], fields["span_id"] = ids
        for key, value in record.__dict__.items():
            if key not in _STANDARD and key not in fields:
                fields[key] = value[:MAX_LOG_MESSAGE_CHARS] if isinstance(value, str) else value
        if detail := _detail(record, self):
            fields["detail"] = detail
        return json.dumps(fields, default=str)


_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "detail"}
