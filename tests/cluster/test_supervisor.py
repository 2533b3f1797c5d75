"""What the supervisor decides, event by event."""

from __future__ import annotations

import pytest

from multiloop import _limits as limits
from multiloop.cluster import _actions as act
from multiloop.cluster._states import TRANSITIONS, Event, State

from .world import World


def test_one_worker_boots_first_and_the_others_when_it_is_ready() -> None:
    world = World(workers=3, parallel=4)
    assert world.alive == {1}
    world.pass_time(5)
    assert world.alive == {1}
    world.ready(1)
    assert world.alive == {1, 2, 3}
    assert world.open == {1}
    assert world.supervisor.state == "degraded"
    world.ready(2)
    world.ready(3)
    assert world.supervisor.state == "serving"


def test_no_more_workers_start_at_once_than_allowed() -> None:
    world = World(workers=10, parallel=3)
    world.ready(1)
    assert len(world.numbers(State.STARTING)) == 3
    world.boot()
    assert len(world.numbers(State.READY)) == 10


@pytest.mark.parametrize(("exit_code", "expected"), [(None, 3), (4, 4), (5, 5)])
def test_a_first_worker_that_fails_ends_everything_at_once(exit_code: int | None, expected: int) -> None:
    world = World(workers=8)
    world.fail(1, "RuntimeError: no luck", exit_code)
    assert world.exit_code == expected
    assert world.spawned == 1
    assert sum("no luck" in line for line in world.said) <= 1


def test_a_first_worker_that_dies_without_a_word_ends_everything() -> None:
    world = World(workers=2)
    world.exit(1, "SIGSEGV")
    assert world.exit_code == 3
    assert any("SIGSEGV" in line for line in world.said)


def test_a_first_worker_that_takes_too_long_ends_everything_with_its_stack() -> None:
    world = World(workers=2, startup_timeout=10.0)
    world.pass_time(9)
    assert not world.killed
    world.pass_time(2)
    assert world.killed == {1}
    assert act.Kill(1, stack=True) in world.log
    world.exit(1)
    assert world.exit_code == 3
    assert any("not ready within 10 s" in line for line in world.said)


def test_a_failed_boot_that_is_forgiven_waits_for_a_reload() -> None:
    world = World(workers=2, forgiving=True)
    world.fail(1)
    world.pass_time(30)
    assert world.exit_code is None
    assert world.spawned == 1
    world.reload()
    assert world.spawned == 2
    world.boot()
    world.settle()
    assert world.supervisor.state == "serving"


def test_a_dead_worker_is_replaced_at_once() -> None:
    world = World(workers=2)
    world.boot()
    world.exit(1)
    assert world.alive == {2, 3}
    assert world.supervisor.state == "degraded"
    world.ready(3)
    assert world.supervisor.state == "serving"
    assert world.supervisor.restarts == 1


def test_ready_workers_that_keep_dying_are_replaced_at_a_rate() -> None:
    world = World(workers=2)
    world.boot()
    before = world.spawned
    for _ in range(300):  # two minutes in which every worker dies as soon as it is ready
        for number in world.numbers(State.READY):
            world.exit(number)
        for number in world.numbers(State.STARTING):
            world.ready(number)
        world.pass_time(0.4)
    started = world.spawned - before
    assert started <= limits.RESTART_BURST + 2 + 120 * limits.RESTART_RATE_S + 5
    assert started >= 100  # and it never gives up


def test_starts_that_fail_after_the_boot_back_off_and_never_end_the_server() -> None:
    world = World(workers=2, restart_max=5, restart_window=30.0)
    world.boot()
    world.exit(1)
    before = world.spawned
    for _ in range(250):
        for number in world.numbers(State.STARTING):
            world.fail(number)
        world.pass_time(0.4)
    assert 5 <= world.spawned - before <= 18  # 100 s: five quick ones, then one each ten seconds
    assert world.exit_code is None
    assert world.open == {2}


