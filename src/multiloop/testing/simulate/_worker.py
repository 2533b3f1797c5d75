"""A simulated worker: a life of its own, a service of its own, the product's `Intake` between the two.

What lives here: `SimProcess` (the face of `cluster._process.Process`, for the primary) and `SimService` (what a worker
does with its connections). What must not: deciding anything about workers.

    spawn ─▶ import ─▶ [Imported … Activate] ─▶ lifespan ─▶ Ready ─▶ connections ─▶ Drain ─▶ exit
"""

from __future__ import annotations

import time as _time
from typing import TYPE_CHECKING, Any

from ..._wire import messages as wire
from ...cluster._intake import Intake
from ...stats import HttpStatistics
from ._invariants import demand
from ._kernel import Connection, Handoff
from ._world import Machine

if TYPE_CHECKING:
    from ._host import SimHost

_BEAT_S = 0.25
_REPORT_S = 1.0
_LAST_WORDS_S = 0.5


class SimProcess:
    """A worker as the primary has it, and the worker itself."""

    def __init__(self, host: SimHost, birth: Any, heard: Any, exited: Any) -> None:
        self.host = host
        self.world = host.world
        start = birth.start
        self.number, self.generation, self.app = start.number, start.generation, start.settings.called
        self.machine = Machine(self.world, f"worker {self.number}")
        self.started_at = _time.time()
        self.report: Any = None
        self.ready: Any = None
        self.pid = self.number
        self.page = self
        self.is_ready = False
        self.is_leaving = False
        self.is_standby = start.standby
        self.served = 0
        self._heard, self._exited = heard, exited
        self.handoff, theirs = Handoff.pair(host.kernel_table, host.machine, self.machine)
        self.receiving = theirs.copy_for(host.machine)
        self._theirs = theirs
        self.service = SimService(self)
        self.intake: Intake | None = None
        self._said_at = self._told_at = 0.0  # when the last message arrives: they keep their order
        self._is_gone = False
        plan = host.plan_for(self)
        self._plan = plan
        self.world.at(plan.start_s, self.machine, self._imported)

    # -- the primary's side --------------------------------------------------------------------------------------------
    def last_beat(self) -> float:
        """When its loop last turned."""
        if not self.is_ready:
            return 0.0
        if self.machine.is_stopped:
            return self.machine.stopped_at
        return self.world.now - (self.world.now % _BEAT_S)

    def requests(self) -> int:
        """How many requests are in progress, as its page says."""
        return self.service.active

    def send(self, message: Any, descriptors: tuple[int, ...] = ()) -> None:
        """A message to the worker."""
        self._told_at = max(self.world.now + self.world.soon(), self._told_at + 1e-6)
        self.world.at(self._told_at - self.world.now, self.machine, self._received, message)

    def signal(self, number: int) -> None:
        """A signal: SIGTERM drains, the others kill."""
        if number == 15:
            self.world.at(self.world.soon(), self.machine, self.terminated)
        else:
            self.kill()

    def kill(self, *, stack: bool = False) -> None:
        """SIGKILL. It may take a moment."""
        self.host.died.add(self.machine)
        self.world.at(self._plan.reap_s, None, self.die, "SIGKILL")

    def look_at_silence(self) -> None:
        """Nothing to see here."""

    def end(self) -> None:
        """Kill it on the spot."""
        self.die("SIGKILL")

    def die(self, how: str) -> None:
        """The process is gone; its last messages still come."""
        if self._is_gone:
            return
        self._is_gone = True
        self.world.note(f"{self.machine.name} is gone: {how}")
        if self.is_ready and not self.is_leaving and how != "exit code 0":
            self.host.worker_died(self)
        self.host.kernel_table.dead(self.machine)
        self.machine.die()
        self._theirs.close()
        self._tell(self._over, how)

    def _over(self, how: str) -> None:
        self._exited(self, how)
        self.handoff.close()
        self.receiving.close()

    # -- the worker's side ---------------------------------------------------------------------------------------------
    def say(self, message: Any) -> None:
        """A message to the primary."""
        self._tell(self._heard, self, message)

    def _tell(self, callback: Any, *args: Any) -> None:
        """Let the primary hear of something, in the order in which it was said."""
        self._said_at = max(self.world.now + self.world.soon(), self._said_at + 1e-6)
        self.world.at(self._said_at - self.world.now, self.host.machine, callback, *args)

    def _imported(self) -> None:
        if self._plan.fails and not self.is_standby:
            self.say(wire.Failed("RuntimeError: no luck today", "Traceback: no luck today"))
            self.world.at(0.01, self.machine, self.die, "exit code 3")
        elif self.is_standby:
            self.say(wire.Imported())
        else:
            self.world.at(self._plan.lifespan_s, self.machine, self._begin)

    def _begin(self) -> None:
        if self.is_leaving:
            return
        self.is_ready = True
        self.intake = Intake(self.machine.loop, self._theirs, self.service, lambda _: 2, bare=True)  # type: ignore[arg-type]
        self.ready = wire.Ready(self._plan.capacity, "simulated")
        self.say(self.ready)
        self.world.at(_REPORT_S, self.machine, self._reports)

    def _reports(self) -> None:
        self.say(wire.Report(50 << 20, self.service.statistics()))
        self.world.at(_REPORT_S, self.machine, self._reports)

    def _received(self, message: Any) -> None:
        if isinstance(message, wire.Activate):
            self.is_standby = False
            self.world.at(self._plan.lifespan_s, self.machine, self._begin)
        elif isinstance(message, wire.Drain):
            self._drain(message.grace_s, message.give_back)

    def terminated(self) -> None:
        """SIGTERM from outside, or before it was ready."""
        if not self.is_ready:
            self.is_leaving = True
            self.die("exit code 0")
        elif not self.is_leaving:
            self.say(wire.Leaving())
            self._drain(self.host.app.settings.supervisor.grace, True)

    def _drain(self, grace_s: float, give_back: bool) -> None:
        if not self.is_ready:
            self.die("exit code 0")
            return
        if self.is_leaving:
            if not grace_s:
                self.service.cut()
            return
        self.is_leaving = True
        assert self.intake is not None
        self.intake.read_all()
        self.service.begin_drain(self.intake.give_back if give_back else None)
        if not grace_s:
            self.service.cut()
        self._settling_until = 0.0
        self._leave_when_empty(self.world.now + grace_s)

    def _leave_when_empty(self, deadline: float) -> None:
        assert self.intake is not None
        if not self.service.connections:
            if self.intake._returns or self.intake._in_flight:
                self._settling_until = self._settling_until or max(deadline, self.world.now + _LAST_WORDS_S)
                if self.world.now < self._settling_until:
                    self.world.at(0.02, self.machine, self._leave_when_empty, deadline)
                    return
                for given in (*self.intake._returns, *self.intake._in_flight.values()):
                    self.host.excused.add(self.host.kernel_table.open[given.sock.fileno()][1])
            self.intake.flush()
            self.intake.close()
            self.die("exit code 0")
        elif self.world.now >= deadline:
            self.service.cut()
            self.world.at(0.02, self.machine, self._leave_when_empty, deadline)
        else:
            self.world.at(0.05, self.machine, self._leave_when_empty, deadline)


