"""Load on a WebSocket server: `python websocket_load.py echo|broadcast PORT CONNECTIONS SECONDS`

Raw sockets on uvloop with frames made beforehand, so that one core of load can keep a fast server busy. Echo: each
connection sends the next message when the last one is back. Broadcast: one connection speaks, all listen, the next
message leaves when all have the last one. Prints how many messages were delivered, in how long, and latencies.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time

import uvloop

TEXT = b"x" * 120
FRAME_BYTES = 2 + len(TEXT)  # as a server sends it: no mask, a length of one byte


def masked(payload: bytes) -> bytes:
    """A text frame of a client."""
    mask = os.urandom(4)
    body = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return struct.pack("!BB", 0x81, 0x80 | len(payload)) + mask + body


MESSAGE = masked(TEXT)
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Client(asyncio.Protocol):
    """One connection; counts whole frames by their length, which is always the same."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.open = asyncio.get_running_loop().create_future()
        self.head = b""
        self.pending = 0
        self.sent_s = 0.0
        self.checked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(HANDSHAKE)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self.open.done():
            self.head += data
            head, end, data = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                sys.exit(f"no WebSocket: {head[:80]!r}")
            self.open.set_result(None)
            if not data:
                return
        if not self.checked:
            self.checked = True
            if data[:2] != bytes((0x81, len(TEXT))):
                sys.exit(f"not the frame that was sent: {data[:10]!r}")
        self.pending += len(data)
        while self.pending >= FRAME_BYTES:
            self.pending -= FRAME_BYTES
            self.load.delivered(self)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.load.over:
            sys.exit("a connection was lost")

    def say(self) -> None:
        self.sent_s = time.perf_counter()
        self.transport.write(MESSAGE)  # type: ignore[attr-defined]


class Load:
    """Who speaks when."""

    def __init__(self, broadcast: bool) -> None:
        self.broadcast = broadcast
        self.clients: list[Client] = []
        self.count = 0
        self.waiting = 0
        self.over = False
        self.trips: list[float] = []

    def start(self) -> None:
        if self.broadcast:
            self.waiting = len(self.clients)
            self.clients[0].say()
        else:
            for client in self.clients:
                client.say()

    def delivered(self, client: Client) -> None:
        self.count += 1
        if not self.broadcast:
            self.trips.append(time.perf_counter() - client.sent_s)
            if not self.over:
                client.say()
            return
        self.waiting -= 1
        if not self.waiting:
            self.trips.append(time.perf_counter() - self.clients[0].sent_s)
            if not self.over:
                self.start()


async def main() -> None:
    mode, port, connections, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    load = Load(mode == "broadcast")
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: Client(load), "127.0.0.1", port)
        await client.open
        load.clients.append(client)
    began_s = time.perf_counter()
    load.start()
    await asyncio.sleep(seconds)
    took_s = time.perf_counter() - began_s
    count, trips = load.count, sorted(load.trips)
    load.over = True
    for client in load.clients:
        client.transport.close()
    if not trips:
        sys.exit("no message came back")
    print(count, took_s, trips[len(trips) // 2] * 1e3, trips[min(len(trips) - 1, len(trips) * 99 // 100)] * 1e3)


uvloop.run(main())
