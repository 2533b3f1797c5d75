"""spawn: events in Node's order, stdio, options, signals, streams with backpressure, nothing left behind."""

import asyncio
import errno
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from tests.support import LOOPS, descriptors_left, environment, open_descriptors, until, wait_until

import multiloop
from multiloop import child_process, events, stream
from multiloop.child_process import spawn
from multiloop.errors import ClosedError, InvalidCommand, PrematureClose, UsageError


def run(main, loop="uvloop"):
    """Run a test program; nothing may be left behind."""
    before = open_descriptors()
    try:
        return multiloop.run(main, loop=loop)
    finally:
        assert not descriptors_left(before)


def record(child):
    """Every event of a child, as it comes."""
    seen = []
    for name in ("spawn", "error", "exit", "close", "disconnect"):
        child.on(name, lambda *args, name=name: seen.append((name, *args)))
    return seen


def python(code, *args, **options):
    return spawn(sys.executable, ["-c", code, *args], **options)


@pytest.mark.parametrize("loop", LOOPS)
def test_events_come_in_order_and_one_of_code_and_signal_is_none(loop):
    async def main():
        child = spawn("cat")
        seen = record(child)
        assert child.pid is not None
        assert seen == []
        child.stdout.on("data", lambda data: seen.append(("data", data)))
        child.stdout.on("end", lambda: seen.append(("end",)))
        child.stdin.end("hello")
        assert await child.wait() == (0, None)
        assert seen[0] == ("spawn",)
        assert sorted(seen[1:-1]) == [("data", b"hello"), ("end",), ("exit", 0, None)]
        assert seen[-1] == ("close", 0, None)
        assert (child.exit_code, child.signal_code, child.killed) == (0, None, False)

    run(main, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_killed_child_reports_its_signal(loop):
    async def main():
        child = spawn("sleep", ["100"])
        seen = record(child)
        assert child.kill(0)
        assert not child.killed
        assert child.kill()
        assert await child.wait() == (None, "SIGTERM")
        assert seen == [("spawn",), ("exit", None, "SIGTERM"), ("close", None, "SIGTERM")]
        assert child.killed
        assert child.kill() is False

    run(main, loop)


@pytest.mark.parametrize(
    ("given", "name"), [("SIGKILL", "SIGKILL"), ("usr1", "SIGUSR1"), (signal.SIGINT, "SIGINT"), (9, "SIGKILL")]
)
def test_signals_are_names_or_numbers(given, name):
    async def main():
        child = spawn("sleep", ["100"])
        await events.once(child, "spawn")
        child.kill(given)
        assert await child.wait() == (None, name)

    run(main)


def test_an_unknown_signal_is_refused():
    async def main():
        async with spawn("sleep", ["100"]) as child:
            for unknown in ("SIGNOPE", "", 4000, -1):
                with pytest.raises(UsageError, match="unknown"):
                    child.kill(unknown)
        with pytest.raises(UsageError, match="unknown"):
            spawn("true", kill_signal="SIGNOPE")

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_command_that_does_not_exist_is_an_error_with_its_name(loop):
    async def main():
        child = spawn("no-such-command", ["x"])
        seen = record(child)
        assert child.pid is None
        assert child.kill() is False
        with pytest.raises(FileNotFoundError) as caught:
            await child.wait()
        assert caught.value.filename == "no-such-command"
        assert caught.value.spawn_args == ["no-such-command", "x"]
        assert [event[0] for event in seen] == ["error", "close"]
        assert seen[1] == ("close", -errno.ENOENT, None)

    run(main, loop)


def test_a_file_that_cannot_be_run_and_a_missing_folder_are_errors(tmp_path):
    (tmp_path / "plain").write_text("text")

    async def main():
        for command, cwd, kind, name in (
            (tmp_path / "plain", None, PermissionError, tmp_path / "plain"),
            ("true", tmp_path / "missing", FileNotFoundError, tmp_path / "missing"),
            ("true", tmp_path / "plain", NotADirectoryError, tmp_path / "plain"),
        ):
            child = spawn(command, cwd=cwd)
            with pytest.raises(kind) as caught:
                await child.wait()
            assert type(caught.value) is kind
            assert caught.value.filename == str(name)

    run(main)


def test_a_nul_in_a_command_is_told_with_the_word_that_has_it():
    async def main():
        for words, options in (
            (("a\0b",), {}),
            (("true", ["x", b"a\0b"]), {}),
            (("true",), {"cwd": "a\0b"}),
            (("true",), {"env": {"NAME": "a\0b"}}),
            (("true",), {"shell": True, "env": {"a\0b": ""}}),
        ):
            with pytest.raises(InvalidCommand, match=r"'a\\x00b'") as caught:
                spawn(*words, **options)
            assert caught.value.word == "a\0b"

    run(main)


def test_an_error_of_starting_that_nobody_hears_is_uncaught():
    async def main():
        spawn("no-such-command")

    with pytest.raises(FileNotFoundError):
        run(main)


def test_what_cannot_be_meant_raises_at_the_call():
    async def main():
        for arguments, options in (
            (("true", "x"), {}),
            (("true",), {"stdio": "pip"}),
            (("true",), {"stdio": ["pipe", object()]}),
            (("true",), {"stdio": ["pipe", "pipe", "pipe", "pipe"]}),
            (("true",), {"stdio": ["ipc", "ipc"]}),
            (("true",), {"timeout": 0}),
            (("true",), {"env": {"A": 1}}),
        ):
            with pytest.raises(UsageError):
                spawn(*arguments, **options)
        with pytest.raises(TypeError):
            spawn("true", colour="red")

    run(main)


def test_options_reach_the_child(tmp_path):
    async def main():
        code = "import os, json; print(json.dumps([os.getcwd(), os.environ.get('X'), os.getsid(0) == os.getpid()]))"
        child = python(code, cwd=tmp_path, env={"X": "1"}, detached=True)
        assert await child.stdout.read_all() == f'["{tmp_path}", "1", true]\n'.encode()
        child = spawn("sh", ["-c", "echo $0"], argv0="other")
        assert await child.stdout.read_all() == b"other\n"
        child = spawn("echo $X", shell=True, env={"X": "from the shell"})
        assert await child.stdout.read_all() == b"from the shell\n"
        child = spawn("printf %s:", ["a b", "$HOME", "'"], shell=True)
        assert await child.stdout.read_all() == b"a b:$HOME:':"
        child = spawn("echo ${BASH_VERSION:+bash}", shell="/bin/bash")
        assert await child.stdout.read_all() == b"bash\n"

    run(main)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may change the user")
def test_uid_and_gid_change_whose_process_it_is():
    async def main():
        child = spawn("id", ["-u"], uid=65534, gid=65534)
        assert await child.stdout.read_all() == b"65534\n"
        child = spawn("id", ["-un"], uid="nobody")
        assert await child.stdout.read_all() == b"nobody\n"

    run(main)


def test_stdio_takes_words_descriptors_and_files(tmp_path):
    async def main():
        with open(tmp_path / "out", "wb") as out:
            child = spawn("echo to file; echo to error >&2", shell=True, stdio=["ignore", out, "pipe"])
            assert (child.stdin, child.stdout) == (None, None)
            assert await child.stderr.read_all() == b"to error\n"
            await child.wait()
            child = spawn("echo by number", shell=True, stdio=["ignore", out.fileno(), "ignore"])
            await child.wait()
        assert (tmp_path / "out").read_text() == "to file\nby number\n"
        child = spawn("cat", stdio="ignore")
        assert await child.wait() == (0, None)
        reading, writing = os.pipe()
        child = spawn(f"echo extra >&{writing}", shell="/bin/bash", pass_fds=[writing])
        os.close(writing)
        await child.wait()
        assert os.read(reading, 100) == b"extra\n"
        os.close(reading)

    run(main)


def test_inherit_is_our_own_output(capfd):
    async def main():
        await spawn("echo inherited", shell=True, stdio="inherit").wait()

    run(main)
    assert capfd.readouterr().out == "inherited\n"


@pytest.mark.parametrize("loop", LOOPS)
def test_large_data_goes_through_a_child_with_backpressure(loop):
    async def main():
        child = spawn("cat")
        sent, false_times = os.urandom(1 << 16) * 320, 0

        async def write():
            nonlocal false_times
            for start in range(0, len(sent), 1 << 18):
                if not child.stdin.write(sent[start : start + (1 << 18)]):
                    false_times += 1
                    assert child.stdin.write_buffer_size <= (1 << 18) + (1 << 16)
                    await child.stdin.drain()
            child.stdin.end()

        writing = asyncio.ensure_future(write())
        got = bytearray()
        async for chunk in child.stdout:
            got += chunk
        await writing
        assert got == sent
        assert false_times > 10
        assert await child.wait() == (0, None)

    run(main, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_child_that_writes_more_than_is_read_waits(loop):
    async def main():
        child = spawn("yes")
        await until(lambda: child.stdout.bytes_read >= 65536)
        before = child.stdout.bytes_read
        await asyncio.sleep(0.1)
        assert child.stdout.bytes_read == before < 300_000
        first = await child.stdout.read(10)
        assert first == b"y\ny\ny\ny\ny\n"
        child.kill("SIGKILL")
        child.stdout.destroy()
        await child.wait()

    run(main, loop)


def test_what_a_child_wrote_can_be_read_after_its_end():
    async def main():
        child = spawn("echo early", shell=True)
        assert await child.wait() == (0, None)
        assert await child.stdout.read_all() == b"early\n"
        assert await child.stdout.read_all() == b""

    run(main)


def test_lines_and_text_survive_cuts_anywhere():
    async def main():
        code = r"""
import sys, time
for part in ["first\r\nsec", "ond\n\nl\xc3".encode("latin-1"), b"\xa4st"]:
    sys.stdout.buffer.write(part.encode() if isinstance(part, str) else part)
    sys.stdout.buffer.flush(); time.sleep(0.02)
"""
        child = python(code)
        assert [line async for line in child.stdout.lines()] == ["first", "second", "", "läst"]
        child = python(code)
        child.stdout.set_encoding("utf-8")
        texts = []
        child.stdout.on("data", texts.append)
        await child.wait()
        assert "".join(texts) == "first\r\nsecond\n\nläst"

    run(main)


def test_pause_stops_the_data_and_resume_lets_it_flow():
    async def main():
        child = spawn("cat")
        got = []
        child.stdout.on("data", got.append)
        child.stdout.pause()
        child.stdin.end("x")
        await events.once(child, "exit")
        await asyncio.sleep(0.02)
        assert got == []
        child.stdout.resume()
        await child.wait()
        assert got == [b"x"]

    run(main)


def test_two_readers_and_a_reader_beside_a_listener_are_refused():
    async def main():
        async with spawn("cat") as child:
            reading = asyncio.ensure_future(child.stdout.read(10))
            await asyncio.sleep(0)
            with pytest.raises(UsageError, match="one reader"):
                await child.stdout.read(10)
            reading.cancel()
            await asyncio.sleep(0)
            child.stdin.write("kept")
            assert await child.stdout.read(10) == b"kept"
            child.stdout.on("data", print)
            with pytest.raises(UsageError, match="'data' listener"):
                await child.stdout.read(10)

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_writing_to_a_child_that_does_not_read_is_an_error_that_ends_nothing(loop):
    async def main():
        child = spawn("exec sleep 100 <&-", shell=True)
        while child.stdin.error is None:
            child.stdin.write(b"x" * 100_000)
            await asyncio.sleep(0.001)
        with pytest.raises(BrokenPipeError):
            await child.stdin.drain()
        assert child.stdin.write("more") is False
        child.kill()
        await child.wait()
        child = spawn("true")
        await child.wait()
        assert child.stdin.write("late") is False
        with pytest.raises(ClosedError):
            await child.stdin.drain()
        child.stdin.end()
        with pytest.raises(ClosedError):
            child.stdin.write("after the end")

    run(main, loop)


def test_timeout_kills_with_the_signal_and_in_the_end_for_good(monkeypatch):
    monkeypatch.setattr("multiloop.child_process._child.CHILD_KILL_AFTER_S", 0.1)

    async def main():
        start = time.monotonic()
        child = spawn("sleep", ["100"], timeout=0.05, kill_signal="SIGUSR1")
        assert await child.wait() == (None, "SIGUSR1")
        child = python("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(100)", timeout=0.5)
        assert await child.wait() == (None, "SIGKILL")
        assert time.monotonic() - start < 5
        child = spawn("true", timeout=50)
        assert await child.wait() == (0, None)

    run(main)


def test_signals_reach_what_a_shell_has_started():
    async def main():
        child = spawn("sleep 100 & sleep 100; echo never", shell=True)
        await events.once(child, "spawn")
        await asyncio.sleep(0.05)
        child.kill()
        assert await child.wait() == (None, "SIGTERM")  # and 'close': nobody holds the pipe any more
        assert await child.stdout.read_all() == b""

    run(main)


def test_async_with_kills_the_child():
    async def main():
        async with spawn("sleep", ["100"]) as child:
            pid = child.pid
        assert child.signal_code == "SIGTERM"
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        async with spawn("no-such-command") as child:
            child.on("error", lambda error: None)

    run(main)


def test_wait_with_a_callback_and_after_the_end():
    got = []

    def main():
        child = spawn("exit 3", shell=True)
        child.wait(callback=lambda error, ended: got.append((error, ended)))
        child.on("close", lambda *args: child.wait(callback=lambda error, ended: got.append((error, ended))))
        spawn("no-such-command").wait(callback=lambda error, ended: got.append((type(error), ended)))

    run(main)
    assert sorted(got, key=repr) == [(FileNotFoundError, None), (None, (3, None)), (None, (3, None))]


def test_a_child_keeps_the_program_until_it_has_closed():
    seen = []

    def main():
        child = spawn("sleep 0.05; echo x", shell=True)
        child.stdout.on("data", lambda data: seen.append(data))
        child.on("close", lambda *args: seen.append("close"))

    run(main)
    assert seen == [b"x\n", "close"]


def test_an_unrefd_child_lets_the_program_end_and_lives_on():
    children = []

    def main():
        children.append(spawn("sleep", ["100"], stdio="ignore", detached=True).unref())

    run(main)
    os.kill(children[0].pid, 0)
    os.kill(children[0].pid, signal.SIGKILL)
    wait_until(lambda: os.waitpid(children[0].pid, os.WNOHANG)[0])


@pytest.mark.parametrize("loop", LOOPS)
def test_a_program_that_fails_takes_its_children_with_it(loop):
    children = []

    async def main():
        children.append(spawn("sleep", ["100"]))
        raise KeyError("broken program")

    with pytest.raises(KeyError):
        run(main, loop)
    with pytest.raises(ProcessLookupError):  # killed, and reaped
        os.kill(children[0].pid, 0)


def test_an_ended_program_interrupted_from_outside_leaves_no_child(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        "import multiloop\nfrom multiloop import child_process\n"
        "multiloop.run(lambda: print(child_process.spawn('sleep', ['100']).pid, flush=True))\n"
    )
    program = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment())
    pid = int(program.stdout.readline())
    program.terminate()
    assert program.wait(10) == 128 + signal.SIGTERM
    program.stdout.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_only_our_own_child_is_reaped():
    async def main():
        stranger = subprocess.Popen(["true"])
        child = spawn("true")
        await child.wait()
        await asyncio.sleep(0.05)
        assert stranger.wait(10) == 0

    run(main)


def test_without_pidfd_a_thread_hears_of_the_end(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")

    async def main():
        child = spawn("exit 7", shell=True)
        assert await child.wait() == (7, None)
        child = spawn("sleep", ["100"])
        child.kill()
        assert await child.wait() == (None, "SIGTERM")

    run(main)


def test_works_in_a_plain_asyncio_program():
    async def main():
        child = spawn("cat")
        child.stdin.end("plain")
        assert await child.stdout.read_all() == b"plain"
        assert await child.wait() == (0, None)

    before = open_descriptors()
    asyncio.run(main())
    assert not descriptors_left(before)


def test_200_children_at_once_all_end():
    async def main():
        children = [spawn(f"echo {index}; exit {index % 50}", shell=True) for index in range(200)]
        texts = await asyncio.gather(*(child.stdout.read_all() for child in children))
        ends = await asyncio.gather(*(child.wait() for child in children))
        assert texts == [f"{index}\n".encode() for index in range(200)]
        assert ends == [(index % 50, None) for index in range(200)]

    soft = len(os.listdir("/proc/self/fd"))
    run(main)
    assert len(os.listdir("/proc/self/fd")) == soft


def test_at_the_limit_of_open_files_starting_is_an_error_or_works_and_leaks_nothing():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main():
        await spawn("true").wait()  # what is opened once is open now
        outcomes = []
        for free in range(10):
            spare = [os.dup(0) for _ in range(free + 1)]
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(spare), hard))
            for descriptor in spare[:-1]:
                os.close(descriptor)
            os.close(spare[-1])
            try:
                outcomes.append(await spawn("true").wait())
            except OSError as error:
                outcomes.append(error.errno)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert set(outcomes) == {errno.EMFILE, (0, None)}

    run(main)


