"""Worker in every kind: what it runs, the order of its events, messages, ends."""

import asyncio
import functools
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.support import environment, until
from tests.worker_threads import targets

import multiloop
import multiloop.worker_threads as wt
from multiloop import events, timers
from multiloop.errors import ClosedError, NotSendable, RemoteError, TransferError, UsageError, WorkerDied
from multiloop.worker_threads import MessageChannel, SharedBuffer, Worker
from multiloop.worker_threads._head import is_alive


def record(worker):
    """What happens to a worker, as a list that grows."""
    log = []
    worker.on("online", lambda: log.append("online"))
    worker.on("message", lambda value: log.append(("message", value)))
    worker.on("error", lambda error: log.append(("error", error)))
    worker.on("exit", lambda code: log.append(("exit", code)))
    return log


async def life(worker):
    """Record a worker until its last event."""
    log = record(worker)
    await until(lambda: log and log[-1][0] == "exit", 20)
    return log


# --- what it runs -----------------------------------------------------------------------------------------------------
def test_a_function_gets_the_worker_data_and_its_messages_come_between_online_and_exit(kind):
    async def main():
        worker = Worker(targets.tell_data, worker_data={"a": [1, 2]}, kind=kind)
        assert await life(worker) == ["online", ("message", {"a": [1, 2]}), ("exit", 0)]
        assert (worker.exit_code, worker.kind, worker.kind_reason) == (0, kind, "asked for")
        assert not worker.post_message("too late")

    multiloop.run(main)


def test_a_function_without_arguments_gets_none(kind):
    async def main():
        assert await life(Worker(targets.nothing, worker_data=1, kind=kind)) == ["online", ("exit", 0)]

    multiloop.run(main)


def test_a_coroutine_function_runs_on_a_loop_of_its_own(kind):
    async def main():
        worker = Worker(targets.a_coroutine, worker_data="done", kind=kind)
        assert await life(worker) == ["online", ("message", "done"), ("exit", 0)]

    multiloop.run(main)


def test_other_callables_are_functions_too(kind):
    async def main():
        worker = Worker(functools.partial(targets.tell_data, "from partial"), kind=kind)
        assert ("message", "from partial") in await life(worker)

    multiloop.run(main)


FILE = """
import sys
from multiloop import worker_threads
class Point:
    def __init__(self, x): self.x = x
assert __name__ == "__main__"
port = worker_threads.parent_port
def heard(value):
    port.post_message([value, worker_threads.worker_data, sys.argv[1:]])
    port.close()
port.on("message", heard)
"""


def test_a_file_runs_as_main_and_stays_while_its_port_has_a_listener(kind, tmp_path, monkeypatch):
    (tmp_path / "job.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)

    async def main(target):
        worker = Worker(target, worker_data="data", kind=kind)
        worker.post_message("hello")
        log = await life(worker)
        assert log[1:] == [("message", ["hello", "data", [] if kind != "thread" else sys.argv[1:]]), ("exit", 0)]

    for target in ("./job.py", "job.py", tmp_path / "job.py"):
        multiloop.run(main, target)


def test_a_file_finds_its_neighbours_and_classes_of_it_can_travel(isolated, tmp_path):
    (tmp_path / "neighbour.py").write_text("value = 5\n")
    (tmp_path / "job.py").write_text(
        "import neighbour\n"
        "from multiloop.worker_threads import MessageChannel, parent_port, receive_message_on_port\n"
        "class Point:\n"
        "    x = neighbour.value\n"
        "left, right = MessageChannel()\n"
        "left.post_message(Point())\n"
        "parent_port.post_message(receive_message_on_port(right).message.x)\n"
    )

    async def main():
        assert ("message", 5) in await life(Worker(tmp_path / "job.py", kind=isolated))

    multiloop.run(main)


def test_a_module_runs_by_its_name(isolated, tmp_path, monkeypatch):
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "other.py").write_text("value = 'relative'\n")
    code = "from .other import value\nfrom multiloop.worker_threads import parent_port\nparent_port.post_message({})\n"
    (package / "job.py").write_text(code.format("[value, __name__]"))
    (package / "__main__.py").write_text(code.format("'package'"))
    monkeypatch.syspath_prepend(tmp_path)

    async def main():
        assert ("message", ["relative", "__main__"]) in await life(Worker("some_package.job", kind=isolated))
        assert ("message", "package") in await life(Worker("some_package", kind=isolated))

    multiloop.run(main)


