"""Blocks that are hard to see: locks held in C, by this thread or another; the end of the loop; a machine without a core."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import LOOPS, environment, until

import multiloop
from multiloop import health
from multiloop.health import _episode, _stack
from multiloop.health._alarm import FORM, Alarm
from multiloop.health._threads import RunQueue, clocks, cpu_times

HERE = os.path.basename(__file__)
linux = pytest.mark.skipif(sys.platform != "linux", reason="the clocks of other threads are known on Linux")


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    """What the watchdog logs."""
    caught: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = caught.append  # type: ignore[method-assign]
    monkeypatch.setattr(_episode.log, "handlers", [handler])
    monkeypatch.setattr(_episode.log, "propagate", False)
    return caught


def catastrophe() -> None:
    re.match(r"(a+)+$", "a" * 24 + "b")  # one call into C, in which no other thread runs


LINE = catastrophe.__code__.co_firstlineno + 1


def run_program(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "program.py"
    script.write_text(code)
    return subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment(), cwd=tmp_path, timeout=60
    )


@pytest.mark.parametrize("loop", LOOPS)
def test_a_regular_expression_that_holds_the_lock_is_named_with_its_line(
    loop: Any, records: list[logging.LogRecord]
) -> None:
    reports: list[health.BlockedLoop] = []

    async def main() -> None:
        health.on_blocked(reports.append)
        await asyncio.sleep(0.15)
        catastrophe()
        await until(lambda: reports)

    multiloop.run(main, loop=loop)
    report = reports[0]
    assert report.thread == ""
    if report.file:  # else the loop was let in before us, which a busy machine may do: that is said
        assert (os.path.basename(report.file), report.line, report.function) == (HERE, LINE, "catastrophe")
    else:
        assert "nobody could look" in records[0].getMessage()


@linux
@pytest.mark.parametrize("loop", LOOPS)
def test_another_thread_that_holds_the_lock_is_named_instead_of_the_loop(
    loop: Any, records: list[logging.LogRecord]
) -> None:
    reports: list[health.BlockedLoop] = []

    async def main() -> None:
        health.on_blocked(reports.append)
        await asyncio.sleep(0.15)
        over = threading.Event()

        def hog() -> None:
            while not over.is_set():
                catastrophe()
                over.wait(0.3)

        thread = threading.Thread(target=hog, name="hog")
        thread.start()
        try:
            await until(lambda: [report for report in reports if report.thread], 60)
        finally:
            over.set()
            thread.join()

    multiloop.run(main, loop=loop)
    report = next(
        report for report in reports if report.thread
    )  # its line is where the thread was when we were let in: it may have gone a step further
    assert (os.path.basename(report.file), report.thread) == (HERE, "hog")
    assert any("by thread hog that held the interpreter's lock" in record.getMessage() for record in records)


@pytest.mark.parametrize("end", ["watchdog.stop()", "pass"])
def test_a_block_that_ends_with_the_program_is_reported(tmp_path: Path, end: str) -> None:
    done = run_program(
        tmp_path,
        "import time\nimport multiloop\nfrom multiloop import health, timers\n\n"
        "async def main():\n    watchdog = health.watch()\n    await timers.sleep(0.15)\n    time.sleep(0.4)\n"
        f"    {end}\n\nmultiloop.run(main)\n",
    )
    assert re.search(r"blocked for 0\.\d\d s at program\.py:8 in main", done.stderr), done.stderr
    assert done.stderr.count("blocked for") == 1


def test_a_block_that_ends_with_a_plain_asyncio_program_is_reported(tmp_path: Path) -> None:
    done = run_program(
        tmp_path,
        "import asyncio, time\nfrom multiloop import health\n\n"
        "async def main():\n    health.watch()\n    await asyncio.sleep(0.15)\n    time.sleep(0.5)\n\n"
        "asyncio.run(main())\n",
    )
    assert re.search(r"blocked for 0\.\d\d s at program\.py:7 in main", done.stderr), done.stderr
    assert done.stderr.count("blocked for") == 1


def test_the_callbacks_hear_of_a_block_that_ends_as_the_watchdog_stops(records: list[logging.LogRecord]) -> None:
    reports: list[health.BlockedLoop] = []

    async def main() -> None:
        health.on_blocked(reports.append)
        await asyncio.sleep(0.15)
        time.sleep(0.4)

    multiloop.run(main)
    assert len(reports) == 1
    assert 0.3 < reports[0].duration < 1.5


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_that_does_not_run_is_not_blocked(loop: Any, records: list[logging.LogRecord]) -> None:
    made = asyncio.new_event_loop() if loop == "asyncio" else __import__("uvloop").new_event_loop()

    async def first() -> health.Watchdog:
        return health.watch(0.02)

    async def second() -> int:
        await asyncio.sleep(0.1)
        return health.statistics().blocked_count

    watchdog = made.run_until_complete(first())
    time.sleep(0.2)  # between two runs: nothing is late
    assert made.run_until_complete(second()) == 0
    made.run_until_complete(_stop(watchdog))
    made.close()
    # a busy machine may have had no core for it, which is told: that is no block
    assert [record for record in records if "had no core for it" not in record.getMessage()] == []


async def _stop(watchdog: health.Watchdog) -> None:
    watchdog.stop()


def test_a_loop_that_only_waited_for_a_core_was_not_blocked(
    records: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = 0.0
    monkeypatch.setattr(RunQueue, "waited_s", lambda self: waited)
    monkeypatch.setattr(_episode, "_starved_said_s", -1e9)

    async def main() -> None:
        nonlocal waited
        health.watch()
        await asyncio.sleep(0.15)
        waited = 10.0
        time.sleep(0.3)
        await asyncio.sleep(0.2)
        assert health.statistics().blocked_count == 0
        waited += 0.15
        time.sleep(0.35)
        await until(lambda: health.statistics().blocked_count)
        found = health.statistics().last_blocked
        assert found is not None
        assert found.starved == pytest.approx(0.15)

    multiloop.run(main)
    starved, blocked = [record.getMessage() for record in records]
    assert re.fullmatch(r"the event loop was late by 0\.\d\d s: this machine had no core for it", starved)
    assert "0.15 s of it waiting for a core" in blocked


@linux
def test_the_clocks_of_threads_and_of_waiting_for_a_core_are_read() -> None:
    done = threading.Event()
    ready = threading.Event()

    def compute() -> None:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        ready.set()
        done.wait()

    thread = threading.Thread(target=compute)
    thread.start()
    ready.wait()
    found = cpu_times()
    done.set()
    thread.join()
    assert thread.ident is not None
    assert found[thread.ident] >= 0.05
    assert thread.ident not in cpu_times()
    queue = RunQueue()
    assert queue.waited_s() >= 0.0
    queue.close()
    queue.close()
    assert queue.waited_s() == 0.0


@pytest.mark.parametrize("alarm", [pytest.param(Alarm, id="plain"), pytest.param(FORM, id="taken here")])
def test_beside_a_busy_loop_the_thread_wakes_once_in_a_while(
    alarm: type[Alarm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wake-up takes the interpreter's lock from who computes: the compiled form does without while the beats come."""
    monkeypatch.setattr("multiloop.health._alarm.FORM", alarm)

    async def main() -> tuple[int, int]:  # beats, and wake-ups of the thread
        watchdog = health.watch()
        wakes = 0

        def woke() -> None:
            nonlocal wakes
            wakes += 1

        watchdog.on_wake = woke
        began = time.monotonic()
        beats = 0
        while time.monotonic() - began < 1.8:
            sum(range(20_000))
            await asyncio.sleep(0)
            if not beats and time.monotonic() - began > 0.3:
                beats, wakes = watchdog.beats, 0
        return watchdog.beats - beats, wakes

    runs = []
    for _ in range(5):  # the best of some: when the machine has no core for it, beats are late and looked into
        beats, wakes = multiloop.run(main)
        assert beats <= 31, "two per threshold"
        runs.append(wakes)
        if wakes <= (15 if alarm is Alarm else 2):
            break
    else:
        pytest.fail(str(runs))


