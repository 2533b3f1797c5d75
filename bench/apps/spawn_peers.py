"""The same with asyncio on uvloop, or with subprocess.run: `python spawn_peers.py asyncio|run`"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import time

import uvloop

COUNT = 200
NOTHING = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def used_s() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


async def one() -> int:
    if sys.argv[1] == "run":
        return subprocess.run(["/bin/true"], **NOTHING).returncode  # type: ignore[call-overload]
    child = await asyncio.create_subprocess_exec("/bin/true", **NOTHING)
    return await child.wait()


async def main() -> None:
    for _ in range(4):
        cpu_s, wall_s = used_s(), time.perf_counter()
        for _ in range(COUNT):
            assert await one() == 0
        print("cpu_us", (used_s() - cpu_s) / COUNT * 1e6, "wall_us", (time.perf_counter() - wall_s) / COUNT * 1e6)


uvloop.run(main())
