"""`multiloop top`: the dashboard in a terminal, over the control socket.

What lives here: the loop that looks once a second, and how it is drawn. What must not: what the figures mean
(`dashboard._model`, the same one), how they are had (`cluster._lookout`).

The first look has the workers measure for as long as somebody looks; so p50 and p99 are there a second later.
"""

from __future__ import annotations

import contextlib
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..cluster._control import CommandFailed, call
from ..cluster._exit_codes import ExitCode
from ..cluster._status import from_raw
from ..dashboard._model import Model
from ..errors import ConfigError
from ..stats import ClusterStatistics

_SPARKS = "▁▂▃▄▅▆▇█"
_SPARK_POINTS = 40
_LONG_BLOCK_S = 0.75
_WIDE = 132  # what a reader that is no terminal is given
_WHOLE = 116  # columns that the whole table needs
_COLUMNS = (
    *("worker", "pid", "state", "age", "req/s", "p50", "p99", "conns", "run", "delay", "in use", "cpu"),
    *("memory", "pool", "restarts"),
)
_DISPENSABLE = {"pid", "age", "run", "pool", "restarts"}
_TONES = {
    "ready": "green",
    "serving": "green",
    "silent": "bold red",
    "killed": "bold red",
    "failed": "bold red",
    "degraded": "yellow",
    "starting": "cyan",
    "booting": "cyan",
    "reloading": "cyan",
}


def top(control: str | None, interval: float) -> int:
    """Show a running server until `q`, Ctrl-C or its end; where no terminal is, print it once."""
    console = Console(highlight=False)
    watch = _Watch(control)
    watch.look()
    if not console.is_terminal:
        time.sleep(interval)
        watch.look()
        Console(highlight=False, width=_WIDE).print(watch.draw(_WIDE, 1000))
        return ExitCode.OK
    with contextlib.suppress(KeyboardInterrupt), _keys() as pressed:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(watch.draw(console.width, console.height), refresh=True)
                if pressed(interval) in ("q", "Q", "\x1b"):
                    break
                watch.look()
    return ExitCode.OK


