"""The engines that the tests of this folder share: started once, when the first test needs them."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator

import pytest

from tests.engines.clusters import TOKEN, DaskCluster, Folder, RayHead, Redis


def need(module: str) -> None:
    """Skip where an engine is not installed."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: the group `engines` of pyproject.toml has it")


def need_program(name: str) -> str:
    """Skip where a program is not installed."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(autouse=True)
def _collected(request: pytest.FixtureRequest) -> Iterator[None]:
    """What an engine left unclosed is collected in the test that used it, not in one where warnings are errors."""
    yield
    if request.node.get_closest_marker("filterwarnings") is not None:
        gc.collect()


@pytest.fixture
def folder() -> Iterator[Folder]:
    made = Folder()
    yield made
    made.remove()


@pytest.fixture(scope="session")
def ray_head() -> Iterator[RayHead]:
    need("ray")
    made = Folder()
    os.environ.update(TOKEN)
    head = RayHead(made.path, cpus=4, dashboard=False)
    os.environ["RAY_ADDRESS"] = head.address
    yield head
    import ray

    ray.shutdown()
    head.end(signal.SIGKILL)  # it takes its time otherwise
    made.remove()


@pytest.fixture(scope="session")
def dask_cluster() -> Iterator[DaskCluster]:
    need("distributed")
    made = Folder()
    cluster = DaskCluster(made.path, workers=2)
    yield cluster
    cluster.end()
    made.remove()


@pytest.fixture
def redis() -> Iterator[Redis]:
    need("redis")
    need_program("redis-server")
    made = Folder()
    server = Redis(made.path)
    yield server
    server.end()
    made.remove()
