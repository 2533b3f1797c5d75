"""Timers: the promises of `multiloop.timers`, row by row, on both loops."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.support import LOOPS, until

import multiloop
from multiloop import fs, timers
from multiloop.errors import TimeoutOverflowWarning
from multiloop.loop import hub

loops = pytest.mark.parametrize("loop", LOOPS)


# --- T1: when ---------------------------------------------------------------------------------------------------------
@loops
def test_t1_a_timer_never_fires_early(loop: Any) -> None:
    early: list[float] = []

    def start(delay: float) -> None:
        began = time.monotonic()

        def fired() -> None:
            if time.monotonic() - began < delay:
                early.append(delay - (time.monotonic() - began))

        timers.set_timeout(fired, delay)

    def main() -> None:
        for step in range(200):
            timers.set_timeout(start, step * 0.0013, 0.001 + step % 17 * 0.00037)

    multiloop.run(main, loop=loop)
    assert early == []


@loops
def test_t1_timers_of_one_duration_fire_in_the_order_they_were_set(loop: Any) -> None:
    seen: list[int] = []

    def main() -> None:
        for number in range(300):
            timers.set_timeout(seen.append, 0.005, number)
            if number % 50 == 0:
                time.sleep(0.0007)

    multiloop.run(main, loop=loop)
    assert seen == list(range(300))


@loops
def test_t1_the_order_holds_for_timers_set_in_several_turns(loop: Any) -> None:
    seen: list[int] = []

    async def main() -> None:
        for number in range(500):
            timers.set_timeout(seen.append, 0.02, number)
            if number % 3 == 0:
                await asyncio.sleep(0)
            if number % 70 == 0:
                time.sleep(0.0013)

    multiloop.run(main, loop=loop)
    assert seen == list(range(500))


@loops
@pytest.mark.parametrize("delay", [0, -5, 0.0001, False, 0.001])
def test_t1_short_delays_count_as_a_millisecond(loop: Any, delay: float) -> None:
    began = time.monotonic()
    multiloop.run(timers.set_timeout, lambda: None, delay, loop=loop)
    assert 0.001 <= time.monotonic() - began < 15


@loops
@pytest.mark.parametrize("delay", [float("nan"), float("inf"), 2**31 / 1000, 1e300])
def test_t1_delays_that_do_not_fit_count_as_a_millisecond_and_warn(loop: Any, delay: float) -> None:
    def main() -> None:
        for made in (timers.set_timeout, timers.set_interval):
            with pytest.warns(TimeoutOverflowWarning, match="fires after 1 ms") as warned:
                timer = made(lambda: None, delay)
            assert [each.filename for each in warned] == [__file__]
            if made is timers.set_interval:
                timer.cancel()

    began = time.monotonic()
    multiloop.run(main, loop=loop)
    assert 0.001 <= time.monotonic() - began < 15


@loops
def test_t1_arguments_are_passed_and_the_context_is_kept(loop: Any) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    seen: list[Any] = []

    def main() -> None:
        variable.set(3)
        timers.set_timeout(lambda *args: seen.append((variable.get(), args)), 0.001, 1, 2)
        variable.set(4)

    multiloop.run(main, loop=loop)
    assert seen == [(3, (1, 2))]


def test_bad_arguments_are_refused_at_once() -> None:
    def main() -> None:
        for make in (timers.set_timeout, timers.set_interval):
            with pytest.raises(TypeError, match="must be callable, not int"):
                make(3, 1)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="a number of seconds, not str"):
                make(print, "1")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="must be callable, not None"):
            timers.set_immediate(None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="must be callable, not str"):
            timers.next_tick("x")  # type: ignore[arg-type]
        assert hub().refs == 0

    multiloop.run(main)


@loops
def test_t1_cancel_is_safe_at_any_time(loop: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        never = timers.set_timeout(seen.append, 0.001, "never")
        never.cancel()
        never.cancel()
        mine = timers.set_timeout(lambda: (seen.append("mine"), mine.cancel()), 0.001)
        timers.set_timeout(lambda: later.cancel(), 0.001)
        later = timers.set_timeout(seen.append, 0.003, "cancelled by another")
        with timers.set_timeout(seen.append, 0.001, "left the with"):
            pass

    multiloop.run(main, loop=loop)
    assert seen == ["mine"]


# --- T2: intervals ----------------------------------------------------------------------------------------------------
@loops
def test_t2_an_interval_counts_from_the_start_of_its_callback(loop: Any) -> None:
    starts: list[float] = []

    def tick() -> None:
        starts.append(time.monotonic())
        time.sleep(0.01)
        # A busy machine calls late, never early: one gap without the callback's own time in it is enough.
        if len(starts) > 5 and (starts[-1] - starts[-2] < 0.029 or len(starts) == 100):
            interval.cancel()

    def main() -> None:
        nonlocal interval
        interval = timers.set_interval(tick, 0.02)

    interval: Any = None
    multiloop.run(main, loop=loop)
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert all(gap >= 0.0199 for gap in gaps)
    assert min(gaps) < 0.029, "the callback's own time is not added"


@loops
def test_t2_an_interval_goes_on_after_an_exception(loop: Any) -> None:
    seen: list[int] = []
    errors: list[BaseException] = []

    def tick() -> None:
        seen.append(1)
        if len(seen) == 3:
            interval.cancel()
        raise ValueError(len(seen))

    def main() -> None:
        nonlocal interval
        interval = timers.set_interval(tick, 0.001)

    interval: Any = None
    multiloop.on_uncaught(errors.append)
    try:
        multiloop.run(main, loop=loop)
    finally:
        multiloop.on_uncaught(None)
    assert len(seen) == 3
    assert [str(error) for error in errors] == ["1", "2", "3"]


@loops
def test_t2_a_loop_pass_lies_between_two_calls_of_a_slow_interval(loop: Any) -> None:
    seen: list[str] = []

    def tick() -> None:
        seen.append("tick")
        time.sleep(0.004)
        timers.set_immediate(seen.append, "pass")
        if seen.count("tick") == 3:
            interval.cancel()

    def main() -> None:
        nonlocal interval
        interval = timers.set_interval(tick, 0.001)

    interval: Any = None
    multiloop.run(main, loop=loop)
    assert seen == ["tick", "pass"] * 3


# --- T3: ref and unref ------------------------------------------------------------------------------------------------
@loops
def test_t3_an_unrefd_timer_fires_while_something_else_goes_on(loop: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        timer = timers.set_timeout(seen.append, 0.002, "unref'd")
        assert timer.has_ref
        assert timer.unref().unref() is timer
        assert not timer.has_ref
        timers.set_timeout(seen.append, 0.02, "last")
        timers.set_timeout(seen.append, 0.5, "too late").unref()

    multiloop.run(main, loop=loop)
    assert seen == ["unref'd", "last"]


@loops
def test_t3_ref_after_unref_counts_again(loop: Any) -> None:
    seen: list[str] = []
    multiloop.run(lambda: timers.set_timeout(seen.append, 0.01, "x").unref().ref().ref(), loop=loop)
    assert seen == ["x"]


@loops
def test_t3_unref_inside_its_own_callback_ends_an_interval(loop: Any) -> None:
    seen: list[int] = []

    def main() -> None:
        interval = timers.set_interval(lambda: (seen.append(1), interval.unref()), 0.001)

    multiloop.run(main, loop=loop)
    assert seen == [1]


# --- T4: refresh ------------------------------------------------------------------------------------------------------
@loops
def test_t4_refresh_starts_the_duration_anew(loop: Any) -> None:
    async def main() -> None:
        fired: list[float] = []
        timer = timers.set_timeout(lambda: fired.append(time.monotonic()), 0.03)
        for _ in range(3):
            await asyncio.sleep(0.015)
            refreshed = time.monotonic()
            assert timer.refresh() is timer
            fired.clear()  # a busy machine may have let it fire before
        await until(lambda: fired)
        assert fired[0] - refreshed >= 0.03

    multiloop.run(main, loop=loop)


@loops
def test_t4_refresh_revives_a_timer_that_fired_also_in_its_callback(loop: Any) -> None:
    seen: list[str] = []

    def fired() -> None:
        seen.append("x")
        if len(seen) < 3:
            timer.refresh()

    def main() -> None:
        nonlocal timer
        timer = timers.set_timeout(fired, 0.001)

    timer: Any = None
    multiloop.run(main, loop=loop)
    assert seen == ["x"] * 3
    assert not timer._alive


@loops
def test_t4_a_cancelled_timer_is_not_revived(loop: Any) -> None:
    seen: list[str] = []

    async def main() -> None:
        timer = timers.set_timeout(seen.append, 0.001, "x")
        timer.cancel()
        assert timer.refresh() is timer

        def tick() -> None:
            seen.append("tick")
            interval.cancel()
            interval.refresh()

        interval = timers.set_interval(tick, 0.001)
        await timers.sleep(0.02)

    multiloop.run(main, loop=loop)
    assert seen == ["tick"]


@loops
def test_t4_refresh_keeps_the_unref(loop: Any) -> None:
    seen: list[str] = []
    multiloop.run(lambda: timers.set_timeout(seen.append, 0.2, "x").unref().refresh(), loop=loop)
    assert seen == []


# --- L6: immediates ---------------------------------------------------------------------------------------------------
@loops
def test_l6_immediates_queued_by_immediates_wait_for_the_next_turn(loop: Any) -> None:
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        timers.set_immediate(seen.append, "of first")

    def main() -> None:
        timers.set_immediate(first)
        timers.set_immediate(seen.append, "second")

    multiloop.run(main, loop=loop)
    assert seen == ["first", "second", "of first"]


@loops
def test_l6_an_immediate_may_cancel_a_later_one(loop: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        timers.set_immediate(lambda: later.cancel())
        later = timers.set_immediate(seen.append, "never")
        timers.set_immediate(seen.append, "last")

    multiloop.run(main, loop=loop)
    assert seen == ["last"]


@loops
def test_l6_one_that_raises_loses_and_reorders_none_of_the_others(loop: Any) -> None:
    seen: list[Any] = []

    def main() -> None:
        for number in range(6):
            timers.set_immediate((lambda: 1 / 0) if number == 2 else lambda n=number: seen.append(n))

    multiloop.on_uncaught(lambda error: seen.append(type(error)))
    try:
        multiloop.run(main, loop=loop)
    finally:
        multiloop.on_uncaught(None)
    assert seen == [0, 1, ZeroDivisionError, 3, 4, 5]


@loops
def test_l6_an_unrefd_immediate_does_not_keep_the_program(loop: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        timers.set_immediate(seen.append, "x").cancel()
        timers.set_timeout(timers.set_immediate, 0.001, seen.append, "y")

    multiloop.run(main, loop=loop)
    assert seen == ["y"]


# --- L4: next_tick ----------------------------------------------------------------------------------------------------
def _in_every_kind_of_callback(check: Callable[[str, list[str]], None], seen: list[str]) -> None:
    timers.set_timeout(check, 0.001, "timer", seen)
    timers.set_immediate(check, "immediate", seen)
    fs.stat("/", callback=lambda error, stats: check("operation", seen))


@loops
def test_l4_ticks_run_right_after_the_callback_that_queued_them(loop: Any) -> None:
    seen: list[str] = []

    def check(kind: str, seen: list[str]) -> None:
        timers.next_tick(seen.append, f"{kind} tick 1")
        timers.next_tick(timers.next_tick, seen.append, f"{kind} tick 3")
        timers.next_tick(seen.append, f"{kind} tick 2")
        seen.append(kind)

    multiloop.run(_in_every_kind_of_callback, check, seen, loop=loop)
    for kind in ("timer", "immediate", "operation"):
        at = seen.index(kind)
        assert seen[at : at + 4] == [kind, *(f"{kind} tick {number}" for number in (1, 2, 3))]


@loops
def test_l4_a_tick_between_two_due_timers_may_cancel_the_second(loop: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        timers.set_timeout(lambda: timers.next_tick(lambda: second.cancel()), 0.001)
        second = timers.set_timeout(seen.append, 0.001, "never")
        time.sleep(0.005)  # both are due

    multiloop.run(main, loop=loop)
    assert seen == []


@loops
def test_l4_ticks_of_main_run_before_timers_and_immediates(loop: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        timers.set_immediate(seen.append, "immediate")
        timers.next_tick(seen.append, "tick")
        seen.append("main")

    multiloop.run(main, loop=loop)
    assert seen == ["main", "tick", "immediate"]


@loops
def test_l4_recursive_ticks_starve_the_rest_by_design(loop: Any) -> None:
    seen: list[str] = []

    def again(left: int) -> None:
        seen.append("tick")
        if left:
            timers.next_tick(again, left - 1)

    def main() -> None:
        timers.set_immediate(seen.append, "immediate")
        timers.next_tick(again, 500)

    multiloop.run(main, loop=loop)
    assert seen == ["tick"] * 501 + ["immediate"]


@loops
def test_l4_a_tick_that_raises_does_not_stop_the_others(loop: Any) -> None:
    seen: list[Any] = []

    def main() -> None:
        timers.next_tick(seen.append, "a")
        timers.next_tick(lambda: 1 / 0)
        timers.next_tick(seen.append, "c")

    multiloop.on_uncaught(lambda error: seen.append("handler"))
    try:
        multiloop.run(main, loop=loop)
    finally:
        multiloop.on_uncaught(None)
    assert seen == ["a", "handler", "c"]


@loops
def test_l4_ticks_run_in_a_coroutine_too(loop: Any) -> None:
    seen: list[str] = []

    async def main() -> None:
        timers.next_tick(seen.append, "tick")
        seen.append("before")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append("after")

    multiloop.run(main, loop=loop)
    assert seen == ["before", "tick", "after"]


# --- sleep ------------------------------------------------------------------------------------------------------------
@loops
def test_sleep_is_never_shorter_than_asked(loop: Any) -> None:
    async def main() -> None:
        for seconds in (0, 0.001, 0.0023, 0.0101):
            began = time.monotonic()
            await timers.sleep(seconds)
            assert time.monotonic() - began >= seconds

    multiloop.run(main, loop=loop)


@loops
def test_a_cancelled_sleep_leaves_nothing(loop: Any) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(timers.sleep(100))
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert hub().refs == 0
        assert hub().handles == set()

    multiloop.run(main, loop=loop)


@loops
def test_ten_times_the_timers_cost_ten_times_as_much(loop: Any) -> None:
    seen: list[int] = []

    def main(count: int) -> float:
        began = time.process_time()
        made = [timers.set_timeout(seen.append, 60, 1) for _ in range(count)]
        for timer in made:
            timer.cancel()
        assert hub().refs == 0
        return time.process_time() - began

    few, many = (min(multiloop.run(main, count, loop=loop) for _ in range(3)) for count in (2_000, 20_000))
    assert seen == []
    assert many < 50 * few, "a hundred times, if each had to be looked for among all"


@loops
def test_t6_a_sleep_may_have_a_result_and_no_end(loop: Any) -> None:
    async def main() -> None:
        assert await timers.sleep(0.001, "slept") == "slept"
        for seconds in (float("inf"), 1e12):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await timers.sleep(seconds)
        with pytest.raises(ValueError, match="nan"):
            await timers.sleep(float("nan"))
        with pytest.raises(TypeError, match="a number of seconds, not str"):
            await timers.sleep("1")  # type: ignore[arg-type]

    multiloop.run(main, loop=loop)


@loops
def test_t6_an_interval_is_iterated_and_does_not_make_up_for_missed_times(loop: Any) -> None:
    async def main() -> None:
        times = [time.monotonic()]
        async for value in timers.interval(0.01, "value"):
            assert value == "value"
            times.append(time.monotonic())
            if len(times) == 3:
                time.sleep(0.05)
            if len(times) == 6:
                break
        assert times[1] - times[0] >= 0.01
        assert times[2] - times[0] >= 0.02
        assert times[5] - times[2] >= 0.07, "after the long body one at once, the others in their time"

    multiloop.run(main, loop=loop)
    with pytest.raises(RuntimeError, match="no running event loop"):
        timers.interval(1)


@loops
def test_sleep_reports_to_a_callback_and_keeps_the_program_until_then(loop: Any) -> None:
    seen: list[Any] = []

    def main() -> None:
        timers.sleep(0.002, "slept", callback=lambda *told: seen.append(told))
        timers.sleep(float("nan"), callback=lambda error, value: seen.append((type(error), value)))
        sleeping = timers.sleep(float("inf"), callback=lambda error, value: seen.append((type(error), value)))
        assert sleeping.cancel()
        assert seen == [], "never inside the call"

    multiloop.run(main, loop=loop)
    expected = [(None, "slept"), (ValueError, None), (asyncio.CancelledError, None)]
    assert sorted(seen, key=repr) == sorted(expected, key=repr)
    assert multiloop.run(timers.sleep, 0.001, "as a main", loop=loop) == "as a main"