class _Watch:
    """What was seen so far."""

    def __init__(self, control: str | None) -> None:
        self._control = control
        self._model = Model()
        self._last: ClusterStatistics | None = None
        self._blocks: dict[int, float] = {}  # by worker: when its last known block began

    def look(self) -> None:
        """Ask once. Raises ConfigError when the server is not there (any more)."""
        try:
            found = from_raw(call(self._control, "look"))
        except CommandFailed as error:
            raise ConfigError(str(error), exit_code=ExitCode.COMMAND_FAILED) from None
        except OSError as error:
            raise ConfigError(f"top: {error.strerror or error}", exit_code=ExitCode.COMMAND_FAILED) from None
        for before in self._last.workers if self._last is not None else ():
            if all(worker.number != before.number for worker in found.workers):
                ended = {end.number: end.why for app in found.apps for end in app.ended}
                self._model.ended(found.time, before, ended.get(before.number, "it is gone"))
        for worker in found.workers:
            block = worker.report.health.last_blocked if worker.report is not None else None
            if block is not None and block.at != self._blocks.get(worker.number):
                self._blocks[worker.number] = block.at
                self._model.blocked(found.time, worker.number, block)
        self._last = found
        self._model.sample(found)

    # -- drawing -------------------------------------------------------------------------------------------------------
    def draw(self, width: int, height: int) -> RenderableType:
        """Return everything, as much as fits."""
        state = self._model.state()
        parts: list[RenderableType] = [_head(state), Text(), self._totals(state, width), Text()]
        workers = _workers(state, [name for name in _COLUMNS if width >= _WHOLE or name not in _DISPENSABLE])
        parts.append(workers)
        room = height - 11 - workers.row_count
        lines = [*_blocked_now(state), *self._offenders(), *_pools(state), *self._ends()]
        if room > 2:
            parts += [Text(), *lines[: room - 2]]
        return Group(*parts)

    def _totals(self, state: dict[str, Any], width: int) -> Table:
        columns = self._model.history.as_plain()
        now = state["now"]
        table = Table.grid(padding=(0, 2))
        shown: list[tuple[str, str, str]] = [
            ("requests/s", "rate", _count(now["rate"])),
            ("p99", "p99", f"{_time(now['p50'])} p50, {_time(now['p99'])} p99"),
            ("connections", "connections", f"{_count(now['connections'])}, {_count(now['active'])} running"),
            ("loop delay", "delay", _time(now["delay"])),
            ("loops in use", "utilization", _share(now["utilization"])),
            ("cpu", "cpu", f"{now['cpu']:.2f} cores"),
            ("memory", "rss", _bytes(now["rss"])),
        ]
        if state["pools"]:
            shown.append(("pools", "running", f"{_count(now['running'])} running, {_count(now['queued'])} waiting"))
        points = max(8, min(_SPARK_POINTS, width // 2 - 44))
        cells = [
            (Text(name, "dim"), Text(text, "bold"), Text(_spark(columns[series][-points:]), "blue"))
            for name, series, text in shown
        ]
        half = (len(cells) + 1) // 2 if width >= 110 else len(cells)
        for index in range(half):
            other = cells[half + index] if half + index < len(cells) else ()
            table.add_row(*cells[index], *other)
        return table

    def _offenders(self) -> Iterator[Text]:
        for found in self._model.offenders.as_plain()[:5]:
            where = f"{found['file']}:{found['line']} in {found['function']}" if found["file"] else "compiled code"
            times = "once" if found["count"] == 1 else f"{found['count']} times"
            line = Text.assemble(
                ("blocked ", "red"), (f"{found['total']:.2f} s", "bold"), f" {times} at ", (where, "bold")
            )
            yield line.append(f"  {found['request']}" if found["request"] else "", "dim")

    def _ends(self) -> Iterator[Text]:
        if self._last is None:
            return
        for app in self._last.apps:
            for end in app.ended[-3:]:
                yield Text(f"worker {end.number} ended {_age(end.ago)} ago: {end.why}", "dim")


def _head(state: dict[str, Any]) -> Text:
    cluster = state["cluster"]
    head = Text("multiloop ", "bold")
    for app in state["apps"]:
        head.append(f"{app['name']} ", "bold")
        head.append(f"{app['state']} ", _TONES.get(app["state"], ""))
        head.append(f"on {', '.join(app['listen'])}, generation {app['generation']}, {app['policy']}   ", "dim")
    ready = sum(worker["state"] == "ready" for worker in state["workers"])
    return head.append(
        f"\n{ready} of {cluster['wanted']} workers ready, up {_age(cluster['uptime'])}, {cluster['restarts']} restarts, "
        f"primary {cluster['pid']}: {_share(cluster['cpu'])} of a core, {_bytes(cluster['rss'])}",
        "dim",
    )


def _workers(state: dict[str, Any], columns: Sequence[str]) -> Table:
    several = len(state["apps"]) > 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="dim")
    for title in columns:
        table.add_column(title, justify="left" if title == "state" else "right", no_wrap=True)
    for worker in sorted(state["workers"], key=lambda worker: (worker["app"], worker["slot"] is None, worker["slot"])):
        cells = dict(zip(_COLUMNS, _worker(worker, several), strict=True))
        table.add_row(*(cells[name] for name in columns))
    return table


def _worker(worker: dict[str, Any], several: bool) -> Sequence[Text | str]:
    used, delay = worker["util"], worker["delay"]
    word = f"blocked {worker['blocked']['seconds']:.1f} s" if worker["blocked"] else worker["state"]
    return (
        f"{worker['app']} {worker['n']}" if several else str(worker["n"]),
        str(worker["pid"] or "-"),
        Text(word, "bold red" if worker["blocked"] else _TONES.get(worker["state"], "dim")),
        _age(worker["age"]),
        _count(worker["rate"]),
        _time(worker["p50"]),
        _time(worker["p99"]),
        _count(worker["conns"]),
        _count(worker["active"]),
        Text(_time(delay), "red" if (delay or 0) >= 0.1 else ""),
        Text(_share(used), "red" if (used or 0) >= 0.95 else "yellow" if (used or 0) >= 0.75 else ""),
        "-" if worker["cpu"] is None else f"{worker['cpu']:.2f}",
        _bytes(worker["rss"]),
        f"{worker['running']}+{worker['queued']}" if worker["running"] or worker["queued"] else "-",
        str(len(worker["ends"])),
    )


def _blocked_now(state: dict[str, Any]) -> Iterator[Text]:
    for worker in state["workers"]:
        block = worker["blocked"]
        if block and block["seconds"] >= _LONG_BLOCK_S:
            where = f" at {block['file']}:{block['line']} in {block['function']}" if block.get("file") else ""
            request = f" ({block['request']})" if block.get("request") else ""
            yield Text(f"worker {worker['n']} is blocked for {block['seconds']:.1f} s{where}{request}", "bold red")


def _pools(state: dict[str, Any]) -> Iterator[Text]:
    for pool in state["pools"]:
        yield Text(
            f"pool {pool['name']}: {pool['workers']} of {pool['limit']} processes, {pool['running']} running, "
            f"{pool['queued']} waiting, {pool['done']} done, {pool['failed']} failed, run p99 {_time(pool['run99'])}"
        )


# --- numbers as people read them ----------------------------------------------------------------------------------
def _count(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1e6:
        return f"{value / 1e6:.2f}M"
    if value >= 1e4:
        return f"{value / 1e3:.1f}k"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %" if value < 0.0995 else f"{value * 100:.0f} %"


def _bytes(value: float) -> str:
    return f"{value / 2**20:.0f} MiB" if value < 2**30 else f"{value / 2**30:.2f} GiB"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f}{unit}"
    return f"{seconds:.0f}s"


def _spark(values: Sequence[float | None]) -> str:
    highest = max((value for value in values if value is not None), default=0.0)
    if not highest:
        return "".join(" " if value is None else _SPARKS[0] for value in values)
    return "".join(" " if value is None else _SPARKS[min(7, int(value / highest * 7.999))] for value in values)


def _wait(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Give a function that waits for a key, without Enter, for at most so long; "" is none."""
    if not sys.stdin.isatty():
        yield _wait
        return
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return sys.stdin.read(1) if ready else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
