"""The floor: one copy of 100 MB into shared memory that nobody has touched yet, and as multiprocessing sends it.

`python large_floor.py memcpy|pipe`
"""

from __future__ import annotations

import mmap
import multiprocessing
import multiprocessing.connection
import os
import sys
import time

import numpy

SIZE = 100_000_000


def memcpy(data: numpy.ndarray) -> None:
    descriptor = os.memfd_create("bench")
    os.ftruncate(descriptor, SIZE)
    view = mmap.mmap(descriptor, SIZE)
    began_s = time.perf_counter()
    numpy.frombuffer(view, dtype="uint8")[:] = data
    print("wall_ms", (time.perf_counter() - began_s) * 1e3)
    os.close(descriptor)


def answer(pipe: multiprocessing.connection.Connection) -> None:
    while (data := pipe.recv()) is not None:
        pipe.send((len(data), int(data[-1])))


def main() -> None:
    data = numpy.ones(SIZE, dtype="uint8") * 7
    if sys.argv[1] == "memcpy":
        for _ in range(12):
            memcpy(data)
        return
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    worker = context.Process(target=answer, args=(theirs,))
    worker.start()
    for _ in range(8):
        began_s = time.perf_counter()
        mine.send(data)
        assert mine.recv() == (SIZE, 7)
        print("wall_ms", (time.perf_counter() - began_s) * 1e3)
    mine.send(None)
    worker.join()


if __name__ == "__main__":
    main()
