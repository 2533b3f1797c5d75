"""`run`: when a program ends, and with what."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest
from tests.support import LOOPS, descriptors_left, environment, open_descriptors

import multiloop
from multiloop import fs, net, timers
from multiloop.errors import UsageError
from multiloop.loop import Handle, hub

loops = pytest.mark.parametrize("loop", LOOPS)


def script(code: str, *, timeout: float = 20, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(**env),
        check=False,
    )


# --- what main may be -------------------------------------------------------------------------------------------------
@loops
def test_run_returns_what_main_returned(loop: Any) -> None:
    async def coroutine(value: int) -> int:
        await asyncio.sleep(0)
        return value

    assert multiloop.run(coroutine, 1, loop=loop) == 1
    assert multiloop.run(coroutine(2), loop=loop) == 2
    assert multiloop.run(lambda value: value, 3, loop=loop) == 3


def test_a_plain_function_runs_on_the_loop() -> None:
    assert isinstance(multiloop.run(asyncio.get_running_loop), asyncio.AbstractEventLoop)


def test_what_cannot_be_run_is_refused() -> None:
    async def main() -> None: ...

    with pytest.raises(UsageError, match="function or a coroutine"):
        multiloop.run(3)
    with pytest.raises(UsageError, match="arguments go to the function"):
        multiloop.run(main(), 1)
    with pytest.raises(UsageError, match="'twisted' is unknown"):
        multiloop.run(main, loop="twisted")  # type: ignore[arg-type]


def test_run_inside_a_loop_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="await your main there"):
            multiloop.run(lambda: None)

    multiloop.run(main)


def test_the_loop_that_was_asked_for_is_used() -> None:
    names = {each: type(multiloop.run(asyncio.get_running_loop, loop=each)).__module__ for each in LOOPS}
    assert names["uvloop"].startswith("uvloop")
    assert names["asyncio"].startswith("asyncio")


def test_main_sees_the_context_of_its_caller() -> None:
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(7)
    assert multiloop.run(variable.get) == 7


def test_several_loops_run_at_once_in_threads() -> None:
    results: list[int] = []

    async def main(number: int) -> int:
        await asyncio.gather(*(fs.stat("/") for _ in range(50)))
        await timers.sleep(0.01)
        return number

    threads = [threading.Thread(target=lambda n=n: results.append(multiloop.run(main, n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1, 2, 3]


# --- when it ends -----------------------------------------------------------------------------------------------------
@loops
def test_it_waits_for_handles_that_count(loop: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        timers.set_timeout(seen.append, 0.01, "timer")
        fs.read_file("/etc/hostname", callback=lambda error, data: seen.append("file"))

    multiloop.run(main, loop=loop)
    assert sorted(seen) == ["file", "timer"]


@loops
def test_it_does_not_wait_for_handles_that_do_not(loop: Any) -> None:
    seen: list[str] = []
    multiloop.run(lambda: timers.set_timeout(seen.append, 0.2, "timer").unref(), loop=loop)
    assert seen == []


@loops
def test_what_is_open_at_the_end_is_closed(loop: Any) -> None:
    class Thing(Handle):
        closed = False

        def _shutdown(self) -> None:
            self.closed = True
            self._ended()

    thing = Thing()

    def main() -> None:
        thing._opened(hub())
        thing.unref()

    multiloop.run(main, loop=loop)
    assert thing.closed


@loops
def test_foreign_tasks_are_cancelled_and_may_clean_up(loop: Any) -> None:
    seen: list[Any] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            seen.append(await fs.exists("/"))

    async def main() -> None:
        seen.append(asyncio.ensure_future(forever()))
        await asyncio.sleep(0)

    multiloop.run(main, loop=loop)
    assert seen[1:] == [True]


@loops
def test_coroutines_of_callbacks_are_awaited(loop: Any) -> None:
    seen: list[int] = []

    async def later() -> None:
        await asyncio.sleep(0.01)
        seen.append(1)

    multiloop.run(lambda: timers.set_timeout(later, 0.001), loop=loop)
    assert seen == [1]


@loops
def test_runs_leave_no_descriptor(loop: Any) -> None:
    async def main() -> None:
        await asyncio.gather(*(fs.read_file("/etc/hostname") for _ in range(20)))

    multiloop.run(main, loop=loop)
    before = open_descriptors()
    for _ in range(5):
        multiloop.run(main, loop=loop)
    assert not descriptors_left(before)


# --- exceptions -------------------------------------------------------------------------------------------------------
@loops
def test_an_exception_of_main_leaves_run(loop: Any) -> None:
    async def main() -> None:
        timers.set_interval(lambda: None, 0.001)
        await asyncio.sleep(0.005)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        multiloop.run(main, loop=loop)


@loops
def test_an_exception_of_a_callback_leaves_run(loop: Any) -> None:
    seen: list[str] = []

    def main() -> None:
        timers.set_timeout(lambda: 1 / 0, 0.001)
        timers.set_timeout(seen.append, 5, "never")

    with pytest.raises(ZeroDivisionError):
        multiloop.run(main, loop=loop)
    assert seen == []


@loops
def test_an_operation_that_failed_and_nobody_awaited_leaves_run(loop: Any) -> None:
    async def main() -> None:
        fs.read_file("/does/not/exist")
        await asyncio.sleep(5)

    with pytest.raises(FileNotFoundError):
        multiloop.run(main, loop=loop)


@loops
def test_on_uncaught_gets_them_and_the_program_goes_on(loop: Any) -> None:
    seen: list[Any] = []

    def main() -> None:
        timers.set_timeout(lambda: 1 / 0, 0.001)
        timers.set_timeout(seen.append, 0.005, "after")

    before = multiloop.on_uncaught(seen.append)
    try:
        multiloop.run(main, loop=loop)
    finally:
        assert multiloop.on_uncaught(before) == seen.append
    assert isinstance(seen[0], ZeroDivisionError)
    assert seen[1:] == ["after"]


def test_a_handler_that_raises_ends_the_program_with_its_own_exception() -> None:
    def handler(error: BaseException) -> None:
        raise LookupError("worse") from error

    multiloop.on_uncaught(handler)
    try:
        with pytest.raises(LookupError, match="worse"):
            multiloop.run(lambda: timers.set_timeout(lambda: 1 / 0, 0.001))
    finally:
        multiloop.on_uncaught(None)


# --- scripts ----------------------------------------------------------------------------------------------------------
@loops
def test_a_script_without_async_ends_by_itself_with_code_0(loop: Any) -> None:
    done = script(
        f"""
        import multiloop
        from multiloop import fs, timers

        def loaded(error, data):
            print("file", error, len(data) > 0)
            timers.set_timeout(print, 0.01, "timer")

        def main():
            fs.read_file("/etc/hostname", callback=loaded)
            timers.set_immediate(print, "immediate")

        multiloop.run(main, loop={loop!r})
        print("end")
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["end", "file None True", "immediate", "timer"]
    assert done.stdout.endswith("timer\nend\n")


