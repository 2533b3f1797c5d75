"""The bus and broadcast channels in a program that forks itself: no server is needed, and the primary is an end, too."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.forks.program import run

BUS = """
from multiloop import bus
from multiloop.worker_threads import BroadcastChannel

async def worker_main():
    me = cluster.worker.id
    end = bus.connect()
    end.subscribe("news").on("message", lambda message: end.publish("heard", [me, message.value]))
    end.answer(f"who is {me}", lambda value: [me, value])
    channel = BroadcastChannel("cast")
    channel.on("message", lambda value: end.publish("heard", [me, value]))
    cluster.worker.on("disconnect", lambda: (end.close(), channel.close()) and None)
    await end.ready()
    end.publish("heard", [me, "ready"])
    if me == 2:
        say(await end.request("who is 1", "from 2"), await end.request("who is the primary"))
        end.publish("news", "from 2")

async def program():
    heard = set()
    end = bus.connect()
    end.subscribe("heard").on("message", lambda message: heard.add(tuple(message.value)))
    end.answer("who is the primary", lambda value: "the primary")
    channel = BroadcastChannel("cast")

    async def told_of(*messages):
        while not heard.issuperset(messages):
            await timers.sleep(0.01)

    cluster.fork()
    await told_of((1, "ready"))
    second = cluster.fork()
    await told_of((2, "ready"), (1, "from 2"), (2, "from 2"))
    end.publish("news", "to all")
    channel.post_message("cast to all")
    await told_of(*((number, value) for number in (1, 2) for value in ("to all", "cast to all")))
    second.process.kill("SIGKILL")
    await events.once(second, "exit")
    end.publish("news", "one is left")
    await told_of((1, "one is left"))
    say((2, "one is left") in heard)
    channel.close()
    end.close()
    await cluster.disconnect()

multiloop.run(program if cluster.is_primary else worker_main)
"""


def test_the_primary_and_all_workers_hear_and_ask_each_other(tmp_path: Path) -> None:
    ended = run(tmp_path, BUS)
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines == ["[1, 'from 2'] the primary", "False"]
