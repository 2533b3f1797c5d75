"""The watchdog names what blocks the loop, once, with file, line and time; and stays quiet otherwise."""

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque

import pytest
from tests.support import LOOPS, descriptors_left, environment, open_descriptors, until, wait_until

import multiloop
from multiloop import health
from multiloop.errors import UsageError
from multiloop.health import _episode, _requests, _stack
from multiloop.health._episode import seconds

HERE = os.path.basename(__file__)


def slow_handler(duration):
    time.sleep(duration)  # the line to blame


def compute(duration):
    end = time.thread_time() + duration  # of a core's time: others may use this machine, too
    while time.thread_time() < end:
        sum(range(100))


BLAMED = slow_handler.__code__.co_firstlineno + 1


def watched(block, loop="uvloop", threshold=0.1, **expect):
    """Run `block()` on a watched loop; returns the reports."""
    reports = []

    async def main():
        health.watch(threshold)
        health.on_blocked(reports.append)
        await asyncio.sleep(threshold * 1.6)
        block()
        await asyncio.sleep(0)  # the beat that ends it
        await asyncio.sleep(max(threshold * 2, 0.2))

    multiloop.run(main, loop=loop)
    return reports


@pytest.fixture
def records(monkeypatch):
    """What the watchdog logs of blocks; not that a busy machine made the loop wait for a core."""
    caught = []
    handler = logging.Handler()
    handler.addFilter(lambda record: "had no core" not in record.msg)
    handler.emit = caught.append
    monkeypatch.setattr(_episode.log, "handlers", [handler])
    monkeypatch.setattr(_episode.log, "propagate", False)
    return caught


@pytest.mark.parametrize("loop", LOOPS)
def test_a_sleeping_handler_is_named_with_its_line_and_time(loop, records):
    [report] = watched(lambda: slow_handler(0.4), loop)
    assert (os.path.basename(report.file), report.line, report.function) == (HERE, BLAMED, "slow_handler")
    assert 0.3 < report.duration < 1.0
    assert "time.sleep(duration)  # the line to blame" in report.stack
    assert report.stack.splitlines()[-2].endswith(f"line {BLAMED}, in slow_handler")
    assert abs(report.at + report.duration - time.time()) < 5
    [record] = records
    line = record.getMessage()
    assert re.fullmatch(rf"the event loop was blocked for 0\.\d\d s at \S*{HERE}:{BLAMED} in slow_handler", line)
    assert record.stack_info == report.stack
    assert record.levelname == "WARNING"


@pytest.mark.parametrize("loop", LOOPS)
def test_computing_is_named_too(loop, records):
    report = max(watched(lambda: compute(0.4), loop), key=lambda report: report.duration)  # a busy machine adds others
    assert (os.path.basename(report.file), report.function) == (HERE, "compute")


def test_the_users_frame_is_named_not_the_library_it_calls(records):
    text = json.dumps(list(range(400_000)))

    def parse():
        end = time.thread_time() + 0.3
        while time.thread_time() < end:
            json.JSONDecoder(object_hook=dict).decode(text)  # stays in Python and C code of the standard library

    [report] = watched(parse)
    assert os.path.basename(report.file) == HERE
    assert report.function.endswith("parse")


def test_a_call_that_holds_the_interpreters_lock_is_named(records):
    huge = 10**9000

    def hold():
        end = time.thread_time() + 0.4
        while time.thread_time() < end:
            pow(huge, 41)  # one call into C, which never lets another thread run

    [report] = watched(hold)
    assert (os.path.basename(report.file), report.function.rpartition(".")[2]) == (HERE, "hold")


@pytest.mark.parametrize("loop", LOOPS)
def test_short_callbacks_are_not_reported_however_many(loop, records):
    async def main():
        health.watch()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            compute(0.005)
            await asyncio.sleep(0)
        compute(0.03)
        await asyncio.sleep(0.2)
        return health.statistics().blocked_count

    blocked_count = multiloop.run(main, loop=loop)
    said = list(map(logging.LogRecord.getMessage, records))
    # true on a machine with more to do than cores
    starved = [line for line in said if "no core" in line or "waiting for a core" in line]
    assert said == starved
    assert blocked_count <= len(starved)


def test_each_block_is_reported_once(records):
    async def main():
        health.watch()
        for _ in range(3):
            slow_handler(0.2)
            await asyncio.sleep(0.15)
        await until(lambda: health.statistics().blocked_count == 3)
        found = health.statistics()
        assert 0.4 < found.blocked_seconds < 2.0
        assert found.longest_blocked.duration >= found.last_blocked.duration
        assert found.loop_delay.max > 0.08
        assert found.watching

    multiloop.run(main)
    assert len(records) == 3


