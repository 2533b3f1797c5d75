"""The offload: one awake thread, help when it stalls, batches, contexts, cancels, several loops, forks."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from typing import Any

import pytest
from tests.support import LOOPS, descriptors_left, environment, open_descriptors, until

import multiloop
from multiloop.errors import ConfigError
from multiloop.loop import GoOn, begin, call, hub, offload, offload_to, wanted

loops = pytest.mark.parametrize("loop", LOOPS)


def offload_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("multiloop-offload")]


def script(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment(**env),
        check=False,
    )


# --- results ----------------------------------------------------------------------------------------------------------
@loops
def test_it_gives_the_result_and_runs_elsewhere(loop: Any) -> None:
    async def main() -> None:
        assert await offload(lambda a, b: a + b, 1, 2) == 3
        assert await offload(threading.get_ident) != threading.get_ident()

    multiloop.run(main, loop=loop)


@loops
def test_it_raises_what_the_function_raised_with_its_traceback(loop: Any) -> None:
    def fails() -> None:
        raise LookupError("mine")

    async def main() -> None:
        with pytest.raises(LookupError, match="mine") as caught:
            await offload(fails)
        assert [frame.name for frame in caught.traceback][-1] == "fails"

    multiloop.run(main, loop=loop)


def test_stop_iteration_does_not_end_the_awaiter_silently() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await offload(next, iter(()))

    multiloop.run(main)


def test_a_call_has_started_when_offload_returns() -> None:
    started = threading.Event()

    async def main() -> None:
        op = offload(started.set)
        assert started.wait(5)
        await op

    multiloop.run(main)


@loops
def test_the_function_runs_in_a_copy_of_the_callers_context(loop: Any) -> None:
    variable = contextvars.ContextVar("variable", default=0)

    def change() -> int:
        seen = variable.get()
        variable.set(99)
        return seen

    async def main() -> None:
        variable.set(5)
        assert await offload(change) == 5
        assert variable.get() == 5

    multiloop.run(main, loop=loop)


@loops
def test_a_failing_call_leaves_no_cycle(loop: Any) -> None:
    class Argument:
        pass

    def fails(argument: Argument) -> None:
        raise LookupError

    async def main() -> None:
        argument = Argument()
        gone = weakref.ref(argument)
        op = offload(fails, argument)
        del argument
        with pytest.raises(LookupError):
            await op
        del op
        await offload(int)
        await until(lambda: gone() is None)

    gc.disable()
    try:
        multiloop.run(main, loop=loop)
    finally:
        gc.enable()


def test_a_result_is_not_kept_alive_by_the_thread() -> None:
    class Result:
        pass

    async def main() -> None:
        gone = weakref.ref(await offload(Result))
        await asyncio.sleep(0)
        assert gone() is None

    multiloop.run(main)


# --- threads ----------------------------------------------------------------------------------------------------------
@loops
def test_short_calls_share_one_thread(loop: Any) -> None:
    async def main() -> None:
        await asyncio.gather(*(offload(threading.get_ident) for _ in range(200)))
        seen = await asyncio.gather(*(offload(threading.get_ident) for _ in range(2000)))
        assert len(set(seen)) <= 2  # a second one may have been woken by a busy machine, never four

    multiloop.run(main, loop=loop)


@loops
def test_calls_that_stall_hold_up_nobody(loop: Any) -> None:
    release = threading.Event()

    async def main() -> None:
        stuck = [offload(release.wait) for _ in range(5)]
        started = time.monotonic()
        assert await asyncio.gather(*(offload(int) for _ in range(500))) == [0] * 500
        took = time.monotonic() - started
        assert not any(op.done() for op in stuck)
        release.set()
        assert await asyncio.gather(*stuck) == [True] * 5
        return took

    assert multiloop.run(main, loop=loop) < 0.5  # five stalls, each noticed after a millisecond or two


@loops
def test_a_stalled_call_is_noticed_within_some_milliseconds(loop: Any) -> None:
    async def main() -> float:
        await asyncio.gather(*(offload(time.sleep, 0.01) for _ in range(3)))  # threads are there
        best = 1.0
        for _ in range(10):
            release = threading.Event()
            stuck = offload(release.wait)
            started = time.monotonic()
            await offload(int)
            best = min(best, time.monotonic() - started)
            release.set()
            await stuck
        return best

    assert multiloop.run(main, loop=loop) < 0.008


@loops
def test_a_result_before_a_stall_is_not_held_back_by_it(loop: Any) -> None:
    release = threading.Event()

    async def main() -> None:
        quick, stuck = offload(int), offload(release.wait)
        assert await asyncio.wait_for(quick, 5) == 0
        release.set()
        await stuck

    multiloop.run(main, loop=loop)


def test_at_most_64_threads_and_back_to_the_limit_afterwards() -> None:
    release = threading.Event()

    async def main() -> None:
        stuck = [offload(release.wait) for _ in range(100)]
        await until(lambda: len(offload_threads()) == 64, 20)
        await asyncio.sleep(0.05)
        assert len(offload_threads()) == 64
        release.set()
        await asyncio.gather(*stuck)
        await until(lambda: len(offload_threads()) <= 4)
        assert await offload(int) == 0

    multiloop.run(main)


def test_slow_calls_get_half_of_the_threads_and_delay_no_others() -> None:
    running: list[int] = []
    most = 0
    release = threading.Event()

    def slow() -> None:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        release.wait(10)
        running.pop()

    async def main() -> None:
        ops = []
        for _ in range(12):
            op = begin()
            offload_to(op, slow, slow=True)
            ops.append(op)
        started = time.monotonic()
        await asyncio.gather(*(offload(int) for _ in range(100)))
        assert time.monotonic() - started < 5  # of the 10 that the slow ones take
        await until(lambda: len(running) == 2)
        ops[-1].cancel()  # one that waits
        ops[-2].cancel()
        release.set()
        await asyncio.gather(*ops, return_exceptions=True)
        assert most == 2
        op = begin()
        offload_to(op, int, slow=True)
        assert await op == 0

    multiloop.run(main)


def test_the_number_of_threads_comes_from_the_environment() -> None:
    code = """
        import asyncio, multiloop
        from multiloop.loop import hub
        async def main():
            await multiloop.offload(int)
            print(hub().completions.threads.limit)
        multiloop.run(main)
        """
    assert script(code).stdout == "4\n"
    assert script(code, MULTILOOP_THREADS="7").stdout == "7\n"
    for wrong in ("0", "65", "many"):
        done = script(code, MULTILOOP_THREADS=wrong)
        assert done.returncode == 1
        assert done.stderr.rstrip().endswith(f"ConfigError: MULTILOOP_THREADS='{wrong}': give a number from 1 to 64")
    assert issubclass(ConfigError, Exception)


# --- cancelling -------------------------------------------------------------------------------------------------------
@loops
def test_a_cancelled_call_that_has_not_begun_is_never_made(loop: Any) -> None:
    release = threading.Event()
    made: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stuck = offload(release.wait)
        ops = [offload(made.append, number) for number in range(10)]
        for op in ops:
            assert op.cancel()
            assert not op.cancel()
        release.set()
        await stuck
        await offload(int)
        assert made == []
        assert hub().refs == 0 or loop

    multiloop.run(main, loop=loop)


@loops
def test_a_result_that_comes_too_late_is_discarded(loop: Any) -> None:
    release = threading.Event()
    discarded: list[str] = []

    def work() -> str:
        release.wait(10)
        return "resource"

    async def main() -> None:
        op = begin()
        offload_to(op, work, discard=discarded.append)
        await asyncio.sleep(0.01)
        op.cancel()
        with pytest.raises(asyncio.CancelledError):
            await op
        release.set()
        await until(lambda: discarded)

    multiloop.run(main, loop=loop)
    assert discarded == ["resource"]


def test_a_running_call_can_ask_whether_it_is_still_wanted() -> None:
    seen: list[bool] = []
    release = threading.Event()

    def work() -> None:
        seen.append(wanted())
        release.wait(10)
        seen.append(wanted())

    async def main() -> None:
        op = call(None, work, ())
        await until(lambda: seen)
        op.cancel()
        release.set()
        await until(lambda: len(seen) == 2)

    multiloop.run(main)
    assert seen == [True, False]
    assert wanted()  # outside of any call


@loops
def test_results_after_the_end_of_the_loop_are_discarded(loop: Any) -> None:
    release, freed = threading.Event(), threading.Event()

    def work() -> str:
        release.wait(10)
        return "resource"

    async def main() -> None:
        op = begin().unref()
        offload_to(op, work, discard=lambda value: freed.set())
        await asyncio.sleep(0.01)

    multiloop.run(main, loop=loop)
    assert not freed.is_set()
    release.set()
    assert freed.wait(5)


def test_a_call_may_go_on_on_the_loop() -> None:
    class Later(GoOn):
        def resume(self, op: Any) -> None:
            op._hub.loop.call_later(0.001, op._succeed, threading.get_ident())

    def work() -> None:
        raise Later

    async def main() -> None:
        assert await call(None, work, ()) == threading.get_ident()

    multiloop.run(main)


# --- loops, processes, the end ----------------------------------------------------------------------------------------
def test_loops_of_several_threads_share_the_threads_and_get_their_own_results() -> None:
    problems: list[Any] = []

    async def main(number: int) -> None:
        for _ in range(20):
            got = await asyncio.gather(*(offload(lambda: number) for _ in range(50)))
            if set(got) != {number}:
                problems.append(got)

    threads = [threading.Thread(target=multiloop.run, args=(main, n), kwargs={"loop": LOOPS[n % 2]}) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_a_stalled_call_of_one_loop_does_not_hold_up_another() -> None:
    release = threading.Event()
    entered = threading.Event()

    async def stuck() -> None:
        op = offload(release.wait)
        entered.set()
        await op

    thread = threading.Thread(target=multiloop.run, args=(stuck,))
    thread.start()
    entered.wait()

    async def main() -> None:
        await asyncio.wait_for(asyncio.gather(*(offload(int) for _ in range(100))), 5)

    multiloop.run(main)
    release.set()
    thread.join()


def test_a_forked_child_has_threads_of_its_own() -> None:
    done = script(
        """
        import asyncio, os, sys, multiloop
        async def main():
            return await asyncio.gather(*(multiloop.offload(os.getpid) for _ in range(50)))
        assert set(multiloop.run(main)) == {os.getpid()}
        child = os.fork()
        assert set(multiloop.run(main)) == {os.getpid()}
        if child:
            assert os.waitpid(child, 0)[1] == 0
            print("both")
        """
    )
    assert (done.returncode, done.stdout) == (0, "both\n"), done.stderr


@loops
def test_a_child_forked_inside_a_run_may_leave_it_and_the_parent_goes_on(loop: Any) -> None:
    done = script(
        f"""
        import asyncio, os, sys, threading, warnings, multiloop
        async def main():
            warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads, from 3.12 on
            busy = [multiloop.offload(threading.Event().wait, 0.2) for _ in range(3)]
            child = os.fork()
            if not child:
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            child = os.fork()
            if not child:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                raise ValueError("printed by the child, whose end is not ours")
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
            await asyncio.gather(*busy)
            assert await multiloop.offload(int) == 0
            print("parent")
        multiloop.run(main, loop={loop!r})
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "parent\n", "")


