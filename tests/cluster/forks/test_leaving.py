"""How workers leave: with all that they had sent, and whatever holds them up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.forks.program import run


@pytest.mark.slow
def test_after_its_grace_disconnecting_all_ends_those_that_would_stay_too(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        if cluster.is_primary:
            async def program():
                timer, blocked, told_before = workers = [cluster.fork() for _ in range(3)]
                while not all(worker.state == "listening" for worker in workers):
                    await timers.sleep(0.01)
                for worker in workers:
                    worker.on("exit", lambda *how, worker=worker: say(worker.id, *how, worker.exited_after_disconnect))
                os.kill(blocked.process.pid, signal.SIGSTOP)
                told_before.disconnect()
                await events.once(told_before, "disconnect")
                await cluster.disconnect(grace=0)
                say("all", cluster.workers)

            multiloop.run(program)
        else:
            async def main():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                timers.set_interval(lambda: None, 0.1)
                await net.create_server().listen(0)

            multiloop.run(main)
        """,
    )
    assert ended.code == 0
    assert sorted(ended.lines[:-1]) == ["1 0 None True", "2 None SIGKILL True", "3 None SIGKILL True"]
    assert ended.lines[-1] == "all {}"
    assert ended.err.count("did not leave within its grace: killed") == 2


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_worker_that_ends_in_the_same_turn_as_the_program_is_no_error(tmp_path: Path, loop: str) -> None:
    ended = run(
        tmp_path,
        """
        if cluster.is_primary:
            worker = cluster.fork()

            async def program():
                await events.once(worker, "listening")
                worker.kill("SIGKILL")
                os.waitid(os.P_PID, worker.process.pid, os.WEXITED | os.WNOWAIT)  # this loop has not heard of it
                raise RuntimeError("the end")

            multiloop.run(program, loop=LOOP)
        else:
            async def main():
                await net.create_server().listen(0)

            multiloop.run(main)
        """.replace("LOOP", repr(loop)),
    )
    assert (ended.code, ended.err.count("Traceback")) == (1, 1), ended.err


@pytest.mark.slow
def test_neither_a_blocked_loop_nor_a_thread_keeps_a_worker_whose_channel_closes(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        import threading

        async def life_of(what):
            worker = cluster.fork()
            await events.once(worker, "listening")
            worker.send(what)
            await worker.process.stdout.read()  # it is in that state
            if what in ("sleeps", "computes", "has a thread"):
                worker.process.disconnect()
            elif what == "is told to go":
                worker.disconnect()
            code, name = await events.once(worker, "exit")
            say(what, code, name, worker.exited_after_disconnect)

        async def program():
            cluster.setup_primary(stdio=["ignore", "pipe", "inherit"])
            await asyncio.gather(*map(life_of, (
                "sleeps", "computes", "has a thread", "is told to go", "disconnects", "kills", "closes",
            )))

        def act(what, handle):
            if what not in ("sleeps", "computes"):
                threading.Thread(target=time.sleep, args=(100,)).start()
            os.write(1, b"so")
            if what == "sleeps":
                time.sleep(100)
            while what == "computes":
                pass
            me = cluster.worker
            {"disconnects": me.disconnect, "kills": me.kill, "closes": me.process.disconnect}.get(what, lambda: None)()

        async def main():
            cluster.worker.on("message", act)
            await net.create_server().listen(0)

        multiloop.run(program if cluster.is_primary else main)
        """,
    )
    assert ended.code == 0, ended.err
    assert sorted(ended.lines) == [
        "closes 0 None False",
        "computes 0 None False",
        "disconnects 0 None True",
        "has a thread 0 None False",
        "is told to go 0 None True",
        "kills 0 None True",
        "sleeps 0 None False",
    ]


@pytest.mark.slow
def test_a_worker_whose_channel_was_closed_has_got_what_was_sent_before(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        if cluster.is_primary:
            async def program():
                worker = cluster.fork()
                await events.once(worker, "listening")
                for number in range(1000):
                    worker.send(str(number) * 1000)
                worker.process.disconnect()
                say("exit", *await events.once(worker, "exit"))

            multiloop.run(program)
        else:
            async def main():
                got = []
                cluster.worker.on("message", lambda value, handle: got.append(value))
                cluster.worker.on("disconnect", lambda: print("got", len(got)))
                await net.create_server().listen(0)

            multiloop.run(main)
        """,
    )
    assert ended.lines == ["got 1000", "exit 0 None"]


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_a_worker_has_sent_before_it_exits_arrives(tmp_path: Path, loop: str) -> None:
    ended = run(
        tmp_path,
        """
        async def life_of(how, size):
            worker = cluster.fork({"HOW": how, "SIZE": str(size)})
            got = []
            worker.on("message", lambda value, handle: got.append(len(value)))
            code, name = await events.once(worker, "exit")
            say(how, len(got), set(got) == {size}, code)

        async def program():
            ways = ("main exits", "a listener exits", "main fails", "main returns", "main is let go")
            for size in (1_000, 1_000_000):
                await asyncio.gather(*(life_of(how, size) for how in ways))

        async def main():
            how, size = os.environ["HOW"], int(os.environ["SIZE"])

            def act():
                for _ in range(2_000_000 // size):
                    cluster.worker.send("x" * size)
                if how == "main is let go":
                    cluster.worker.disconnect()
                elif how.endswith("exits"):
                    sys.exit(7)
                elif how == "main fails":
                    sys.stderr = None
                    raise RuntimeError("enough")

            if how == "a listener exits":
                timers.set_timeout(act, 0)
                await timers.sleep(100)
            act()

        multiloop.run(program if cluster.is_primary else main, loop=LOOP)
        """.replace("LOOP", repr(loop)),
    )
    codes = {"a listener exits": 7, "main exits": 7, "main fails": 1, "main is let go": 0, "main returns": 0}
    for count, lines in ((2000, ended.lines[:5]), (2, ended.lines[5:])):
        assert sorted(lines) == [f"{how} {count} True {code}" for how, code in codes.items()], ended.err
    assert ended.err == ""


