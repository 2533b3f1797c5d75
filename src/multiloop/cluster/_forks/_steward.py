"""What `multiloop run` adds to a program that forks itself: commands over a control socket, a service manager that is told
how it goes, logs that are opened anew, an environment for each worker.

What lives here: `Steward`. What must not: the program's workers (`_primary`), the command line (`cli`).

    the primary's loop runs ─▶ control socket ─▶ [a worker is ready] ─▶ READY=1 ─▶ … ─▶ STOPPING=1 ─▶ the program ends

A program that forks nobody has no steward at work: then NOTIFY_SOCKET stays in its environment, for itself.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from ... import _limits as limits
from ... import logs
from ..._wire import messages
from ...errors import ConfigError, RestartFailed
from ...loop import Hub
from .._control import CommandFailed, ControlServer
from .._environment import filled_in
from .._log_desk import LogDesk
from .._notify import Notifier
from .._status import raw, status
from ._sampling import sample

if TYPE_CHECKING:
    from ._primary import Primary
    from ._supervision import ReadyWhen, Supervision
    from ._worker import Worker


@dataclass(frozen=True, slots=True)
class Stewardship:
    """What a steward is told."""

    name: str  # what people call the program
    target: str  # the script, or the module
    control: str | None  # path of the control socket; None: the default place; "": none
    ready: ReadyWhen  # when a worker, and so the program, is ready
    env: tuple[tuple[str, str], ...] = ()  # of each worker; {slot} and {worker} are filled in


class _LogEnd(NamedTuple):
    """A worker, as the log desk talks to it."""

    number: int
    app: str
    pid: int
    send: Callable[[Any], object]


class Steward:
    """Looks after the primary of a program that was started by `multiloop run`."""

    def __init__(self, primary: Primary, told: Stewardship) -> None:
        self._primary = primary
        self._told = told
        self._started_at = time.time()
        self._ends: dict[int, _LogEnd] = {}
        self._hub: Hub | None = None
        self._control: ControlServer | None = None
        self._desk: LogDesk | None = None
        self._notifier: Notifier | None = None
        self._is_announced = self._is_reloading = self._is_stopping = False
        self.failure: ConfigError | None = None  # the control socket could not be made
        self._commands: dict[str, Callable[[Mapping[str, Any]], Awaitable[Any]]] = {
            "status": self._status,
            "look": self._look,
            "reload": self._reload,
            "restart": self._restart,
            "scale": self._scale,
            "stop": self._stop,
            "logs": self._logs,
        }

    # -- for the primary -----------------------------------------------------------------------------------------------
    def loop_runs(self, of: Hub) -> None:
        """The primary has a loop."""
        self._hub = of
        self._desk = LogDesk(of.loop)
        self._notifier = Notifier()
        self._is_announced = self._is_reloading = self._is_stopping = False
        of.loop.call_soon(self._begin, of)

    def _begin(self, of: Hub) -> None:
        if of is not self._hub:
            return
        if self._told.control != "":
            try:
                self._control = ControlServer(self._told.control, self._answer)
                self._control.start()
            except ConfigError as error:
                self.failure, self._control = error, None
                if of.fatal is not None:
                    of.fatal(error)
                return
        if self._notifier is not None and self._notifier.is_heard:
            self._look_round(of)

    def end(self) -> None:
        """The program ends."""
        if self._control is not None:
            self._control.close()
        if self._desk is not None:
            self._desk.close()
        if self._notifier is not None:
            self._say_stopping()
            self._notifier.close()
        self._hub = self._control = self._desk = self._notifier = None
        self._ends.clear()

    def environment(self, number: int, slot: int) -> dict[str, str]:
        """Return the variables of a worker that is started."""
        return filled_in(self._told.name, self._told.env, number, slot)

    def joined(self, worker: Worker) -> None:
        """A worker can be talked to."""
        if self._desk is not None:
            end = _LogEnd(worker.id, self._told.name, worker.process.pid or 0, worker.send_control)
            self._ends[worker.id] = end
            self._desk.joined(end)

    def left(self, worker: Worker) -> None:
        """A worker is gone."""
        end = self._ends.pop(worker.id, None)
        if end is not None and self._desk is not None:
            self._desk.left(end)

    def logged(self, worker: Worker, message: messages.LogLines) -> None:
        """A worker sent lines of its log."""
        end = self._ends.get(worker.id)
        if end is not None and self._desk is not None:
            self._desk.heard(end, message)

    # -- logs ----------------------------------------------------------------------------------------------------------
    def signalled(self, number: int, frame: FrameType | None) -> None:
        """SIGUSR1: log files were moved away."""
        logs.reopen()
        if self._hub is not None:
            self._hub.loop.call_soon_threadsafe(self._tell_all, messages.ReopenLogs())

    def _tell_all(self, message: Any) -> None:
        for worker in list(self._primary.workers.values()):
            worker.send_control(message)

    # -- the service manager -------------------------------------------------------------------------------------------
    def reloading(self) -> None:
        """A reload was asked for."""
        if self._notifier is not None and self._is_announced and not self._is_stopping:
            self._is_reloading = True
            self._notifier.reloading()

    def _look_round(self, of: Hub) -> None:
        """Tell the service manager what is new; on the loop, which is what its watchdog watches."""
        notifier = self._notifier
        if notifier is None or of is not self._hub:
            return
        of.loop.call_later(limits.TICK_S, self._look_round, of)
        notifier.ping(time.monotonic())
        supervision = self._primary.supervision
        if self._primary.stopping or (supervision is not None and supervision.state in ("stopping", "stopped")):
            self._say_stopping()
        elif not self._is_announced and self._is_ready(supervision):
            self._is_announced = True
            notifier.say("READY=1", f"STATUS={self._summary()}")
        elif self._is_reloading and (supervision is None or supervision.state != "reloading"):
            self._is_reloading = False
            notifier.say("READY=1")
        notifier.status(self._summary())

    def _is_ready(self, supervision: Supervision | None) -> bool:
        if supervision is not None:
            return bool(supervision.flock.booted)
        names = ("listening",) if self._told.ready == "listening" else ("online", "listening")
        return any(worker.state.value in names for worker in self._primary.workers.values())

    def _say_stopping(self) -> None:
        if self._notifier is not None and not self._is_stopping:
            self._is_stopping = True
            lines, supervision = ["STOPPING=1"], self._primary.supervision
            if supervision is not None:  # it may take longer than the manager waits by itself
                needed_s = supervision.flock.settings.grace + limits.FAST_STOP_S + limits.DRAIN_KILL_MARGIN_S + 1.0
                lines.append(f"EXTEND_TIMEOUT_USEC={round(needed_s * 1e6)}")
            self._notifier.say(*lines)

    def _summary(self) -> str:
        program = sample(self._primary, self._told.name, self._told.target, self._started_at).apps[0]
        ready = sum(1 for record in self._primary.flock.workers.values() if record.is_serving)
        where = f", {', '.join(program.listen)}" if program.listen else ""
        return f"{program.state}, {ready} of {program.wanted or len(self._primary.workers)} workers{where}"

    # -- what people ask for -------------------------------------------------------------------------------------------
    async def _answer(self, command: str, arguments: Mapping[str, Any]) -> Any:
        found = self._commands.get(command)
        if found is None:
            raise CommandFailed(f"unknown command {command!r}")
        app = arguments.get("app")
        if app is not None and app != self._told.name:
            raise CommandFailed(f"no application {app!r} here, only {self._told.name}")
        return await found(arguments)

    def _supervision(self, command: str) -> Supervision:
        found = self._primary.supervision
        if found is None:
            raise CommandFailed(
                f"{command}: {self._told.name} forks its workers itself, and decides itself how many and which; "
                "multiloop run --workers N, or cluster.supervise in it, can be told"
            )
        return found

    async def _status(self, arguments: Mapping[str, Any]) -> Any:
        return status(sample(self._primary, self._told.name, self._told.target, self._started_at))

    async def _look(self, arguments: Mapping[str, Any]) -> Any:
        return raw(sample(self._primary, self._told.name, self._told.target, self._started_at))

    async def _reload(self, arguments: Mapping[str, Any]) -> Any:
        supervision = self._supervision("reload")
        try:
            await supervision.reload()
        except RestartFailed as error:
            raise CommandFailed(f"reload failed: {error}") from None
        return {"generation": supervision.flock.generation, "workers": len(supervision.flock.slots)}

    async def _restart(self, arguments: Mapping[str, Any]) -> Any:
        supervision, number = self._supervision("restart"), arguments.get("worker")
        record = supervision.flock.workers.get(number) if type(number) is int else None
        if record is None:
            raise CommandFailed(f"restart: no worker {number!r} (multiloop status shows their numbers)")
        slot = record.slot
        try:
            await supervision.restart(record.number)
        except RestartFailed as error:
            raise CommandFailed(f"restart failed: {error}") from None
        new = None if slot is None else supervision.flock.slots[slot].serving
        return {"worker": new.number if new is not None else None, "slot": slot}

    async def _scale(self, arguments: Mapping[str, Any]) -> Any:
        supervision, workers = self._supervision("scale"), arguments.get("workers")
        if type(workers) is not int or not 1 <= workers <= limits.MAX_WORKERS:
            raise CommandFailed(f"scale: a number of workers from 1 to {limits.MAX_WORKERS} is needed")
        return {"workers": supervision.scale(workers)}

    async def _stop(self, arguments: Mapping[str, Any]) -> Any:
        """With a supervisor its grace; else what SIGTERM does to this program."""
        if self._primary.supervision is not None:
            self._primary.supervision.stop()
        elif self._hub is not None:
            self._hub.loop.call_later(limits.TICK_S, signal.raise_signal, signal.SIGTERM)  # after the answer
        return {"pid": os.getpid()}

    async def _logs(self, arguments: Mapping[str, Any]) -> Any:
        if self._desk is None:
            raise CommandFailed("logs: the program ends")
        return await self._desk.answer(arguments, lambda name: arguments.get("app") in (None, name))
