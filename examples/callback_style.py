"""A program in callback style: nothing in it is declared asynchronous, nothing is awaited, and nothing blocks.

    python examples/callback_style.py

What it shows: every function of multiloop starts at once and takes `callback=`, error first, as in Node; the program goes
on for as long as something is open or in flight, and then ends by itself with code 0. An exception in a callback that
nobody catches ends it with its traceback and code 1: try `--throw`.
"""

from __future__ import annotations

import sys

import multiloop
from multiloop import fs, http, net, timers


def on_file(error: BaseException | None, text: str) -> None:
    """The file was read."""
    if error is not None:
        print(f"cannot read: {error}")
        return
    print(f"this program has {len(text.splitlines())} lines")


def on_connection(socket: net.Socket) -> None:
    """Answer whatever a client says, in HTTP, and hang up."""
    socket.once("data", lambda request: socket.end(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))


def on_listening(error: BaseException | None, server: net.Server) -> None:
    """The server is there: ask it, and tick meanwhile."""
    if error is not None:
        print(f"cannot listen: {error}")
        return
    ticking = timers.set_interval(print, 0.05, "tick")

    def on_reply(error: BaseException | None, reply: http.Reply) -> None:
        # The head of the reply is there, or the reason why not. Its body is taken by another call.
        if error is not None:
            print(f"no reply: {error}")
        else:
            print(f"the server says {reply.status}")
            reply.text(callback=lambda error, text: print(f"and {error or text}"))
        timers.set_timeout(close, 0.12, server, ticking)

    host, port = server.address
    http.fetch(f"http://{host}:{port}/", callback=on_reply)


def close(server: net.Server, ticking: timers.Timer) -> None:
    """Let the program end: nothing is open any more after this."""
    ticking.cancel()
    server.close(callback=lambda error, _: print("closed"))


def main() -> None:
    """Start everything; return at once."""
    fs.read_file(__file__, encoding="utf-8", callback=on_file)
    net.create_server(on_connection).listen(0, callback=on_listening)
    timers.next_tick(print, "this comes second")
    print("this comes first")
    if "--throw" in sys.argv:
        timers.set_timeout(lambda: 1 / 0, 0.01)


if __name__ == "__main__":
    multiloop.run(main)