def test_a_long_block_is_reported_before_it_ends(records, monkeypatch):
    monkeypatch.setattr(_episode, "BLOCKED_LOOP_LONG_S", 0.3)
    seen_while_blocked = []

    def block():
        time.sleep(0.8)
        seen_while_blocked.extend(record.getMessage() for record in records)

    [report] = watched(block)
    [line] = seen_while_blocked
    assert "is blocked for 0." in line
    assert "still is" in line
    assert len(records) == 1
    assert report.duration > 0.7


def test_the_current_request_is_told(records):
    class Request:
        method, path = "GET", "/slow"

    def block():
        for request in (Request(), "POST /text"):
            health.current_request = request
            slow_handler(0.25)
            health.current_request = None

    reports = watched(block)
    assert reports[0].request == "GET /slow"
    assert "(GET /slow)" in records[0].getMessage()


def test_a_server_may_name_its_requests_by_their_frames_instead(records, monkeypatch):
    def serve(path):
        slow_handler(0.25)

    def by_frame(frame):
        return health.Served(f"GET {frame.f_locals['path']}", "id-1") if frame.f_code is serve.__code__ else None

    monkeypatch.setattr(_requests, "_by_frame", [by_frame])
    [report] = watched(lambda: serve("/from/a/frame"))
    assert (report.request, report.request_id) == ("GET /from/a/frame", "id-1")
    assert records[0].request_id == "id-1"


def test_another_threshold_holds(records):
    assert watched(lambda: slow_handler(0.06), threshold=0.02)
    assert not watched(lambda: slow_handler(0.2), threshold=0.5)
    with pytest.raises(UsageError, match="threshold"):
        watched(lambda: None, threshold=0.0001)


def test_on_blocked_may_be_async_and_can_be_taken_back(records):
    got = []

    async def main():
        async def alert(report):
            await asyncio.sleep(0)
            got.append(report.line)

        off = health.on_blocked(alert)
        slow_handler(0.25)
        await until(lambda: got)
        off()
        off()
        slow_handler(0.25)
        await until(lambda: health.statistics().blocked_count == 2)
        await asyncio.sleep(0.05)

    multiloop.run(main)
    assert got == [BLAMED]


def test_watching_again_gives_the_same_watchdog_and_another_threshold_a_new_one():
    async def main():
        first = health.watch()
        assert health.watch() is first
        second = health.watch(0.2)
        assert second is not first
        assert second.threshold == health.statistics().threshold == 0.2
        second.stop()
        second.stop()
        assert not health.statistics().watching

    multiloop.run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_watching_keeps_nothing_going_and_leaves_nothing_behind(loop):
    before, threads = open_descriptors(), threading.active_count()

    async def main():
        health.watch()
        health.loop_delay()

    multiloop.run(main, loop=loop)
    assert threading.active_count() == threads
    assert not descriptors_left(before)


def test_in_a_plain_asyncio_program_the_thread_ends_with_the_loop(records):
    async def main():
        health.watch()
        slow_handler(0.25)
        await until(lambda: records)

    threads = threading.active_count()
    asyncio.run(main())
    wait_until(lambda: threading.active_count() == threads)


def test_a_loop_in_another_thread_is_watched(records):
    def program():
        async def main():
            health.watch()
            await asyncio.sleep(0.15)
            slow_handler(0.3)
            await asyncio.sleep(0.1)

        multiloop.run(main)

    thread = threading.Thread(target=program)
    thread.start()
    thread.join()
    assert f"{HERE}:{BLAMED} in slow_handler" in records[0].getMessage()


def test_a_stopped_process_is_not_a_blocked_loop(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        "import multiloop\nfrom multiloop import health, timers\n"
        "async def main():\n    health.watch()\n    print('up', flush=True)\n    await timers.sleep(1.2)\n"
        "    print(health.statistics().blocked_count)\nmultiloop.run(main)\n"
    )
    program = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment())
    assert program.stdout.readline() == b"up\n"
    time.sleep(0.3)  # the process under test is to be stopped in the middle of its waiting
    program.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    program.send_signal(signal.SIGCONT)
    assert program.stdout.read() == b"0\n"
    program.stdout.close()
    assert program.wait(10) == 0


def test_a_plain_script_without_logging_set_up_sees_the_line_and_the_stack(tmp_path):
    script = tmp_path / "app.py"
    script.write_text(
        "import time\nimport multiloop\nfrom multiloop import health\n\n"
        "def handler():\n    time.sleep(0.4)\n\n"
        "async def main():\n    health.watch()\n    handler()\n    await multiloop.timers.sleep(0.2)\n\n"
        "multiloop.run(main)\n"
    )
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment(), cwd=tmp_path)
    first, *rest = ran.stderr.splitlines()
    assert re.search(r"blocked for [\d.]+ s at app\.py:6 in handler\b", first)
    assert any("time.sleep(0.4)" in line for line in rest)