@pytest.mark.parametrize(
    ("target", "error"),
    [("./missing.py", FileNotFoundError), ("no_such_module", ModuleNotFoundError), ("./broken.py", SyntaxError)],
)
def test_what_cannot_be_run_is_an_error_event_and_exit_1(kind, target, error, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("def (:\n")
    monkeypatch.chdir(tmp_path)

    async def main():
        log = await life(Worker(target, kind=kind))
        assert log[0] == "online"
        assert isinstance(log[1][1], error)
        assert log[2] == ("exit", 1)

    multiloop.run(main)


def test_wrong_calls_raise_where_they_are_made(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)

    async def main():
        for target, error in ((5, TypeError), (None, TypeError), ("", UsageError), (lambda: None, UsageError)):
            with pytest.raises(error):
                Worker(target)
        with pytest.raises(UsageError, match="kind="):
            Worker(targets.nothing, kind="fiber")
        with pytest.raises(NotSendable, match="worker_data"):
            Worker(targets.nothing, worker_data={"f": lambda: None})
        with pytest.raises(TransferError):
            Worker(targets.nothing, worker_data=1, transfer_list=[b"bytes"])
        for wrong in ({"env": {"A": 1}}, {"argv": "text"}, {"resource_limits": {"speed": 1}}, {"max_message_size": 0}):
            with pytest.raises(UsageError):
                Worker(targets.nothing, **wrong)
        with pytest.raises(UsageError, match="must be a number"):
            Worker(targets.nothing, resource_limits={"memory": -1})

    multiloop.run(main)


@pytest.mark.parametrize(
    "wrong",
    [
        {"env": 3},
        {"argv": 3},
        {"name": 3},
        {"name": None},
        {"stdin": "x"},
        {"stdout": 1},
        {"stderr": None},
        {"resource_limits": 3},
        {"transfer_list": 3},
        {"max_message_size": "x"},
        {"max_message_size": True},
        {"max_message_size": 1e6},
    ],
    ids=str,
)
def test_an_option_of_another_type_is_refused_in_one_line_that_names_it(wrong):
    [(option, value)] = wrong.items()

    async def main():
        with pytest.raises(TypeError) as refused:
            Worker(targets.nothing, **wrong)
        assert str(refused.value).startswith(f"Worker({option}={value!r}): ")
        assert "\n" not in str(refused.value)

    multiloop.run(main)


def test_a_lambda_travels_where_cloudpickle_is_installed(isolated):
    pytest.importorskip("cloudpickle")

    async def main():
        number = 20
        worker = Worker(lambda data: wt.parent_port.post_message(data + number), worker_data=1, kind=isolated)
        assert ("message", 21) in await life(worker)

    multiloop.run(main)


def test_it_needs_a_loop():
    with pytest.raises(RuntimeError, match="no running event loop"):
        Worker(targets.nothing)


# --- messages ---------------------------------------------------------------------------------------------------------
def test_messages_go_back_and_forth_in_order(kind):
    async def main():
        worker = Worker(targets.echo, kind=kind)
        for number in range(300):
            worker.post_message(number)
        worker.post_message("close")
        assert [value async for value in worker] == list(range(300))
        assert worker.exit_code == 0

    multiloop.run(main)


def test_send_is_the_same_as_post_message(kind):
    async def main():
        worker = Worker(targets.echo, kind=kind)
        assert worker.send("a")
        worker.send("close")
        assert [value async for value in worker] == ["a"]

    multiloop.run(main)


def test_all_messages_come_before_exit_however_many_and_however_fast_it_ended(kind):
    async def main():
        log = await life(Worker(targets.post_many, worker_data=3000, kind=kind))
        assert [entry[1][0] for entry in log[1:-1]] == list(range(3000))
        assert log[-1] == ("exit", 0)

    multiloop.run(main)


def test_a_worker_nobody_listens_to_ends_and_its_messages_can_be_taken_afterwards(kind):
    async def main():
        worker = Worker(targets.post_many, worker_data=3000, kind=kind)
        await worker.wait()
        assert [number async for number, _ in worker] == list(range(3000))

    multiloop.run(main)


def test_top_level_code_posts_and_receives_without_a_loop(kind):
    async def main():
        worker = Worker(targets.post_before_any_loop, kind=kind)
        messages = aiter(worker)
        assert await anext(messages) == "begun"
        worker.post_message("go on")
        assert await anext(messages) == "heard"
        await worker.wait()

    multiloop.run(main)


def test_a_worker_can_iterate_over_its_parent_port(kind):
    async def main():
        worker = Worker(targets.iterate, kind=kind)
        for value in (1, 2, "last"):
            worker.post_message(value)
        assert [value async for value in worker] == [1, 2, "last"]

    multiloop.run(main)


def test_large_values_travel_both_ways(kind):
    async def main():
        worker = Worker(targets.echo, kind=kind)
        value = {"bytes": os.urandom(3_000_000), "list": list(range(50_000)), "array": bytearray(200_000)}
        worker.post_message(value)
        worker.post_message("close")
        assert [received async for received in worker] == [value]

    multiloop.run(main)


def test_ports_connect_the_parent_with_a_worker_and_workers_with_each_other(kind):
    async def main():
        port1, port2 = MessageChannel()
        worker = Worker(targets.use_port, worker_data=port2, transfer_list=[port2], kind=kind)
        got = []
        port1.on("message", got.append)
        port1.post_message(21)
        await until(lambda: got == [42])
        port1.post_message(0)
        await worker.wait()

        giver = Worker(targets.give_port, kind=kind)
        (port,) = await events.once(giver, "message")
        port.post_message(1)
        assert await events.once(port, "message") == [2]
        await giver.wait()

    multiloop.run(main)


def test_a_shared_buffer_is_the_same_memory_there(kind):
    async def main():
        buffer = SharedBuffer(16)
        buffer[0] = 41
        worker = Worker(targets.write_into, worker_data=buffer, kind=kind)
        assert ("message", 41) in await life(worker)
        assert buffer[1] == 42
        buffer.close()

    multiloop.run(main)


def test_a_shared_buffer_that_comes_back_is_the_same_object(kind):
    async def main():
        worker = Worker(targets.echo, kind=kind)
        buffer = SharedBuffer(1 << 20)
        worker.post_message(buffer)
        assert (await events.once(worker, "message"))[0] is buffer
        worker.post_message(buffer, [buffer])
        (moved,) = await events.once(worker, "message")
        assert moved is not buffer
        await worker.terminate()
        moved.close()

    multiloop.run(main)


# --- who and where ----------------------------------------------------------------------------------------------------
def test_a_worker_knows_who_it_is(kind):
    async def main():
        wt.set_environment_data("key", "value")
        try:
            options = {} if kind == "thread" else {"argv": ["x", 1], "env": {**os.environ, "MULTILOOP_TEST": "there"}}
            worker = Worker(targets.describe, kind=kind, name="a name", **options)
            wt.set_environment_data("key", None)
            (found,) = await events.once(worker, "message")
        finally:
            wt.set_environment_data("key", None)
        assert found["is_main_thread"] is False
        assert found["thread_id"] == worker.thread_id > 0
        assert found["thread_name"] == worker.name == "a name"
        assert found["environment"] == "value"
        assert found["pid"] == worker.pid
        assert (found["pid"] == os.getpid()) == (kind != "process")
        if kind != "thread":
            assert found["argv"] == ["x", "1"]
            assert found["variable"] == "there"
        await worker.wait()

    multiloop.run(main)


def test_the_main_program_knows_that_it_is_none():
    assert wt.is_main_thread
    assert wt.thread_id == 0
    assert wt.parent_port is None
    assert wt.worker_data is None
    assert wt.resource_limits == {}
    assert wt.get_environment_data("nothing") is None
    assert wt.zombies() == []


def test_the_environment_of_the_program_is_not_touched(isolated):
    async def main():
        worker = Worker(targets.describe, kind=isolated, env={"MULTILOOP_TEST": "only there"})
        (found,) = await events.once(worker, "message")
        assert found["variable"] == "only there"
        assert "MULTILOOP_TEST" not in os.environ
        await worker.wait()

    multiloop.run(main)


# --- ends -------------------------------------------------------------------------------------------------------------
def test_an_uncaught_exception_is_the_error_event_with_its_cause_notes_and_remote_traceback(kind):
    async def main():
        log = await life(Worker(targets.fail, kind=kind))
        assert log[:2] == ["online", ("message", "before")]
        error = log[2][1]
        assert repr(error) == "ValueError('it failed')"
        assert error.__notes__ == ["a note"]
        assert repr(error.__cause__) == "KeyError('missing')"
        assert "targets.py" in str(error.__cause__.__cause__)
        assert "in fail" in str(error.__cause__.__cause__)
        assert log[3] == ("exit", 1)

    multiloop.run(main)


def test_an_exception_in_a_callback_of_the_worker_ends_it_too(kind):
    async def main():
        worker = Worker(targets.fail_in_callback, kind=kind)
        worker.post_message("go")
        log = await life(worker)
        assert isinstance(log[2][1], ZeroDivisionError)
        assert log[3] == ("exit", 1)

    multiloop.run(main)


def test_an_exception_that_cannot_travel_arrives_as_a_remote_error(kind):
    async def main():
        log = await life(Worker(targets.fail_unpicklably, kind=kind))
        assert isinstance(log[1][1], RemoteError)
        assert log[1][1].type_name.endswith("targets.Unpicklable")
        assert log[1][1].text == "one"

    multiloop.run(main)


def test_iterating_raises_the_error_behind_the_last_message(kind):
    async def main():
        got = []
        with pytest.raises(ValueError, match="it failed"):
            async for value in Worker(targets.fail, kind=kind):
                got.append(value)
        assert got == ["before"]

    multiloop.run(main)


def test_an_error_nobody_listens_to_ends_the_program(kind):
    async def main():
        worker = Worker(targets.fail, kind=kind)
        worker.on("message", lambda value: None)
        await asyncio.sleep(20)

    with pytest.raises(ValueError, match="it failed"):
        multiloop.run(main)


@pytest.mark.parametrize(("given", "code"), [(None, 0), (0, 0), (3, 3), ("a message", 1)])
def test_sys_exit_ends_the_worker_alone_with_its_code(kind, given, code):
    async def main():
        log = await life(Worker(targets.leave, worker_data=given, kind=kind))
        assert log == ["online", ("message", "leaving"), ("exit", code)]

    multiloop.run(main)


def test_sys_exit_in_a_callback_ends_it_too(kind):
    async def main():
        worker = Worker(targets.leave_from_loop, kind=kind)
        worker.post_message("go")
        assert await life(worker) == ["online", ("exit", 7)]

    multiloop.run(main)


def test_a_killed_worker_names_the_signal_and_keeps_what_it_had_said():
    async def main():
        worker = Worker(targets.stay, kind="process")
        log = record(worker)
        await until(lambda: ("message", "here") in log)
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: log[-1] == ("exit", 137))
        error = log[-2][1]
        assert isinstance(error, WorkerDied)
        assert error.signal == "SIGKILL"
        assert "SIGKILL" in str(error)

    multiloop.run(main)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
