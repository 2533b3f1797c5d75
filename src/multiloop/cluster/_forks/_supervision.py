"""The supervisor of `serve` for a program that forks itself: `cluster.supervise(workers=4)`.

What lives here: `Supervised`, the supervisor in the place of the flock, and `Supervision`, what the program holds. What
must not: when a worker is started, replaced or ended (`_supervisor`, pure), doing it (`_primary`).

    Supervised (pure) ─ actions ─▶ Primary.act ─▶ fork, drain, kill
    Primary: listening, exits, reports, heartbeats ─▶ Supervised
"""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import random
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from ... import _limits as limits
from ..._wire.messages import Report
from ...errors import NeverReady, RestartFailed, UsageError
from ...loop import AnyOperation, ErrorFirst, Hub, begin, check_callback
from ...pool._machine import usable_cores
from .. import _actions as act
from .._settings import SupervisorSettings
from .._supervisor import Supervisor

if TYPE_CHECKING:
    from ._primary import Primary

ReadyWhen = Literal["listening", "running"]


class SuperviseOptions(TypedDict, total=False):
    """The options of `supervise`: see `_settings.SupervisorSettings`."""

    grace: float
    startup_timeout: float
    hang_timeout: float
    restart_max: int
    restart_window: float
    max_requests: int
    max_rss: int
    max_lifetime: float
    recycle_jitter: float


@dataclass(frozen=True, slots=True)
class SupervisedWorker:
    """One worker, in `Supervision.workers()`. `state` is starting, ready, silent, draining or killed."""

    id: int
    slot: int | None
    generation: int
    state: str


class Supervised(Supervisor):
    """The supervisor, with what the primary of a forking program tells it (see `_flock.Flock`)."""

    wants_reports = True

    def __init__(self, settings: SupervisorSettings, ready: ReadyWhen, numbers: Iterator[int]) -> None:
        super().__init__(settings, random, parallel=max(2, usable_cores()), numbers=numbers)
        self._ready_when = ready

    def forked(self, number: int, seat: int, now: float) -> None:
        """A worker was started: it was asked for here."""

    def attached(self, number: int, now: float) -> None:
        """Its loop runs."""
        if self._ready_when == "running":
            self.ready(number, now)

    def listening(self, number: int, now: float) -> None:
        """It listens."""
        if self._ready_when == "listening":
            self.ready(number, now)

    def reported(self, number: int, report: Report, now: float) -> None:
        """Its statistics."""
        self.report(number, report.statistics.requests, report.rss_bytes, now)

    def hung_up(self, number: int, now: float) -> None:
        """Its channel is closed: it is dying, and its end says how."""
        self._do(act.Close(number))