def test_without_the_global_lock_the_report_has_no_place_and_says_why(records, monkeypatch):
    monkeypatch.setattr(_stack, "CAN_CAPTURE", False)
    [report] = watched(lambda: slow_handler(0.4))
    assert (report.file, report.line, report.stack) == ("", 0, "")
    assert 0.3 < report.duration < 1.0
    assert "(where is unknown: " in records[0].getMessage()


@pytest.mark.parametrize("loop", LOOPS)
def test_beside_other_interpreters_the_stack_is_read_from_a_dump(loop, records, monkeypatch):
    monkeypatch.setattr(_stack, "_others_may_exist", lambda: True)
    monkeypatch.setattr(sys, "_current_frames", None)  # never touched: it makes frames of other interpreters
    [report] = watched(lambda: slow_handler(0.4), loop)
    assert (os.path.basename(report.file), report.line, report.function) == (HERE, BLAMED, "slow_handler")
    assert 0.3 < report.duration < 1.0

    async def idle():
        watchdog = health.watch()
        seen = []
        look = threading.Timer(0.2, lambda: seen.append(_stack.capture_loop(watchdog.thread_id, watchdog.base)))
        look.start()
        await asyncio.sleep(0.6)
        look.join()
        assert seen == [None]  # the loop waited for events

    multiloop.run(idle, loop=loop)


def test_a_dump_is_taken_apart():
    text = """Thread 0x00007f0000000001 [name] (most recent call first):
  File "/a b/\"c\".py", line 12 in inner
  File "/x.py", line ??? in outer

Current thread 0x00007f0000000002 (most recent call first):
  File "/other.py", line 1 in f
"""
    stack = _stack._read_dump(text, 0x7F0000000001)
    assert stack == [("/x.py", 0, "outer"), ('/a b/"c".py', 12, "inner")]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="interpreters of their own: 3.14")
def test_in_an_interpreter_of_its_own_a_block_is_reported_without_a_place():
    from concurrent import interpreters

    code = f"""
import sys
sys.path[:] = {sys.path!r}
import asyncio, time
import multiloop
from multiloop import health

async def main():
    health.watch()
    await asyncio.sleep(0.15)
    time.sleep(0.4)
    await asyncio.sleep(0.2)
    found = health.statistics()
    assert found.blocked_count == 1, found
    assert found.last_blocked.file == "", found

multiloop.run(main, loop="asyncio")
"""
    interpreter = interpreters.create()
    failures = []

    def run_it():
        try:
            interpreter.exec(code)
        except interpreters.ExecutionFailed as error:
            failures.append(error)

    thread = threading.Thread(target=run_it)
    thread.start()
    thread.join()
    interpreter.close()
    assert failures == []


def test_a_failing_name_or_request_loses_no_report(records, monkeypatch):
    def broken(*args):
        raise RuntimeError("half built")

    monkeypatch.setattr(_requests, "_by_frame", [broken])
    monkeypatch.setattr(_requests, "_by_task", [broken])

    class Broken:
        @property
        def path(self):
            raise RuntimeError("half built")

    def block():
        health.current_request = Broken()
        slow_handler(0.3)
        health.current_request = None

    [report] = watched(block)
    assert report.line == BLAMED
    assert report.request is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.085, "85 ms"), (0.41, "0.41 s"), (1.5, "1.50 s"), (12.34, "12.3 s"), (0.1, "0.10 s")]
)
def test_a_time_is_told_with_its_unit(value, text):
    assert seconds(value) == text


def test_beats_come_ten_times_a_second_when_idle_and_the_thread_wakes_twice_for_each():
    async def main():
        watchdog = health.watch()
        wakes = []
        watchdog.on_wake = lambda: wakes.append(1)
        before = watchdog.beats
        await asyncio.sleep(1)
        assert 5 <= watchdog.beats - before <= 11
        assert len(wakes) <= 25, "two per beat"

    multiloop.run(main)


def test_blame_prefers_the_users_code_then_libraries_then_the_last_frame():
    def place(file):
        return _stack.Place(file, 1, "f")

    standard, library = place(json.__file__), place("/x/lib/site-packages/lib/a.py")
    users, ours = place("/home/me/app.py"), place(health.__file__)  # ours is no library, wherever it is installed
    assert _stack.blame((ours, users, library, standard)) == users
    assert _stack.blame((ours, library, standard)) == library
    assert _stack.blame((standard, ours)) == ours
    assert _stack.blame((place("<string>"), standard)) == place("<string>")
    assert _stack.blame((users, place("<frozen importlib._bootstrap>"))) == users
    started = (place("<string>"), place(asyncio.runners.__file__))
    assert _stack.blame((*started, ours, standard)) == standard
    assert _stack.blame((*started, ours, users, standard)) == users
    assert deque(_stack.format_stack((users,)).splitlines(), maxlen=1)[0] == 'File "/home/me/app.py", line 1, in f'
