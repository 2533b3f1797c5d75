"""One site on several machines: a chat over WebSockets that spans them, behind HAProxy.

    BUS_URL=redis://127.0.0.1:6379/0 MACHINE=one multiloop serve app:app --app-dir examples/machines --port 8001 --workers 2
    BUS_URL=redis://127.0.0.1:6379/0 MACHINE=two multiloop serve app:app --app-dir examples/machines --port 8002 --workers 2

Without BUS_URL the same code serves one machine: the bus then goes through the cluster's primary. `roll.py` replaces the
machines one after the other; `docs/how-to/several-machines.md` walks through all of it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from multiloop import bus

MACHINE = os.environ.get("MACHINE", "one")
LEAVING = Path(os.environ.get("LEAVING", f"/tmp/multiloop-{MACHINE}.leaving"))  # while this file is there: not ready
PAGE = Path(__file__).with_name("chat.html").read_bytes()


class Chat:
    """The sockets of this worker, and the bus that leads to all others."""

    def __init__(self) -> None:
        self.bus = bus.connect(os.environ.get("BUS_URL"))
        self.sockets: set[Any] = set()
        said = self.bus.subscribe("chat")
        said.on("message", lambda message: self.tell_all(message.value))
        said.on("gap", lambda gap: self.tell_all({"gap": gap.missed, "seconds": round(gap.seconds, 1)}))
        self.bus.answer(f"who is at {MACHINE}", lambda value: {"machine": MACHINE, "worker": os.getpid()})

    async def tell_all(self, value: Any) -> None:
        """Send to everybody who is connected here."""
        text = json.dumps(value)
        for send in list(self.sockets):
            try:
                await send({"type": "websocket.send", "text": text})
            except OSError:
                self.sockets.discard(send)

    async def serve(self, receive: Any, send: Any) -> None:
        """One visitor."""
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        self.sockets.add(send)
        try:
            await send({"type": "websocket.send", "text": json.dumps({"hello": MACHINE, "worker": os.getpid()})})
            while (message := await receive())["type"] == "websocket.receive":
                self.bus.publish("chat", {"said": (message.get("text") or "")[:1000], "at": MACHINE})
        finally:
            self.sockets.discard(send)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    chat: Chat = scope["state"]["chat"]
    if scope["type"] == "websocket":
        await chat.serve(receive, send)
    elif scope["path"] == "/":
        await reply(send, PAGE, b"text/html; charset=utf-8")
    elif scope["path"] == "/ready":
        # What the balancer asks. It says no before anything stops, so that nothing new comes to a machine that goes.
        leaves = LEAVING.exists()
        await reply(send, b"leaving" if leaves else b"ready", b"text/plain", status=503 if leaves else 200)
    elif scope["path"] == "/where":
        await reply(send, json.dumps({"machine": MACHINE, "worker": os.getpid()}).encode(), b"application/json")
    elif scope["path"].startswith("/ask/"):
        # Any machine can be asked about any other.
        answer = await chat.bus.request("who is at " + scope["path"].removeprefix("/ask/"))
        await reply(send, json.dumps(answer).encode(), b"application/json")
    else:
        await reply(send, b"not here", b"text/plain", status=404)


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    await receive()  # lifespan.startup
    chat = scope["state"]["chat"] = Chat()
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await chat.bus.drain()
    chat.bus.close()
    await send({"type": "lifespan.shutdown.complete"})


async def reply(send: Any, body: bytes, kind: bytes, *, status: int = 200) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
