"""`multiloop status`, `reload`, `scale` and `stop`: one question to a running server, its answer for people.

What lives here: how answers look. What must not: the socket (`cluster._control`), doing what is asked (`_primary`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..cluster._control import CommandFailed, call
from ..cluster._exit_codes import ExitCode
from ..errors import ConfigError

_COLUMNS = ("worker", "pid", "state", "generation", "age", "memory", "connections", "requests", "running")


def status(control: str | None, as_json: bool) -> int:
    """Print the state of a running server."""
    found = _ask(control, "status")
    print(json.dumps(found, indent=2) if as_json else "\n".join(_status_lines(found)))
    return ExitCode.OK


def reload(control: str | None) -> int:
    """Reload, and wait until the new workers serve (or the old ones stay)."""
    found = _ask(control, "reload", timeout_s=None)
    print(f"reloaded: generation {found['generation']}, {_count(found['workers'], 'worker')}")
    return ExitCode.OK


def scale(control: str | None, workers: int) -> int:
    """Change the number of workers."""
    found = _ask(control, "scale", workers=workers)
    print(f"scaling to {_count(found['workers'], 'worker')}")
    return ExitCode.OK


def stop(control: str | None) -> int:
    """End a server, and wait until it is gone."""
    found = _ask(control, "stop", until_gone=True)
    print(f"stopped {found['pid']}")
    return ExitCode.OK


def _ask(control: str | None, command: str, **options: Any) -> Any:
    try:
        return call(control, command, **options)
    except CommandFailed as error:
        raise ConfigError(str(error), exit_code=ExitCode.COMMAND_FAILED) from None
    except OSError as error:
        raise ConfigError(f"{command}: {error.strerror or error}", exit_code=ExitCode.COMMAND_FAILED) from None


def _status_lines(found: Mapping[str, Any]) -> list[str]:
    connections = f"{found['accepted']} connections dealt, {found['dealt_again']} dealt again"
    lines = [
        f"{found['target']} on {', '.join(found['listen'])}",
        f"{found['state']} for {_age(found['uptime'])}, pid {found['pid']}, multiloop {found['version']}",
        f"generation {found['generation']}, {found['policy']}, {_count(found['restarts'], 'restart')}",
        f"{connections}, {found['waiting']} waiting",
        "",
    ]
    rows = [_COLUMNS, *(_row(worker) for worker in found["workers"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    missing = found["wanted"] - sum(worker["state"] == "ready" for worker in found["workers"])
    if missing > 0:
        lines += ["", f"{_count(missing, 'worker')} of {found['wanted']} not ready"]
    return lines


def _row(worker: Mapping[str, Any]) -> tuple[str, ...]:
    counts = worker["statistics"]
    return (
        str(worker["number"]),
        str(worker["pid"]),
        worker["state"],
        str(worker["generation"]),
        _age(worker["age"]),
        f"{worker['rss'] / 2**20:.0f} MiB",
        str(counts.get("connections", worker["dealt"])),
        str(counts.get("requests", 0)),
        str(counts.get("active_requests", 0)),
    )


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f}{unit}"
    return f"{seconds:.0f}s"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
