"""What only Dask can show: leases, workers and schedulers that end."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

import multiloop
from multiloop.errors import EngineLost, UsageError, WorkerDied
from multiloop.pool import Pool
from tests.engines.clusters import DaskCluster, Folder
from tests.engines.conftest import need
from tests.pool import functions as work
from tests.support import until

pytestmark = [
    pytest.mark.engines,
    pytest.mark.xdist_group("dask"),
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(240),
]


def test_a_dask_worker_that_is_killed_costs_its_task_and_the_pool_goes_on(dask_cluster: DaskCluster) -> None:
    async def main() -> None:
        async with Pool(2, engine=dask_cluster.address) as pool:
            await pool.ready()
            assert pool.statistics().dashboard.startswith("http://127.0.0.1:")
            host = await pool.run(work.parent_pid)
            tasks = [pool.run(work.sleep, 2.0) for _ in range(4)]
            await until(lambda: pool.statistics().running == 2, 60)
            os.kill(host, signal.SIGKILL)
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert [isinstance(value, WorkerDied) for value in done if value != 2.0] == [True]
            assert await asyncio.gather(*(pool.run(work.add, number) for number in range(10))) == list(range(10))

    multiloop.run(main)


def test_futures_of_dasks_own_are_resolved(dask_cluster: DaskCluster) -> None:
    from distributed import Client

    with Client(dask_cluster.address.replace("dask", "tcp"), set_as_default=False) as client:
        [future] = client.scatter([[1, 2, 3]])

        async def main() -> None:
            async with Pool(1, engine=dask_cluster.address) as pool:
                assert await pool.run(sum, future) == 6

        multiloop.run(main)


def test_resources_are_asked_for_and_cpus_are_refused(folder: Folder) -> None:
    need("distributed")
    cluster = DaskCluster(folder.path, workers=1, resources="GPU=1")
    try:

        async def main() -> None:
            async with Pool(1, engine=cluster.address, gpus=1) as pool:
                assert await pool.run(work.add, 1) == 1
            async with Pool(1, engine=cluster.address, gpus=1) as pool:  # the first has given it back
                assert await pool.run(work.add, 2) == 2

        multiloop.run(main)
        with pytest.raises(UsageError, match="cpus"):
            Pool(1, engine=cluster.address, cpus=2)
    finally:
        cluster.end()


@pytest.mark.slow
def test_a_scheduler_that_comes_back_is_found_again(folder: Folder) -> None:
    need("distributed")
    cluster = DaskCluster(folder.path, workers=1)

    async def main() -> DaskCluster:
        async with Pool(1, engine=cluster.address) as pool:
            assert await pool.run(work.add, 1) == 1
            running = pool.run(work.sleep, 600)
            await until(lambda: pool.statistics().running, 60)
            await multiloop.offload(cluster.scheduler.end, signal.SIGKILL)
            with pytest.raises(EngineLost, match=r"while tests\.pool\.functions\.sleep ran there"):
                await running
            waiting = pool.run(work.add, 3)
            await multiloop.offload(cluster.end)
            again = await multiloop.offload(lambda: DaskCluster(folder.path, workers=1, port=cluster.port))
            assert await waiting == 3
        return again

    multiloop.run(main).end()


def test_a_scheduler_that_is_not_there_is_one_clear_line() -> None:
    need("distributed")

    async def main() -> None:
        async with Pool(1, engine="dask://127.0.0.1:1") as pool:
            with pytest.raises(EngineLost, match=r"cannot connect to dask://127\.0\.0\.1:1"):
                await pool.run(work.add, 1)

    multiloop.run(main)