@loops
def test_a_script_that_throws_in_a_callback_ends_with_1_and_the_traceback(loop: Any) -> None:
    done = script(
        f"""
        import multiloop
        from multiloop import fs, timers

        def loaded(error, data):
            raise ValueError("thrown in the callback")

        def main():
            fs.read_file("/etc/hostname", callback=loaded)
            timers.set_timeout(print, 30, "never")

        multiloop.run(main, loop={loop!r})
        """
    )
    assert done.returncode == 1
    assert "in loaded" in done.stderr
    assert done.stderr.rstrip().endswith("ValueError: thrown in the callback")


@loops
def test_sys_exit_in_main_and_in_a_callback_is_the_exit_code(loop: Any) -> None:
    for main in ("async def main(): sys.exit(5)", "def main(): timers.set_timeout(sys.exit, 0.01, 5)"):
        done = script(
            f"import sys, multiloop\nfrom multiloop import timers\n{main}\nmultiloop.run(main, loop={loop!r})"
        )
        assert (done.returncode, done.stderr) == (5, "")


SIGNALLED = """
import asyncio, sys, multiloop
from multiloop import fs, timers

async def main():
    timers.set_interval(lambda: None, 0.01)
    print("started", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        await multiloop.offload(int)
        print("cleaned up", flush=True)
        if "hang" in sys.argv:
            await asyncio.sleep(60)

multiloop.run(main, loop={loop!r})
"""


@loops
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_cleanly(loop: Any, number: int, code: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SIGNALLED.format(loop=loop)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "started\n"
        child.send_signal(number)
        assert (child.stdout.read(), child.stderr.read()) == ("cleaned up\n", "")
        assert child.wait(10) == code


def test_a_second_signal_ends_it_at_once() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SIGNALLED.format(loop="auto"), "hang"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        child.send_signal(signal.SIGTERM)
        assert child.stdout.readline() == "cleaned up\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == -signal.SIGTERM


# --- in somebody else's loop ------------------------------------------------------------------------------------------
def test_everything_works_in_a_plain_asyncio_program() -> None:
    seen: list[Any] = []

    async def main() -> None:
        assert await fs.read_file("/etc/hostname")
        timers.set_timeout(seen.append, 0.001, "timer")
        timers.next_tick(seen.append, "tick")
        fs.stat("/", callback=lambda error, stats: seen.append(stats.is_directory()))
        await timers.sleep(0.05)

    asyncio.run(main())
    assert sorted(map(str, seen)) == ["True", "tick", "timer"]


def test_uncaught_errors_reach_the_handler_of_a_foreign_loop() -> None:
    seen: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context["exception"]))
        timers.set_timeout(lambda: 1 / 0, 0.001)
        await timers.sleep(0.02)

    asyncio.run(main())
    assert [type(error) for error in seen] == [ZeroDivisionError]


def test_foreign_loops_leave_no_descriptor_once_they_are_gone() -> None:
    import gc

    async def main() -> None:
        await multiloop.offload(int)

    asyncio.run(main())
    gc.collect()
    before = open_descriptors()
    for _ in range(3):
        asyncio.run(main())
    assert not descriptors_left(before)


def test_outside_a_loop_it_says_so() -> None:
    for call in (lambda: timers.set_timeout(print, 1), lambda: fs.read_file("/etc/hostname"), lambda: net.connect(1)):
        with pytest.raises(RuntimeError, match=r"no running event loop .* multiloop\.run\(main\)"):
            call()


def test_importing_the_package_is_cheap() -> None:
    done = script("import sys, multiloop; print([m for m in ('asyncio', 'uvloop', 'aiohttp') if m in sys.modules])")
    assert done.stdout == "[]\n"


def test_nothing_is_left_in_the_environment() -> None:
    before = dict(os.environ)
    multiloop.run(lambda: None)
    assert dict(os.environ) == before
