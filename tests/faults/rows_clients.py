"""Rows 16 to 20: descriptors, overload, slow, oversize and vanishing clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
import time
from pathlib import Path
from typing import Any

from multiloop.testing import FaultProxy, Faults
from tests.support import wait_until

from .matrix import LONGER, Context, Result, cpu_seconds, row, slowdown
from .server import Server, ask, is_alive, receive

_SLOW_A_SECOND = 500
LINGER_NONE = struct.pack("ii", 1, 0)


@row(
    "16",
    "no descriptors left (prlimit --nofile=64)",
    "accepting pauses and resumes by itself; no busy loop; at most a line a second in the log; nobody dies",
    f"CPU ≤ 10 % while full; the control socket answers; back to normal ≤ 1 s after release{LONGER}",
)
def _descriptors(context: Context) -> Result:
    server = context.serve(before=("prlimit", "--nofile=64:64"))
    seconds = context.times(3, 30)
    sockets = []
    for _ in range(500):
        sock = server.connect()
        ask(sock, "/pid")
        sockets.append(sock)
    time.sleep(1.0)
    family = [server.pid, *server.family()]
    before, lines = sum(map(cpu_seconds, family)), server.log.count("\n")
    time.sleep(seconds)
    share = (sum(map(cpu_seconds, family)) - before) / seconds
    lines = server.log.count("\n") - lines
    assert server.status()["state"] == "serving"
    for sock in sockets:
        sock.close()
    released = time.monotonic()
    server.get("/pid", timeout=20)
    back, slower = time.monotonic() - released, slowdown()
    alive = all(is_alive(pid) for pid in family)
    restarts = server.status()["restarts"]
    # One line a second for the primary and each worker, and the beats that a busy machine misses.
    return Result(
        share <= 0.10 and back <= slower and alive and not restarts and lines <= 3 * (seconds + 1),
        f"500 connections, CPU {share:.1%} while full, {lines} lines in {seconds} s, served {back:.2f} s after release "
        f"(the machine is {slower:.1f} times slower than with a core to spare), "
        f"{restarts} restarts",
    )


@row(
    "17",
    "overload: far more at once than --limit-concurrency",
    "503 with Retry-After at once above the limit; accepted work keeps its time; memory stays flat",
    "accepted p99 ≤ 3 times unloaded + 0.3 s, memory + ≤ 16 MB a worker, normal again ≤ 2 s",
)
def _overload(context: Context) -> Result:
    server = context.serve("--limit-concurrency", "8")
    with server.checker(kept=4, fresh=0, paths=("/slow?0.1",)) as checker:
        time.sleep(2)
    unloaded = checker.verdict().quantile(0.99)
    memory = _memory(server)
    with server.checker(kept=120, fresh=0, paths=("/slow?0.1",), pause=0.2, timeout=20) as checker:
        time.sleep(context.times(4, 20))
    verdict = checker.verdict()
    refused = sum(1 for f in verdict.failures if f.what == "status 503")
    others = [f for f in verdict.failures if f.what != "status 503"]
    loaded, grown = verdict.quantile(0.99), _memory(server) - memory
    began = time.monotonic()
    with server.connect() as sock:
        ask(sock, "/pid")
        receive(sock)
    back = time.monotonic() - began
    return Result(
        bool(refused) and not others and loaded <= 3 * unloaded + 0.3 and grown <= 16e6 and back <= 2,
        f"{verdict.replies} accepted (p99 {loaded:.2f} s, unloaded {unloaded:.2f} s), {refused} times 503, "
        f"{len(others)} other failures, memory +{grown / 1e6:.0f} MB a worker",
    )


def _memory(server: Server) -> float:
    """Resident bytes of the largest worker."""
    page = os.sysconf("SC_PAGESIZE")
    return max(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in server.family()) * page


@row(
    "18",
    "slow clients: silence, a byte of the head now and then, of the body, a reply that is not read",
    "every phase has one deadline for the whole of it; others are served meanwhile",
    f"each held ≤ its deadline (2 s here) + 1 s{LONGER}; 0 others failed; ≤ 20 kB of memory for an idle connection",
)
def _slow_clients(context: Context) -> Result:
    deadlines = ("first-byte-timeout", "header-timeout", "body-idle-timeout", "write-timeout", "keep-alive-timeout")
    server = context.serve(*(word for name in deadlines for word in (f"--{name}", "2")), "--body-min-rate", "1000")
    count = context.times(20, 250)
    with server.checker(kept=2, fresh=4, paths=("/",), pause=0.02) as checker:
        held = asyncio.run(_hold_all(server.address, count))
    verdict = checker.verdict()
    longest, slower = {name: max(times) for name, times in held.items()}, slowdown()
    each = _memory_of_an_idle_connection(context)
    return Result(
        not verdict.failures and all(time_ <= 2 + slower for time_ in longest.values()) and each <= 20_000,
        f"{5 * count} slow connections; held at most "
        + ", ".join(f"{name} {time_:.1f} s" for name, time_ in longest.items())
        + f"; others: {verdict.requests} requests, {len(verdict.failures)} failed; "
        f"{each / 1000:.1f} kB for an idle connection",
    )


def _memory_of_an_idle_connection(context: Context) -> float:
    """What a connection that was served and then says nothing costs its worker, in bytes."""
    server = context.serve(workers=1, ready=1)
    count = context.times(400, 4000)

    def more() -> list[socket.socket]:
        found = [server.connect() for _ in range(count // 2)]
        for sock in found:
            ask(sock, "/pid")
            receive(sock)
        return found

    with contextlib.ExitStack() as stack:
        for sock in more():  # the first ones also pay for what is allocated once
            stack.callback(sock.close)
        before = _memory(server)
        for sock in more():
            stack.callback(sock.close)
        return (_memory(server) - before) / (count // 2)


async def _hold_all(address: tuple[str, int], count: int) -> dict[str, list[float]]:
    kinds = {
        "silence": (b"", b"", 0.0),
        "head": (b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"a", 0.5),
        "body": (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"a", 0.5),
        "idle": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", 0.0),
        "unread": (b"GET /stream?50000000 HTTP/1.1\r\nHost: x\r\n\r\n", b"", -1.0),
    }
    names = [name for name in kinds for _ in range(count)]

    async def one(number: int, name: str) -> float:
        await asyncio.sleep(number / _SLOW_A_SECOND)  # that a thousand come at once is another fault
        return await _hold(address, *kinds[name])

    times = await asyncio.gather(*(one(number, name) for number, name in enumerate(names)))
    held: dict[str, list[float]] = {}
    for name, time_ in zip(names, times, strict=True):
        held.setdefault(name, []).append(time_)
    return held


async def _hold(address: tuple[str, int], first: bytes, drip: bytes, every: float) -> float:
    """Be slow; returns how long the server bore it."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    if every < 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await loop.sock_connect(sock, address)
    began = time.monotonic()
    try:
        if first:
            await loop.sock_sendall(sock, first)
        while time.monotonic() - began < 30:
            if every < 0:  # never read: the end shows as an error when something is sent
                await asyncio.sleep(0.1)
                sock.send(b"x")
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every or 30):
                    if not await loop.sock_recv(sock, 65536):
                        break
                    continue
            await loop.sock_sendall(sock, drip)
    except OSError:
        pass
    finally:
        sock.close()
    return time.monotonic() - began