class SimService:
    """Serves connections, as the HTTP service does, without HTTP."""

    def __init__(self, process: SimProcess) -> None:
        self._process = process
        self._world = process.world
        self.connections: dict[Connection, _Served] = {}
        self.requests = 0
        self.active = 0
        self.draining = False
        self._give_back: Any = None

    def statistics(self) -> HttpStatistics:
        """What it did so far."""
        process = self._process
        return HttpStatistics(
            len(self.connections), self.active, process.host.requests_shown(process), 0, 0, self.draining
        )

    def adopt(
        self,
        sock: Any,
        *,
        listener: int,
        prefix: bytes,
        kept: bool = False,
        on_first_byte: Any = None,
        on_closed: Any = None,
    ) -> None:
        """Serve a connection. Nobody else may be serving it."""
        machine = self._process.machine
        descriptor = sock.fileno()
        owner, connection = self._process.host.kernel_table.open[descriptor]
        demand(owner is machine, f"{connection} is adopted with somebody else's descriptor")
        demand(
            connection.serving is None,
            f"{connection} has two owners: {connection.serving and connection.serving.name} and {machine.name}",
        )
        connection.serving = machine
        served = self.connections[connection] = _Served(self, connection, descriptor, on_first_byte, on_closed)
        connection.client.owner = served
        served.look()

    def begin_drain(self, give_back: Any = None) -> None:
        """Find other owners for idle connections."""
        self.draining, self._give_back = True, give_back
        for served in list(self.connections.values()):
            self.idle_while_draining(served)

    def idle_while_draining(self, served: _Served) -> None:
        """Give it back, or close it a second later."""
        if served.is_busy:
            return
        kernel, machine = self._process.host.kernel_table, self._process.machine
        if self._give_back is not None:
            copy = kernel.give(machine, served.connection)
            if copy is not None:
                served.connection.serving = None
                if self._give_back(_Copy(kernel, copy), 0):
                    served.forget()
                    return
                served.connection.serving = machine
                kernel.close(copy)
        self._process.host.excused.add(served.connection)  # it ends with a FIN, whatever the client does meanwhile
        self._world.at(1.0, machine, served.close_if_idle)

    def cut(self) -> None:
        """Close everything: the grace is over."""
        for served in list(self.connections.values()):
            self._process.host.excused.add(served.connection)
            served.close()


