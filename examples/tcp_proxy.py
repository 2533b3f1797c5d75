"""A TCP proxy: what comes in on one address goes to another, and back, no faster than either end takes it.

    python examples/tcp_proxy.py --listen 127.0.0.1:8000 --to 127.0.0.1:9000

What it shows: `net.create_server` and `net.connect`, backpressure with `pipe` (a slow reader on one side stops the
kernel's read on the other; memory stays flat), half-closed connections passed on, idle ones cut, and a clean end with
Ctrl-C.
"""

from __future__ import annotations

import argparse

import multiloop
from multiloop import net

Address = tuple[str, int]


class Proxy:
    """Forwards connections to one upstream address."""

    def __init__(self, upstream: Address, *, idle_timeout: float, max_connections: int) -> None:
        self.upstream = upstream
        self.idle_timeout = idle_timeout
        self.forwarded = 0  # connections
        # Half-open: a client that says "that was my request" (shutdown) must still get its answer.
        # Paused: nothing is read before there is somewhere to send it.
        self.server = net.create_server(
            self.accept, allow_half_open=True, pause_on_connect=True, max_connections=max_connections
        )

    def accept(self, client: net.Socket) -> None:
        """Connect a new client to the upstream, then let both flow."""
        host, port = self.upstream
        upstream = net.Socket(allow_half_open=True)
        self.tie(client, upstream)

        def connected(error: BaseException | None, _: object) -> None:
            if error is not None:
                print(f"cannot reach {host}:{port}: {error}", flush=True)
                return  # the upstream socket is closed, and with it, tied as they are, the client
            self.forwarded += 1
            client.pipe(upstream)
            upstream.pipe(client)
            client.resume()

        upstream.connect(port, host, callback=connected)

    def tie(self, one: net.Socket, other: net.Socket) -> None:
        """Let neither outlive the other, and both end when nothing moves for too long."""
        for socket, peer in ((one, other), (other, one)):
            socket.on("close", lambda had_error, peer=peer: peer.destroy() if had_error else peer.destroy_soon())
            socket.set_timeout(self.idle_timeout)
            socket.on("timeout", socket.destroy)

    async def run(self, listen: Address) -> None:
        """Listen; the program goes on for as long as the server does."""
        host, port = listen
        await self.server.listen(port, host)
        here, there = (":".join(map(str, address)) for address in (self.server.address, self.upstream))
        print(f"{here} -> {there}", flush=True)


def address(text: str) -> Address:
    """Read HOST:PORT."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"HOST:PORT, not {text!r}")
    return host or "127.0.0.1", int(port)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Forward TCP connections.")
    parser.add_argument("--listen", type=address, required=True, metavar="HOST:PORT")
    parser.add_argument("--to", type=address, required=True, metavar="HOST:PORT")
    parser.add_argument("--idle-timeout", type=float, default=60, metavar="SECONDS")
    parser.add_argument("--max-connections", type=int, default=1000)
    options = parser.parse_args()
    proxy = Proxy(options.to, idle_timeout=options.idle_timeout, max_connections=options.max_connections)
    multiloop.run(proxy.run, options.listen)


if __name__ == "__main__":
    main()
