"""1 000 files read with multiloop.fs: `python files_ours.py together|after FOLDER ROUNDS`"""

from __future__ import annotations

import asyncio
import sys
import time

import multiloop
from multiloop import fs

paths = [f"{sys.argv[2]}/{number}" for number in range(1000)]


async def together() -> None:
    found = await asyncio.gather(*[fs.read_file(path) for path in paths])
    assert all(len(data) == 4096 for data in found)


async def after() -> None:
    for path in paths:
        assert len(await fs.read_file(path)) == 4096


async def main() -> None:
    work = {"together": together, "after": after}[sys.argv[1]]
    for _ in range(int(sys.argv[3])):
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        await work()
        print("cpu_us", (time.process_time() - cpu_s) * 1e3, "wall_us", (time.perf_counter() - wall_s) * 1e3)


multiloop.run(main)
