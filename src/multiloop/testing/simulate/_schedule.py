"""Which faults happen to a simulated cluster, and when: made from a seed, or written down.

What lives here: `Scenario` (how large the cluster is, and how much happens), `Step` and `schedule`. What must not: doing
them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

KINDS = (
    *("kill", "kill", "stop", "stop", "term", "reload", "reload", "restart", "scale", "broken", "slow"),
    *("loss", "pause", "burst"),
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """How large a simulated cluster is and how much happens to it. None: the seed chooses.

    Attributes:
        policy: a name that `--policy` takes.
        clients: how many come, spread over `seconds`; each asks one to five times.
        faults: how many steps the schedule has.
        kinds: which faults happen.
    """

    workers: int | None = None
    standby: int | None = None
    policy: str | None = None
    clients: int | None = None
    faults: int | None = None
    seconds: float = 20.0
    kinds: tuple[str, ...] = KINDS


@dataclass(frozen=True, slots=True)
class Step:
    """One fault.

    kill, term, restart: the worker at `which` (counted around); stop: for `seconds`; slow: the next start takes that
    long; broken: new code fails for that long; loss: one process has no room for descriptors; pause: the primary stops;
    scale: to `which` workers; burst: so many clients at once.
    """

    at: float
    kind: str
    which: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.at:7.3f} {self.kind} {self.which} {self.seconds:.2f}"


@dataclass(frozen=True, slots=True)
class Setup:
    """The cluster that a seed makes."""

    workers: int
    standby: int
    policy: str
    clients: int
    grace: float
    hang_timeout: float
    max_requests: int


def setup(seed: int, scenario: Scenario) -> Setup:
    """Choose what the scenario leaves open."""
    chance = random.Random(f"{seed} setup")
    workers, standby = chance.randrange(1, 5), chance.choice((0, 0, 0, 1, 2))
    policy, clients = chance.choice(("round_robin", "least_connections")), chance.randrange(3, 14)
    return Setup(
        workers=workers if scenario.workers is None else scenario.workers,
        standby=standby if scenario.standby is None else scenario.standby,
        policy=policy if scenario.policy is None else scenario.policy,
        clients=clients if scenario.clients is None else scenario.clients,
        grace=chance.choice((0.5, 2.0, 10.0)),
        hang_timeout=chance.choice((2.0, 5.0, 30.0)),
        max_requests=chance.choice((0, 0, 5)),
    )


def schedule(seed: int, scenario: Scenario | None = None) -> list[Step]:
    """Return the faults that this seed makes, in order."""
    scenario = scenario or Scenario()
    chance = random.Random(f"{seed} schedule")
    count = chance.randrange(0, 13) if scenario.faults is None else scenario.faults
    steps = []
    for _ in range(count):
        kind = chance.choice(scenario.kinds)
        seconds = chance.choice((0.3, 1.0, 2.5, 6.0)) * (0.5 + chance.random())
        which = chance.randrange(1, 6) if kind == "scale" else chance.randrange(1000)
        steps.append(Step(round(0.5 + chance.random() * scenario.seconds, 3), kind, which, round(seconds, 3)))
    return sorted(steps, key=lambda step: step.at)
