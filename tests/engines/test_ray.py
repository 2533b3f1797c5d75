"""What only Ray can show: nodes, resources, a head that ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import multiloop
from multiloop.errors import EngineLost, UsageError, WorkerDied
from multiloop.pool import Pool
from tests.engines.clusters import TOKEN, Folder, RayHead, Service, answers, free_port
from tests.engines.conftest import need
from tests.pool import functions as work
from tests.support import environment, until, wait_until

DEMO = Path(__file__).parents[2] / "examples" / "demo"

pytestmark = [
    pytest.mark.engines,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(240),
]


def test_resources_choose_the_node_and_the_death_of_a_node_costs_its_tasks(ray_head: RayHead) -> None:
    node = ray_head.add_node(1, second=1)

    async def main() -> None:
        async with Pool(1, engine="ray", resources={"second": 1}, name="there") as there:
            assert await there.run(work.assigned_resources) == {"CPU": 1.0, "second": 1.0}
            async with Pool(1, engine="ray", cpus=0.5) as here:
                assert (await here.run(work.assigned_resources))["CPU"] == 0.5
                task = there.run(work.sleep, 600)
                await until(lambda: there.statistics().running, 60)
                node.end(signal.SIGKILL)
                with pytest.raises(WorkerDied, match="ray worker"):
                    await asyncio.wait_for(task, 120)
                assert await here.run(work.add, 1) == 1
            await there.close(force=True)

    multiloop.run(main)


def test_killing_the_actors_process_fails_only_the_task_that_it_runs(ray_head: RayHead, tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(2, engine="ray") as pool:
            await pool.ready()
            pids = [worker.pid for worker in pool.statistics().workers]
            assert len(set(pids)) == 2
            paths = [str(tmp_path / str(number)) for number in range(6)]
            tasks = [pool.run(work.touch, path, 1.0) for path in paths]
            await until(lambda: len(list(tmp_path.iterdir())) == 2, 60)
            os.kill(pids[0], signal.SIGKILL)
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert [isinstance(value, WorkerDied) for value in done if value not in paths] == [True]
            os.kill(next(worker.pid for worker in pool.statistics().workers if worker.pid), signal.SIGKILL)  # idle
            assert await asyncio.gather(*(pool.run(work.add, number) for number in range(10))) == list(range(10))

    multiloop.run(main)


def test_references_of_rays_own_are_resolved(ray_head: RayHead) -> None:
    async def main() -> None:
        async with Pool(1, engine="ray") as pool:
            await pool.ready()
            import ray

            assert await pool.run(sum, ray.put([1, 2, 3])) == 6

    multiloop.run(main)


def test_one_process_has_one_connection(ray_head: RayHead) -> None:
    async def main() -> None:
        async with Pool(1, engine="ray") as pool:
            await pool.run(work.add, 1)
        async with Pool(1, engine="ray://127.0.0.1:1") as other:
            with pytest.raises(EngineLost, match="already"):
                await other.run(work.add, 1)

    multiloop.run(main)


def in_another_process(code: str, *args: str, **more: str) -> str:
    """One process has one Ray: what connects otherwise runs in a process of its own."""
    found: Any = {**environment(**TOKEN, **more)}
    found.pop("RAY_ADDRESS", None)
    found["PYTHONPATH"] += os.pathsep + os.getcwd()
    done = subprocess.run(
        [sys.executable, "-c", code, *args], env=found, capture_output=True, text=True, timeout=220, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def busy_actors() -> list[int]:
    """The processes of our actors on this machine that run a task."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"ray::MultiloopWorker.work"):
                found.append(int(path.parent.name))
    return found


def test_the_demo_moves_to_ray_by_one_option_and_a_killed_worker_fails_only_its_request(
    ray_head: RayHead, tmp_path: Path
) -> None:
    """DEMO_ENGINE=ray, and nothing else."""
    port = free_port()
    site = Service(
        sys.executable, "-m", "multiloop", "serve", "app:app", "--app-dir", str(DEMO), "--port", str(port), "--workers", "1",
        "--control", str(tmp_path / "control"), log=tmp_path / "log",
        DEMO_ENGINE="ray", RAY_ADDRESS=ray_head.address, **TOKEN,
    )  # fmt: skip

    def did(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=120) as reply:
            return str(json.load(reply)["did"])

    try:
        site.wait_for(lambda: answers(port))
        assert did("/offload?seconds=0.01").endswith("off the loop")
        wait_until(lambda: not busy_actors(), 60)
        with ThreadPoolExecutor(1) as visitor:
            slow = visitor.submit(did, "/offload?seconds=5")
            wait_until(busy_actors, 60)
            for actor in busy_actors():
                os.kill(actor, signal.SIGKILL)
            assert did("/fast") == "answered at once"
            with pytest.raises(urllib.error.HTTPError, match="500"):
                slow.result()
        assert did("/offload?seconds=0.01").endswith("off the loop")
    finally:
        site.end()


