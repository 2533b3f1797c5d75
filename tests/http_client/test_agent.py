"""http.Agent: kept connections, limits, repeated requests, cookies (H10)."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from typing import Any

import pytest
from tests.http_client.site import serve
from tests.support import LOOPS, descriptors_at_rest, environment, open_descriptors, until

import multiloop
from multiloop import http, net
from multiloop.errors import ClosedError, ReplyIncomplete, UsageError

loops = pytest.mark.parametrize("loop", LOOPS)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


# --- keeping ----------------------------------------------------------------------------------------------------------
@loops
def test_requests_share_a_kept_connection(loop: Any) -> None:
    async def main() -> None:
        async with serve() as site:
            for _ in range(10):
                assert await (await http.fetch(site.url + "/echo")).read()
            assert len(site.connections) == 1
            async with http.Agent(keep_alive=False) as agent:
                for _ in range(3):
                    await (await http.fetch(site.url + "/echo", agent=agent)).read()
            assert len(site.connections) == 4

    multiloop.run(main, loop=loop)


def test_limits_hold_and_the_others_wait_their_turn() -> None:
    async def main() -> None:
        async with serve() as site, http.Agent(max_sockets=3) as agent:

            async def one(_: int) -> None:
                async with http.fetch(site.url + "/slow?s=0.005", agent=agent) as reply:
                    await reply.read()

            await multiloop.map_limited(one, range(30), limit=30)
            assert site.most_busy == 3
            assert len(site.connections) == 3

        async with serve() as site, http.Agent(max_total_sockets=2) as agent:
            ops = [http.fetch(site.url + "/slow?s=0.005", agent=agent) for _ in range(10)]
            for op in ops:
                await (await op).read()
            assert site.most_busy == 2
        with pytest.raises(UsageError, match="max_sockets"):
            http.Agent(max_sockets=-1)

    multiloop.run(main)


def test_an_idle_kept_connection_does_not_hold_the_program() -> None:
    code = """
import multiloop
from multiloop import http, net
def serve(connection):
    connection.on("data", lambda data: connection.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok"))
async def main():
    server = net.create_server(serve).unref()
    server.on("connection", lambda connection: connection.unref())
    await server.listen(0)
    print((await (await http.fetch(f"http://127.0.0.1:{server.address[1]}/")).text()))
multiloop.run(main)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment(),
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"ok\n", b"")


def test_a_closed_agent_refuses_and_closing_twice_is_fine() -> None:
    async def main() -> None:
        async with serve() as site:
            agent = http.Agent()
            await (await http.fetch(site.url + "/echo", agent=agent)).read()
            await agent.close()
            await agent.close()
            with pytest.raises(ClosedError, match="closed"):
                await http.fetch(site.url + "/echo", agent=agent)

    multiloop.run(main)


def test_an_agent_can_be_used_on_one_loop_after_another() -> None:
    agent = http.Agent()

    async def main() -> int:
        async with serve() as site:
            return (await http.fetch(site.url + "/echo", agent=agent)).status

    assert [asyncio.run(main()), multiloop.run(main), asyncio.run(main())] == [200, 200, 200]


def test_many_first_requests_at_once_share_one_engine() -> None:
    async def main() -> None:
        async with serve() as site:
            agent = http.Agent()
            replies = await asyncio.gather(*(http.fetch(site.url + "/echo", agent=agent) for _ in range(20)))
            assert {reply.status for reply in replies} == {200}
            await agent.close()

    multiloop.run(main)


