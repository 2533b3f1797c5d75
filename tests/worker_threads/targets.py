"""What the workers of these tests run: importable from every kind of worker."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any

import multiloop.worker_threads as wt
from multiloop import run, timers
from multiloop.worker_threads import Atomics, BroadcastChannel, MessageChannel, SharedBuffer, Worker, locks


def post(value: Any) -> None:
    wt.parent_port.post_message(value)


# --- messages ---------------------------------------------------------------------------------------------------------
def nothing() -> None:
    return None


def echo() -> None:
    """Send everything back, until the word "close"."""
    port = wt.parent_port
    port.on("message", lambda value: port.close() if isinstance(value, str) and value == "close" else post(value))


def tell_data(data: Any) -> None:
    post(data)


def tell_data_and_listen(data: Any) -> None:
    post(data)
    wt.parent_port.on("message", print)


def post_many(count: int) -> None:
    for number in range(count):
        post((number, "x" * 1000))


def post_port_and_die() -> None:
    for number in range(3):
        port1, port2 = MessageChannel()
        wt.parent_port.post_message([port1, str(number) * 60_000], [port1])
        port2.close()
    os.kill(os.getpid(), signal.SIGKILL)


def post_before_any_loop() -> None:
    """Posts in top-level code, computes, posts again: the first must not wait for the second."""
    post("begun")
    deadline = time.monotonic() + 20
    while wt.receive_message_on_port(wt.parent_port) is None:
        assert time.monotonic() < deadline
    post("heard")


async def a_coroutine(value: Any) -> None:
    await asyncio.sleep(0.001)
    post(value)


async def iterate() -> None:
    async for value in wt.parent_port:
        post(value)
        if value == "last":
            break


def describe() -> None:
    post(
        {
            "is_main_thread": wt.is_main_thread,
            "thread_id": wt.thread_id,
            "thread_name": wt.thread_name,
            "argv": sys.argv[1:],
            "variable": os.environ.get("MULTILOOP_TEST"),
            "environment": wt.get_environment_data("key"),
            "limits": wt.resource_limits,
            "pid": os.getpid(),
        }
    )


# --- ends -------------------------------------------------------------------------------------------------------------
def fail() -> None:
    post("before")
    try:
        {}["missing"]
    except KeyError as error:
        failure = ValueError("it failed")
        failure.add_note("a note")
        raise failure from error


def fail_in_callback() -> None:
    wt.parent_port.on("message", lambda value: 1 / 0)
    post("ready")


class Unpicklable(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def fail_unpicklably() -> None:
    raise Unpicklable("one", "two")


def leave(code: Any) -> None:
    post("leaving")
    sys.exit(code)


def leave_from_loop() -> None:
    def begin(value: Any) -> None:
        timers.set_timeout(sys.exit, 0.001, 7)

    wt.parent_port.on("message", begin)


def hard_exit() -> None:
    post("before")
    os._exit(5)


def kill_oneself(number: int) -> None:
    os.kill(os.getpid(), number)


async def say_and_stay() -> None:
    post("up")
    try:
        await asyncio.Event().wait()
    finally:
        post("cleaned up")


def stay_on_a_plain_loop() -> None:
    asyncio.run(say_and_stay())


def stay_on_a_plain_loop_that_counts() -> None:
    """The library has a hub on it, and cannot end it by that."""

    async def main() -> None:
        async with locks.request("held by a plain loop"):
            await say_and_stay()

    asyncio.run(main())


def stay_on_a_uvloop() -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(say_and_stay())


def stay_on_a_plain_loop_later() -> None:
    post("begun")
    deadline = time.monotonic() + 20
    while wt.receive_message_on_port(wt.parent_port) is None:
        assert time.monotonic() < deadline
    asyncio.run(say_and_stay())


def spin() -> None:
    post("spinning")
    while True:
        pass


def spin_swallowing() -> None:
    post("spinning")
    while True:
        try:
            while True:
                pass
        except Exception:
            pass


def read_in_c(fd: int) -> None:
    post("reading")
    os.read(fd, 1)
    post("read")


def stay() -> None:
    wt.parent_port.on("message", lambda value: None)
    post("here")


def idle_plain_asyncio() -> None:
    post("idle")
    asyncio.run(asyncio.sleep(60))


def flood() -> None:
    number = 0
    while True:
        post(number)
        number += 1


# --- streams ----------------------------------------------------------------------------------------------------------
def chatter(count: int) -> None:
    for number in range(count):
        print("line", number)
        print("trouble", number, file=sys.stderr)


def upper() -> None:
    for line in sys.stdin:
        print(line.strip().upper())


# --- shared memory ----------------------------------------------------------------------------------------------------
def count_up(data: tuple[SharedBuffer, int]) -> None:
    buffer, count = data
    for _ in range(count):
        Atomics.add(buffer, 0, 1)


def wait_for(data: tuple[SharedBuffer, int]) -> None:
    buffer, value = data
    post("waiting")
    post(Atomics.wait(buffer, 0, value, 10))


def hold_buffer(buffer: SharedBuffer) -> None:
    wt.parent_port.on("message", lambda value: None)
    post("holding")


def write_into(buffer: SharedBuffer) -> None:
    buffer[1] = 42
    post(buffer[0])


def allocate(size_bytes: int) -> None:
    try:
        bytearray(size_bytes)
    except MemoryError:
        post("refused")
    else:
        post("given")


# --- ports ------------------------------------------------------------------------------------------------------------
def use_port(port: wt.MessagePort) -> None:
    port.on("message", lambda value: port.post_message(value * 2) if value else port.close())


def give_port() -> None:
    here, there = MessageChannel()
    here.on("message", lambda value: (here.post_message(value + 1), here.close()))
    wt.parent_port.post_message(there, [there])


# --- the tree ---------------------------------------------------------------------------------------------------------
def broadcast_echo(name: str) -> None:
    channel = BroadcastChannel(name)

    def heard(value: Any) -> None:
        channel.post_message((wt.thread_id, value))
        channel.close()

    channel.on("message", heard)
    post("listening")


def broadcast_once(data: tuple[str, Any]) -> None:
    channel = BroadcastChannel(data[0])
    channel.post_message(data[1])
    channel.close()


async def nest(data: tuple[str, Any]) -> None:
    """Start a worker of one's own, and pass its messages on."""
    name, value = data
    worker = Worker(globals()[name], worker_data=value, kind="process")
    async for message in worker:
        post((worker.thread_id, message))


