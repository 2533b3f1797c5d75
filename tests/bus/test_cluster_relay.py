"""Messages between the workers of one application, through the primary."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.cluster.harness import Server, serving
from tests.support import wait_until

APP = """
import asyncio, json, os
from multiloop import bus
from multiloop.worker_threads import BroadcastChannel

heard = []
casts = []

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["bus"] = end = bus.connect()
        end.subscribe("news").on("message", lambda message: heard.append(message.value))
        end.answer("pid", lambda value: [value, os.getpid()])
        channel = scope["state"]["channel"] = BroadcastChannel("cast")
        channel.on("message", casts.append)
        await end.ready()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        channel.close()
        end.close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    state = scope["state"]
    path = scope["path"]
    answer = {"pid": os.getpid()}
    if path == "/publish":
        state["bus"].publish("news", {"from": os.getpid()})
        state["channel"].post_message({"from": os.getpid(), "large": bytes(100_000)})
    elif path == "/ask":
        answer["reply"] = await state["bus"].request("pid", "who")
    else:
        answer.update(heard=[item["from"] for item in heard], casts=[item["from"] for item in casts])
    body = json.dumps(answer).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


def state_of_all(server: Server, workers: int) -> dict[int, Any]:
    """What each worker has heard, by pid: each connection is dealt to the next."""
    found: dict[int, Any] = {}

    def has_all() -> bool:
        answer = json.loads(server.get("/"))
        found[answer["pid"]] = answer
        return len(found) == workers

    wait_until(has_all)
    return found


def test_workers_hear_each_other_and_new_ones_too(tmp_path: Path) -> None:
    with serving(tmp_path, app=APP, workers=2) as server:
        server.wait_ready(2)
        sender = json.loads(server.get("/publish"))["pid"]

        def all_heard() -> bool:
            found = state_of_all(server, 2)
            return all(answer["heard"] == [sender] for answer in found.values()) and all(
                answer["casts"] == ([] if pid == sender else [sender]) for pid, answer in found.items()
            )

        wait_until(all_heard)
        assert json.loads(server.get("/ask"))["reply"][0] == "who"
        os.kill(sender, signal.SIGKILL)
        wait_until(lambda: sender not in server.workers().values())
        server.wait_ready(2)
        again = json.loads(server.get("/publish"))["pid"]
        wait_until(lambda: all(again in answer["heard"] for answer in state_of_all(server, 2).values()))
