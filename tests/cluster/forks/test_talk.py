"""Messages, requests and broadcasts between a primary and its workers, and from worker to worker."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.forks.program import run

TALK = """
from multiloop.errors import ChannelClosed, WorkerDied

async def fails(what, kind):
    try:
        await what
    except kind as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("it did not fail")

def answer(value):
    if value == "fail":
        raise LookupError("no such thing")
    if value == "never":
        return asyncio.get_running_loop().create_future()
    if value == "slow":
        return asyncio.sleep(0.05, "slowly")
    return ("answer", cluster.is_worker and cluster.worker.id, value)

async def worker_main():
    me = cluster.worker
    me.on("request", answer)

    @cluster.on("message")
    def message(sender, value, handle):
        if handle is not None:
            value = "handle"
            handle.close()
        me.send(("heard", sender.id, value))

    while not cluster.workers:
        await timers.sleep(0.01)
    if me.id == 1:
        other = cluster.workers[2]
        assert await other.request("x") == ("answer", 2, "x")
        assert (await fails(other.request("fail"), LookupError)).endswith("no such thing")
        assert other.send(b"x" * 1_000_000)
        left, right = socket.socketpair()
        assert other.send("a socket", left)
        assert await asyncio.get_running_loop().run_in_executor(None, right.recv, 1) == b""  # closed over there, and here
        right.close()
        assert cluster.broadcast("all others") == 1
        assert await me.request("up") == ("answer", False, "up")
        assert await fails(me.request("fail"), LookupError)
        me.send("done")

async def program():
    first, second = cluster.workers.values()
    told = []
    cluster.on("message", lambda worker, value, handle: told.append((worker.id, value)))
    cluster.on("request", lambda worker, value: answer(value))

    async def told_of(*messages):
        while not all(message in told for message in messages):
            await timers.sleep(0.01)

    await told_of(
        (1, "done"), (2, ("heard", 1, b"x" * 1_000_000)), (2, ("heard", 1, "handle")), (2, ("heard", 1, "all others"))
    )
    # What looks like a message of the library's own is a message.
    own_looking = [{"cmd": "NODE_CLUSTER", "act": "x"}, None, 0, b"\x02", (1, 2)]
    assert all(first.send(value) for value in own_looking)
    assert cluster.broadcast("to all") == 2
    await told_of(*((1, ("heard", 1, value)) for value in own_looking), *((n, ("heard", n, "to all")) for n in (1, 2)))

    assert await first.request(7) == ("answer", 1, 7)
    assert await second.request("slow") == "slowly"
    say(await fails(first.request("fail"), LookupError))
    say(await fails(first.request("slow", timeout=0.001), TimeoutError))

    # A worker dies while it is asked, and is sent to afterwards: nobody waits for ever, nothing is raised.
    asked = [first.request("never") for _ in range(3)]
    first.process.kill("SIGKILL")
    say(*(await asyncio.gather(*(fails(each, WorkerDied) for each in asked)))[:1])
    for _ in range(100):
        first.send(b"x" * 10_000)
    assert first.send("gone") is False and cluster.broadcast("one is left") == 1
    say(await fails(first.request(1), ChannelClosed))
    assert await second.request(8) == ("answer", 2, 8)
    await cluster.disconnect()
    say("end")

if cluster.is_primary:
    for _ in range(2):
        cluster.fork()
    multiloop.run(program)
else:
    multiloop.run(worker_main)
"""


def test_everybody_talks_to_everybody_and_the_dead_hurt_nobody(tmp_path: Path) -> None:
    ended = run(tmp_path, TALK)
    assert (ended.code, ended.err) == (0, "")
    failed, timed_out, died, gone, end = ended.lines
    assert failed == "LookupError: no such thing"
    assert timed_out.startswith("TimeoutError: worker 1 did not answer within 0.001 s")
    assert died == "WorkerDied: worker 1 was killed by SIGKILL"
    assert gone.startswith("ChannelClosed: worker 1 is gone")
    assert end == "end"
