"""Workers of a program that forks itself: how they begin, what is told of them, how they end."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.cluster.forks.program import HEAD, children_of, gone, run, running


def test_the_life_of_a_worker_as_it_is_told(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        cluster.scheduling_policy = cluster.SCHED_RR  # in the worker, too, where it changes nothing
        cluster.max_connections = 100

        async def main():
            await net.create_server().listen(0)

        if cluster.is_primary:
            assert cluster.worker is None and cluster.workers == {} and not cluster.is_worker
            worker = cluster.fork()
            assert cluster.workers == {1: worker} and worker.id == 1 and worker.process.pid > 0
            assert worker.exited_after_disconnect is None and worker.state == "none"
            for name in ("fork", "online", "listening", "disconnect", "exit"):
                cluster.on(name, lambda *args, name=name: say("cluster", name, args[0].id, *map(repr, args[1:])))
                worker.on(name, lambda *args, name=name: say("worker", name, *map(repr, args)))
            cluster.on("setup", lambda settings: say("setup", settings.args))

            async def program():
                assert worker.is_connected() and not worker.is_dead()
                _, address = await events.once(cluster, "listening")
                assert (address.address, address.port) == address == ("127.0.0.1", address["port"])
                assert address.address_type == 4 and worker.state == "listening" and str(worker.state) == "listening"
                worker.disconnect()
                worker.disconnect()
                await events.once(cluster, "exit")
                assert worker.is_dead() and not worker.is_connected() and cluster.workers == {} and worker.state == "dead"
                say("end", worker.exited_after_disconnect)

            multiloop.run(program)
        else:
            assert cluster.is_worker and cluster.worker.id == 1 and "MULTILOOP_WORKER" not in os.environ
            multiloop.run(main)
        """,
    )
    assert ended.err == ""
    assert ended.code == 0
    told = [line for line in ended.lines if "listening" not in line]
    assert told == [
        "setup None",
        "worker fork",
        "cluster fork 1",
        "worker online",
        "cluster online 1",
        "worker disconnect",
        "cluster disconnect 1",
        "worker exit 0 None",
        "cluster exit 1 0 None",
        "end True",
    ]
    assert sum("listening" in line for line in ended.lines) == 2


# One table, here and in docs/reference/cluster.md: what is done, then exited_after_disconnect, exit code and signal.
ENDS: dict[str, tuple[str, str, tuple[bool, int | None, str | None]]] = {
    "worker.disconnect()": ("worker.disconnect()", "", (True, 0, None)),
    "worker.disconnect(grace=0)": ("worker.disconnect(grace=0)", "", (True, 0, None)),
    "worker.disconnect(grace=0), and it has timers": (
        "worker.once('message', lambda *_, worker=worker: worker.disconnect(grace=0))",
        "timers.set_interval(lambda: None, 1), cluster.worker.send('it has timers')",
        (True, 0, None),
    ),
    "worker.disconnect(grace=0), and its loop is blocked": (
        "os.kill(worker.process.pid, signal.SIGSTOP), worker.disconnect(grace=0)",
        "",
        (True, None, "SIGKILL"),
    ),
    "cluster.disconnect()": ("cluster.disconnect()", "", (True, 0, None)),
    "worker.kill()": ("worker.kill()", "", (False, None, "SIGTERM")),
    'worker.kill("SIGKILL")': ("worker.kill('SIGKILL')", "", (False, None, "SIGKILL")),
    "worker.process.kill()": ("worker.process.kill()", "", (False, None, "SIGTERM")),
    "worker.process.disconnect()": ("worker.process.disconnect()", "", (False, 0, None)),
    "os.kill(pid, SIGKILL)": ("os.kill(worker.process.pid, signal.SIGKILL)", "", (False, None, "SIGKILL")),
    "in the worker: cluster.worker.disconnect()": ("", "cluster.worker.disconnect()", (True, 0, None)),
    "in the worker: cluster.worker.kill()": ("", "cluster.worker.kill()", (True, 0, None)),
    "in the worker: cluster.worker.process.disconnect()": ("", "cluster.worker.process.disconnect()", (False, 0, None)),
    "in the worker: sys.exit(7)": ("", "sys.exit(7)", (False, 7, None)),
    "in the worker: os._exit(7)": ("", "os._exit(7)", (False, 7, None)),
    "in the worker: an exception that nobody catches": ("", "1 / 0", (False, 1, None)),
    "in the worker: everything is done": ("", "server.close()", (False, 0, None)),
}