async def nest_forever() -> None:
    worker = Worker(stay, kind="process")
    async for _ in worker:
        post(worker.pid)


async def take_lock(data: tuple[str, float]) -> None:
    name, seconds = data
    async with locks.request(name):
        post((time.monotonic(), "held"))
        await asyncio.sleep(seconds)
        post((time.monotonic(), "released"))


async def hold_lock(name: str) -> None:
    await locks.request(name)
    post("held")
    await asyncio.sleep(60)


def chatter_and_stay(count: int) -> None:
    chatter(count)
    stay()


def allocate_carelessly(size_bytes: int) -> None:
    bytearray(size_bytes)


def write_what_is_broadcast(name: str) -> None:
    channel = BroadcastChannel(name)

    def heard(buffer: SharedBuffer) -> None:
        buffer[0] = 99
        channel.close()

    channel.on("message", heard)
    post("listening")


async def nest_kind(kind: Any) -> None:
    worker = Worker(nothing, kind=kind)
    await worker.wait()
    post(worker.kind)


def keep_array() -> None:
    import numpy

    kept = []

    def heard(array: Any) -> None:
        kept.append(array)
        post(int(numpy.sum(array, dtype="u8")))

    wt.parent_port.on("message", heard)
    post("ready")


def echo_once(values: Any) -> None:
    post(list(values))


def compute_when_told() -> None:
    """Use a processor for as many seconds as a message says."""

    def compute(seconds: float) -> None:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
        post("done")

    wt.parent_port.on("message", compute)
    post("ready")


# --- messages by id ---------------------------------------------------------------------------------------------------
def heed() -> None:
    """Pass on what comes by id, until "end"; raise for "raise", never return for "hang"."""

    def heard(value: Any, source: int) -> None:
        if value == "raise":
            raise KeyError("on purpose")
        if value == "hang":
            time.sleep(60)
        if value == "end":
            wt.off("worker_message", heard)
            wt.parent_port.close()
        else:
            post((value, source))

    wt.on("worker_message", heard)
    wt.parent_port.on("message", lambda value: None)
    post(wt.thread_id)


def nest_and_heed(kind: str) -> None:
    """Start a worker that heeds, tell its id, pass on what it says."""

    async def main() -> None:
        async for value in Worker(heed, kind=kind):
            post(value)

    run(main)


async def send_by_id(work: tuple[int, Any]) -> None:
    """Send something to a worker by its id, and tell the outcome."""
    try:
        await wt.post_message_to_thread(*work)
    except Exception as error:
        post(f"{type(error).__name__}: {error}")
    else:
        post("handled")
