"""fork: messages both ways, in order, with handles; disconnect; liveness; dead peers."""

import asyncio
import errno
import os
import socket
import sys
import textwrap
import threading

import pytest
from tests.child_process.test_spawn import record, run
from tests.support import LOOPS, until, wait_until

import multiloop
from multiloop import child_process, net
from multiloop.child_process import exec_file, fork, spawn
from multiloop.errors import InvalidCommand, NotSendable, UsageError

ECHO = """
    from multiloop.child_process import parent
    parent.on("message", lambda message, handle: parent.send(message, handle))
"""


@pytest.fixture
def script(tmp_path):
    """Write a child's source; returns its path."""

    def write(source, name="child.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return str(path)

    return write


def collect(child):
    got = []
    child.on("message", lambda message, handle: got.append(message if handle is None else (message, handle)))
    return got


@pytest.mark.parametrize("loop", LOOPS)
def test_messages_go_both_ways_in_order(script, loop):
    async def main():
        child = fork(script(ECHO))
        got = collect(child)
        values = [1, "two", {"three": [4, 5.0]}, None, os.urandom(200_000), (6, {7})] * 50
        for value in values:
            child.send(value)
        await until(lambda: len(got) == len(values))
        assert got == values
        assert child.connected
        child.disconnect()
        assert not child.connected
        assert child.send("late") is False
        assert await child.wait() == (0, None)

    run(main, loop)


def test_both_sides_send_64_mib_at_once(script):
    async def main():
        child = fork(
            script("""
            from multiloop.child_process import parent
            parent.on("message", lambda message, handle: parent.send(len(message)))
            parent.send(bytes(1 << 26))
        """)
        )
        got = collect(child)
        child.send(b"x" * (1 << 26))
        await until(lambda: len(got) == 2, 60)
        assert got == [bytes(1 << 26), 1 << 26]
        child.disconnect()
        await child.wait()

    run(main)


def test_a_module_with_arguments_and_interpreter_options(script, tmp_path):
    script(
        """
        import sys
        from multiloop.child_process import parent
        parent.send([__name__, sys.argv[1:], sys.flags.dev_mode, __spec__.name])
        """,
        "package/__main__.py",
    )

    async def main():
        child = fork("package", ["a", "b c"], cwd=tmp_path, exec_argv=["-X", "dev"])
        got = collect(child)
        assert await child.wait() == (0, None)
        assert got == [["__main__", ["a", "b c"], True, "package.__main__"]]

    run(main)


def test_a_file_sees_itself_as_main_and_its_neighbours(script, tmp_path):
    script("name = 'neighbour'", "neighbour.py")
    path = script(
        """
        import pickle, sys
        import neighbour
        from multiloop.child_process import parent
        class Thing: pass
        assert sys.modules["__main__"].Thing is Thing
        pickle.loads(pickle.dumps(Thing()))
        parent.send([__name__, __file__, sys.argv, neighbour.name])
        """
    )

    async def main():
        child = fork(path, ["x"])
        got = collect(child)
        await child.wait()
        assert got == [["__main__", path, [path, "x"], "neighbour"]]

    run(main)


def test_a_target_that_does_not_exist(tmp_path, capfd):
    async def main():
        for target, options in ((tmp_path / "missing.py", {}), ("missing.py", {"cwd": tmp_path})):
            child = fork(target, silent=True, **options)
            seen = record(child)
            assert seen == [], "never inside the call"
            with pytest.raises(FileNotFoundError) as caught:
                await child.wait()
            assert caught.value.filename == str(tmp_path / "missing.py")
            assert seen == [("error", caught.value), ("close", -errno.ENOENT, None)]
            assert child.pid is None
            assert child.send("nobody is there") is False
        with pytest.raises(InvalidCommand, match="x00"):
            fork("nul\0.py")
        child = fork("no_such_module_at_all")
        assert await child.wait() == (1, None)

    run(main)
    assert "No module named no_such_module_at_all" in capfd.readouterr().err


def test_a_traceback_begins_in_the_users_file(script, capfd):
    path = script("def f():\n    raise KeyError('mine')\nf()\n")

    async def main():
        assert await fork(path).wait() == (1, None)

    run(main)
    error = capfd.readouterr().err
    assert error.splitlines()[1] == f'  File "{path}", line 3, in <module>'
    assert "_bootstrap" not in error


def test_silent_gives_pipes(script):
    async def main():
        child = fork(script("print('to the pipe')"), silent=True)
        assert await child.stdout.read_all() == b"to the pipe\n"
        await child.wait()

    run(main)


def test_options_of_a_shell_are_refused(script):
    async def main():
        with pytest.raises(UsageError, match="shell"):
            fork(script(ECHO), shell=True)

    run(main)


def test_what_cannot_be_pickled_raises_at_the_call_and_names_the_path(script):
    async def main():
        child = fork(script(ECHO))
        got = collect(child)
        with pytest.raises(NotSendable, match=r'value\["x"\]\[0\]'):
            child.send({"x": [threading.Lock()]})
        child.send("after")
        await until(lambda: got)
        child.disconnect()
        await child.wait()

    run(main)


def test_a_message_that_cannot_be_unpickled_is_an_error_event_and_the_next_one_comes(script):
    async def main():
        child = fork(
            script("""
            from multiloop.child_process import parent
            class OnlyHere: pass
            parent.send("before"); parent.send(OnlyHere()); parent.send("after")
        """)
        )
        got, errors = collect(child), []
        child.on("error", errors.append)
        await child.wait()
        assert got == ["before", "after"]
        assert isinstance(errors[0], AttributeError)

    run(main)


def test_what_comes_before_the_first_listener_is_kept(script):
    async def main():
        child = fork(
            script("""
            from multiloop.child_process import parent
            for index in range(1000):
                parent.send(index)
        """)
        )
        await asyncio.sleep(0.3)
        got = collect(child)
        await child.wait()
        await until(lambda: len(got) == 1000)
        assert got == list(range(1000))

    run(main)


def test_what_is_sent_before_the_loop_runs_is_taken_as_it_is_then(script):
    async def main():
        child = fork(
            script("""
            import os, threading
            from multiloop.child_process import parent
            from multiloop.errors import NotSendable
            items = [1]
            parent.send(items)
            items.append(2)
            memory = os.memfd_create("x")
            os.write(memory, b"early")
            parent.send("with a descriptor", memory)
            os.close(memory)
            try:
                parent.send(threading.Lock())
            except NotSendable as error:
                parent.send(error.path)
        """)
        )
        got = collect(child)
        assert await child.wait() == (0, None)
        assert [got[0], got[1][0], got[2]] == [[1], "with a descriptor", "value"]
        assert os.pread(got[1][1], 100, 0) == b"early"
        os.close(got[1][1])

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_messages_come_before_exit_and_disconnect_comes_once(script, loop):
    async def main():
        child = fork(
            script("""
            import os
            import multiloop
            from multiloop.child_process import parent
            async def main():
                for index in range(500):
                    parent.send(index)
                parent.send(bytes(3_000_000))
            multiloop.run(main)
        """)
        )
        seen = []
        child.on("message", lambda message, handle: seen.append("message"))
        for name in ("disconnect", "exit", "close"):
            child.on(name, lambda *args, name=name: seen.append((name, child.connected, *args)))
        await child.wait()
        assert seen[:501] == ["message"] * 501
        assert sorted(seen[501:503]) == [("disconnect", False), ("exit", False, 0, None)]
        assert seen[503:] == [("close", False, 0, None)]

    run(main, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_killed_child_disconnects_and_sending_returns_false(script, loop):
    async def main():
        child = fork(script(ECHO))
        got = collect(child)
        child.send("up")
        await until(lambda: got)
        child.kill("SIGKILL")
        while child.connected:
            child.send(bytes(10_000))
            await asyncio.sleep(0)
        assert child.send("dead?") is False
        assert await child.drain() is False
        assert await child.wait() == (None, "SIGKILL")

    run(main, loop)


def test_the_childs_side_is_told_when_the_parent_disconnects(script):
    async def main():
        child = fork(
            script("""
            from multiloop.child_process import parent
            def gone():
                assert parent.connected is False
                assert parent.send("anybody?") is False
                print("gone", flush=True)
            parent.on("disconnect", gone)
        """),
            silent=True,
        )
        child.disconnect()
        assert await child.stdout.read_all() == b"gone\n"
        assert await child.wait() == (0, None)

    run(main)


def test_the_child_may_disconnect(script):
    async def main():
        child = fork(
            script("""
            from multiloop.child_process import parent
            parent.on("message", lambda message, handle: (parent.send("last"), parent.disconnect()))
        """)
        )
        got = collect(child)
        child.send("end it")
        assert await child.wait() == (0, None)
        assert got == ["last"]

    run(main)


@pytest.mark.parametrize(
    ("listening", "ends"),
    [
        ("", True),
        ("parent.on('message', print)", False),
        ("parent.on('message', print).unref()", True),
        ("parent.ref()", False),
    ],
)
def test_a_listener_keeps_the_child_and_nothing_else_does(script, listening, ends):
    async def main():
        child = fork(
            script(f"""
            import multiloop
            from multiloop.child_process import parent
            async def main():
                {listening or "pass"}
            multiloop.run(main)
        """)
        )
        if ends:
            assert await child.wait() == (0, None)
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(child.wait(), 0.6)
            child.disconnect()
            assert await child.wait() == (0, None)

    run(main)


def test_a_child_of_an_ended_program_that_waits_for_messages_ends_too(script, tmp_path):
    child_path = script(ECHO)
    program = script(
        f"""
        import os
        import multiloop
        from multiloop.child_process import fork
        def main():
            child = fork({child_path!r})
            child.on("message", lambda message, handle: (print(child.pid, flush=True), os._exit(0)))
            child.send("up")
        multiloop.run(main)
        """,
        "program.py",
    )

    async def main():
        output = await exec_file(sys.executable, [program], env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)))
        return int(output.stdout)

    pid = run(main)

    def gone():
        try:
            with open(f"/proc/{pid}/stat") as file:
                return ") Z " in file.read()
        except FileNotFoundError:
            return True

    wait_until(gone)


