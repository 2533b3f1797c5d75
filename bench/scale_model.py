"""Planning past the machines that one has: measured costs, and a model that is fed with them.

    python -m bench.scale_model                  a table from 1 to 1 000 machines, and what saturates first
    python -m bench.scale_model measure          measure the costs here (redis-server and Ray where they are installed)
    python -m bench.scale_model check            predict what can be measured here, measure it, and compare

What lives here: `Costs` (CPU seconds and bytes), `Plan` (what is asked for), `predict`. Measuring is `_scale_measure`. The
model: each machine is its primary and its workers on its cores; what the primary uses is taken from all of them; requests
wait in their worker's queue, whose lengths come from a simulation of Poisson arrivals dealt in turn; the bus is one server
for all machines; an engine's tasks cost their caller, the far worker, and nothing in between.
"""

from __future__ import annotations

import heapq
import random
import sys
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Costs:
    """What one of each costs: CPU seconds, and bytes. `measure` prints them for this machine."""

    request: float = 20e-6  # in a worker: a small reply on a kept connection
    connection_primary: float = 40e-6  # in the primary: accept, choose, hand over
    connection_worker: float = 80e-6  # in a worker: adopt, close
    connection_bytes: float = 1_700  # of an idle kept connection
    worker_bytes: float = 20e6  # of a worker that has imported nothing of its own
    primary_bytes: float = 23e6
    task_local_caller: float = 9e-6  # of a tiny task among many, in the process that asks
    task_far_caller: float = 9e-6  # the same on an engine
    task_far_single: float = 800e-6  # of one task at a time on an engine, in the process that asks
    message_publish: float = 20e-6  # in the worker that publishes
    message_deliver: float = 20e-6  # in each worker that hears it
    relay_publish: float = 8e-6  # in the primary: a message that comes …
    relay_deliver: float = 8e-6  # … and for each worker that it goes to
    redis_publish: float = 1.5e-6  # in Redis
    redis_deliver: float = 0.6e-6  # in Redis, for each connection that it goes to


@dataclass(frozen=True)
class Plan:
    """What is asked for, all machines together, each second."""

    machines: int = 1
    cores: int = 8  # of each; as many workers
    requests: float = 10_000.0
    handler: float = 0.5e-3  # the application's own CPU seconds for a request
    new_connections: float = 0.05  # of a request: the others come on kept ones
    connections: float = 20_000.0  # open at a time
    messages: float = 2.0  # published to a topic that every worker hears
    tasks: float = 0.0  # given to an engine, by all workers
    task: float = 20e-3  # CPU seconds of a task, on the engine's own machines


@dataclass(frozen=True)
class Prediction:
    """What comes of it. `utilization` above 1: it cannot be had."""

    machine: float  # share of a machine's cores that is used
    primary: float  # share of one core that each primary uses
    bus: float  # share of Redis's one core
    caller: float  # share of a core that a worker uses for giving away tasks
    most_requests: float  # a second, with all machines full
    p50: float  # seconds in the server
    p99: float
    machine_bytes: float
    engine_cores: float  # that the engine's tasks need
    first: str  # what saturates first when everything grows together

    @property
    def is_possible(self) -> bool:
        """Whether all of it stays below full."""
        return max(self.machine, self.primary, self.bus, self.caller) < 1.0


def predict(plan: Plan, costs: Costs, *, samples: int = 20_000, seed: int = 1) -> Prediction:
    """Say what a plan comes to."""
    workers = plan.cores
    requests = plan.requests / plan.machines
    messages_out = plan.messages / plan.machines
    new = requests * plan.new_connections
    primary = new * costs.connection_primary
    if plan.machines == 1:  # without a server in between
        primary += plan.messages * (costs.relay_publish + (workers - 1) * costs.relay_deliver)
    each_request = plan.handler + costs.request + plan.new_connections * costs.connection_worker
    hearing = plan.messages * costs.message_deliver  # in every worker
    publishing = messages_out / workers * costs.message_publish
    asking = plan.tasks / plan.machines / workers * far_caller_s(plan.task, costs)
    busy = requests / workers * each_request + hearing + publishing + asking
    machine = (busy * workers + primary) / plan.cores
    bus = 0.0
    if plan.machines > 1:
        bus = plan.messages * (costs.redis_publish + plan.machines * workers * costs.redis_deliver)
    # What is left of a core for requests, once messages, tasks and the primary's share are served.
    left = max(1e-9, 1.0 - hearing - publishing - asking - primary / plan.cores)
    most = plan.machines * workers * left / each_request
    p50, p99 = latency(requests / workers, each_request / left, samples, seed)
    shares = {"the machines": machine, "the primary": primary, "the bus": bus, "the callers of the engine": asking}
    return Prediction(
        machine=machine,
        primary=primary,
        bus=bus,
        caller=asking,
        most_requests=most,
        p50=p50,
        p99=p99,
        machine_bytes=costs.primary_bytes
        + workers * costs.worker_bytes
        + plan.connections / plan.machines * costs.connection_bytes,
        engine_cores=plan.tasks * plan.task,
        first=max(shares, key=lambda name: shares[name]),
    )