def test_every_deadly_signal_is_named(number):
    async def main():
        log = await life(Worker(targets.kill_oneself, worker_data=int(number), kind="process"))
        assert log[-2][1].signal == number.name
        assert log[-1] == ("exit", 128 + number)

    multiloop.run(main)


def test_a_hard_exit_is_an_exit_without_an_error():
    async def main():
        assert await life(Worker(targets.hard_exit, kind="process")) == ["online", ("message", "before"), ("exit", 5)]

    multiloop.run(main)


# --- terminate --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("target", [targets.spin, targets.spin_swallowing, targets.stay, targets.idle_plain_asyncio])
def test_terminate_stops_whatever_it_does(isolated, target):
    async def main():
        worker = Worker(target, kind=isolated)
        log = record(worker)
        await until(lambda: len(log) == 2, 20)
        assert await worker.terminate() == 1
        assert log[2:] == [("exit", 1)]
        assert await worker.terminate() is None

    multiloop.run(main)


def test_terminate_stops_a_flood_of_messages(isolated):
    async def main():
        worker = Worker(targets.flood, kind=isolated)
        log = record(worker)
        await until(lambda: len(log) > 10, 20)
        assert await worker.terminate() == 1
        numbers = [value for name, value in log[1:-1]]
        assert numbers == list(range(len(numbers)))

    multiloop.run(main)