def test_a_grandchild_does_not_take_the_channel(script):
    async def main():
        child = fork(
            script("""
            import os, subprocess, sys
            from multiloop.child_process import parent
            assert parent is not None and "MULTILOOP_CHANNEL" not in os.environ
            code = "from multiloop import child_process; print(child_process.parent)"
            env = dict(os.environ, MULTILOOP_CHANNEL="1:3:4:100", PYTHONPATH=os.pathsep.join(sys.path))
            parent.send(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout)
        """)
        )
        got = collect(child)
        await child.wait()
        assert got == ["None\n"]

    run(main)
    assert child_process.parent is None


def test_spawn_with_ipc_talks_to_any_python_program(script):
    path = script("""
        import multiloop
        from multiloop.child_process import parent
        async def main():
            parent.on("message", lambda message, handle: (parent.send([message]), parent.disconnect()))
        multiloop.run(main)
    """)

    async def main():
        env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        child = spawn(sys.executable, [path], stdio=["ignore", "inherit", "inherit", "ipc"], env=env)
        got = collect(child)
        child.send("hello")
        await child.wait()
        assert got == [["hello"]]
        child = spawn("sleep", ["0.05"])
        assert child.connected is False
        assert child.send("no channel") is False
        await child.wait()

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_sockets_files_and_descriptors_travel_with_their_messages(script, loop):
    async def main():
        child = fork(script(ECHO))
        got = collect(child)
        left, right = socket.socketpair()
        memory = os.memfd_create("x")
        os.write(memory, b"in memory")
        with open("/etc/hostname") as file:
            child.send("a socket", left)
            child.send("plain")
            child.send("a descriptor", memory)
            child.send("a file", file)
            child.send("kept", right, keep_open=True)
        assert left.fileno() == -1  # it has one owner
        await until(lambda: len(got) == 5)
        assert [entry if isinstance(entry, str) else entry[0] for entry in got] == [
            "a socket", "plain", "a descriptor", "a file", "kept",
        ]  # fmt: skip
        back, copy = got[0][1], got[4][1]
        back.send(b"through two processes")
        assert right.recv(100) == b"through two processes"
        assert os.pread(got[2][1], 100, 0) == b"in memory"
        for closing in (back.close, copy.close, right.close):
            closing()
        for descriptor in (memory, got[2][1], got[3][1]):
            os.close(descriptor)
        child.disconnect()
        await child.wait()

    run(main, loop)