@row(
    "19",
    "oversize: one field, many fields, target, chunk extension, trailers, body; in pieces of any size",
    "431, 414, 413 or 400; caps are cumulative over however it is split",
    "no 200; memory + ≤ 1 MB",
)
def _oversize(context: Context) -> Result:
    server = context.serve("--max-body-size", "64KiB", workers=1, ready=1)
    server.get("/pid")
    post = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    attacks = {
        "field": (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"a" * 4096, b"\r\n\r\n"),
        "fields": (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X-a: b\r\n" * 512, b"\r\n"),
        "target": (b"GET /", b"a" * 4096, b" HTTP/1.1\r\nHost: a\r\n\r\n"),
        "extension": (post + b"5;a=", b"a" * 4096, b"\r\nhello\r\n0\r\n\r\n"),
        "trailers": (post + b"0\r\n", b"X-a: b\r\n" * 512, b"\r\n"),
        "body": (post, b"1000\r\n" + b"a" * 4096 + b"\r\n", b"0\r\n\r\n"),
    }
    memory, answers = _memory(server), {}
    for name, (first, more, last) in attacks.items():
        for size in (1 << 20, 1000, 7) if context.is_full else (1 << 20, 1000):
            answers.setdefault(name, set()).add(_flood(server.address, first, more, last, size))
    grown = _memory(server) - memory
    good = all(found <= {"400", "413", "414", "431", "closed"} for found in answers.values())
    return Result(
        good and grown <= 1e6,
        ", ".join(f"{name} {'/'.join(sorted(found))}" for name, found in answers.items())
        + f"; memory +{grown / 1e6:.1f} MB",
    )


def _flood(address: tuple[str, int], first: bytes, more: bytes, last: bytes, size: int) -> str:
    total = first + more * (4 if size < 100 else 256 if size >= 1000 else 16) + last
    with socket.create_connection(address, timeout=10) as sock:
        try:
            for start in range(0, len(total), size):
                sock.sendall(total[start : start + size])
        except OSError:
            pass
        try:
            answer = sock.recv(4096)
        except OSError:
            return "closed"
    return answer[9:12].decode() if answer else "closed"


@row(
    "20",
    "clients that vanish: cut, reset, half-closed, in the middle of anything",
    "nothing leaks; others are not disturbed",
    "descriptors and connections back to where they were (10 000 cuts in the full run)",
)
def _cuts(context: Context) -> Result:
    server = context.serve()
    server.get("/pid")
    count = context.times(300, 10_000)
    before = [len(os.listdir(f"/proc/{pid}/fd")) for pid in server.family()]
    with server.checker(kept=2, fresh=2, paths=("/", "/echo"), pause=0.02) as checker:
        asyncio.run(_cut_many(server.address, count, context.seed))
    verdict = checker.verdict()
    wait_until(lambda: not any(_left(worker) for worker in server.status()["workers"]), 30)
    wait_until(
        lambda: all(
            len(os.listdir(f"/proc/{pid}/fd")) <= was + 2 for pid, was in zip(server.family(), before, strict=True)
        ),
        30,
    )
    return Result(
        not verdict.failures and server.status()["restarts"] == 0,
        f"{count} cuts; 0 connections, 0 requests and 0 descriptors left; others: {verdict.requests} requests, "
        f"{len(verdict.failures)} failed",
    )


def _left(worker: dict[str, Any]) -> int:
    """What a worker still has open, as of its last report."""
    found = worker["statistics"]
    return int(found["connections"] + found["active_requests"])


async def _cut_many(address: tuple[str, int], count: int, seed: int) -> None:
    def choose(number: int, chance: random.Random) -> Faults:
        end = chance.choice(("reset", "close", "half", "reset"))
        up = chance.randrange(1, 400) if chance.random() < 0.5 else None
        return Faults(cut_up=up, cut_down=None if up else chance.randrange(1, 3000), end=end)

    chance = random.Random(seed)
    async with FaultProxy(address, choose, seed=seed) as proxy:
        limit = asyncio.Semaphore(32)

        async def one() -> None:
            async with limit:
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(3):
                        await _one_cut(proxy.address, chance)

        await asyncio.gather(*(one() for _ in range(count)))


async def _one_cut(address: tuple[str, int], chance: random.Random) -> None:
    reader, writer = await asyncio.open_connection(*address)
    try:
        path = chance.choice(("/", "/slow?0.05", "/stream?100000", "/events"))
        if chance.random() < 0.5:
            writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n" + b"x" * 500)
        else:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Pad: {'p' * 200}\r\n\r\n".encode())
        await reader.read(chance.randrange(1, 200_000))
        if chance.random() < 0.3:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
    finally:
        writer.transport.abort()
