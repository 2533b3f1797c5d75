"""Whatever happens, in whatever order: what must always hold holds, and everything comes to rest."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from multiloop.cluster._states import State

from .world import World

steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "ready",
                "ready",
                "fail",
                "die",
                "die",
                "freeze",
                "thaw",
                "leave",
                "time",
                "time",
                "long",
                "reload",
                "scale",
            ]
        ),
        st.integers(0, 1000),
    ),
    max_size=60,
)


def play(world: World, script: list[tuple[str, int]]) -> list[int]:
    """Let the script happen to a cluster; returns the tokens of its reloads."""
    tokens = []
    for what, number in script:
        alive = sorted(world.alive)
        one = alive[number % len(alive)] if alive else 0
        record = world.supervisor.workers.get(one)
        match what:
            case "ready" if record is not None and record.state is State.STARTING:
                (world.imported if one in world.standby else world.ready)(one)
            case "fail" if record is not None and record.state is State.STARTING and world.supervisor.booted:
                world.fail(one)
            case "die" if record is not None and (world.supervisor.booted or record.state is not State.STARTING):
                world.exit(one)
            case "freeze" if one:
                world.frozen.add(one)
            case "thaw":
                world.frozen.discard(one)
            case "leave" if one:
                world.supervisor.leaving(one, world.now)
                world.obey()
            case "time":
                world.pass_time(0.4 * (number % 5))
            case "long":
                world.pass_time(number % 40)
            case "reload":
                tokens.append(world.reload())
            case "scale":
                world.scale(1 + number % 5)
    return tokens


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2), st.integers(1, 4), st.integers(0, 2**32), steps)
def test_every_history_ends_in_one_generation_with_every_slot_filled(
    workers: int, standby: int, parallel: int, seed: int, script: list[tuple[str, int]]
) -> None:
    world = World(
        random.Random(seed).random, parallel=parallel, workers=workers, standby=standby, hang_timeout=10.0, grace=5.0
    )
    tokens = play(world, script)
    world.settle()
    supervisor = world.supervisor
    if not supervisor.booted:  # the first worker was too slow
        assert world.exit_code == 3
        return
    assert supervisor.state == "serving"
    serving = [slot.serving for slot in supervisor.slots]
    assert {worker.generation for worker in serving if worker is not None} == {supervisor.generation}
    assert len(world.open) == len(supervisor.slots)
    assert len(world.alive) == len(supervisor.slots) + standby
    assert set(world.settled) == set(tokens)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2), st.integers(0, 2**32), steps, st.booleans(), steps)
def test_stopping_starts_nothing_and_ends_once(
    workers: int,
    standby: int,
    seed: int,
    before: list[tuple[str, int]],
    fast: bool,
    after: list[tuple[str, int]],
) -> None:
    world = World(random.Random(seed).random, workers=workers, standby=standby, hang_timeout=10.0, grace=5.0)
    tokens = play(world, before)
    world.stop(fast=fast)
    spawned = world.spawned
    tokens += play(world, after)
    world.settle()
    assert world.spawned == spawned
    assert not world.alive
    assert world.exit_code is not None
    assert set(world.settled) == set(tokens)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 4), st.integers(0, 2**32), steps)
def test_a_ready_worker_is_never_given_up_for_code_that_does_not_start(
    workers: int, seed: int, script: list[tuple[str, int]]
) -> None:
    world = World(random.Random(seed).random, workers=workers, hang_timeout=10.0)
    world.boot()
    kept = set(world.open)
    for what, number in script:
        for starting in world.numbers(State.STARTING):
            world.fail(starting)
        if what == "reload":
            world.reload()
        else:
            world.pass_time(0.4 * (number % 20))
    assert kept <= world.open
