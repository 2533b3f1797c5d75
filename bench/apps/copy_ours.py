"""A large file through a pipeline: `python copy_ours.py FOLDER`"""

from __future__ import annotations

import os
import sys
import time

import multiloop
from multiloop import fs, stream

source, target = f"{sys.argv[1]}/from", f"{sys.argv[1]}/to"


async def main() -> None:
    for _ in range(3):
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        await stream.pipeline(fs.create_read_stream(source), fs.create_write_stream(target))
        print("cpu_ms", (time.process_time() - cpu_s) * 1e3, "wall_ms", (time.perf_counter() - wall_s) * 1e3)
        assert os.path.getsize(target) == os.path.getsize(source)
        os.unlink(target)


multiloop.run(main)