class _Copy:
    """A duplicate, with the face of a socket."""

    def __init__(self, kernel: Any, descriptor: int) -> None:
        self._kernel = kernel
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        self._kernel.close(self._descriptor)


class _Served:
    """One connection in one worker."""

    def __init__(
        self, service: SimService, connection: Connection, descriptor: int, on_first_byte: Any, on_closed: Any
    ) -> None:
        self.service = service
        self.connection = connection
        self._descriptor = descriptor
        self._on_first_byte = on_first_byte
        self._on_closed = on_closed
        self.is_busy = False
        self._is_over = False

    def look(self) -> None:
        """Something may have come."""
        if not self._is_over:
            world = self.service._world
            world.at(world.soon(), self.service._process.machine, self._read)

    def _read(self) -> None:
        connection = self.connection
        if self._is_over or self.is_busy or connection.serving is not self.service._process.machine:
            return
        if connection.unread:
            if self._on_first_byte is not None:
                self._on_first_byte()
                self._on_first_byte = None
            machine = self.service._process.machine
            if machine not in connection.readers:
                connection.readers.append(machine)
            request = connection.unread.popleft()
            connection.reads += 1
            self.is_busy = True
            self.service.active += 1
            takes = self.service._process.host.request_time(request)
            self.service._world.at(takes, machine, self._answer, request)
        elif connection.has_eof:
            self.close()

    def _answer(self, request: int) -> None:
        service = self.service
        if self._is_over:
            return
        self.is_busy = False
        service.active -= 1
        service.requests += 1
        service._process.served += 1
        service._world.at(service._world.soon(), None, self.connection.client.answered, self.connection, request)
        if service.draining:
            service.idle_while_draining(self)
        else:
            self.look()

    def close_if_idle(self) -> None:
        if not self.is_busy and not self.connection.unread:
            self.close()

    def close(self) -> None:
        """End it: the client sees that at once."""
        if not self._is_over:
            self.service._process.host.kernel_table.shut(self.connection)
            self._leave()
            if self._on_closed is not None:
                self._on_closed()

    def forget(self) -> None:
        """It is somebody else's now; the client notices nothing."""
        self._leave()
        if self._on_closed is not None:
            self._on_closed()

    def _leave(self) -> None:
        self._is_over = True
        if self.is_busy:
            self.service.active -= 1
        del self.service.connections[self.connection]
        if self.connection.serving is self.service._process.machine:
            self.connection.serving = None
        if self.connection.client.owner is self:
            self.connection.client.owner = None
        self.service._process.host.kernel_table.close(self._descriptor)
