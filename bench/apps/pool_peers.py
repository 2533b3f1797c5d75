"""Tiny tasks through ProcessPoolExecutor or loky: `python pool_peers.py standard|loky trip|many`"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor

from pin import pin
from tiny import same


def executor(library: str) -> Executor:
    if library == "standard":
        return ProcessPoolExecutor(2)
    import loky

    return loky.ProcessPoolExecutor(2)


def main() -> None:
    library, order = sys.argv[1:3]
    with executor(library) as pool:
        for future in [pool.submit(same, number) for number in range(200)]:
            future.result()
        if order == "many":
            for _ in range(3):
                began_s = time.perf_counter()
                for future in [pool.submit(same, number) for number in range(5000)]:
                    future.result()
                print("wall_us", (time.perf_counter() - began_s) / 5000 * 1e6)
            return
        pin(os.getpid())
        for _ in range(4):
            began_s = time.perf_counter()
            for number in range(1000):
                pool.submit(same, number).result()
            print("wall_us", (time.perf_counter() - began_s) / 1000 * 1e6)


if __name__ == "__main__":
    main()