def test_an_alarm_is_late_by_nothing_but_what_prolonged_it() -> None:
    for form in {Alarm, FORM}:
        alarm, now = form(), time.monotonic()

        def slept(
            until_s: float, most_s: float, form: type[Alarm] = form, now: float = now, alarm: Alarm = alarm
        ) -> float:
            until, _ = alarm.sleep(now + until_s, now + most_s, {})
            assert time.monotonic() >= until
            return round(until - now, 6)

        assert slept(-1, -1) == -1
        alarm.prolong(now + 0.05)
        assert slept(0.01, 10) == (0.01 if form is Alarm else 0.05)
        alarm.prolong(now + 3600)
        assert slept(0.06, 0.07) == (0.06 if form is Alarm else 0.07)
        assert slept(0.08, 0.08) == 0.08
        alarm.ring()
        assert slept(3600, 3600) < 3600
        assert slept(3600, 3600) < 3600


def test_an_alarm_tells_what_the_threads_have_computed() -> None:
    no_such_thread = (~(2**23) << 3) | 6
    for form in {Alarm, FORM}:
        used_s = form().sleep(0, 0, {**clocks(), 1: no_such_thread})[1]
        assert 1 not in used_s
        if sys.platform == "linux":
            assert 0 < used_s[threading.get_ident()] <= time.thread_time()


def test_a_block_that_nobody_could_look_at_is_reported_without_a_place(
    records: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        watchdog = health.watch()
        await asyncio.sleep(0.15)
        asleep = threading.Event()
        over = threading.Event()
        with monkeypatch.context() as patch:
            patch.setattr(watchdog, "wait", lambda seconds: (asleep.set(), over.wait()))
            await until(asleep.is_set)
            end = time.thread_time() + 0.3
            while time.thread_time() < end:
                pass
            await until(lambda: watchdog.late)  # the beat came first
        over.set()
        await until(lambda: health.statistics().blocked_count)

    multiloop.run(main)
    assert "by a call that held the interpreter's lock" in records[-1].getMessage()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("dumped", [False, True])
def test_a_loop_that_has_come_to_its_beat_is_not_blamed_for_it(
    loop: Any, dumped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a call that held the lock the loop may be let in before the watchdog: as far as into that one's beat."""
    monkeypatch.setattr(_stack, "_others_may_exist", lambda: dumped)
    looked: list[Any] = []
    go, over = threading.Lock(), threading.Lock()
    go.acquire()
    over.acquire()

    async def main() -> None:
        watchdog = health.watch(0.05)
        await until(lambda: watchdog.beats)

        def look() -> None:
            go.acquire()
            looked.append(_stack.capture_loop(watchdog.thread_id, watchdog.base))
            over.release()

        def starved_s() -> float:
            if threading.get_ident() == watchdog.thread_id and not looked:
                go.release()
                over.acquire()
            return 0.0

        threading.Thread(target=look).start()
        monkeypatch.setattr(watchdog, "starved_s", starved_s)
        await until(lambda: looked)

    multiloop.run(main, loop=loop)
    assert looked == [None]
