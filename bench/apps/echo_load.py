"""Load on an echo server: `python echo_load.py PORT CONNECTIONS SECONDS`

Bare protocols on uvloop: each connection sends its next message when the last one is back whole. Prints how many came
back, in how long, and latencies.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import uvloop

MESSAGE = b"0123456789" * 12


class Client(asyncio.Protocol):
    """One connection. A byte that is not the one that was sent ends the load."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.pending = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def say(self) -> None:
        self.sent_s = time.perf_counter()
        self.transport.write(MESSAGE)

    def data_received(self, data: bytes) -> None:
        data = self.pending + data
        if len(data) < len(MESSAGE):
            self.pending = data
            return
        self.pending = b""
        if data != MESSAGE:
            sys.exit(f"not what was sent: {data[:40]!r}")
        self.load.trips.append(time.perf_counter() - self.sent_s)
        if self.load.over:
            self.transport.close()  # with nothing on its way: the server sees an end, not a reset
        else:
            self.say()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.load.over:
            sys.exit("a connection was lost")
        self.load.open -= 1
        if not self.load.open:
            self.load.ended.set()


class Load:
    """What the connections share."""

    def __init__(self, connections: int) -> None:
        self.over = False
        self.open = connections
        self.ended = asyncio.Event()
        self.trips: list[float] = []


async def main() -> None:
    port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    load, loop, clients = Load(connections), asyncio.get_running_loop(), []
    for _ in range(connections):
        clients.append((await loop.create_connection(lambda: Client(load), "127.0.0.1", port))[1])
    began_s = time.perf_counter()
    for client in clients:
        client.say()
    await asyncio.sleep(seconds)
    took_s = time.perf_counter() - began_s
    trips = sorted(load.trips)
    load.over = True
    await load.ended.wait()
    if not trips:
        sys.exit("no message came back")
    print(len(trips), took_s, trips[len(trips) // 2] * 1e3, trips[min(len(trips) - 1, len(trips) * 99 // 100)] * 1e3)


uvloop.run(main())
