"""One schedule, from the first worker to the last.

What lives here: `run`. What must not: many of them (`_search`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ._host import SimHost
from ._invariants import InvariantBroken, demand
from ._schedule import Scenario, Step, schedule, setup

_REST_S = 200.0  # for everything to come to rest once the faults are over
_STEP_S = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one schedule came to. `error` is "" when every invariant held."""

    seed: int
    steps: tuple[Step, ...]
    error: str
    answered: int
    lost: int  # requests that went down with a worker that had read them
    events: int
    history: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every invariant held."""
        return not self.error


def run(seed: int, scenario: Scenario | None = None, steps: Sequence[Step] | None = None) -> Outcome:
    """Let one schedule happen; the same arguments give the same history.

    Args:
        steps: the faults; None: those that the seed makes.
    """
    scenario = scenario or Scenario()
    chosen = tuple(schedule(seed, scenario) if steps is None else steps)
    host = SimHost(seed, setup(seed, scenario))
    error = ""
    try:
        with _quiet():
            _live(host, scenario, chosen)
    except InvariantBroken as broken:
        error = str(broken)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
        if isinstance(raised, AssertionError):
            raise
    return Outcome(seed, chosen, error, host.answered, host.lost, host.world.events, tuple(host.world.history))


def _live(host: SimHost, scenario: Scenario, steps: tuple[Step, ...]) -> None:
    world = host.world
    host.begin()
    host.clients_come(host.setup.clients, scenario.seconds)
    begin = world.now
    for step in steps:
        world.at(step.at, None, host.do, step)
    last = max([scenario.seconds, *(step.at for step in steps)])
    world.run(begin + last, host.look)
    host.heal()
    deadline = world.now + _REST_S
    while not host.is_quiet and world.now < deadline:
        world.run(world.now + _STEP_S, host.look)
    waiting = [client.number for client in host.clients if not client.outcome]
    demand(not waiting, f"clients {waiting} wait for ever")
    host.checker.finish()
    host.check_answers()
    world.run(world.now + 3.0, host.look)
    left = host.kernel_table.held_by(host.machine)
    demand(not left, f"the primary still holds {left}, and every client is gone")
    _end(host)


def _end(host: SimHost) -> None:
    """Stop it under some last clients: it ends, once, and leaves nothing."""
    world = host.world
    host.clients_come(4, 0.5)
    world.run(world.now + 0.3, host.look)
    host.stop()
    grace = host.setup.grace
    world.run(world.now + grace + 15.0, host.look)
    demand(host.exit_codes == [0], f"it was stopped, and the exits are {host.exit_codes}")
    demand(not host.app.processes, f"workers are left: {sorted(host.app.processes)}")
    host.app.end()  # what nobody had room for in time is closed with the primary
    left = host.kernel_table.open
    demand(not left, f"descriptors are left: {left}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Nobody reads the log of a simulation: its history has everything."""
    logger = logging.getLogger("multiloop.cluster")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