def test_a_connection_and_a_server_are_served_by_the_child(script):
    async def main():
        child = fork(
            script("""
            import multiloop
            from multiloop.child_process import parent
            def take(message, handle):
                if message == "connection":
                    handle.end(b"from the child")
                else:
                    handle.on("connection", lambda socket: socket.end(b"child serves"))
                    handle.on("listening", lambda: parent.send("listening"))
                    parent.on("disconnect", handle.close)
            parent.on("message", take)
        """)
        )
        got = collect(child)
        server = net.create_server(pause_on_connect=True)
        server.on("connection", lambda connection: child.send("connection", connection))
        await server.listen(0)
        client = await net.connect(server.address[1])
        assert await client.read_all() == b"from the child"
        port = server.address[1]
        child.send("server", server)
        await until(lambda: got)
        await server.close()  # ours; the child's goes on
        client = await net.connect(port)
        assert await client.read_all() == b"child serves"
        child.disconnect()
        await child.wait()

    run(main)


def test_what_is_no_handle_is_refused(script):
    async def main():
        child = fork(script(ECHO))
        for handle in ("text", object(), True, net.Socket()):
            with pytest.raises(UsageError, match="handle="):
                child.send("x", handle)
        child.disconnect()
        await child.wait()

    run(main)


def test_a_flood_of_handles_arrives_whole(script):
    async def main():
        child = fork(script(ECHO))
        count = 0

        def arrived(message, handle):
            nonlocal count
            count += 1
            os.close(handle)

        child.on("message", arrived)
        with open("/dev/null") as file:
            for index in range(500):
                if not child.send(index, file):
                    assert await child.drain()
            await until(lambda: count == 500)
        child.disconnect()
        await child.wait()

    run(main)


def test_drain_waits_for_room(script):
    async def main():
        child = fork(script(ECHO))
        got = collect(child)
        waits = 0
        for _ in range(200):
            if not child.send(bytes(100_000)):
                waits += 1
                assert await child.drain()
        await until(lambda: len(got) == 200)
        assert waits > 5
        child.disconnect()
        await child.wait()

    run(main)


def test_works_in_a_plain_asyncio_program(script):
    async def main():
        child = fork(script(ECHO))
        got = collect(child)
        child.send(1)
        await until(lambda: got)
        child.disconnect()
        await child.wait()

    asyncio.run(main())
    assert multiloop.child_process.parent is None