@pytest.mark.slow
def test_the_exit_of_a_worker_does_not_wait_for_a_primary_that_reads_nothing(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        if cluster.is_primary:
            async def program():
                worker = cluster.fork()
                await events.once(worker, "listening")
                worker.send("exit")
                await worker.process.drain()
                os.waitid(os.P_PID, worker.process.pid, os.WEXITED | os.WNOWAIT)  # reads nothing
                say(*await events.once(worker, "exit"))

            multiloop.run(program, loop="asyncio")
        else:
            async def main():
                @cluster.worker.on("message")
                def exits(value, handle):
                    cluster.worker.send("x" * 5_000_000)
                    sys.exit(7)

                await net.create_server().listen(0)

            multiloop.run(main)
        """,
    )
    assert ended.lines == ["7 None"], ended.err


@pytest.mark.slow
def test_what_a_worker_without_a_loop_of_ours_sends_arrives(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        if cluster.is_primary:
            async def life_of(how):
                worker = cluster.fork({"HOW": how})
                got = []
                worker.on("message", lambda value, handle: got.append(value))
                code, name = await events.once(worker, "exit")
                say(how, len(got), code)

            async def program():
                await asyncio.gather(*map(life_of, ("no loop", "no loop, exits", "asyncio", "asyncio, exits")))

            multiloop.run(program)
        else:
            def send():
                for _ in range(1000):
                    cluster.worker.send("x" * 1000)

            async def main():
                send()
                await asyncio.sleep(0)
                if how.endswith("exits"):
                    sys.exit(7)

            how = os.environ["HOW"]
            if how.startswith("asyncio"):
                asyncio.run(main())
            else:
                send()
                if how == "no loop, exits":
                    sys.exit(7)
        """,
    )
    assert sorted(ended.lines) == [
        "asyncio 1000 0",
        "asyncio, exits 1000 7",
        "no loop 1000 0",
        "no loop, exits 1000 7",
    ], ended.err


@pytest.mark.slow
def test_a_worker_that_kills_itself_has_a_moment_to_clean_up(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        if cluster.is_primary:
            worker = cluster.fork()
            worker.on("exit", lambda *how: say("exit", *how))
            multiloop.run(cluster.wait)
        else:
            async def main():
                cluster.worker.kill()
                try:
                    await timers.sleep(100)
                finally:
                    for _ in range(20):
                        await asyncio.sleep(0)
                    say("cleaned up")

            multiloop.run(main)
        """,
    )
    assert ended.lines == ["cleaned up", "exit 0 None"]