def test_the_same_failure_is_told_in_full_only_once() -> None:
    world = World(workers=2)
    world.boot()
    world.exit(1)
    for _ in range(40):
        for number in world.numbers(State.STARTING):
            world.fail(number)
        world.pass_time(0.4)
    details = [action for action in world.log if isinstance(action, act.Say) and action.detail]
    assert len(details) == 1


def test_a_silent_worker_is_routed_around_within_a_second_with_its_stack() -> None:
    world = World(workers=2)
    world.boot()
    world.frozen.add(1)
    world.pass_time(1.0)
    assert world.open == {2}
    assert world.stacks == [1]
    assert world.state(1) is State.SILENT


def test_a_silent_worker_that_turns_again_serves_again() -> None:
    world = World(workers=2)
    world.boot()
    world.frozen.add(1)
    world.pass_time(5)
    world.frozen.clear()
    world.pass_time(0.5)
    assert world.open == {1, 2}
    assert not world.killed


def test_a_silent_worker_is_killed_after_the_hang_timeout_and_replaced_at_once() -> None:
    world = World(workers=2, hang_timeout=10.0)
    world.boot()
    world.frozen.add(1)
    world.pass_time(9.5)
    assert not world.killed
    world.pass_time(1.2)
    assert world.killed == {1}
    assert act.Kill(1, stack=True) in world.log
    assert world.numbers(State.STARTING) == [3]  # also when the dead one takes long to be gone


def test_without_a_hang_timeout_a_silent_worker_is_never_killed() -> None:
    world = World(workers=2, hang_timeout=0.0)
    world.boot()
    world.frozen.add(1)
    world.pass_time(300)
    assert not world.killed
    assert world.open == {2}


def test_nobody_is_blamed_for_silence_while_the_primary_was_stopped() -> None:
    world = World(workers=2, hang_timeout=10.0)
    world.boot()
    world.now += 60.0  # SIGSTOP; the workers were stopped, too, and did not turn yet
    world.supervisor.tick(world.now, {})
    world.obey()
    assert world.open == {1, 2}
    assert not world.killed


def test_heartbeats_do_not_count_before_ready() -> None:
    world = World(workers=1, startup_timeout=100.0)
    world.frozen.add(1)
    world.pass_time(60)
    assert world.state(1) is State.STARTING


def test_a_reload_replaces_one_worker_after_the_other_new_before_old() -> None:
    world = World(workers=3, parallel=4)
    world.boot()
    token = world.reload()
    assert world.alive == {1, 2, 3, 4}
    world.ready(4)
    assert act.Drain(1, limits.GRACE_S, give_back=True) in world.log
    assert world.open == {2, 3, 4}
    world.ready(5)
    world.ready(6)
    assert world.settled == {token: ""}
    assert world.open == {4, 5, 6}
    assert world.supervisor.generation == 2
    for number in (1, 2, 3):
        world.exit(number, "exit code 0")
    assert world.alive == {4, 5, 6}
    assert world.supervisor.restarts == 0


def test_a_reload_to_broken_code_leaves_the_old_generation_and_says_why() -> None:
    world = World(workers=3)
    world.boot()
    token = world.reload()
    world.fail(4, "SyntaxError: bad")
    assert world.settled == {token: "SyntaxError: bad"}
    assert world.open == {1, 2, 3}
    assert world.supervisor.generation == 1
    world.pass_time(60)
    assert world.alive == {1, 2, 3}
    assert world.supervisor.state == "serving"


def test_a_reload_whose_first_worker_never_gets_ready_fails() -> None:
    world = World(workers=2, startup_timeout=5.0)
    world.boot()
    token = world.reload()
    world.pass_time(6)
    world.exit(3)
    assert world.settled == {token: "not ready within 5 s"}
    assert world.open == {1, 2}


