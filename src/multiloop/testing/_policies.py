"""Whether a dealing policy keeps its contract.

What lives here: `check_policy`. What must not: which policies there are (`multiloop.cluster`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class _Worker:
    """As much of a worker as a policy sees."""

    number: int
    connections: int = 0
    requests: int = 0
    typical_s: float = 0.0


def check_policy(make: Callable[[], Any], *, rounds: int = 2000, seed: int = 0) -> None:
    """Deal many connections by a policy while workers come, go and are full; AssertionError when it breaks its contract.

    What a policy must keep: the answer is one of the workers that were offered, whoever they are (one may be gone, a new
    one there, only one left), and nobody who is always offered starves while the load is even.

    Args:
        make: called for each policy to be checked, as in `check_policy(MyPolicy)`.
        seed: of what happens; the same seed, the same history.
    """
    _check_answers(make(), random.Random(seed), rounds)
    _check_nobody_starves(make(), rounds)


def _check_answers(policy: Any, choose: random.Random, rounds: int) -> None:
    workers = [_Worker(number) for number in range(1, 5)]
    next_number = 5
    for turn in range(rounds):
        event = choose.random()
        if event < 0.05 and len(workers) > 1:
            workers.pop(choose.randrange(len(workers)))
        elif event < 0.10 and len(workers) < 8:
            workers.append(_Worker(next_number))
            next_number += 1
        offered = [worker for worker in workers if choose.random() < 0.8] or [choose.choice(workers)]
        picked = policy.pick(_view(policy, turn), offered)
        assert any(picked is worker for worker in offered), (
            f"turn {turn}: it picked one that was not offered: {picked!r}"
        )
        picked.connections += 1
        picked.requests += choose.random() < 0.5
        picked.typical_s = choose.choice((0.0, 0.001, 0.01, 1.0))
        for worker in workers:
            if worker.connections and choose.random() < 0.3:
                worker.connections -= 1
                worker.requests = min(worker.requests, worker.connections)


def _check_nobody_starves(policy: Any, rounds: int) -> None:
    workers = [_Worker(number) for number in (3, 7, 8, 20)]
    dealt = dict.fromkeys((worker.number for worker in workers), 0)
    for turn in range(rounds):
        picked = policy.pick(_view(policy, turn), workers)
        dealt[picked.number] += 1
        picked.connections += 1
    assert all(dealt.values()), f"somebody who was always offered got nothing: {dealt}"


def _view(policy: Any, turn: int) -> Any:
    from ..cluster._policy import ConnectionView

    if not getattr(policy, "looks_at_connection", True):
        return None
    return ConnectionView(0, (f"192.0.2.{turn % 250}", 40000 + turn % 1000), b"")
