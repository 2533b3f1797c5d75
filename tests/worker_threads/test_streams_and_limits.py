"""What a worker reads and prints, and the limits it runs under."""

import errno
import os
import resource
import subprocess
import sys

import pytest
from tests.support import environment, until
from tests.worker_threads import targets

import multiloop
from multiloop.errors import UsageError, WorkerDied
from multiloop.worker_threads import Worker


def test_captured_output_is_complete_when_it_has_ended(isolated):
    async def main():
        worker = Worker(targets.chatter, worker_data=2000, kind=isolated, stdout=True, stderr=True)
        await worker.wait()
        assert (await worker.stdout.read_all()).decode().splitlines() == [f"line {i}" for i in range(2000)]
        assert (await worker.stderr.read_all()).decode().splitlines() == [f"trouble {i}" for i in range(2000)]

    multiloop.run(main)


def test_captured_output_can_be_read_as_it_comes_before_exit(isolated):
    async def main():
        worker = Worker(targets.chatter, worker_data=3, kind=isolated, stdout=True)
        log = []
        worker.stdout.on("data", log.append)
        worker.on("exit", lambda code: log.append(code))
        await worker.wait()
        assert b"".join(log[:-1]) == b"line 0\nline 1\nline 2\n"
        assert log[-1] == 0

    multiloop.run(main)


def test_more_output_than_a_pipe_holds_does_not_keep_it_from_ending(isolated):
    async def main():
        worker = Worker(targets.chatter, worker_data=40_000, kind=isolated, stdout=True, stderr=True)
        assert await worker.wait() == 0
        assert len(await worker.stdout.read_all()) == sum(len(f"line {i}\n") for i in range(40_000))

    multiloop.run(main)


def test_what_a_killed_worker_had_printed_is_there():
    async def main():
        worker = Worker(targets.chatter_and_stay, worker_data=10, kind="process", stdout=True)
        async for _ in worker:
            break
        await worker.terminate()
        assert (await worker.stdout.read_all()).count(b"\n") == 10

    multiloop.run(main)


def test_it_reads_what_is_written_to_its_standard_input(isolated):
    async def main():
        worker = Worker(targets.upper, kind=isolated, stdin=True, stdout=True)
        worker.stdin.write(b"hello\n")
        worker.stdin.write(b"world\n")
        worker.stdin.end()
        assert await worker.wait() == 0
        assert await worker.stdout.read_all() == b"HELLO\nWORLD\n"

    multiloop.run(main)


def test_without_stdin_it_reads_nothing(isolated):
    async def main():
        worker = Worker(targets.upper, kind=isolated, stdout=True)
        assert await worker.wait() == 0
        assert await worker.stdout.read_all() == b""
        assert worker.stdin is None
        assert worker.stderr is None

    multiloop.run(main)


def test_output_that_is_not_captured_goes_where_ours_goes(isolated):
    code = (
        "import multiloop\n"
        "from multiloop.worker_threads import Worker\n"
        "from tests.worker_threads import targets\n"
        f"multiloop.run(lambda: Worker(targets.chatter, worker_data=2, kind={isolated!r}) and None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(PYTHONPATH=":".join(filter(None, sys.path))),
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout == "line 0\nline 1\n"
    assert done.stderr == "trouble 0\ntrouble 1\n"


def test_memory_over_the_limit_is_refused_in_the_worker_alone():
    async def main():
        limit = 1 << 30
        worker = Worker(targets.allocate, worker_data=2 << 30, kind="process", resource_limits={"memory": limit})
        assert worker.resource_limits == {"memory": limit}
        assert [message async for message in worker] == ["refused"]
        assert worker.resource_limits == {}

    multiloop.run(main)


def test_a_memory_error_that_is_not_caught_is_an_error_event():
    async def main():
        worker = Worker(
            targets.allocate_carelessly, worker_data=2 << 30, kind="process", resource_limits={"memory": 1 << 30}
        )
        with pytest.raises(MemoryError):
            async for _ in worker:
                pass
        assert worker.exit_code == 1

    multiloop.run(main)


def test_time_on_the_processor_over_the_limit_kills_it_and_says_so():
    async def main():
        worker = Worker(targets.spin, kind="process", resource_limits={"cpu_time": 1})
        with pytest.raises(WorkerDied) as caught:
            async for _ in worker:
                pass
        assert caught.value.signal == "SIGXCPU"

    multiloop.run(main)


def test_a_worker_sees_its_limits():
    async def main():
        worker = Worker(targets.describe, kind="process", resource_limits={"open_files": 64})
        ((found),) = [message async for message in worker]
        assert found["limits"] == {"open_files": 64}

    multiloop.run(main)


@pytest.mark.parametrize(
    ("refusing", "options"),
    [
        ("thread", {"env": {}}),
        ("thread", {"argv": ["a"]}),
        ("thread", {"stdin": True}),
        ("thread", {"stdout": True}),
        ("thread", {"stderr": True}),
        ("thread", {"resource_limits": {"memory": 1 << 30}}),
        ("interpreter", {"resource_limits": {"memory": 1 << 30}}),
    ],
)
def test_what_a_kind_cannot_keep_is_refused(refusing, options):
    async def main():
        with pytest.raises(UsageError, match="kind="):
            Worker(targets.nothing, kind=refusing, **options)

    multiloop.run(main)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="it has them")
def test_interpreters_are_refused_where_there_are_none():
    async def main():
        with pytest.raises(UsageError, match=r"needs Python 3\.14"):
            Worker(targets.nothing, kind="interpreter")

    multiloop.run(main)


def test_a_worker_that_finds_no_descriptors_fails_with_an_oserror_and_leaves_none():
    """Its channels need four: without them the call raises. What else a process needs is missed later, as an event."""

    async def main():
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        await Worker(targets.nothing, kind="process").wait()
        fillers = [os.dup(0) for _ in range(64)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers) + 1, hard))
        outcomes = []
        try:
            for free in range(6):
                errors = []
                try:
                    worker = Worker(targets.nothing, kind="process")
                except OSError as error:
                    outcomes.append((free, error.errno))
                else:
                    worker.on("error", errors.append)
                    assert await worker.wait() == 1
                    assert isinstance(errors[0], OSError)
                os.close(fillers.pop())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in fillers:
                os.close(each)
        assert outcomes == [(free, errno.EMFILE) for free in range(4)]

    multiloop.run(main)


def test_output_of_several_workers_is_kept_apart(isolated):
    async def main():
        workers = [Worker(targets.chatter, worker_data=n, kind=isolated, stdout=True) for n in (1, 2, 3)]
        for number, worker in enumerate(workers, 1):
            await worker.wait()
            assert (await worker.stdout.read_all()).count(b"\n") == number
        await until(lambda: True)

    multiloop.run(main)
