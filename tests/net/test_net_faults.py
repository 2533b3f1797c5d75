"""What goes wrong around sockets: cancels at any moment, peers that never read, no descriptors left."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from tests.support import LOOPS, descriptors_at_rest, environment, open_descriptors, until, wait_until

import multiloop
from multiloop import dns, net

loops = pytest.mark.parametrize("loop", LOOPS)


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- cancels ----------------------------------------------------------------------------------------------------------
async def _talk(port: int) -> None:
    async with net.connect(port, "127.0.0.1") as client:
        client.write(b"x" * 1000)
        await client.read(10)
        client.write(b"y" * 500_000)
        await client.drain()


async def _read_all(port: int) -> None:
    client = await net.connect(port, "localhost")
    try:
        client.write(b"x" * 1000)
        async for _ in client:
            client.write(b"y" * 1000)
    finally:
        client.destroy()


async def _serve_once(port: int) -> None:
    async with net.create_server(lambda c: c.end(b"x")) as server:
        await server.listen(0, "localhost")
        async with net.connect(server.address[1]) as client:
            await client.read_all()


async def _datagrams(port: int) -> None:
    async with net.create_datagram() as one:
        await one.connect(port, "127.0.0.1")
        await one.send(b"x")
        await anext(aiter(one))


async def _lookup(port: int) -> None:
    await dns.lookup("localhost")


async def _cancel_at_random(count: int, loop_name: str) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    before = await descriptors_at_rest()
    server = net.create_server(lambda c: c.on("data", c.write))
    await server.listen(0)
    port = server.address[1]
    jobs = [_talk, _read_all, _serve_once, _datagrams, _lookup]
    for _ in range(count // 20):
        tasks = [asyncio.ensure_future(chance.choice(jobs)(port)) for _ in range(20)]
        await asyncio.sleep(chance.random() * 0.01)
        for task in tasks:
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            cancelled = outcome is None or isinstance(outcome, asyncio.CancelledError | ConnectionError)
            assert cancelled, f"seed {seed} on {loop_name}: {outcome!r}"
    server.destroy_connections()
    await server.close()
    await until(lambda: open_descriptors() <= before)
    await until(lambda: len(asyncio.all_tasks()) <= 2)


@loops
def test_random_cancels_leave_no_descriptor_and_no_task(loop: Any) -> None:
    multiloop.run(_cancel_at_random, 400, loop, loop=loop)


@pytest.mark.slow
@loops
def test_ten_thousand_random_cancels_leave_nothing(loop: Any) -> None:
    multiloop.run(_cancel_at_random, 10_000, loop, loop=loop)


# --- peers that never read --------------------------------------------------------------------------------------------
@loops
def test_memory_stays_flat_when_peers_never_read(loop: Any) -> None:
    async def main() -> None:
        connections: list[net.Socket] = []

        def echo(connection: net.Socket) -> None:
            connections.append(connection)
            connection.pipe(connection)

        server = net.create_server(echo)
        await server.listen(0)
        clients = [await net.connect(server.address[1]) for _ in range(20)]
        for client in clients:
            client.pause()
        block = b"x" * 65536
        before = _resident_bytes()
        offered = 0
        for _ in range(200):
            for client in clients:
                if client.write_buffer_size == 0:
                    client.write(block)
                    offered += 1
            await asyncio.sleep(0.001)
        assert offered > len(clients), "the peers took something"
        for connection in connections:
            assert connection.write_buffer_size <= 64 * 1024 + 256 * 1024
        assert _resident_bytes() - before < 40 * 1024 * 1024  # 20 connections, each with a mark and a read both ways
        for client in clients:
            client.destroy()
        server.destroy_connections()
        await server.close()

    multiloop.run(main, loop=loop)


def test_a_flood_of_resets_harms_nobody() -> None:
    async def main() -> None:
        before = await descriptors_at_rest()
        server = net.create_server(lambda c: c.on("data", c.write))
        await server.listen(0)
        host, port = server.address
        for _ in range(200):
            raw = socket.create_connection((host, port))
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            raw.close()
        async with asyncio.timeout(5):
            client = await net.connect(port)
            client.write(b"alive")
            assert await client.read(5) == b"alive"
        client.destroy()
        await until(lambda: server.connections == 0)
        await server.close()
        await until(lambda: open_descriptors() <= before)

    multiloop.run(main)


# --- no descriptors left ----------------------------------------------------------------------------------------------
_SERVER = """
import resource, sys
import multiloop
from multiloop import net

async def main():
    server = net.create_server(lambda c: c.on("data", c.write))
    await server.listen(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    print(server.address[1], flush=True)

multiloop.run(main, loop=sys.argv[1])
"""


def _cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/schedstat") as stat:
        return int(stat.read().split()[0]) / 1e9


@loops
def test_without_descriptors_accepting_waits_quietly_and_goes_on(loop: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _SERVER, loop], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        assert child.stderr is not None
        port = int(child.stdout.readline())
        clients = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(60)]
        assert b"accepts nothing for now" in child.stderr.readline()
        began_s, began_cpu_s = time.monotonic(), _cpu_s(child.pid)
        wait_until(lambda: time.monotonic() - began_s > 0.5)
        assert _cpu_s(child.pid) - began_cpu_s < 0.1, "a busy loop"
        for client in clients[:-1]:
            client.close()
        clients[-1].sendall(b"still")
        assert clients[-1].recv(10) == b"still"
        clients[-1].close()
    finally:
        child.kill()
        child.communicate()