def test_exit_does_not_wait_for_a_stuck_call() -> None:
    done = script(
        """
        import asyncio, threading, multiloop
        async def main():
            multiloop.offload(threading.Event().wait).unref()
            await asyncio.sleep(0.01)
        multiloop.run(main)
        print("end")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@loops
def test_nothing_is_left_after_many_random_cancels(loop: Any) -> None:
    import random

    chance = random.Random(7)

    async def main() -> None:
        await offload(int)
        before = open_descriptors()
        for _ in range(30):
            ops = [offload(time.sleep, chance.random() / 2000) for _ in range(10)]
            await asyncio.sleep(chance.random() / 500)
            for op in ops:
                op.cancel()
        await until(lambda: not hub().completions.threads.jobs)  # type: ignore[union-attr]
        assert await offload(int) == 0
        await until(lambda: len(offload_threads()) <= 5)
        assert not descriptors_left(before)

    multiloop.run(main, loop=loop)


# --- cost -------------------------------------------------------------------------------------------------------------
@loops
def test_a_burst_wakes_the_loop_a_few_times_only(loop: Any) -> None:
    async def main() -> int:
        completions = hub().completions
        assert completions is not None
        wakes = 0
        original = os.eventfd_write

        def counting(fd: int, value: int) -> None:
            nonlocal wakes
            wakes += 1
            original(fd, value)

        os.eventfd_write = counting
        try:
            await asyncio.gather(*(offload(int) for _ in range(2000)))
        finally:
            os.eventfd_write = original
        return wakes

    assert multiloop.run(main, loop=loop) < 100


@loops
def test_offload_reports_to_a_callback_in_the_callers_context_and_its_arguments_are_positions(loop: Any) -> None:
    seen: list[Any] = []
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    def main() -> None:
        name.set("the caller's")
        offload(lambda *args: (name.get(), *args), 1, 2, callback=lambda *told: seen.append(told))
        offload(int, "x", callback=lambda error, value: seen.append((type(error), value)))
        cancelled = offload(threading.Event().wait, 0.001, callback=lambda error, _: seen.append(type(error)))
        assert cancelled.cancel()
        with pytest.raises(TypeError, match="callback=3"):
            offload(int, callback=3)  # type: ignore[call-overload]
        assert seen == [], "never inside the call"

    multiloop.run(main, loop=loop)
    assert len(seen) == 3
    assert (None, ("the caller's", 1, 2)) in seen
    assert (ValueError, None) in seen
    assert asyncio.CancelledError in seen