# --- repeating --------------------------------------------------------------------------------------------------------
class _Dying:
    """A server that answers the first request of each connection, and hangs up at the second."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.healthy = True

    def serve(self, connection: net.Socket) -> None:
        self.connections += 1
        first = True

        def take(data: bytes) -> None:
            nonlocal first
            self.requests.append(data.split(b" ")[0])
            if first and self.healthy:
                first = False
                connection.write(OK)
            else:
                connection.destroy()

        connection.on("data", take)


@loops
def test_a_request_on_a_dead_kept_connection_is_repeated_if_that_is_safe(loop: Any) -> None:
    async def main() -> None:
        dying = _Dying()
        server = net.create_server(dying.serve)
        await server.listen(0)
        url = f"http://127.0.0.1:{server.address[1]}/"
        agent = http.Agent()
        first = await asyncio.gather(*(http.fetch(url, agent=agent) for _ in range(4)))
        for reply in first:
            assert await reply.read() == b"ok"
        assert dying.connections == 4  # all of them dead at the next request
        assert await (await http.fetch(url, agent=agent)).read() == b"ok"
        assert dying.requests.count(b"GET") >= 6
        asked = len(dying.requests)
        with pytest.raises((ReplyIncomplete, ConnectionError)):
            await http.fetch(url, method="POST", body=b"x", agent=agent)
        assert len(dying.requests) == asked + 1, "a POST is never repeated"
        await (await http.fetch(url, agent=agent)).read()  # a kept connection again

        async def once() -> Any:
            yield b"x"

        asked = len(dying.requests)
        with pytest.raises((ReplyIncomplete, ConnectionError)):
            await http.fetch(url, method="PUT", body=once(), agent=agent)
        assert len(dying.requests) <= asked + 1, "what was streamed cannot be sent again"
        await agent.close()
        server.destroy_connections()
        await server.close()

    multiloop.run(main, loop=loop)


def test_a_request_on_a_fresh_connection_is_not_repeated() -> None:
    async def main() -> None:
        dying = _Dying()
        dying.healthy = False
        server = net.create_server(dying.serve)
        await server.listen(0)
        async with http.Agent() as agent:
            with pytest.raises((ReplyIncomplete, ConnectionError)):
                await http.fetch(f"http://127.0.0.1:{server.address[1]}/", agent=agent)
        assert dying.requests == [b"GET"]
        await server.close()

    multiloop.run(main)


def test_a_restarted_server_costs_no_failed_request() -> None:
    async def main() -> None:
        def serve_ok(connection: net.Socket) -> None:
            connection.on("data", lambda data: connection.write(OK))

        server = net.create_server(serve_ok)
        await server.listen(0)
        port = server.address[1]
        async with http.Agent() as agent:
            for _ in range(10):
                replies = await asyncio.gather(
                    *(http.fetch(f"http://127.0.0.1:{port}/", agent=agent) for _ in range(5))
                )
                for reply in replies:
                    await reply.read()
                server.destroy_connections()
                await server.close()
                await server.listen(port)
        server.destroy_connections()
        await server.close()

    multiloop.run(main)


@loops
def test_random_cancels_leave_nothing(loop: Any) -> None:
    async def main() -> None:
        chance = random.Random(7)
        async with serve() as site:
            before = await descriptors_at_rest()
            async with http.Agent(max_total_sockets=10) as agent:

                async def use(path: str) -> None:
                    async with http.fetch(site.url + path, agent=agent) as reply:
                        await reply.read()

                for _ in range(15):
                    paths = ["/echo", "/big/3000000", "/slow?s=0.002", "/redirect/3", "/stall"]
                    tasks = [asyncio.ensure_future(use(chance.choice(paths))) for _ in range(20)]
                    await asyncio.sleep(chance.random() * 0.02)
                    for task in tasks:
                        task.cancel()
                    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                        assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome
            await until(lambda: site.busy == 0 and open_descriptors() <= before)

    multiloop.run(main, loop=loop)


# --- cookies and headers ----------------------------------------------------------------------------------------------
def test_cookies_are_kept_only_when_asked_for() -> None:
    async def main() -> None:
        async with serve() as site:
            async with http.Agent(cookies=True) as agent:
                reply = await http.fetch(site.url + "/cookie", agent=agent)
                assert reply.cookies == {"crumb": "sweet"}
                assert await reply.text() == "none"
                assert await (await http.fetch(site.url + "/cookie", agent=agent)).text() == "sweet"
            for _ in range(2):
                assert await (await http.fetch(site.url + "/cookie")).text() == "none"

    multiloop.run(main)


def test_an_agents_headers_go_with_every_request() -> None:
    async def main() -> None:
        async with serve() as site, http.Agent(headers={"X-Token": "1", "User-Agent": "mine"}) as agent:
            said = (await (await http.fetch(site.url + "/echo", agent=agent)).json())["headers"]
            assert (said["x-token"], said["user-agent"]) == ("1", "mine")
            reply = await http.fetch(site.url + "/echo", agent=agent, headers={"x-token": "2"})
            assert (await reply.json())["headers"]["x-token"] == "2"

    multiloop.run(main)


def test_importing_the_client_loads_no_aiohttp_and_the_first_fetch_loads_it_off_the_loop() -> None:
    code = """
import sys, asyncio, multiloop
from multiloop import http
http.fetch, http.request, http.Agent
assert "aiohttp" not in sys.modules
ticks = 0
async def tick():
    global ticks
    while True:
        ticks += 1
        await asyncio.sleep(0.001)
async def main():
    ticking = asyncio.ensure_future(tick())
    try:
        await http.fetch("http://127.0.0.1:1/")
    except ConnectionRefusedError:
        pass
    ticking.cancel()
    assert ticks > 3, ticks
    assert "aiohttp" in sys.modules
multiloop.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_loop_of_a_thread_has_its_own_agent() -> None:
    async def main() -> None:
        async with serve() as site:
            status = await multiloop.offload(lambda: asyncio.run(_status(site.url)))
            assert status == await _status(site.url) == 200
            await until(lambda: site.busy == 0)

    async def _status(url: str) -> int:
        return (await http.fetch(url + "/echo")).status

    multiloop.run(main)


def test_close_reports_to_a_callback() -> None:
    async def main() -> None:
        seen: list[Any] = []
        async with serve() as site:
            agent = http.Agent()
            await (await http.fetch(site.url + "/echo", agent=agent)).read()
            agent.close(callback=lambda *told: seen.append(told))
            assert seen == [], "never inside the call"
            await until(lambda: seen == [(None, None)])
            with pytest.raises(ClosedError):
                await http.fetch(site.url, agent=agent)

    multiloop.run(main)