def test_an_unknown_user_is_refused_at_the_call():
    async def main():
        with pytest.raises(UsageError, match="nobody-like-that"):
            spawn("true", uid="nobody-like-that")

    run(main)


def test_a_loop_that_is_closed_under_its_child_leaves_no_descriptor():
    async def main():
        spawn("true")

    before = open_descriptors()
    asyncio.run(main())
    assert not descriptors_left(before)


@pytest.mark.parametrize("loop", LOOPS)
def test_pipes_stand_in_a_pipeline(loop):
    async def main():
        child, collected = spawn("tr", ["a-z", "A-Z"]), []

        async def collect(chunks):
            async for chunk in chunks:
                collected.append(chunk)

        await asyncio.gather(
            stream.pipeline((b"some text\n" for _ in range(50_000)), child.stdin),
            stream.pipeline(child.stdout, collect),
        )
        assert b"".join(collected) == b"SOME TEXT\n" * 50_000
        assert child.stdout.readable_ended
        assert child.stdin.writable_finished
        dying = spawn("sleep", ["0.05"])
        with pytest.raises((BrokenPipeError, PrematureClose, ClosedError)):
            await stream.pipeline((b"x" * 10_000 for _ in range(1000)), dying.stdin)
        await dying.wait()

    run(main, loop)


def test_the_public_names_are_there():
    for name in ("spawn", "exec", "exec_file", "fork", "ChildProcess", "parent", "ReadPipe", "WritePipe", "Output"):
        assert hasattr(child_process, name)
