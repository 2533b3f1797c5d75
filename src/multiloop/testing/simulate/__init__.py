"""A whole cluster in one process on a seeded clock: its primary, its workers, its clients and its faults.

What lives here: public names. The parts: `_world` (time, events, processes) `_kernel` (descriptors, sockets and
connections without a kernel) `_worker` (a worker's life) `_host` (the primary) `_clients` `_schedule` (which faults, when)
`_invariants` (what must hold) `_run` (one schedule) `_search` (many; shrinking) `_growth` (how the primary's work grows
with its workers). What must not: sockets, processes, real time, randomness that is not seeded.

What is simulated is the machine; what runs is the product's own code: `cluster._app.App` with its supervisor, its policy,
its dealer and links, and each worker's `Intake`. The same seed gives the same history, event for event.

    python -m multiloop.testing.simulate --seeds 10000
    python -m multiloop.testing.simulate --replay 4711        the history of one seed
    python -m multiloop.testing.simulate --growth             1 to 1000 workers
"""

from __future__ import annotations

from ._growth import Growth as Growth
from ._growth import growth as growth
from ._invariants import InvariantBroken as InvariantBroken
from ._run import Outcome as Outcome
from ._run import run as run
from ._schedule import Scenario as Scenario
from ._schedule import Step as Step
from ._schedule import schedule as schedule
from ._search import Finding as Finding
from ._search import search as search
from ._search import shrink as shrink

__all__ = [
    "Finding",
    "Growth",
    "InvariantBroken",
    "Outcome",
    "Scenario",
    "Step",
    "growth",
    "run",
    "schedule",
    "search",
    "shrink",
]