CLIENT = """
import asyncio, sys, multiloop
from multiloop.errors import EngineLost
from multiloop.pool import Pool
from tests.pool import functions as work

async def main():
    async with Pool(1, engine=sys.argv[1]) as pool:
        for tries in (2, 1, 0):  # Ray gives its own parts 30 s to start, which a machine with much else to do needs
            try:
                await pool.ready()
                break
            except EngineLost:
                if not tries:
                    raise
        print(await asyncio.gather(*(pool.run(work.add, number) for number in range(300))) == list(range(300)))
        try:
            await pool.options(timeout=0.3).run(work.forever)
        except TimeoutError as error:
            print(error)
        try:
            await pool.run(work.die)
        except Exception as error:
            print(type(error).__name__)
        print([value async for value in pool.stream(work.count, 20)] == list(range(20)))
        shared = await pool.put(bytes(300_000))
        print(await pool.run(len, shared))

multiloop.run(main)
"""


def test_rays_client_carries_the_same(ray_head: RayHead) -> None:
    need("grpc")
    out = in_another_process(CLIENT, f"ray://127.0.0.1:{ray_head.client_port}")
    assert out.splitlines() == [
        "True", "tests.pool.functions.forever ran for longer than 0.3 s and was stopped", "WorkerDied", "True", "300000",
    ]  # fmt: skip


NOBODY = """
import sys, multiloop
from multiloop.pool import Pool
from tests.pool import functions as work

async def main():
    async with Pool(1, engine=sys.argv[1]) as pool:
        await pool.run(work.add, 1)

try:
    multiloop.run(main)
except Exception as error:
    print(type(error).__name__, str(error).splitlines()[0])
"""


def test_a_head_that_is_not_there_is_one_clear_line() -> None:
    need("ray")
    out = in_another_process(NOBODY, "ray://127.0.0.1:1")
    assert out.startswith("EngineLost cannot connect to ray://127.0.0.1:1")


AGAIN = """
import asyncio, os, signal, sys, multiloop
from pathlib import Path
from multiloop.errors import EngineLost
from multiloop.pool import Pool
from tests.engines.clusters import RayHead
from tests.pool import functions as work

async def main():
    folder = Path(sys.argv[1])
    head = await multiloop.offload(lambda: RayHead(folder, cpus=2))
    os.environ["RAY_ADDRESS"] = head.address
    async with Pool(1, engine="ray") as pool:
        print(await pool.run(work.add, 1))
        running = pool.run(work.sleep, 600)
        again = pool.options(idempotent=True).run(work.add, 2)
        while not pool.statistics().running:
            await asyncio.sleep(0.05)
        head.end(signal.SIGKILL)
        try:
            await running
        except EngineLost as error:
            print("EngineLost", "while tests.pool.functions.sleep ran there" in str(error))
        waiting = pool.run(work.add, 3)
        head = await multiloop.offload(lambda: RayHead(folder, cpus=2, port=head.port, client_port=head.client_port))
        print(await waiting, await again)
    head.end()

multiloop.run(main)
"""


@pytest.mark.slow
def test_a_head_that_comes_back_is_found_again(folder: Folder) -> None:
    need("ray")
    assert in_another_process(AGAIN, str(folder.path)).splitlines() == ["1", "EngineLost True", "3 2"]


def test_what_ray_cannot_keep_is_refused(ray_head: RayHead) -> None:
    for options in ({"kind": "thread"}, {"cores": "spread"}):
        with pytest.raises(UsageError, match="cannot be kept on other machines"):
            Pool(1, engine="ray", **options)  # type: ignore[arg-type]
    for options in ({"cpus": 1}, {"gpus": 1}, {"resources": {"x": 1}}):
        with pytest.raises(UsageError, match="engine on other machines"):
            Pool(1, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cpus=-1"):
        Pool(1, engine="ray", cpus=-1)
