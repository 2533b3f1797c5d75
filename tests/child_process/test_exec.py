"""exec and exec_file: output, failures, limits, cancelling; random cancels leave nothing behind."""

import asyncio
import os
import random
import threading
import time

import pytest
from tests.child_process.test_spawn import run
from tests.support import LOOPS, descriptors_left, open_descriptors, until

import multiloop
from multiloop.child_process import CommandFailed, CommandTimeout, MaxBufferExceeded, exec, exec_file, spawn  # noqa: A004
from multiloop.errors import InvalidCommand, UsageError


def running_with(text):
    """Processes whose command line has this text (and are no zombies)."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if text.encode() in file.read():
                    found.append(int(pid))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("loop", LOOPS)
def test_exec_gives_the_output_of_a_shells_command_line(loop):
    async def main():
        output = await exec("echo out | tr a-z A-Z; echo err >&2")
        assert output == ("OUT\n", "err\n")
        assert output.stdout == "OUT\n"
        assert await exec("echo bytes", encoding=None) == (b"bytes\n", b"")
        assert (await exec(r"printf '\377'")).stdout == "\ufffd"
        assert await exec_file("echo", ["no $HOME", "shell"]) == ("no $HOME shell\n", "")

    run(main, loop)


def test_input_is_what_it_reads():
    async def main():
        assert (await exec("tr a-z A-Z", input="text")).stdout == "TEXT"
        assert (await exec_file("cat", input=b"\0bytes", encoding=None)).stdout == b"\0bytes"
        operation = exec("cat")
        operation.child.stdin.end("through the child")
        assert (await operation).stdout == "through the child"
        assert (await exec("true", input="nobody reads this" * 10_000)).stdout == ""

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_failing_command_raises_with_its_code_and_output(loop):
    async def main():
        with pytest.raises(CommandFailed, match=r"'echo before.*' ended with code 3: the reason") as caught:
            await exec("echo before; echo the reason >&2; exit 3")
        error = caught.value
        assert (error.code, error.signal, error.killed) == (3, None, False)
        assert (error.stdout, error.stderr) == ("before\n", "the reason\n")
        with pytest.raises(CommandFailed, match="killed by SIGKILL") as caught:
            await exec("kill -9 $$")
        assert (caught.value.code, caught.value.signal) == (None, "SIGKILL")

    run(main, loop)


def test_a_missing_program_raises_its_oserror_through_both_faces():
    got = []

    async def main():
        with pytest.raises(FileNotFoundError) as caught:
            await exec_file("no-such-program")
        assert caught.value.filename == "no-such-program"
        exec_file("no-such-program", callback=lambda error, output: got.append((error.filename, output)))

    run(main)
    assert got == [("no-such-program", None)]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["a\0b"], {}),
        (["echo", ["a\0b"]], {}),
        (["true"], {"cwd": "a\0b"}),
        (["true"], {"env": {"NAME": "a\0b"}}),
        (["a\0b"], {"shell": True}),
    ],
)
def test_a_nul_in_the_command_reaches_who_awaits_and_the_callback(words, options, loop):
    got = []

    async def main():
        with pytest.raises(InvalidCommand, match=r"'a\\x00b'"):
            await exec_file(*words, **options)
        operation = exec_file(*words, **options, callback=lambda error, output: got.append((type(error), output)))
        assert operation.child.pid is None
        assert got == [], "never inside the call"

    run(main, loop)
    assert got == [(InvalidCommand, None)]


def test_the_callback_gets_error_or_output():
    got = []

    def main():
        operation = exec("echo x", callback=lambda error, output: got.append((error, output)))
        assert operation.child.pid
        exec("exit 1", callback=lambda error, output: got.append((type(error), output)))

    run(main)
    assert sorted(got, key=repr) == [(CommandFailed, None), (None, ("x\n", ""))]


def test_a_failure_that_nobody_awaits_ends_the_program():
    def main():
        exec("exit 1")

    with pytest.raises(CommandFailed):
        run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_timeout_kills_the_shell_and_what_it_started(loop):
    async def main():
        start = time.monotonic()
        with pytest.raises(CommandTimeout) as caught:
            await exec("echo partial; sleep 77.125 & sleep 77.125; echo never", timeout=0.3)
        assert time.monotonic() - start < 5
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, CommandFailed)
        assert caught.value.stdout == "partial\n"
        assert caught.value.killed
        assert caught.value.signal == "SIGTERM"
        await until(lambda: not running_with("77.125"))

    run(main, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_too_much_output_kills_and_keeps_what_fits(loop):
    async def main():
        with pytest.raises(MaxBufferExceeded, match="stdout") as caught:
            await exec("yes", max_buffer=100_000)
        assert caught.value.stdout == "y\n" * 50_000
        with pytest.raises(MaxBufferExceeded, match="stderr"):
            await exec("yes >&2", max_buffer=0)
        assert len((await exec("head -c 100000 /dev/zero", max_buffer=100_000)).stdout) == 100_000

    run(main, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_cancelling_kills_the_child_and_frees_everything(loop):
    async def main():
        operation = exec("echo x; sleep 77.25 | cat")
        await until(lambda: operation.child.stdout.bytes_read)
        task = asyncio.ensure_future(asyncio.wait_for(operation, 100))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not operation.child._alive)
        assert operation.child.signal_code == "SIGTERM"
        await until(lambda: not running_with("77.25"))

    run(main, loop)


def test_cancelling_with_a_callback_tells_it():
    got = []

    async def main():
        operation = exec("sleep 100", callback=lambda error, output: got.append(type(error)))
        assert operation.cancel()
        assert not operation.cancel()

    run(main)
    assert got == [asyncio.CancelledError]


def test_a_child_that_ignores_its_signal_is_killed_for_good_after_a_cancel(monkeypatch):
    monkeypatch.setattr("multiloop.child_process._child.CHILD_KILL_AFTER_S", 0.1)

    async def main():
        operation = exec("trap '' TERM; echo ready; while :; do sleep 0.05; done")
        await until(lambda: operation.child.stdout.bytes_read)
        operation.cancel()
        await until(lambda: not operation.child._alive)
        assert operation.child.signal_code == "SIGKILL"

    run(main)


def test_options_that_cannot_be_meant_raise_at_the_call():
    async def main():
        for options in ({"stdio": "inherit"}, {"max_buffer": -1}, {"timeout": -1}):
            with pytest.raises(UsageError):
                exec("true", **options)
        with pytest.raises(TypeError):
            exec("true", colour="red")
        with pytest.raises(LookupError):
            exec("true", encoding="no-such-encoding")

    run(main)


async def cancel_at_random(count, chance):
    """Start children in every way and cancel them at any moment."""

    async def one():
        way = chance.randrange(4)
        if way == 0:
            await exec("echo x; sleep 0.01")
        elif way == 1:
            await exec_file("cat", input=b"x" * 100_000, encoding=None)
        elif way == 2:
            async with spawn("cat") as child:
                child.stdin.write("x")
                await child.stdout.read(1)
        else:
            async with spawn("yes") as child:
                await child.stdout.read(1)
                await child.stdout.read_all()

    async def cancelled():
        task = asyncio.ensure_future(one())
        await asyncio.sleep(chance.random() * 0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    await multiloop.map_limited(lambda _: cancelled(), range(count), limit=20)


def check_random_cancels(count, loop):
    before, threads = open_descriptors(), threading.active_count()

    async def main():
        await cancel_at_random(count, random.Random(count))
        here = multiloop.loop.hub()
        await until(lambda: here.refs == 0)
        assert len(asyncio.all_tasks()) == 2  # run's own and this one
        assert not here.handles

    multiloop.run(main, loop=loop)
    assert not descriptors_left(before)
    assert threading.active_count() == threads
    with pytest.raises(ChildProcessError):  # no child is left, no zombie either
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)


@pytest.mark.parametrize("loop", LOOPS)
def test_300_random_cancels_leave_nothing_behind(loop):
    check_random_cancels(300, loop)


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_10_000_random_cancels_leave_nothing_behind(loop):
    check_random_cancels(10_000, loop)


def test_a_callback_that_cannot_be_called_is_a_type_error_and_no_child_is_started(tmp_path):
    async def main():
        for function, command in ((exec, f"touch {tmp_path}/made"), (exec_file, "true")):
            with pytest.raises(TypeError, match="callback=3"):
                function(command, callback=3)
        child = spawn("cat")
        for call in (child.wait, child.stdout.read, child.stdout.read_all, child.stdin.drain):
            with pytest.raises(TypeError, match="callback=3"):
                call(callback=3)
        child.stdin.end("x")
        assert await child.stdout.read_all() == b"x"
        await child.wait()

    run(main)
    assert os.listdir(tmp_path) == []
