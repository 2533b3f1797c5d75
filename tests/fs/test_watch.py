"""`watch`."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.support import LOOPS, environment, until

import multiloop
from multiloop import fs
from multiloop.errors import ClosedError, InvalidPath, UsageError

loops = pytest.mark.parametrize("loop", LOOPS)


@loops
def test_the_iteration_tells_what_came_changed_and_went(tmp_path: Path, loop: Any) -> None:
    async def main() -> None:
        async with fs.watch(tmp_path) as watcher:
            events = aiter(watcher)
            (tmp_path / "a").write_text("1")
            event = await anext(events)
            assert (event.event_type, event.filename, event.change) == ("rename", "a", "added")
            assert event.path == str(tmp_path.resolve() / "a")
            with (tmp_path / "a").open("a") as file:
                file.write("2")
            while event.change == "added":
                event = await anext(events)
            assert (event.event_type, event.filename, event.change) == ("change", "a", "modified")
            (tmp_path / "a").unlink()
            while event.change == "modified":
                event = await anext(events)
            assert (event.event_type, event.filename, event.change) == ("rename", "a", "deleted")
        assert watcher.closed
        with pytest.raises(StopAsyncIteration):
            await anext(events)

    multiloop.run(main, loop=loop)


@loops
def test_events_of_a_recursive_watcher(tmp_path: Path, loop: Any) -> None:
    (tmp_path / "below" / "deeper").mkdir(parents=True)

    async def main() -> None:
        seen: list[Any] = []
        watcher = fs.watch(tmp_path, recursive=True, listener=lambda *args: seen.append(args))
        watcher.on("ready", lambda: seen.append("ready")).on("close", lambda: seen.append("close"))
        await watcher
        (tmp_path / "below" / "deeper" / "a").write_text("x")
        await until(lambda: ("rename", "below/deeper/a") in seen)
        watcher.close()
        watcher.close()
        await until(lambda: seen[-1] == "close")
        assert seen[0] == "ready"
        assert seen.count("close") == 1

    multiloop.run(main, loop=loop)


def test_without_recursive_only_the_directory_itself(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()

    async def main() -> None:
        async with fs.watch(tmp_path) as watcher:
            (tmp_path / "below" / "a").write_text("x")
            (tmp_path / "b").write_text("x")
            async for event in watcher:
                assert not event.filename.startswith("below/")
                if event.filename == "b":
                    break
        assert watcher.closed

    multiloop.run(main)


def test_a_single_file_may_be_watched(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")

    async def main() -> None:
        async with fs.watch(tmp_path / "a") as watcher:
            (tmp_path / "other").write_text("x")
            with (tmp_path / "a").open("a") as file:
                file.write("y")
            async for event in watcher:
                assert event.filename == "a"
                break

    multiloop.run(main)


def test_what_is_ignored_is_not_told(tmp_path: Path) -> None:
    async def main() -> None:
        for ignore in (["*.tmp", "cache/**"], lambda name: name.endswith(".tmp") or name.startswith("cache")):
            async with fs.watch(tmp_path, recursive=True, ignore=ignore) as watcher:
                (tmp_path / "cache").mkdir(exist_ok=True)
                (tmp_path / "cache" / "x").write_text("x")
                (tmp_path / "a.tmp").write_text("x")
                (tmp_path / "wanted").write_text("x")
                async for event in watcher:
                    assert event.filename == "wanted"
                    break

    multiloop.run(main)


def test_polling_works_where_nothing_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with fs.watch(tmp_path, poll=0.02) as watcher:
            (tmp_path / "a").write_text("x")
            event = await anext(aiter(watcher))
            assert event.filename == "a"

    multiloop.run(main)


@loops
def test_errors(tmp_path: Path, loop: Any) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError) as caught:
            await fs.watch(tmp_path / "nope")
        assert caught.value.filename == str(tmp_path / "nope")
        with pytest.raises(FileNotFoundError):
            async for _ in fs.watch(tmp_path / "nope"):
                pass
        seen: list[Any] = []
        fs.watch(tmp_path / "nope").on("error", seen.append).on("close", lambda: seen.append("close"))
        await until(lambda: len(seen) == 2)
        assert isinstance(seen[0], FileNotFoundError)
        with pytest.raises(InvalidPath):
            fs.watch("a\0b")
        watcher = fs.watch(tmp_path)
        ready = watcher.ready()
        watcher.close()
        with pytest.raises(ClosedError):
            await ready

    multiloop.run(main, loop=loop)
    with pytest.raises(FileNotFoundError):
        multiloop.run(lambda: fs.watch(tmp_path / "nope"), loop=loop)


def test_an_error_is_raised_once_and_told_to_all_who_ask_later(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            async for _ in fs.watch(tmp_path / "nope"):
                pass
        gc.collect()  # nothing is left that failed and was not awaited: that would end the program
        await asyncio.sleep(0)
        seen: list[Any] = []
        watcher = fs.watch(tmp_path / "nope").on("error", seen.append)
        await until(lambda: seen)
        with pytest.raises(FileNotFoundError):
            await watcher.ready()

    multiloop.run(main)


def test_two_tasks_cannot_iterate_over_one_watcher(tmp_path: Path) -> None:
    async def main() -> None:
        watcher = fs.watch(tmp_path)
        events = aiter(watcher)
        first = asyncio.ensure_future(anext(events))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="two tasks"):
            await anext(events)
        first.cancel()
        watcher.close()

    multiloop.run(main)


def test_a_watcher_keeps_the_program_running_unless_unrefd(tmp_path: Path) -> None:
    code = f"""
