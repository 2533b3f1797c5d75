"""Servers in the workers of a program that forks itself: one listener for all of them, whoever's server it is."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

from tests.cluster.forks.program import Program, ask, running
from tests.support import wait_until

# One cluster for most of what is asked here: two workers, each with every kind of server.
EVERYTHING = """
async def answer(reader, writer):
    line = await reader.readline()
    writer.write(b"%d %s" % (os.getpid(), line))
    await writer.drain()
    writer.close()

class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, where):
        self.transport.sendto(b"%d" % os.getpid(), where)

async def aiohttp_server():
    from aiohttp import web
    app = web.Application()
    async def index(request):
        return web.Response(text=str(os.getpid()))
    app.router.add_get("/", index)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner.addresses[0]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        body = str(os.getpid()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

async def main():
    where = {}
    where["http"] = (await http.create_server(pid).listen(0)).address
    where["second http"] = (await http.create_server(pid).listen(0)).address

    def connected(socket):
        socket.write(b"%d" % os.getpid())
        socket.end()
    where["net"] = (await net.create_server(connected).listen(0)).address
    where["own"] = (await net.create_server(connected).listen(0, exclusive=True)).address
    reused = int(os.environ["REUSED"])
    where["reused"] = (await net.create_server(connected).listen(reused, reuse_port=True)).address
    where["unix"] = (await http.create_server(pid).listen(path="web.sock")).address
    where["fd"] = (await http.create_server(pid).listen(fd=int(os.environ["SOCKET"]))).address
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    assert server.sockets[0].getsockname() == server.sockets[0].getsockname() and server.is_serving()
    where["asyncio"] = server.sockets[0].getsockname()
    await asyncio.start_unix_server(answer, "plain.sock")
    where["aiohttp"] = await aiohttp_server()
    serving = asyncio.ensure_future(http.serve(asgi, port=int(os.environ["ASGI"])))
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", int(os.environ["UDP"])))
    where["udp"] = transport.get_extra_info("sockname")
    cluster.worker.send(where)
    await serving

if cluster.is_primary:
    shared = socket.create_server(("127.0.0.1", 0))
    env = {"SOCKET": str(shared.fileno())}
    for _ in range(2):
        cluster.fork(env)
    cluster.on("listening", lambda worker, address: say("listening", worker.id, json.dumps(
        [address.address, address.port, address.address_type, address.fd == shared.fileno() or address.fd])))
    cluster.on("message", lambda worker, where, handle: say("where", json.dumps([worker.process.pid, where])))
    multiloop.run(cluster.wait)
else:
    multiloop.run(main)
"""


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def said(program: Program) -> dict[int, dict[str, list[object]]]:
    """Where each worker listens."""
    return dict(json.loads(program.until("where")) for _ in range(2))


def test_every_server_in_a_worker_shares_its_listener_with_the_other_workers(tmp_path: Path) -> None:
    udp = free_port(socket.SOCK_DGRAM)
    ports = {"asgi": free_port()}
    env = {"ASGI": str(ports["asgi"]), "REUSED": str(free_port()), "UDP": str(udp)}
    with running(tmp_path, EVERYTHING, **env) as program:
        where = said(program)
        while sum(f'"127.0.0.1", {ports["asgi"]}' in line for line in program.lines) < 2:
            program.line()
        first, second = where.values()
        pids = set(where)
        differ = {name for name in first if first[name] != second[name]}
        assert differ == {"own"}
        ports |= {name: int(str(first[name][1])) for name in first if name != "unix"}
        assert len({ports[name] for name in ("http", "second http", "net", "asyncio", "aiohttp", "asgi")}) == 6

        for name in ("http", "second http", "aiohttp", "asgi", "fd"):
            all_answer(pids, lambda name=name: ask(ports[name]))
        for name in ("net", "asyncio"):
            all_answer(pids, lambda name=name: read_all(ports[name], b"hello\n").split()[0])
        all_answer(pids, lambda: read_all(tmp_path / "plain.sock", b"hello\n").split()[0])
        assert {int(read_all(int(str(where[pid]["own"][1])), b"")) for pid in pids} == pids
        assert int(read_all(ports["reused"], b"")) in pids
        assert (tmp_path / "web.sock").stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.sendto(b"?", ("127.0.0.1", udp))
            assert int(sock.recv(100)) in pids
        assert first["unix"] == second["unix"] == str(tmp_path / "web.sock")

        told = [line for line in program.lines if line.startswith("listening 1 ")]
        addresses = [json.loads(line.split(" ", 2)[2]) for line in told]
        assert ["127.0.0.1", ports["http"], 4, None] in addresses
        assert [str(tmp_path / "web.sock"), None, -1, None] in addresses
        assert ["127.0.0.1", ports["fd"], 4, True] in addresses
        assert ["127.0.0.1", udp, "udp4", None] in addresses
        assert ports["own"] not in [port for _, port, *_ in addresses]


def all_answer(pids: set[int], answer: Callable[[], str | bytes]) -> None:
    """Ask until every worker has answered: a worker without a core for a moment is passed over, so no counts."""
    seen: set[int] = set()
    wait_until(lambda: seen.add(int(answer())) or seen >= pids)
    assert seen == pids


def read_all(where: int | Path, data: bytes) -> bytes:
    """Connect, send, read to the end."""
    if isinstance(where, int):
        sock = socket.create_connection(("127.0.0.1", where), 10)
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(where))
    with sock:
        sock.settimeout(10)
        sock.sendall(data)
        found = b""
        while chunk := sock.recv(1000):
            found += chunk
        return found