def test_a_later_failure_of_proven_code_is_retried() -> None:
    world = World(workers=2)
    world.boot()
    token = world.reload()
    world.ready(3)
    world.fail(4)
    assert world.open == {2, 3}
    world.pass_time(1)
    world.ready(5)
    assert world.settled == {token: ""}
    assert world.open == {3, 5}


def test_reloads_during_a_reload_become_one() -> None:
    world = World(workers=2)
    world.boot()
    tokens = [world.reload() for _ in range(1000)]
    world.settle()
    assert set(world.settled) == set(tokens)
    assert world.supervisor.generation == 3
    assert world.spawned == 2 + 2 * 2


def test_a_reload_during_the_boot_follows_it() -> None:
    world = World(workers=2)
    token = world.reload()
    world.settle()
    assert world.settled == {token: ""}
    assert world.supervisor.generation == 2


def test_old_generations_that_drain_for_ever_are_cut() -> None:
    world = World(workers=1, grace=1000.0)
    world.boot()
    for _ in range(4):
        world.reload()
        for number in world.numbers(State.STARTING):
            world.ready(number)
    assert 1 in world.killed
    assert len(world.numbers(State.DRAINING)) <= limits.MAX_OLD_GENERATIONS + 1


def test_a_crash_during_a_reload_is_filled_with_the_new_code() -> None:
    world = World(workers=2)
    world.boot()
    world.reload()
    world.exit(2)
    world.settle()
    assert world.supervisor.state == "serving"
    assert {slot.serving.generation for slot in world.supervisor.slots if slot.serving} == {2}


def test_a_failed_start_in_an_empty_slot_ends_the_reload_for_the_others_too() -> None:
    world = World(workers=2, parallel=4)
    world.boot()
    token = world.reload()  # 3 comes for the slot of 1
    world.exit(2)  # 4 comes for the empty one
    assert world.numbers(State.STARTING) == [3, 4]
    world.fail(4, "SyntaxError: bad")
    assert world.settled == {token: "SyntaxError: bad"}
    assert act.Terminate(3) in world.log
    assert world.open == {1}


def test_a_reload_starts_anew_what_began_with_the_code_from_before() -> None:
    world = World(workers=2)
    world.boot()
    world.exit(2)
    assert world.numbers(State.STARTING) == [3]
    world.reload()
    assert act.Terminate(3) in world.log
    world.settle()
    assert world.supervisor.state == "serving"
    assert world.supervisor.generation == 2


def test_a_worker_that_drains_is_told_once_and_keeps_its_deadline() -> None:
    world = World(workers=1, grace=5.0)
    world.boot()
    world.reload()
    world.ready(2)
    world.pass_time(4)
    world.stop()
    assert [action for action in world.log if action == act.Drain(1, 5.0, give_back=True)]
    assert not [action for action in world.log if action == act.Drain(1, 5.0, give_back=False)]
    world.pass_time(2.5)
    assert world.killed == {1}


def test_scaling_up_and_down() -> None:
    world = World(workers=2, parallel=8)
    world.boot()
    world.scale(4)
    world.boot()
    assert world.open == {1, 2, 3, 4}
    world.scale(1)
    assert world.open == {1}
    assert {a.number for a in world.log if isinstance(a, act.Drain)} == {2, 3, 4}
    world.scale(0)
    assert len(world.supervisor.slots) == 1


@pytest.mark.parametrize(
    ("settings", "report"),
    [
        ({"max_requests": 100}, (120, 1)),
        ({"max_rss": 1000}, (0, 1200)),
        ({"max_lifetime": 10.0}, (0, 0)),
    ],
)
def test_a_worker_over_a_limit_is_replaced_new_before_old(settings: dict[str, float], report: tuple[int, int]) -> None:
    world = World(workers=2, recycle_jitter=0.1, **settings)
    world.boot()
    world.pass_time(4)
    world.supervisor.report(1, 0, 0, world.now)
    world.obey()
    assert world.alive == {1, 2}
    world.pass_time(8)
    world.supervisor.report(1, *report, world.now)
    world.obey()
    assert world.alive == {1, 2, 3}
    assert world.open == {1, 2}
    world.ready(3)
    assert world.open == {2, 3}
    assert world.supervisor.restarts == 0


