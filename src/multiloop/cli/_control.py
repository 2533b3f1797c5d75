"""`multiloop status`, `reload`, `logs` and the others: one question to a running server, its answer for people.

What lives here: how answers look. What must not: the socket (`cluster._control`), doing what is asked (`_commands`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..cluster._control import CommandFailed, call
from ..cluster._control import follow as follow_answers
from ..cluster._exit_codes import ExitCode
from ..errors import ConfigError

_COLUMNS = ("worker", "pid", "state", "generation", "age", "memory", "connections", "requests", "running")


def status(control: str | None, as_json: bool) -> int:
    """Print the state of a running server."""
    found = _ask(control, "status")
    print(json.dumps(found, indent=2) if as_json else "\n".join(_status_lines(found)))
    return ExitCode.OK


def reload(control: str | None, app: str | None) -> int:
    """Reload, and wait until the new workers serve (or the old ones stay)."""
    found = _ask(control, "reload", timeout_s=None, app=app)
    print(f"reloaded: generation {found['generation']}, {_count(found['workers'], 'worker')}")
    return ExitCode.OK


def restart(control: str | None, worker: int) -> int:
    """Replace one worker, and wait until the new one serves (or the old one stays)."""
    found = _ask(control, "restart", timeout_s=None, worker=worker)
    print(f"worker {worker} is replaced by worker {found['worker']}")
    return ExitCode.OK


def scale(control: str | None, workers: int, app: str | None) -> int:
    """Change the number of workers."""
    found = _ask(control, "scale", workers=workers, app=app)
    print(f"scaling to {_count(found['workers'], 'worker')}")
    return ExitCode.OK


def logs(control: str | None, lines: int, *, follow: bool, app: str | None, worker: int | None) -> int:
    """Print the last lines of the log, then those that come, until interrupted or the server ends."""
    asked = {"last": lines, "app": app, "worker": worker}
    if not follow:
        _print_lines(_ask(control, "logs", **asked)["lines"])
        return ExitCode.OK
    try:
        answers = follow_answers(control, "logs", follow=True, **asked)
        _print_lines(next(answers)["lines"])
        for answer in answers:
            _print_lines([answer])
    except KeyboardInterrupt:  # that is how people end it
        pass
    except CommandFailed as error:
        raise ConfigError(str(error), exit_code=ExitCode.COMMAND_FAILED) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError(f"logs: {error.strerror or error}", exit_code=ExitCode.COMMAND_FAILED) from None
    return ExitCode.OK


def _print_lines(lines: Iterable[Mapping[str, Any]]) -> None:
    for line in lines:
        lost = line.get("dropped")
        print(f"({lost} lines were lost: they came too fast)" if lost else line["text"], flush=True)


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
    lines = [f"up for {_age(found['uptime'])}, pid {found['pid']}, multiloop {found['version']}"]
    if "dashboard" in found:
        lines.append(f"dashboard: {found['dashboard']}")
    for app in found["apps"]:
        lines += ["", *_app_lines(app)]
    return lines


def _app_lines(app: Mapping[str, Any]) -> list[str]:
    called = app["target"] if app["name"] == app["target"] else f"{app['name']}: {app['target']}"
    connections = f"{app['accepted']} connections dealt, {app['dealt_again']} dealt again"
    recycled = sum(app["recycled"].values())
    lines = [
        f"{called} on {', '.join(app['listen'])}",
        f"{app['state']}, generation {app['generation']}, {app['policy']}, {_count(app['restarts'], 'restart')}"
        + (f", {recycled} recycled" if recycled else ""),
        f"{connections}, {app['waiting']} waiting",
    ]
    if app["boot_failure"]:
        lines.append(f"no worker could start: {app['boot_failure']}")
    rows = [_COLUMNS, *(_row(worker) for worker in app["workers"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    missing = app["wanted"] - sum(worker["state"] == "ready" for worker in app["workers"])
    if missing > 0:
        lines.append(f"{_count(missing, 'worker')} of {app['wanted']} not ready")
    if app["ended"]:
        last = app["ended"][-1]
        lines.append(f"worker {last['number']} ended {_age(last['ago'])} ago: {last['why']}")
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