def test_terminate_ends_the_loop_of_a_thread():
    async def main():
        worker = Worker(targets.stay, kind="thread")
        log = record(worker)
        await until(lambda: len(log) == 2)
        assert await worker.terminate() == 1
        assert log[2:] == [("exit", 1)]

    multiloop.run(main)


@pytest.mark.parametrize(
    "target",
    [targets.stay_on_a_plain_loop, targets.stay_on_a_plain_loop_that_counts, targets.stay_on_a_uvloop],
    ids=lambda target: target.__name__,
)
def test_terminate_ends_a_loop_in_a_thread_that_is_not_ours(target):
    if target is targets.stay_on_a_uvloop:
        pytest.importorskip("uvloop")

    async def main():
        worker = Worker(target, kind="thread")
        log = record(worker)
        await until(lambda: len(log) == 2)
        assert await worker.terminate() == 1
        assert log[2:] == [("message", "cleaned up"), ("exit", 1)]

    multiloop.run(main)


def test_terminate_finds_a_plain_loop_that_begins_afterwards():
    async def main():
        worker = Worker(targets.stay_on_a_plain_loop_later, kind="thread")
        log = record(worker)
        await until(lambda: len(log) == 2)
        terminating = worker.terminate()
        worker.post_message("begin")
        assert await terminating == 1

    multiloop.run(main)