def test_workers_recycle_at_different_moments() -> None:
    values = iter([0.0, 0.9, 0.1, 0.5] * 10)
    world = World(lambda: next(values), workers=2, max_requests=100, recycle_jitter=0.5)
    world.boot()
    for number in (1, 2):
        world.supervisor.report(number, 110, 0, world.now)
    world.obey()
    recycled = [n for n, worker in world.supervisor.workers.items() if worker.recycle]
    assert recycled == [1]


def test_a_standby_is_kept_and_takes_the_place_of_a_dead_worker() -> None:
    world = World(workers=2, standby=1)
    world.boot()
    assert world.standby == {3}
    world.exit(1)
    assert act.Activate(3) in world.log
    world.ready(3)
    assert world.open == {2, 3}
    world.boot()
    assert world.standby == {4}


def test_a_reload_never_uses_a_standby_with_the_old_code() -> None:
    world = World(workers=1, standby=1)
    world.boot()
    world.reload()
    assert not any(isinstance(action, act.Activate) for action in world.log)
    world.settle()
    (spare,) = world.standby & set(world.supervisor.workers)
    assert world.supervisor.workers[spare].generation == 2


def test_a_standby_that_fails_is_tried_again_slowly() -> None:
    world = World(workers=1, standby=1)
    world.ready(1)
    before = world.spawned
    for _ in range(100):
        for number in world.numbers(State.STARTING):
            world.fail(number)
        world.pass_time(0.4)
    assert world.spawned - before < 12
    assert world.open == {1}


def test_a_worker_that_leaves_by_itself_is_replaced_and_not_called_dead() -> None:
    world = World(workers=2)
    world.boot()
    world.supervisor.leaving(1, world.now)
    world.obey()
    assert world.open == {2}
    assert world.numbers(State.STARTING) == [3]
    world.exit(1, "exit code 0")
    assert world.supervisor.restarts == 0


def test_stop_drains_everybody_and_ends_with_0() -> None:
    world = World(workers=2, grace=10.0)
    world.boot()
    world.stop()
    assert not world.open
    assert {a for a in world.log if isinstance(a, act.Drain)} == {act.Drain(1, 10.0, False), act.Drain(2, 10.0, False)}
    world.exit(1, "exit code 0")
    assert world.exit_code is None
    world.exit(2, "exit code 0")
    assert world.exit_code == 0


def test_a_worker_that_does_not_leave_within_its_grace_is_killed() -> None:
    world = World(workers=1, grace=5.0)
    world.boot()
    world.stop()
    world.pass_time(5.5)
    assert not world.killed
    world.pass_time(1)
    assert world.killed == {1}


def test_a_second_stop_is_fast() -> None:
    world = World(workers=2, grace=30.0)
    world.boot()
    world.stop()
    world.stop(fast=True)
    assert act.Drain(1, 0.0, False) in world.log
    world.pass_time(limits.FAST_STOP_S + 0.2)
    assert world.killed == {1, 2}


def test_stop_during_the_boot_ends_with_0() -> None:
    world = World(workers=4)
    world.stop()
    assert act.Terminate(1) in world.log
    world.exit(1, "SIGTERM")
    assert world.exit_code == 0
    assert world.spawned == 1


def test_stop_answers_those_who_wait_for_a_reload() -> None:
    world = World(workers=2)
    world.boot()
    tokens = {world.reload(), world.reload()}
    world.stop()
    tokens.add(world.reload())
    assert world.settled == dict.fromkeys(tokens, "the server is stopping")


def test_the_table_knows_no_way_back_from_an_end() -> None:
    assert not [state for state, _ in TRANSITIONS if state is State.KILLED]
    assert {event for state, event in TRANSITIONS if state is State.DRAINING} == {Event.KILL}
