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
    """How long something took, in seconds: count, extremes, mean and quantiles (within 10 %).

    `total` is the sum of all, `buckets` how many fell into each bucket of `multiloop._buckets` (empty: nothing did), so
    that what several processes measured can be added up.
    """

    count: int = 0
    min: float = 0.0
    max: float = 0.0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    total: float = 0.0
    buckets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolWorkerStatistics:
    """One worker of a pool. `task` is the name of the function it runs, "" when it is idle; `host` is "" on this machine."""

    pid: int
    state: str
    tasks: int
    age: float
    rss: int
    task: str
    task_seconds: float
    host: str = ""


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A pool: `queued` and `running` are now, the counters since it was made.

    `died` counts workers that ended without being asked to, `recycled` those that were replaced by a limit of yours,
    `stopped` tasks whose worker was killed for a cancel or a timeout; `retried` runs of idempotent tasks after a death.
    `utilization` is the share of the workers' time since the pool started that went into tasks. `dashboard` is the address
    of the engine's own (Ray's, Dask's), "" where there is none.
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
    dashboard: str = ""


@dataclass(frozen=True, slots=True)
class BusStatistics:
    """One end of a bus: `missed` counts messages that did not come, `bad` what was none, `outages` lost connections."""

    url: str
    connected: bool
    sent: int
    received: int
    missed: int
    bad: int
    outages: int
    waiting_bytes: int
    subscriptions: int
    questions: int


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


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker says of itself once a second while it is measured; everything counts from its start.

    `active` and `idle` are the seconds that its loop spent so. `sent_at` is the worker's time.monotonic().
    """

    sent_at: float
    idle: float
    active: float
    health: HealthStatistics
    pools: tuple[PoolStatistics, ...] = ()
    log: LogStatistics = LogStatistics()


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """One worker as the primary sees it, also while it is blocked. `app` is the name of its application.

    `slot` is its place, which its successor takes over; None for a standby. `silent` is how long its loop has not turned
    (0 before it was ready), `blocked_at` where, if its watchdog could tell. `dealt` counts connections from the primary
    now open, `dealt_total` all of them. `replies` and `reply_seconds` are by status class (the first digit), each in the
    buckets of `multiloop._buckets`; empty while nobody measures. `cpu` is seconds of processor time.
    """

    app: str
    number: int
    pid: int
    slot: int | None
    state: str
    generation: int
    age: float
    silent: float
    dealt: int
    dealt_total: int
    rss: int
    cpu: float
    http: HttpStatistics | None = None
    replies: tuple[tuple[int, ...], ...] = ()
    reply_seconds: tuple[float, ...] = ()
    report: WorkerReport | None = None
    blocked_at: BlockedLoop | None = None


@dataclass(frozen=True, slots=True)
class EndedWorker:
    """A worker that is gone: `why` is what its supervisor knows of the reason, `how` what the process said."""

    number: int
    slot: int | None
    generation: int
    why: str
    how: str
    ago: float


@dataclass(frozen=True, slots=True)
class AppStatistics:
    """One application of a primary. `recycled` counts by kind; `ended` are its last workers, oldest first."""

    name: str
    target: str
    state: str
    listen: tuple[str, ...]
    policy: str
    generation: int
    restarts: int
    recycled: dict[str, int]
    boot_failure: str
    accepted: int
    dealt_again: int
    waiting: int
    duplicates: int
    wanted: int
    ended: tuple[EndedWorker, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterStatistics:
    """A primary with its applications at one moment: `at` is time.monotonic(), `time` the wall clock."""

    at: float
    time: float
    pid: int
    version: str
    uptime: float
    rss: int
    cpu: float
    apps: tuple[AppStatistics, ...] = ()
    workers: tuple[WorkerStatistics, ...] = ()
