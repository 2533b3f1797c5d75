"""Frozen snapshots: what each `statistics()` returns.

What lives here: types only, picklable, so that dashboards and logs read copies and never live objects. Times are
seconds, sizes bytes; counters only grow.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpStatistics:
    """An HTTP service: `active_requests` and `connections` are now, `requests` and `refused` since the start."""

    connections: int
    active_requests: int
    requests: int
    refused: int
    websockets: int
    draining: bool


@dataclass(frozen=True, slots=True)
class Durations:
    """How long something took, in seconds: count, extremes, mean and quantiles (within 10 %)."""

    count: int = 0
    min: float = 0.0
    max: float = 0.0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    p999: float = 0.0


@dataclass(frozen=True, slots=True)
class PoolWorkerStatistics:
    """One worker of a pool. `task` is the name of the function it runs, "" when it is idle."""

    pid: int
    state: str
    tasks: int
    age: float
    rss: int
    task: str
    task_seconds: float


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A pool: `queued` and `running` are now, the counters since it was made.

    `died` counts workers that ended without being asked to, `recycled` those that were replaced by a limit of yours,
    `stopped` tasks whose worker was killed for a cancel or a timeout; `retried` runs of idempotent tasks after a death.
    `utilization` is the share of the workers' time since the pool started that went into tasks.
    """

    name: str
    kind: str
    engine: str
    limit: int
    workers: tuple[PoolWorkerStatistics, ...]
    queued: int
    running: int
    waiting_for_room: int
    completed: int
    failed: int
    cancelled: int
    timed_out: int
    stopped: int
    retried: int
    died: int
    recycled: int
    utilization: float
    wait: Durations
    run: Durations


@dataclass(frozen=True, slots=True)
class BlockedLoop:
    """One time that a loop was blocked, for `duration` seconds from `at` (seconds since the epoch) on.

    `file`, `line`, `function` are the innermost frame of the user's own code, "" and 0 when nothing could be seen;
    `stack` is the whole of it as text, outermost first; `request` names what was served, if known, and `request_id` its
    id, where requests have one. `thread` is "" for the loop's own, else the thread that held the interpreter's lock;
    `starved` is how long of it the loop's thread waited for a core, because the machine was busy.
    """

    duration: float
    file: str
    line: int
    function: str
    stack: str
    request: str | None
    at: float
    request_id: str | None = None
    thread: str = ""
    starved: float = 0.0


@dataclass(frozen=True, slots=True)
class BlockingCall:
    """A call that blocks, made on an event loop: `what` ("open('a.txt')"), where in your code, what to use `instead`.

    `through` is the package that made the call for you, "" when it was your own line; `request` names what was served, if
    known; `stack` is text, outermost first.
    """

    what: str
    instead: str
    file: str
    line: int
    function: str
    through: str
    request: str | None
    stack: str

    def __str__(self) -> str:
        place = f"at {self.file}:{self.line} in {self.function}"
        through = f" (through {self.through})" if self.through else ""
        served = f" ({self.request})" if self.request else ""
        return f"{self.what} blocks the event loop {place}{through}{served}; instead: {self.instead}"


@dataclass(frozen=True, slots=True)
class HealthStatistics:
    """A loop: whether it is watched, its utilization (0 to 1), how often and long it was blocked, how late its beats.

    `handles` counts what keeps `multiloop.run` going now: open handles that are ref'd, and operations in flight.
    `blocking_calls` counts the places that `guard_blocking_calls` has named in this process.
    """

    watching: bool = False
    threshold: float = 0.0
    utilization: float = 0.0
    blocked_count: int = 0
    blocked_seconds: float = 0.0
    last_blocked: BlockedLoop | None = None
    longest_blocked: BlockedLoop | None = None
    loop_delay: Durations = Durations()
    handles: int = 0
    blocking_calls: int = 0


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """A process's log: records written, lost because the destination took nothing, and waiting now."""

    written: int = 0
    dropped: int = 0
    queued: int = 0
