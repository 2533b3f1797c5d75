"""Children, one after the other: `python spawn_ours.py`"""

from __future__ import annotations

import resource
import time

import multiloop
from multiloop import child_process

COUNT = 200


def used_s() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


async def main() -> None:
    for _ in range(4):
        cpu_s, wall_s = used_s(), time.perf_counter()
        for _ in range(COUNT):
            assert (await child_process.spawn("/bin/true", stdio="ignore").wait()).code == 0
        print("cpu_us", (used_s() - cpu_s) / COUNT * 1e6, "wall_us", (time.perf_counter() - wall_s) / COUNT * 1e6)


multiloop.run(main)
