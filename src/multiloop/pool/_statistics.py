"""Snapshots of pools.

What lives here: `statistics_of`. What must not: counting (`_meter`).
"""

from __future__ import annotations

from time import monotonic

from ..stats import PoolStatistics
from ._core import Core


def statistics_of(core: Core) -> PoolStatistics:
    """Return a snapshot of a pool, from any thread."""
    meter, engine, config = core.meter, core.engine, core.config
    run, wait = meter.runs.snapshot(), meter.waits.snapshot()
    lifetime_s = max(1e-9, monotonic() - meter.made) * core.limit
    return PoolStatistics(
        name=config.name,
        kind=config.kind,
        engine=config.engine_name,
        limit=core.limit,
        workers=() if engine is None else engine.workers(),
        queued=0 if engine is None else engine.queued,
        running=0 if engine is None else engine.running,
        waiting_for_room=0 if core.admission is None else core.admission.waiting,
        completed=run.count - meter.failed,
        failed=meter.failed,
        cancelled=meter.cancelled,
        timed_out=meter.timed_out,
        stopped=meter.stopped,
        retried=meter.retried,
        died=meter.died,
        recycled=meter.recycled,
        utilization=min(1.0, meter.runs.total_s / lifetime_s),
        wait=wait,
        run=run,
        dashboard="" if config.cluster is None else config.cluster.dashboard,
    )
