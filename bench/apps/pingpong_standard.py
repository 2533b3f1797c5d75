"""The same with the standard library's queues between interpreters (CPython 3.14)."""

from __future__ import annotations

import threading
import time
from concurrent import interpreters

TRIPS = 20


def main() -> None:
    there, back = interpreters.create_queue(), interpreters.create_queue()
    worker = interpreters.create()
    worker.prepare_main(there=there, back=back)
    thread = threading.Thread(target=worker.exec, args=("while (value := there.get()) is not None: back.put(value)",))
    thread.start()
    for _ in range(3):
        began_s = time.perf_counter()
        for number in range(TRIPS):
            there.put(number)
            assert back.get() == number
        print("wall_us", (time.perf_counter() - began_s) / TRIPS * 1e6)
    there.put(None)
    thread.join()
    worker.close()


main()
