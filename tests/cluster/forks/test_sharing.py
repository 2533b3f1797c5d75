"""Named locks and counters that a primary and its workers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiloop.cluster._forks._counters import CounterHouse
from tests.cluster.forks.program import run

SHARING = """
from multiloop.errors import ChannelClosed, LockStolen, UsageError

async def main():
    me, hits = cluster.worker, await cluster.counter("hits")
    turns = await cluster.counter("turns")
    for _ in range(20):
        async with cluster.locks.request("one at a time"):
            before = turns.value
            await timers.sleep(0)
            turns.set(before + 1)  # what a lock is for: nobody else comes between
    for _ in range(1000):
        hits.add()
    if me.id == 2:
        kept = await cluster.locks.request("kept")
        waits = cluster.locks.request("of the primary")
        me.send("holds a lock")
        await waits

async def program():
    first, second = cluster.fork(), cluster.fork()
    hits = await cluster.counter("hits")
    async with cluster.locks.request("of the primary", mode="exclusive"):
        while True:
            worker, value, _ = await events.once(cluster, "message")
            if value == "holds a lock":
                break
        kept = cluster.locks.request("kept")
        found = await cluster.locks.query()
        held, pending = ([tuple(i) for i in infos if i.name != "one at a time"] for infos in found)
        say(sorted(held), sorted(pending))
        assert not await cluster.locks.request("kept", if_available=True)
        second.kill("SIGKILL")
        say(bool(await kept))
    await cluster.wait()
    say(hits.value, (await cluster.counter("turns")).value, (await cluster.counter("new")).add(-3))
    assert hits.compare_exchange(2000, 7) and not hits.compare_exchange(2000, 8) and hits.value == 7
    stolen = await cluster.locks.request("stolen")
    assert await cluster.locks.request("stolen", steal=True) and not stolen.held
    for wrong in (lambda: cluster.locks.request(1), lambda: cluster.counter(b"x")):
        try:
            wrong()
        except TypeError:
            continue
        raise AssertionError("not refused")

multiloop.run(program if cluster.is_primary else main)
"""


@pytest.mark.slow
def test_locks_and_counters_are_shared_and_a_killed_worker_loses_its_locks_and_no_count(tmp_path: Path) -> None:
    ended = run(tmp_path, SHARING)
    assert (ended.code, ended.err) == (0, "")
    kept, other = ("kept", "exclusive"), ("of the primary", "exclusive")
    held, pending = [(*kept, 2), (*other, 0)], [(*kept, 0), (*other, 2)]
    assert ended.lines == [f"{held} {pending}", "True", "2000 40 -3"]


def test_a_counter_that_is_added_to_beyond_64_bits_goes_on_from_the_other_end() -> None:
    counter = CounterHouse().counter("hits")
    counter.set(2**63 - 1)
    assert counter.add(1) == counter.value == -(2**63)
    assert counter.add(-1) == counter.value == 2**63 - 1
    assert counter.add(-(2**63)) == counter.value == -1
    with pytest.raises(OverflowError):
        counter.add(2**63)
    assert counter.value == -1
