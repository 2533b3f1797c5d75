"""`Worker(..., engine="ray")`: the messages of a worker, with another machine between."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import multiloop
from multiloop.errors import NotSendable, UsageError, WorkerDied
from multiloop.worker_threads import MessageChannel, Worker
from tests.engines.clusters import RayHead
from tests.support import until

pytestmark = [
    pytest.mark.engines,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(200),
]

ECHO = """
from multiloop.worker_threads import parent_port, worker_data

def echo(value):
    if value == "end":
        parent_port.close()
    elif value == "fail":
        raise ValueError("told to")
    else:
        parent_port.post_message([worker_data, value])

parent_port.on("message", echo)
"""


def test_a_file_runs_there_and_messages_go_both_ways(ray_head: RayHead, tmp_path: Path) -> None:
    path = tmp_path / "echo.py"
    path.write_text(ECHO)
    order: list[Any] = []

    async def main() -> None:
        worker: Any = Worker(str(path), worker_data={"a": 1}, engine="ray", cpus=0.5)
        worker.on("online", lambda: order.append("online"))
        worker.on("message", lambda value: order.append(value))
        worker.on("exit", lambda code: order.append(code))
        for number in range(50):
            worker.post_message(number)
        with pytest.raises(NotSendable):
            worker.post_message(lambda: 1)
        with pytest.raises(Exception, match="sent"):
            worker.post_message(MessageChannel().port1)
        with pytest.raises(UsageError, match="transfer_list"):
            worker.post_message(1, [bytearray(1)])
        await worker.drain()
        worker.post_message("end")
        assert await worker.wait() == 0
        assert worker.kind == "ray"

    multiloop.run(main)
    assert order == ["online", *([{"a": 1}, number] for number in range(50)), 0]


def test_it_can_be_stopped_and_its_errors_come(ray_head: RayHead, tmp_path: Path) -> None:
    path = tmp_path / "echo.py"
    path.write_text(ECHO)

    async def main() -> None:
        worker: Any = Worker(str(path), engine="ray", cpus=0)
        worker.post_message("first")
        assert [value async for value in _first(worker, 1)] == [[None, "first"]]
        assert await worker.terminate() == 1
        failing: Any = Worker(str(path), engine="ray", cpus=0)
        errors: list[BaseException] = []
        failing.on("error", errors.append)
        failing.post_message("fail")
        assert await failing.wait() == 1
        assert [type(error) for error in errors] == [ValueError]

    multiloop.run(main)


def test_its_death_is_an_error_and_an_exit(ray_head: RayHead, tmp_path: Path) -> None:
    path = tmp_path / "echo.py"
    path.write_text(ECHO)

    async def main() -> None:
        worker: Any = Worker(str(path), engine="ray", cpus=0, name="there")
        errors: list[BaseException] = []
        worker.on("error", errors.append)
        await until(lambda: worker.pid, 60)
        os.kill(worker.pid, signal.SIGKILL)
        assert await asyncio.wait_for(worker.wait(), 60) == 1
        assert isinstance(errors[0], WorkerDied)
        assert "there" in str(errors[0])
        assert not worker.post_message(1)

    multiloop.run(main)


def test_what_cannot_be_kept_is_refused(ray_head: RayHead) -> None:
    async def main() -> None:
        for options in ({"stdout": True}, {"kind": "thread"}, {"resource_limits": {"memory": 1}}):
            with pytest.raises(UsageError):
                Worker("multiloop", engine="ray", **options)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="'ray' or"):
            Worker("multiloop", engine="spark")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="asked of an engine"):
            Worker("multiloop", gpus=1)

    multiloop.run(main)


async def _first(worker: Any, count: int) -> Any:
    async for value in worker:
        yield value
        count -= 1
        if not count:
            return