class Supervision:
    """Workers that are kept going: replaced when they die, block or grow too large, reloaded one after the other.

    `await supervision.wait()` ends when all is over. SIGTERM and SIGINT stop it with grace (a second one at once), SIGHUP
    reloads, SIGTTIN and SIGTTOU start one worker more or less.
    """

    def __init__(self, primary: Primary, settings: SupervisorSettings, ready: ReadyWhen, *, signals: bool) -> None:
        self._primary = primary
        self._settings = settings
        self._supervisor = Supervised(settings, ready, primary.numbers)
        self._tokens = itertools.count(1)
        self._waiting: dict[int, AnyOperation[None]] = {}  # for reloads and restarts
        self._waiters: list[AnyOperation[None]] = []  # for the end
        self._signals = signals
        self._outcome: BaseException | None = None
        self._is_over = False
        self._hub: Hub | None = None

    # -- for the primary -----------------------------------------------------------------------------------------------
    @property
    def flock(self) -> Supervised:
        """What takes the place of the flock."""
        return self._supervisor

    def begin(self, of: Hub) -> None:
        """The loop runs."""
        self._hub = of
        if self._signals:
            self._take_signals(of)
        self._supervisor.start(time.monotonic())
        self._primary.act()

    def do(self, action: Any) -> None:
        """Do what only a supervisor wants."""
        if isinstance(action, act.Settled):
            for token in action.tokens:
                if (op := self._waiting.pop(token, None)) is not None:
                    self._settle(op, RestartFailed(action.reason) if action.reason else None)
        elif isinstance(action, act.Exit):
            reason = self._supervisor.boot_failure
            self.over(NeverReady(reason or "no worker became ready") if action.code else None)

    def over(self, outcome: BaseException | None) -> None:
        """No worker is left, and none is started any more."""
        if self._is_over:
            return
        self._is_over, self._outcome = True, outcome
        waiters, self._waiters = self._waiters, []
        for op in (*waiters, *self._waiting.values()):
            self._settle(op, outcome)
        self._waiting.clear()

    @staticmethod
    def _settle(op: AnyOperation[None], error: BaseException | None) -> None:
        if error is None:
            op._succeed(None)
        else:
            op._fail(error)

    # -- for the program -----------------------------------------------------------------------------------------------
    @property
    def state(self) -> str:
        """One word: booting, serving, degraded, reloading, stopping or stopped."""
        return "stopped" if self._is_over else self._supervisor.state

    @property
    def restarts(self) -> int:
        """How many workers were replaced because they died, hung or did not become ready."""
        return self._supervisor.restarts

    def workers(self) -> list[SupervisedWorker]:
        """Who is there."""
        found = self._supervisor.workers.values()
        return [SupervisedWorker(each.number, each.slot, each.generation, each.state.value) for each in found]

    def wait(self, *, callback: ErrorFirst | None = None) -> Any:
        """Wait until all is over: after `stop()`, or a signal.

        Raises NeverReady when the first worker never became ready: then nothing is kept going, and nothing tried again.
        """
        op: AnyOperation[None] = begin(callback)
        if self._is_over:
            op._hub.loop.call_soon(self._settle, op, self._outcome)
        else:
            self._waiters.append(op)
            op._stop = lambda: self._waiters.remove(op) if op in self._waiters else None
        return op

    def reload(self, *, callback: ErrorFirst | None = None) -> Any:
        """Replace all workers by new ones, new before old. Done when the new generation serves.

        Raises RestartFailed when it cannot start: the workers from before go on.
        """
        check_callback(callback)
        if self._primary.steward is not None:
            self._primary.steward.reloading()
        return self._order(self._supervisor.reload, callback)

    def restart(self, worker_id: int, *, callback: ErrorFirst | None = None) -> Any:
        """Replace one worker, the new one before the old one. Raises RestartFailed."""
        return self._order(lambda token, now: self._supervisor.restart(token, worker_id, now), callback)

    def _order(self, give: Callable[[int, float], None], callback: ErrorFirst | None) -> Any:
        op: AnyOperation[None] = begin(callback)
        if self._is_over:
            op._hub.loop.call_soon(op._fail, RestartFailed("the cluster has ended"))
            return op
        token = next(self._tokens)
        self._waiting[token] = op
        give(token, time.monotonic())
        op._hub.loop.call_soon(self._primary.act)
        return op

    def scale(self, workers: int) -> int:
        """Want this many workers; returns how many it will be (1 to 1024)."""
        count = self._supervisor.scale(workers, time.monotonic())
        self._primary.act()
        return count

    def stop(self, *, fast: bool = False) -> None:
        """End: workers finish what they have, for at most `grace`; `fast` cuts it. `wait()` tells when it is done."""
        self._supervisor.stop(time.monotonic(), fast=fast)
        self._primary.act()

    # -- signals -------------------------------------------------------------------------------------------------------
    def _take_signals(self, of: Hub) -> None:
        reactions: Mapping[int, Callable[[], object]] = {
            signal.SIGTERM: lambda: self._told_to_end(signal.SIGTERM),
            signal.SIGINT: lambda: self._told_to_end(signal.SIGINT),
            signal.SIGHUP: lambda: self.reload(callback=lambda error, _: None),
            signal.SIGTTIN: lambda: self.scale(len(self._supervisor.slots) + 1),
            signal.SIGTTOU: lambda: self.scale(len(self._supervisor.slots) - 1),
        }
        for number, reaction in reactions.items():
            if signal.getsignal(number) != signal.SIG_IGN:
                of.loop.add_signal_handler(number, of.call, reaction)

    def _told_to_end(self, number: int) -> None:
        if not self._is_over:
            self.stop(fast=self._supervisor.stopping)
        elif self._hub is not None and self._hub.fatal is not None:  # the program goes on, with something else
            self._hub.fatal(SystemExit(128 + number))
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def make_settings(workers: int | None, options: SuperviseOptions) -> SupervisorSettings:
    """Return the settings of `supervise`. Raises UsageError for what cannot be meant."""
    count = usable_cores() if workers is None else workers
    if not 1 <= count <= limits.MAX_WORKERS:
        raise UsageError(
            f"supervise(workers={workers!r}): a number from 1 to {limits.MAX_WORKERS}, None for one a core"
        )
    known = SuperviseOptions.__annotations__
    for name, value in cast(Mapping[str, Any], options).items():
        if name not in known:
            raise UsageError(f"supervise({name}=...): there is {', '.join(sorted(known))}")
        if value < 0:
            raise UsageError(f"supervise({name}={value!r}): it cannot be negative")
    return SupervisorSettings(workers=count, **options)
