"""Keeps the promised number of workers: events and time in, actions out. Pure: no process, no clock, no randomness.

What lives here: `Supervisor`, which decides. What must not: doing anything (`_primary`), the table of states
(`_states`), the elementary steps (`_roster`).

The shape: every event changes a record, then `_reconcile` looks at what is and what is wanted and starts what is
missing. So nothing depends on the order in which signals and exits come, and a storm of them ends where one would.

Rules
* Boot: the first worker alone. When it cannot become ready, everything stops at once, with its reason and exit code.
* A slot has at most one serving worker and one that is coming. The new one is opened before the old one drains.
* Reload: the first new worker proves the code. If it fails, the old generation stays and the reload is answered with
  the reason. Once proven, the other slots follow, a few at a time; their failures are retried with growing delays.
* A dead worker is replaced at once while deaths are few, then at `_limits.RESTART_RATE_S` (see `_backoff`).
* Silence of the loop: no connections after `HEARTBEAT_MISSED_S`, killed and replaced after `hang_timeout`.
* A restart of one worker is a recycling that was asked for: its replacement has the code as it is now, and is ready first.
* While stopping nothing is started.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping

from .. import _limits as limits
from ._actions import BootFailed, Close, Exit, Settled
from ._backoff import Intensity, Random, delay_after_failures
from ._roster import Roster
from ._settings import SupervisorSettings
from ._states import End, Event, Failure, Recycle, Reload, Slot, Standby, State, Worker

NEVER_READY = 3  # ExitCode.NEVER_READY; this module imports none that knows of sockets
_STOPPING = "the server is stopping"
_ENDS_KEPT = 64


class Supervisor(Roster):
    """The state of a cluster. Each method takes an event and the time; `take_actions()` gives what follows from it.

    Args:
        settings: how many workers, and every limit.
        random: uniform in [0, 1), for jitter.
        parallel: how many workers may be starting at once.
        forgiving: a boot that fails waits for a reload instead of ending (development).
        patient: a boot that fails is tried again with growing delays (one application beside others).
        numbers: where workers' numbers come from.
    """

    def __init__(
        self,
        settings: SupervisorSettings,
        random: Random,
        *,
        parallel: int = 4,
        forgiving: bool = False,
        patient: bool = False,
        numbers: Iterator[int] | None = None,
    ) -> None:
        super().__init__(settings, random, numbers)
        self.generation = 1
        self.booted = False
        self.stopping = False
        self.restarts = 0
        self.recycled: Counter[str] = Counter()  # by kind
        self.ends: deque[End] = deque(maxlen=_ENDS_KEPT)  # of the last workers
        self.boot_failure = ""  # why no worker ever became ready, so far
        self.is_fast = False
        self._over = False
        self._exit_code = 0
        self._parallel = max(1, parallel)
        self._forgiving = forgiving
        self._patient = patient
        self._intensity = Intensity(limits.RESTART_BURST + settings.workers, random)
        self._standby = Standby()
        self._reload: Reload | None = None
        self._queued_reload: list[int] = []  # who waits for the reload after this one (or after the boot)

    @property
    def state(self) -> str:
        """One word for people: booting, failed, serving, degraded, reloading, stopping."""
        if self.stopping:
            return "stopping"
        if not self.booted:
            return "failed" if self.boot_failure else "booting"
        if self._reload is not None:
            return "reloading"
        ready = sum(1 for slot in self.slots if slot.serving is not None and slot.serving.state is State.READY)
        return "serving" if ready == len(self.slots) else "degraded"

    # -- what people ask for -------------------------------------------------------------------------------------------
    def start(self, now: float) -> None:
        """Begin."""
        self._last_tick = now
        self._reconcile(now)

    def reload(self, token: int, now: float) -> None:
        """Replace every worker by one with the code as it is now; `Settled` carries the token.

        During a reload another one is queued (the code may have changed since), and only one.
        """
        if self.stopping:
            self._do(Settled((token,), _STOPPING))
            return
        self._queued_reload.append(token)
        if not self.booted and self.slots[0].coming is None:
            self.slots[0].retry_at = now  # a failed boot that was forgiven: try again
        self._reconcile(now)

    def restart(self, token: int, number: int, now: float) -> None:
        """Replace one worker, the new one before the old one; `Settled` carries the token."""
        worker = self.workers.get(number)
        slot = self._slot_of(worker) if worker is not None else None
        if self.stopping or worker is None or slot is None or slot.serving is not worker:
            self._do(Settled((token,), _STOPPING if self.stopping else f"no worker {number} serves"))
            return
        worker.recycle = worker.recycle or Recycle("asked", "a restart was asked for")
        slot.restarts.append(token)
        slot.retry_at = min(slot.retry_at, now)
        self._reconcile(now)

    def scale(self, count: int, now: float) -> int:
        """Want this many workers; returns how many it will be (1 to `_limits.MAX_WORKERS`)."""
        count = max(1, min(count, limits.MAX_WORKERS))
        if self.stopping or count == len(self.slots):
            return len(self.slots)
        self._say("info", f"from {len(self.slots)} to {count} workers")
        for slot in self.slots[count:]:
            self._settle(slot.restarts, "there are fewer workers now")
            for worker in (slot.coming, slot.serving):
                if worker is not None:
                    self._dismiss(worker, now, "there are fewer workers now", give_back=True)
        del self.slots[count:]
        self.slots += [Slot(index) for index in range(len(self.slots), count)]
        self._reconcile(now)
        return count

    def stop(self, now: float, *, fast: bool = False) -> None:
        """End: drain everything; `fast` cuts what still runs."""
        if self.stopping and (not fast or self.is_fast):
            return
        self.stopping, self.is_fast = True, fast
        self._end_reload(_STOPPING)
        self._settle(self._queued_reload, _STOPPING)
        for slot in self.slots:
            self._settle(slot.restarts, _STOPPING)
        for worker in list(self.workers.values()):
            self._dismiss(worker, now, _STOPPING, fast=fast)
        self._reconcile(now)

    # -- what workers do -----------------------------------------------------------------------------------------------
    def imported(self, number: int, now: float) -> None:
        """A standby worker has the application."""
        worker = self.workers.get(number)
        if worker is not None and worker.slot is None and worker.move(Event.IMPORTED):
            self._standby.failures.clear()
            self._reconcile(now)

    def ready(self, number: int, now: float) -> None:
        """A worker can take connections."""
        worker = self.workers.get(number)
        slot = self._slot_of(worker) if worker is not None else None
        if worker is None or slot is None or not worker.move(Event.READY):
            return
        old = self._install(worker, slot, now)
        if old is not None:
            self._replaced(old, now)
        self._settle(slot.restarts, "")
        self.booted, self.boot_failure = True, ""
        reload = self._reload
        if reload is not None and worker.generation == reload.generation:
            reload.proven = True
            self.generation = reload.generation
        self._reconcile(now)

    def _replaced(self, old: Worker, now: float) -> None:
        """Another one has its slot: let it go."""
        if old.recycle is not None:
            self.recycled[old.recycle.kind] += 1
        why = f"recycled: {old.recycle.text}" if old.recycle is not None else "reloaded"
        self._dismiss(old, now, why, give_back=True)

    def failed(self, number: int, failure: Failure, now: float) -> None:
        """A worker reported why it cannot become ready; its exit follows, or it is killed."""
        worker = self.workers.get(number)
        if worker is not None and worker.failure is None:
            worker.failure = failure
            worker.deadline = min(worker.deadline, now + limits.DRAIN_KILL_MARGIN_S)

    def leaving(self, number: int, now: float) -> None:
        """A worker drains because somebody else told it so: its slot is free at once."""
        worker = self.workers.get(number)
        if worker is not None and worker.is_serving:
            self._vacate(worker)
            worker.move(Event.DRAIN)
            worker.why = "it was told to leave (SIGTERM)"
            worker.deadline = now + self.settings.grace + limits.DRAIN_KILL_MARGIN_S
            self._do(Close(number))
            self._reconcile(now)

    def exited(self, number: int, how: str, now: float) -> None:
        """A process is gone; `how` says by what ("exit code 1", "SIGSEGV")."""
        worker = self.workers.pop(number, None)
        if worker is None:
            return
        served, coming = self._vacate(worker)
        if self.stopping:
            pass
        elif served is not None:
            self._died(served, worker, f"died ({how})", now)
        elif coming is not None:
            self._not_ready(coming, worker, worker.failure or Failure(f"it died before it was ready ({how})"), now)
        elif worker.slot is None and worker.state in (State.STARTING, State.STANDBY):
            self._standby_failed(worker, worker.failure or Failure(f"it died ({how})"), now)
        self.ends.append(End(number, worker.slot, worker.generation, worker.why or f"died ({how})", how, now))
        self._reconcile(now)

    def report(self, number: int, requests: int, rss_bytes: int, now: float) -> None:
        """A worker's statistics: recycle it when it is over a limit."""
        worker = self.workers.get(number)
        if worker is None or not worker.is_serving or worker.recycle is not None:
            return
        settings, spread, age_s = self.settings, worker.spread, now - worker.ready_at
        if settings.max_requests and requests >= settings.max_requests * spread:
            worker.recycle = Recycle("requests", f"{requests} requests served")
        elif settings.max_rss and rss_bytes >= settings.max_rss * spread:
            worker.recycle = Recycle("memory", f"{rss_bytes >> 20} MiB of memory")
        elif settings.max_lifetime and age_s >= settings.max_lifetime * spread:
            worker.recycle = Recycle("lifetime", f"{age_s:.0f} s of life")
        if worker.recycle is not None:
            self._reconcile(now)

    # -- time ----------------------------------------------------------------------------------------------------------
    def tick(self, now: float, beats: Mapping[int, float]) -> None:
        """Time passes. `beats` is when each worker's loop last turned."""
        self._take_beats(now, beats)
        for worker in list(self.workers.values()):
            self._look_at(worker, now)
        self._reconcile(now)

    def _look_at(self, worker: Worker, now: float) -> None:
        state, silent_s = worker.state, now - worker.last_beat
        if now >= worker.deadline and state is not State.KILLED:
            if state is State.DRAINING and not self.is_fast:
                self._say("warning", f"worker {worker.number} did not leave within its grace: killed")
            self._kill(worker)
        elif self._feel_pulse(worker, now):
            pass
        elif state is State.SILENT and self.settings.hang_timeout and silent_s >= self.settings.hang_timeout:
            self._kill(worker, stack=True)
            served, _ = self._vacate(worker)  # at once: a process that waits for a disk may not even die
            if served is not None:
                self._died(served, worker, f"was blocked for {silent_s:.1f} s", now)
        elif state is State.STARTING and now - worker.started_at >= self.settings.startup_timeout:
            worker.failure = worker.failure or Failure(f"not ready within {self.settings.startup_timeout:g} s")
            self._kill(worker, stack=True)

    # -- failures ------------------------------------------------------------------------------------------------------
    def _died(self, slot: Slot, worker: Worker, what: str, now: float) -> None:
        self.restarts += 1
        worker.why = what
        delay = self._intensity.delay(now)
        slot.retry_at = now + delay
        self._say("error", f"worker {worker.number} {what}: replaced {f'in {delay:.1f} s' if delay else 'at once'}")

    def _not_ready(self, slot: Slot, worker: Worker, failure: Failure, now: float) -> None:
        worker.why = f"did not become ready: {failure.reason}"
        if not self.booted:
            self._boot_failed(slot, failure, now)
            return
        self.restarts += 1
        slot.failures.append(now)
        delay = delay_after_failures(slot.failures, now, self.settings, self._random)
        slot.retry_at = now + delay
        detail = "" if slot.said == failure.details else failure.details
        slot.said = failure.details
        # The details end with the reason: a failure is told once.
        why = "" if detail else f": {failure.reason}"
        self._say("error", f"worker {worker.number} did not become ready{why}", detail)
        self._restart_failed(slot, failure.reason)
        reload = self._reload
        if reload is not None and worker.generation == reload.generation:
            reload.failures += 1
            if not reload.proven:
                self._reload_failed(failure.reason, now)
            elif reload.failures >= self.settings.restart_max:
                self._settle(reload.tokens, f"some workers still run the old code, trying on: {failure.reason}")

    def _restart_failed(self, slot: Slot, reason: str) -> None:
        """The replacement that was asked for did not start: the worker from before stays."""
        self._settle(slot.restarts, reason)
        old = slot.serving
        if old is not None and old.recycle is not None and old.recycle.kind == "asked":
            old.recycle = None

    def _boot_failed(self, slot: Slot, failure: Failure, now: float) -> None:
        slot.retry_at = math.inf
        self.boot_failure = failure.reason
        if failure.exit_code is not None:
            message = failure.reason
        else:
            message = "the application never became ready" + ("" if failure.details else f": {failure.reason}")
        if self._forgiving:
            self._say("error", f"{message}; waiting for a change", failure.details)
            self._settle(self._queued_reload, failure.reason)
            return
        exit_code = NEVER_READY if failure.exit_code is None else failure.exit_code
        if self._patient:
            slot.failures.append(now)
            delay = delay_after_failures(slot.failures, now, self.settings, self._random)
            slot.retry_at = now + delay
            if len(slot.failures) == 1 or slot.said != failure.details:
                self._say("error", f"{message}; tried again", failure.details)
            slot.said = failure.details
            self._settle(self._queued_reload, failure.reason)
            self._do(BootFailed(exit_code))
            return
        self._exit_code = exit_code
        self._say("critical", message, failure.details)
        self.stop(now)

    def _standby_failed(self, worker: Worker, failure: Failure, now: float) -> None:
        worker.why = f"did not become ready: {failure.reason}"
        failures = self._standby.failures
        failures.append(now)
        self._standby.retry_at = now + delay_after_failures(failures, now, self.settings, self._random)
        if len(failures) == 1:
            self._say("error", f"standby worker {worker.number} failed: {failure.reason}", failure.details)

    # -- reload --------------------------------------------------------------------------------------------------------
    def _begin_reload(self, tokens: list[int], now: float) -> None:
        candidate = max((w.generation for w in self.workers.values()), default=self.generation) + 1
        self._reload = Reload(candidate, tokens)
        for slot in self.slots:
            slot.retry_at = min(slot.retry_at, now)
            slot.failures.clear()
        for worker in list(self.workers.values()):
            if worker.state is State.DRAINING and worker.generation < candidate - limits.MAX_OLD_GENERATIONS:
                self._say("warning", f"worker {worker.number} still drains after two more reloads: killed")
                self._kill(worker)
            elif worker.state is State.STARTING:
                self._dismiss(worker, now, "a reload began")  # it may have the code from before

    def _reload_failed(self, reason: str, now: float) -> None:
        """The new code cannot start: the old generation stays."""
        for slot in self.slots:
            if slot.coming is not None and slot.serving is not None:
                self._dismiss(slot.coming, now, "the reload failed")
            elif slot.coming is not None:
                slot.coming.generation = self.generation  # nobody serves here: whatever starts is welcome
        self._say("error", "reload failed: the workers from before go on")
        self._end_reload(reason)

    def _end_reload(self, reason: str) -> None:
        reload, self._reload = self._reload, None
        if reload is not None:
            self._settle(reload.tokens, reason)

    def _settle(self, tokens: list[int], reason: str) -> None:
        if tokens:
            self._do(Settled(tuple(tokens), reason))
            tokens.clear()

    # -- from what is to what is wanted --------------------------------------------------------------------------------
    def _reconcile(self, now: float) -> None:
        if self.stopping:
            if not self.workers and not self._over:
                self._over = True
                self._do(Exit(self._exit_code))
            return
        if not self.booted:
            if self.slots[0].coming is None and now >= self.slots[0].retry_at:
                self._spawn(self.slots[0], self.generation, now)
            return
        self._look_at_reload(now)
        wanted = self.generation if self._reload is None else self._reload.generation
        self._fill_empty(now, wanted)
        self._replace_old(now, wanted)
        if self._reload is None and all(slot.serving is not None for slot in self.slots):
            self._keep_standbys(now, wanted)

    def _look_at_reload(self, now: float) -> None:
        reload = self._reload
        if reload is not None and all(
            slot.serving and slot.serving.generation == reload.generation for slot in self.slots
        ):
            self._say("info", f"reloaded: {len(self.slots)} workers of generation {reload.generation}")
            self._end_reload("")
        if self._reload is None and self._queued_reload:
            tokens, self._queued_reload = self._queued_reload, []
            self._begin_reload(tokens, now)

    # Each looks at every slot once and counts once: with a thousand workers this is what the primary does all the time.
    def _fill_empty(self, now: float, wanted: int) -> None:
        room = self._parallel - self._starting()
        for slot in self.slots:
            if slot.serving is None and slot.coming is None and now >= slot.retry_at:
                if room <= 0:
                    return
                self._fill(slot, wanted, now)
                room -= 1

    def _replace_old(self, now: float, wanted: int) -> None:
        """One at a time until the code is proven, then a quarter of the workers."""
        room = -1  # not counted yet
        for slot in self.slots:
            old = slot.serving
            if old is None or slot.coming is not None or now < slot.retry_at:
                continue
            is_outdated = old.generation != wanted
            if not is_outdated and (old.recycle is None or self._reload is not None):
                continue
            if room < 0:
                unproven = self._reload is not None and not self._reload.proven
                most = 1 if unproven else max(1, len(self.slots) // 4)
                room = max(0, min(self._parallel - self._starting(), most - self._replacing()))
            if not room:
                return
            room -= 1
            if is_outdated:
                self._spawn(slot, wanted, now)
            elif old.recycle is not None:
                self._say("info", f"worker {old.number} is replaced: {old.recycle.text}")
                self._fill(slot, wanted, now)

    def _fill(self, slot: Slot, wanted: int, now: float) -> None:
        """Fill a slot with a standby that has the wanted code, else with a new process."""
        standby = self._standby_with(wanted)
        if standby is not None:
            self._activate(standby, slot, now)
        else:
            self._spawn(slot, wanted, now)

    def _keep_standbys(self, now: float, wanted: int) -> None:
        """Keep spare workers of the current code; they come last, when every slot is filled."""
        spare = 0
        for worker in list(self.workers.values()):
            if worker.slot is None and worker.state in (State.STARTING, State.STANDBY):
                if worker.generation != wanted:
                    self._dismiss(worker, now, "it holds the code from before")
                else:
                    spare += 1
        while spare < self.settings.standby and now >= self._standby.retry_at and self._starting() < self._parallel:
            self._spawn(None, wanted, now)
            spare += 1
