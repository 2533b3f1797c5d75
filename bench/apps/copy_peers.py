"""The same with aiofiles, or with plain calls: `python copy_peers.py aiofiles|plain FOLDER`"""

from __future__ import annotations

import os
import sys
import time

import aiofiles
import uvloop

how, folder = sys.argv[1:3]
source, target = f"{folder}/from", f"{folder}/to"
PIECE = 64 * 1024


async def with_aiofiles() -> None:
    async with aiofiles.open(source, "rb") as read, aiofiles.open(target, "wb") as write:
        while piece := await read.read(PIECE):
            await write.write(piece)


async def plain() -> None:
    with open(source, "rb", buffering=0) as read, open(target, "wb", buffering=0) as write:
        while piece := read.read(PIECE):
            write.write(piece)


async def main() -> None:
    for _ in range(3):
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        await (with_aiofiles if how == "aiofiles" else plain)()
        print("cpu_ms", (time.process_time() - cpu_s) * 1e3, "wall_ms", (time.perf_counter() - wall_s) * 1e3)
        assert os.path.getsize(target) == os.path.getsize(source)
        os.unlink(target)


uvloop.run(main())
