"""What a pool's task costs on Ray and Dask, against the engine by itself, in one run.

    python -m bench.engines ray          (RAY_ADDRESS, or a Ray of its own)
    python -m bench.engines dask tcp://host:port

Rounds of both sides take turns; the figures are medians of wall time, because most of the work is done by the engine's own
processes. `single`: one task after the other. `many`: a thousand tiny ones at once.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import multiloop
from multiloop.pool import Pool

ROUNDS = 7
SINGLE = 200
MANY = 2000
WORKERS = 2

Round = Callable[[], Awaitable[None]]


def same(value: int) -> int:
    """The tiny task."""
    return value


async def measure(name: str, plain_single: Round, plain_many: Round, pool: Pool) -> None:
    """Take turns, print medians and ratios."""

    async def our_single() -> None:
        for number in range(SINGLE):
            await pool.run(same, number)

    async def our_many() -> None:
        assert await asyncio.gather(*(pool.run(same, number) for number in range(MANY))) == list(range(MANY))

    kinds = {"single": (plain_single, our_single, SINGLE), "many": (plain_many, our_many, MANY)}
    for what, (plain, ours, count) in kinds.items():
        times: dict[str, list[float]] = {"plain": [], "ours": []}
        await plain()
        await ours()
        for _ in range(ROUNDS):
            for side, run in (("plain", plain), ("ours", ours)):
                begun = time.perf_counter()
                await run()
                times[side].append((time.perf_counter() - begun) / count * 1e6)
        plain_us, ours_us = statistics.median(times["plain"]), statistics.median(times["ours"])
        print(f"{what}: {name} {plain_us:.0f} us, pool on it {ours_us:.0f} us a task: {ours_us / plain_us:.2f}")


async def on_ray() -> None:
    """Plain Ray: remote functions, which is how its own pool and most programs use it."""
    import ray

    ray.init(log_to_driver=False)
    remote = ray.remote(same)

    async def single() -> None:
        for number in range(SINGLE):
            await remote.remote(number)

    async def many() -> None:
        await asyncio.gather(*(remote.remote(number) for number in range(MANY)))

    async with Pool(WORKERS, engine="ray") as pool:
        await pool.ready()
        await measure("ray", single, many, pool)


async def on_dask(address: str) -> None:
    """Plain Dask: `client.submit`, on its own loop."""
    from distributed import Client

    async with await Client(address, asynchronous=True) as client:

        async def single() -> None:
            for number in range(SINGLE):
                await client.submit(same, number, pure=False)

        async def many() -> None:
            futures: list[Any] = [client.submit(same, number, pure=False) for number in range(MANY)]
            await client.gather(futures)

        async with Pool(WORKERS, engine=address.replace("tcp://", "dask://")) as pool:
            await pool.ready()
            await measure("dask", single, many, pool)


if __name__ == "__main__":
    if sys.argv[1:2] == ["dask"]:
        multiloop.run(on_dask, sys.argv[2])
    else:
        multiloop.run(on_ray)
