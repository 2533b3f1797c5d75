"""`python -m multiloop.testing.simulate`: search for a schedule that breaks a promise, replay one, or measure growth."""

from __future__ import annotations

import argparse
import sys
import time

from . import Finding, Outcome, Scenario, growth, run, search


def main() -> int:
    """Do what the arguments say; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m multiloop.testing.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, help="of each cluster; else the seed chooses")
    parser.add_argument("--policy", help="else the seed chooses")
    parser.add_argument("--replay", type=int, metavar="SEED", help="print the history of one seed")
    parser.add_argument("--growth", action="store_true", help="how the primary's work grows with its workers")
    options = parser.parse_args()
    scenario = Scenario(workers=options.workers, policy=options.policy)
    if options.growth:
        print("workers   a tick, µs   a connection, µs   a reload, ms")
        for one in growth():
            print(f"{one.workers:7}   {one.tick_us:10.1f}   {one.deal_us:16.1f}   {one.reload_ms:12.1f}")
        return 0
    if options.replay is not None:
        outcome = run(options.replay, scenario)
        print("\n".join(outcome.history))
        print(outcome.error or f"well: {outcome.answered} answered, {outcome.lost} lost with their worker")
        return 0 if outcome.ok else 1
    return _search(options.seeds, options.first, scenario)


def _search(count: int, first: int, scenario: Scenario) -> int:
    began = time.monotonic()
    found = answered = lost = events = 0
    for number, one in enumerate(search(count, first=first, scenario=scenario), 1):
        if isinstance(one, Finding):
            found += 1
            print(one, flush=True)
            one = one.outcome
        if isinstance(one, Outcome):
            answered, lost, events = answered + one.answered, lost + one.lost, events + one.events
        if number % 5000 == 0:
            print(f"{number} schedules, {found} failed, {time.monotonic() - began:.0f} s", flush=True)
    print(
        f"{count} schedules, {found} failed: {answered} requests answered, {lost} lost with their worker, {events} events, "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