def test_terminate_of_a_thread_ends_no_other_loop():
    async def main():
        other = Worker(targets.stay_on_a_plain_loop, kind="thread")
        worker = Worker(targets.stay_on_a_plain_loop, kind="thread")
        logs = [record(other), record(worker)]
        await until(lambda: all(len(log) == 2 for log in logs))
        assert await worker.terminate() == 1
        await asyncio.sleep(0)
        assert len(logs[0]) == 2
        assert await other.terminate() == 1

    multiloop.run(main)


def test_terminate_at_once_and_twice(kind):
    async def main():
        worker = Worker(targets.stay, kind=kind)
        log = record(worker)
        assert await asyncio.gather(worker.terminate(), worker.terminate()) == [1, 1]
        assert log[-1] == ("exit", 1)
        assert log.count(("exit", 1)) == 1

    multiloop.run(main)


def test_leaving_the_block_terminates(kind):
    async def main():
        async with Worker(targets.stay, kind=kind) as worker:
            await events.once(worker, "message")
        assert worker.exit_code == 1

    multiloop.run(main)


# --- the program's end ------------------------------------------------------------------------------------------------
def test_a_worker_keeps_the_program_until_it_has_ended(kind):
    seen = []

    def main():
        worker = Worker(targets.a_coroutine, worker_data="late", kind=kind)
        worker.on("message", seen.append)
        worker.on("exit", seen.append)

    multiloop.run(main)
    assert seen == ["late", 0]


def test_an_unreferenced_worker_ends_with_the_program_and_without_a_word(kind):
    seen = []

    async def main():
        worker = Worker(targets.stay, kind=kind).unref()
        worker.on("exit", seen.append)
        await events.once(worker, "message")
        return worker.pid

    pid = multiloop.run(main)
    assert seen == []
    if kind == "process":
        assert not os.path.exists(f"/proc/{pid}")


def test_an_exception_in_main_takes_the_workers_along():
    pids = []

    async def main():
        for _ in range(3):
            worker = Worker(targets.stay, kind="process")
            await events.once(worker, "message")
            pids.append(worker.pid)
        raise ValueError("main failed")

    with pytest.raises(ValueError, match="main failed"):
        multiloop.run(main)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_process_worker_dies_with_its_parent_whatever_it_does(tmp_path):
    code = (
        "import multiloop, sys\n"
        "from multiloop import events\n"
        "from multiloop.worker_threads import Worker\n"
        "from tests.worker_threads import targets\n"
        "async def main():\n"
        "    worker = Worker(targets.spin, kind='process')\n"
        "    await events.once(worker, 'message')\n"
        "    print(worker.pid, flush=True)\n"
        "    await events.once(worker, 'exit')\n"
        "multiloop.run(main)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
        stdout=subprocess.PIPE,
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 1
    while is_alive(pid, 0):
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.01)


# --- nesting ----------------------------------------------------------------------------------------------------------
def test_workers_start_workers_with_ids_of_their_own(kind):
    async def main():
        worker = Worker(targets.nest, worker_data=("tell_data", "deep"), kind=kind)
        ((nested_id, value),) = [message async for message in worker]
        assert value == "deep"
        assert nested_id not in (0, worker.thread_id)

    multiloop.run(main)


def test_nested_workers_die_with_their_parent(isolated):
    async def main():
        worker = Worker(targets.nest_forever, kind=isolated)
        (pid,) = await events.once(worker, "message")
        await worker.terminate()
        await until(lambda: not os.path.exists(f"/proc/{pid}"), 2)

    multiloop.run(main)


def test_a_timer_of_the_parent_is_not_held_up_by_starting_workers(kind):
    async def main():
        workers = [Worker(targets.nothing, kind=kind) for _ in range(4)]
        await timers.sleep(0.001)
        for worker in workers:
            await worker.wait()

    multiloop.run(main)


def test_the_time_that_a_worker_has_used_is_known_until_it_has_ended(kind):
    async def main():
        worker = Worker(targets.compute_when_told, kind=kind)
        messages = aiter(worker)
        await anext(messages)
        before = worker.cpu_usage()
        worker.post_message(0.2)
        await anext(messages)
        after = worker.cpu_usage()
        assert after.user + after.system >= before.user + before.system + 0.15
        await worker.terminate()
        with pytest.raises(ClosedError):
            worker.cpu_usage()

    multiloop.run(main)
