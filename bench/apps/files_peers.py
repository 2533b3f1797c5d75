"""The same with aiofiles, anyio or plain calls: `python files_peers.py LIBRARY together|after FOLDER ROUNDS`"""

from __future__ import annotations

import asyncio
import sys
import time

import aiofiles
import anyio
import uvloop

library, order, folder, rounds = sys.argv[1:5]
paths = [f"{folder}/{number}" for number in range(1000)]


async def with_aiofiles(path: str) -> bytes:
    async with aiofiles.open(path, "rb") as file:
        return await file.read()


async def with_anyio(path: str) -> bytes:
    return await anyio.Path(path).read_bytes()


async def plain(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


async def main() -> None:
    read = {"aiofiles": with_aiofiles, "anyio": with_anyio, "plain": plain}[library]
    for _ in range(int(rounds)):
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        if order == "together":
            found = await asyncio.gather(*[read(path) for path in paths])
        else:
            found = [await read(path) for path in paths]
        print("cpu_us", (time.process_time() - cpu_s) * 1e3, "wall_us", (time.perf_counter() - wall_s) * 1e3)
        assert all(len(data) == 4096 for data in found)


uvloop.run(main())
