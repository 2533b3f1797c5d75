"""A cluster without processes: it obeys a supervisor and lets its workers do what a test says."""

from __future__ import annotations

from collections.abc import Callable

from multiloop.cluster import _actions as act
from multiloop.cluster._settings import SupervisorSettings
from multiloop.cluster._states import Failure, State
from multiloop.cluster._supervisor import Supervisor

STEP_S = 0.4


class World:
    """The supervisor's surroundings. `check` looks after every event at what must always hold."""

    def __init__(
        self,
        random: Callable[[], float] = lambda: 0.5,
        *,
        parallel: int = 2,
        forgiving: bool = False,
        **settings: float | str,
    ) -> None:
        self.now = 1000.0
        self.supervisor = Supervisor(
            SupervisorSettings(**settings),  # type: ignore[arg-type]
            random,
            parallel=parallel,
            forgiving=forgiving,
        )
        self.alive: set[int] = set()
        self.standby: set[int] = set()  # those spawned as standby and not activated
        self.open: set[int] = set()
        self.frozen: set[int] = set()
        self.terminating: set[int] = set()
        self.killed: set[int] = set()
        self.said: list[str] = []
        self.settled: dict[int, str] = {}
        self.stacks: list[int] = []
        self.exit_code: int | None = None
        self.spawned = 0
        self.log: list[act.Action] = []
        self._next_token = 1
        self.supervisor.start(self.now)
        self.obey()

    # -- what tests do -------------------------------------------------------------------------------------------------
    def ready(self, number: int) -> None:
        self.supervisor.ready(number, self.now)
        self.obey()

    def imported(self, number: int) -> None:
        self.supervisor.imported(number, self.now)
        self.obey()

    def fail(self, number: int, reason: str = "ValueError: no", exit_code: int | None = None) -> None:
        self.supervisor.failed(number, Failure(reason, f"Traceback …\n{reason}", exit_code), self.now)
        self.obey()
        self.exit(number, "exit code 3")

    def exit(self, number: int, how: str = "SIGKILL") -> None:
        self.alive.discard(number)
        for others in (self.open, self.frozen, self.terminating, self.killed, self.standby):
            others.discard(number)
        self.supervisor.exited(number, how, self.now)
        self.obey()

    def reload(self) -> int:
        token, self._next_token = self._next_token, self._next_token + 1
        self.supervisor.reload(token, self.now)
        self.obey()
        return token

    def scale(self, count: int) -> None:
        self.supervisor.scale(count, self.now)
        self.obey()

    def stop(self, *, fast: bool = False) -> None:
        self.supervisor.stop(self.now, fast=fast)
        self.obey()

    def pass_time(self, seconds: float) -> None:
        """Let time pass in ticks; every worker's loop turns, except the frozen ones'."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + STEP_S)
            self.tick()

    def tick(self) -> None:
        beats = {number: self.now for number in self.alive if number not in self.frozen}
        self.supervisor.tick(self.now, beats)
        self.obey()

    def state(self, number: int) -> State:
        return self.supervisor.workers[number].state

    def numbers(self, *states: State) -> list[int]:
        return [n for n, worker in self.supervisor.workers.items() if not states or worker.state in states]

    def boot(self) -> list[int]:
        """Make everything ready; returns the numbers."""
        for _ in range(100):
            starting = self.numbers(State.STARTING)
            if not starting:
                break
            for number in starting:
                (self.imported if number in self.standby else self.ready)(number)
        return self.numbers(State.READY)

    def settle(self, rounds: int = 120) -> None:
        """Let everything good happen that can: starts succeed, what is to leave leaves, frozen loops turn again."""
        self.frozen.clear()
        for _ in range(rounds):
            for number in (*self.killed, *self.terminating):
                self.exit(number, "exit code 0")
            for number in self.numbers(State.STARTING):
                (self.imported if number in self.standby else self.ready)(number)
            self.pass_time(STEP_S)

    # -- what it does itself -------------------------------------------------------------------------------------------
    def obey(self) -> None:
        while actions := self.supervisor.take_actions():
            for action in actions:
                self.log.append(action)
                self._obey_one(action)
        self.check()

    def _obey_one(self, action: act.Action) -> None:
        match action:
            case act.Spawn():
                assert not self.supervisor.stopping, "started while stopping"
                assert action.number not in self.alive
                self.spawned += 1
                self.alive.add(action.number)
                if action.standby:
                    self.standby.add(action.number)
            case act.Activate():
                assert action.number in self.standby
                self.standby.discard(action.number)
            case act.Open():
                self.open.add(action.number)
            case act.Close():
                self.open.discard(action.number)
            case act.Drain():
                assert action.number not in self.open, "drained while it is dealt to"
                self.terminating.add(action.number)
                self._check_replaced(action.number)
            case act.Terminate():
                self.terminating.add(action.number)
            case act.Kill():
                self.killed.add(action.number)
                self.open.discard(action.number)
            case act.Stack():
                self.stacks.append(action.number)
            case act.Say():
                self.said.append(f"{action.level}: {action.message}")
            case act.Settled():
                for token in action.tokens:
                    assert token not in self.settled, "a reload was answered twice"
                    self.settled[token] = action.reason
            case act.Exit():
                assert self.exit_code is None, "ended twice"
                self.exit_code = action.code

    def _check_replaced(self, number: int) -> None:
        """A serving worker is told to go only when another one has its place, or the place is given up."""
        supervisor = self.supervisor
        slot = supervisor.workers[number].slot
        if not supervisor.stopping and slot is not None and slot < len(supervisor.slots):
            heir = supervisor.slots[slot].serving
            grown_again = supervisor.slots[slot].coming is None and heir is None
            assert grown_again or (heir is not None and heir.number != number and heir.number in self.open)

    def check(self) -> None:
        supervisor = self.supervisor
        seen: set[int] = set()
        for slot in supervisor.slots:
            for worker in (slot.serving, slot.coming):
                if worker is not None:
                    assert worker.number not in seen, "a worker in two places"
                    seen.add(worker.number)
                    assert worker.slot == slot.index
                    assert worker.number in supervisor.workers
            assert slot.serving is None or slot.serving.is_serving
            assert slot.coming is None or slot.coming.state in (State.STARTING, State.KILLED)
        for number in self.open:
            assert supervisor.workers[number].state is State.READY, "dealt to a worker that is not ready"
        for number, worker in supervisor.workers.items():
            if worker.state is State.READY:
                assert number in self.open
                assert number in seen, "a ready worker without a slot"
        assert set(supervisor.workers) <= self.alive