@pytest.mark.slow
def test_how_a_worker_ends_and_what_is_told_of_it(tmp_path: Path) -> None:
    """One cluster, with a worker for each row; `cluster.disconnect()` comes last, for it ends all that are left."""
    by_primary = [row[0] for row in ENDS.values()]
    by_worker = [row[1] for row in ENDS.values()]
    ended = run(
        tmp_path,
        f"""
        BY_PRIMARY = {by_primary!r}
        BY_WORKER = {by_worker!r}

        async def main():
            server = await http.create_server(pid).listen(0)
            action = BY_WORKER[int(os.environ["ROW"])]
            if action:
                timers.set_timeout(lambda: exec(action, globals(), {{"server": server}}), 0.05)

        def start(row, seen):
            worker = cluster.fork({{"ROW": str(row)}})
            assert worker.exited_after_disconnect is None
            worker.on("disconnect", lambda: seen.append("disconnect"))
            action = BY_PRIMARY[row]
            worker.once("listening", lambda address: exec(action, globals(), {{"worker": worker}}))

            @worker.on("exit")
            def ended(code, signal):
                seen.append("exit")
                say(json.dumps([row, worker.exited_after_disconnect, code, signal]))

        async def program():
            rows = sorted(range(len(BY_PRIMARY)), key=lambda row: BY_PRIMARY[row] == "cluster.disconnect()")
            for some in (rows[:5], rows[5:10], rows[10:-1], rows[-1:]):
                told = [[] for _ in some]
                for row, seen in zip(some, told):
                    start(row, seen)
                await cluster.wait()
                assert all(sorted(seen) == ["disconnect", "exit"] for seen in told)
                assert cluster.workers == {{}}

        multiloop.run(program if cluster.is_primary else main)
        """,
    )
    assert ended.code == 0, ended.err
    found = {list(ENDS)[row]: (flag, code, name) for row, flag, code, name in map(json.loads, ended.lines)}
    assert found == {what: end for what, (_, _, end) in ENDS.items()}


def test_the_table_of_ends_stands_in_the_reference() -> None:
    text = (Path(__file__).parents[3] / "docs" / "reference" / "cluster.md").read_text()
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].replace("`", "") in ENDS:
            rows[cells[0].replace("`", "")] = tuple(cell.strip("`") for cell in cells[1:])
    assert rows == {what: tuple(map(str, end)) for what, (_, _, end) in ENDS.items()}


