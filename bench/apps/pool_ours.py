"""Tiny tasks through our pool: `python pool_ours.py trip|many`"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from pin import pin
from tiny import same

import multiloop
from multiloop.pool import Pool


async def main() -> None:
    async with Pool(workers=2, kind="process") as pool:
        await asyncio.gather(*[pool.run(same, number) for number in range(200)])
        if sys.argv[1] == "many":
            for _ in range(5):
                began_s = time.perf_counter()
                found = await asyncio.gather(*[pool.run(same, number) for number in range(20_000)])
                print("wall_us", (time.perf_counter() - began_s) / 20_000 * 1e6)
                assert found == list(range(20_000))
            return
        pin(os.getpid())
        for _ in range(6):
            began_s = time.perf_counter()
            for number in range(1500):
                await pool.run(same, number)
            print("wall_us", (time.perf_counter() - began_s) / 1500 * 1e6)


if __name__ == "__main__":
    multiloop.run(main)