def far_caller_s(task_s: float, costs: Costs) -> float:
    """Return what giving away a task of this length costs: a call to the engine carries ten milliseconds of them."""
    together = max(1.0, min(1024.0, 0.01 / task_s))
    return costs.task_far_caller + (costs.task_far_single - costs.task_far_caller) / together


def latency(rate: float, service_s: float, samples: int, seed: int) -> tuple[float, float]:
    """Return median and 99th percentile of the time in one worker: Poisson arrivals, one at a time, service times that vary.

    Infinite when more comes than can be done.
    """
    if rate <= 0:
        return service_s, service_s
    if rate * service_s >= 1:
        return float("inf"), float("inf")
    chance = random.Random(seed)
    now = free_at = 0.0
    times = []
    for _ in range(samples):
        now += chance.expovariate(rate)
        begins = max(now, free_at)
        free_at = begins + service_s * chance.gammavariate(4.0, 0.25)  # half as spread as exponential
        times.append(free_at - now)
    settled = times[samples // 10 :]
    slowest = heapq.nlargest(len(settled) // 100 + 1, settled)
    return sorted(settled)[len(settled) // 2], slowest[-1]


def saturation(plan: Plan, costs: Costs) -> dict[str, float]:
    """Return, for each part, how often the whole plan fits in before that part is full."""
    found = predict(plan, costs)
    return {
        name: (1 / share if share else float("inf"))
        for name, share in (
            ("machine", found.machine), ("primary", found.primary), ("bus", found.bus), ("caller", found.caller),
        )
    }  # fmt: skip


MACHINES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def table(plan: Plan, costs: Costs) -> str:
    """The same load on each machine, from one to a thousand."""
    lines = [
        "machines | requests/s | most/s | machine | primary | bus | p50 ms | p99 ms | GB each | engine cores | first full",
        "---|---|---|---|---|---|---|---|---|---|---",
    ]
    for machines in MACHINES:
        grown = replace(
            plan, machines=machines, requests=plan.requests * machines, connections=plan.connections * machines,
            messages=plan.messages * machines, tasks=plan.tasks * machines,
        )  # fmt: skip
        found = predict(grown, costs)
        cells = (
            f"{machines}", f"{grown.requests:,.0f}", f"{found.most_requests:,.0f}", f"{found.machine:.0%}",
            f"{found.primary:.1%}", f"{found.bus:.0%}", f"{found.p50 * 1e3:.2f}", f"{found.p99 * 1e3:.2f}",
            f"{found.machine_bytes / 1e9:.2f}", f"{found.engine_cores:,.0f}",
            found.first + ("" if found.is_possible else ": too much"),
        )  # fmt: skip
        lines.append(" | ".join(cells))
    return "\n".join(lines)


def show(costs: Costs) -> str:
    """The costs, one a line."""
    lines = []
    for field in fields(costs):
        value = getattr(costs, field.name)
        text = f"{value / 1e3:.1f} KB" if field.name.endswith("bytes") else f"{value * 1e6:.1f} us"
        lines.append(f"{field.name}: {text}")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Print what was asked for; the exit code is 1 when a prediction was off by more than half."""
    costs = Costs()
    if argv[:1] == ["measure"]:
        from bench._scale_measure import measure

        print(show(measure(costs)))
        return 0
    if argv[:1] == ["check"]:
        from bench._scale_measure import check

        rows = check()
        for what, predicted, measured in rows:
            print(f"{what}: predicted {predicted:.4g}, measured {measured:.4g}: {measured / predicted:.2f}")
        return 0 if all(0.5 < measured / predicted < 2.0 for _, predicted, measured in rows) else 1
    plan = Plan(requests=8_000, tasks=100)
    print(
        "Each second, for each machine of 8 cores: 8 000 requests of 0.5 ms on 20 000 connections, 2 messages that every"
    )
    print("worker of every machine hears, and 100 tasks of 20 ms given to an engine:\n")
    print(table(plan, costs))
    print("\nhow many times one machine's share fits in before a part is full:")
    for name, times in saturation(plan, costs).items():
        print(f"  {name}: {times:,.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