@pytest.mark.slow
def test_a_worker_is_started_with_the_options_module_and_arguments_of_its_program(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    code = HEAD + (
        "say(cluster.is_worker, sys.flags.optimize, sys._xoptions.get('dev'), sys.argv[1:], __name__)\n"
        "if cluster.is_primary:\n    cluster.fork()\n    multiloop.run(cluster.wait)\n"
    )
    (package / "__main__.py").write_text(code)
    (tmp_path / "script.py").write_text(code)
    for target in (["-m", "package"], [str(tmp_path / "script.py")], ["script.py"], ["-c", code]):
        command = [sys.executable, "-OX", "dev", *target, "--port", "80"]
        with running(tmp_path, "", command=command) as program:
            ended = program.ended()
        assert ended.code == 0, ended.err
        rest = "1 True ['--port', '80'] __main__"
        assert ended.lines == [f"False {rest}", f"True {rest}"]


@pytest.mark.slow
def test_settings_add_up_and_hold_for_later_forks(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(
        "import os, sys\nfrom multiloop import cluster\n"
        "print(cluster.worker.id, sys.argv[1:], os.environ['COLOUR'], os.environ.get('SIZE'), flush=True)\n"
    )
    ended = run(
        tmp_path,
        """
        cluster.setup_primary(exec="./other.py", args=["a"], env={"COLOUR": "red"})
        cluster.fork()
        cluster.setup_primary(args=["b", "c"])
        assert (cluster.settings.exec, cluster.settings["args"]) == ("./other.py", ["b", "c"])

        async def program():
            await cluster.wait()
            cluster.fork({"SIZE": "large", "COLOUR": "blue"})
            await cluster.wait()
            try:
                cluster.setup_primary(colour="red")
            except multiloop.errors.UsageError as error:
                say(error)

        import multiloop.errors
        multiloop.run(program)
        """,
    )
    assert ended.lines[:2] == ["1 ['a'] red None", "2 ['b', 'c'] blue large"]
    assert ended.lines[2].startswith("setup_primary(colour=...): there is args, cwd, env, exec, ")


@pytest.mark.slow
def test_a_program_that_is_typed_in_cannot_be_forked(tmp_path: Path) -> None:
    code = "from multiloop import cluster\ntry:\n    cluster.fork()\nexcept Exception as error:\n"
    code += "    print(type(error).__name__, error)\n"
    (tmp_path / "input").write_text(code)
    with running(tmp_path, "", command=["sh", "-c", f"{sys.executable} - < input"]) as program:
        ended = program.ended()
    assert ended.lines[0].startswith("UsageError cluster.fork() starts this program again, and there is none")


@pytest.mark.slow
def test_a_worker_cannot_fork_and_its_children_are_no_workers(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        import subprocess
        if cluster.is_primary:
            cluster.fork()
            multiloop.run(cluster.wait)
        else:
            try:
                cluster.fork()
            except Exception as error:
                say(type(error).__name__, error)
            code = "from multiloop import cluster; print(cluster.is_worker)"
            subprocess.run([sys.executable, "-c", code], close_fds=False, check=True)
            code = "import os; os.environ['MULTILOOP_WORKER'] = '1:2:3:4:5:6'; " + code
            subprocess.run([sys.executable, "-c", code], check=True)
        """,
    )
    assert ended.lines[0].startswith("UsageError cluster.fork() is the primary's")
    assert ended.lines[1:] == ["False", "False"]


@pytest.mark.slow
def test_the_line_exit_fork_replaces_workers_and_does_not_fight_the_end(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        import logging
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)

        async def main():
            await http.create_server(pid).listen(0)

        if cluster.is_primary:
            for _ in range(2):
                cluster.fork()
            cluster.on("exit", lambda worker, code, signal: cluster.fork())

            async def program():
                while len([w for w in cluster.workers.values() if w.state == "listening"]) < 2:
                    await timers.sleep(0.01)
                cluster.workers[1].kill("SIGKILL")
                worker, _ = await events.once(cluster, "listening")
                say("replaced by", worker.id)
                await cluster.disconnect()
                say("workers", len(cluster.workers))

            multiloop.run(program)
        else:
            multiloop.run(main)
        """,
    )
    assert ended.code == 0
    assert ended.lines == [
        "replaced by 3",
        "fork(): no worker was started, because the cluster is being shut down",
        "workers 0",
    ]


@pytest.mark.slow
def test_disconnecting_no_workers_is_done_later_and_forking_goes_on_afterwards(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        if cluster.is_primary:
            async def program():
                done = []
                cluster.disconnect(callback=lambda error, value: done.append(error))
                assert done == []
                await cluster.disconnect()
                assert done == [None]
                cluster.fork()
                await cluster.wait()
                say("waited")

            multiloop.run(program)
        else:
            say("worker")
        """,
    )
    assert (ended.code, ended.lines) == (0, ["worker", "waited"])


@pytest.mark.slow
def test_a_worker_without_anything_to_wait_for_ends_and_one_that_listens_for_messages_does_not(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        if cluster.is_primary:
            first, second = cluster.fork({"LISTENS": ""}), cluster.fork({"LISTENS": "1"})
            first.on("exit", lambda code, signal: second.send("stop"))
            cluster.on("exit", lambda worker, code, signal: say(worker.id, code))
            multiloop.run(cluster.wait)
        else:
            def main():
                if os.environ["LISTENS"]:
                    cluster.worker.once("message", lambda value, handle: say("heard", value))
            multiloop.run(main)
        """,
    )
    assert sorted(ended.lines[:2]) == ["1 0", "heard stop"]  # two processes print them
    assert ended.lines[2:] == ["2 0"]


BUSY = """
if cluster.is_primary:
    for _ in range(3):
        cluster.fork()
    cluster.on("listening", lambda worker, address: say("listening", worker.process.pid, address.port))
    cluster.on("message", lambda worker, value, handle: say(value))
    multiloop.run(cluster.wait)
else:
    async def main():
        await http.create_server(pid).listen(0)
        timers.set_interval(lambda: None, 0.01)
        if cluster.worker.id == 2:
            cluster.worker.send("blocks")
            await asyncio.sleep(0.2)
            time.sleep(60)
    multiloop.run(main)
"""


@pytest.mark.slow
def test_when_the_primary_is_killed_its_workers_leave_at_once_busy_or_blocked(tmp_path: Path) -> None:
    with running(tmp_path, BUSY) as program:
        while "blocks" not in program.lines or sum("listening" in line for line in program.lines) < 3:
            program.line()
        workers = program.children()
        assert len(workers) == 3
        os.kill(program.pid, signal.SIGKILL)
        gone(workers, 5.0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program_and_its_workers(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, BUSY) as program:
        for _ in range(3):
            program.until("listening")
        workers = program.children()
        os.killpg(program.pid, number) if number == signal.SIGINT else os.kill(program.pid, number)
        ended = program.ended()
        assert ended.code == 128 + number
        assert "Traceback" not in ended.err
        gone(workers, 5.0)


@pytest.mark.slow
def test_when_the_program_fails_its_workers_go_with_it(tmp_path: Path) -> None:
    with running(
        tmp_path,
        """
        if cluster.is_primary:
            cluster.fork()
            async def program():
                await events.once(cluster, "listening")
                say("ready")
                await events.once(cluster, "message")
                raise RuntimeError("enough")
            multiloop.run(program)
        else:
            async def main():
                await http.create_server(pid).listen(0)
                await timers.sleep(0.1)
                cluster.worker.send("now")
                timers.set_interval(lambda: None, 1)
            multiloop.run(main)
        """,
    ) as program:
        program.until("ready")
        workers = children_of(program.pid)
        ended = program.ended()
        assert ended.code == 1
        assert "RuntimeError: enough" in ended.err
        gone(workers, 5.0)


def test_a_worker_that_cannot_be_started_is_told_of(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        cluster.setup_primary(exec_path="/no/such/python")
        worker = cluster.fork()
        worker.on("error", lambda error: say("error", error.filename))
        cluster.on("exit", lambda worker, code, signal: say("exit", code, signal))
        multiloop.run(cluster.wait)
        say(worker.is_dead(), worker.is_connected(), worker.send("x"))
        """,
    )
    assert ended.code == 0
    assert ended.lines == ["error /no/such/python", "exit -2 None", "True False False"]
    assert "worker 1 could not be started" in ended.err


@pytest.mark.slow
def test_workers_that_fork_before_the_loop_are_heard_when_it_runs(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        if cluster.is_primary:
            worker = cluster.fork()
            assert worker.send("early")
            time.sleep(1)
            worker.on("message", lambda value, handle: say("got", value))
            multiloop.run(cluster.wait)
        else:
            cluster.worker.send("before the loop")
            cluster.worker.once("message", lambda value, handle: cluster.worker.send(value + " back"))
            multiloop.run(lambda: None)
        """,
    )
    assert ended.lines == ["got before the loop", "got early back"]


@pytest.mark.slow
def test_nothing_is_left_when_many_workers_come_and_go(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        async def main():
            await http.create_server(pid).listen(0)

        if cluster.is_primary:
            async def program():
                before = set(os.listdir("/proc/self/fd"))
                for _ in range(4):
                    workers = [cluster.fork() for _ in range(2)]
                    while not all(worker.state == "listening" for worker in workers):
                        await timers.sleep(0.01)
                    workers[0].kill("SIGKILL")
                    await events.once(workers[0], "exit")  # the listener of one that died last would stay for a while
                    workers[1].disconnect()
                    await cluster.wait()
                    left = len(os.listdir("/proc/self/fd")) - len(before)
                    say(left)

            multiloop.run(program)
        else:
            multiloop.run(main)
        """,
    )
    assert ended.code == 0, ended.err
    counts = list(map(int, ended.lines))
    assert max(counts[2:]) <= max(counts[:2]), counts


@pytest.mark.slow
def test_a_worker_is_removed_only_when_it_has_exited_and_disconnected(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        if cluster.is_primary:
            worker = cluster.fork()
            cluster.on("disconnect", lambda w: say("disconnect", w.id in cluster.workers))
            cluster.on("exit", lambda w, code, signal: say("exit", w.id in cluster.workers))
            worker.once("online", lambda: worker.process.disconnect())
            multiloop.run(cluster.wait)
        else:
            multiloop.run(timers.sleep, 0.5)
        """,
    )
    assert sorted(ended.lines) == ["disconnect True", "exit False"]