import sys, multiloop
from multiloop import fs, timers
def main():
    watcher = fs.watch({str(tmp_path)!r}, persistent={{}})
    timers.set_timeout(print, 0.05, "timer")
    watcher.on("close", lambda: print("close"))
    if {{}}:
        timers.set_timeout(watcher.close, 0.1)
multiloop.run(main)
"""
    for persistent in (True, False):
        done = subprocess.run(
            [sys.executable, "-c", code.format(persistent, persistent)],
            capture_output=True,
            text=True,
            timeout=20,
            env=environment(),
            check=True,
        )
        assert done.stdout == ("timer\nclose\n" if persistent else "timer\n")


@loops
def test_watchers_leave_neither_thread_nor_descriptor(tmp_path: Path, loop: Any) -> None:
    async def main() -> None:
        async with fs.watch(tmp_path):
            pass
        await until(lambda: not [t for t in threading.enumerate() if t.name == "multiloop-watch"])
        before = len(os.listdir("/proc/self/fd"))
        for step in range(20):
            watcher = fs.watch(tmp_path)
            await asyncio.sleep(step / 2000)
            watcher.close()
        await until(lambda: not [t for t in threading.enumerate() if t.name == "multiloop-watch"])
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)

    multiloop.run(main, loop=loop)


@loops
def test_ready_reports_to_a_callback_with_the_watcher_or_the_error(tmp_path: Path, loop: Any) -> None:
    seen: list[Any] = []

    def main() -> None:
        watcher = fs.watch(tmp_path)

        def told(error: Any, value: Any) -> None:
            seen.append((error, value is watcher))
            watcher.ready(callback=again)

        def again(error: Any, value: Any) -> None:
            seen.append((error, value is watcher))
            watcher.close()

        watcher.ready(callback=told)
        missing = fs.watch(tmp_path / "missing")
        missing.ready(callback=lambda error, value: seen.append((type(error), error.filename, value)))
        closed = fs.watch(tmp_path)
        closed.close()
        closed.ready(callback=lambda error, value: seen.append((type(error), value)))
        with pytest.raises(TypeError, match="callback=3"):
            closed.ready(callback=3)  # type: ignore[call-overload]
        assert seen == [], "never inside the call"

    multiloop.run(main, loop=loop)
    assert seen.count((None, True)) == 2
    assert (FileNotFoundError, str(tmp_path / "missing"), None) in seen
    assert (ClosedError, None) in seen
    assert len(seen) == 4
