"""TLS, on both sides."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.support import LOOPS, descriptors_at_rest, open_descriptors, until

import multiloop
from multiloop import events, net
from multiloop.errors import UsageError

loops = pytest.mark.parametrize("loop", LOOPS)


@dataclass
class Certificates:
    """PEM files of an authority and a server for localhost."""

    ca: str
    cert: str
    client: str

    def server(self, **options: Any) -> ssl.SSLContext:
        return net.create_secure_context(server=True, cert=self.cert, **options)

    def trusting(self, **options: Any) -> ssl.SSLContext:
        return net.create_secure_context(ca=self.ca, **options)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "s.pem"))
    authority.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(str(folder / "c.pem"))
    return Certificates(str(folder / "ca.pem"), str(folder / "s.pem"), str(folder / "c.pem"))


@loops
def test_tls_echoes_and_negotiates(certificates: Certificates, loop: Any) -> None:
    async def main() -> None:
        server = net.create_server(
            lambda c: c.on("data", c.write), tls=certificates.server(alpn_protocols=["echo/1", "other"])
        )
        await server.listen(0)
        client = await net.connect(server.address[1], "localhost", tls=certificates.trusting(alpn_protocols=["echo/1"]))
        assert client.encrypted
        assert client.alpn_protocol == "echo/1"
        assert client.get_extra_info("peercert")["subjectAltName"]
        client.write(b"x" * 300_000)
        got = 0
        async for chunk in client:
            got += len(chunk)
            if got == 300_000:
                client.end()
        await client.wait_closed()
        assert client.error is None
        await server.close()

    multiloop.run(main, loop=loop)


@loops
def test_backpressure_and_pause_work_through_tls(certificates: Certificates, loop: Any) -> None:
    async def main() -> None:
        connections: list[net.Socket] = []
        server = net.create_server(connections.append, tls=certificates.server(), pause_on_connect=True)
        await server.listen(0)
        client = await net.connect(server.address[1], "localhost", tls=certificates.trusting())
        seen: list[Any] = []
        while client.write(b"x" * 65536, lambda error, _: seen.append(error)):
            await asyncio.sleep(0)
        await until(lambda: connections)
        stood = connections[0].bytes_read
        await asyncio.sleep(0.02)
        assert connections[0].bytes_read == stood
        connections[0].resume()
        await client.drain()
        await until(lambda: seen and len(seen) * 65536 == client.bytes_written)
        client.end()
        await client.wait_closed()
        await until(lambda: connections[0].bytes_read == client.bytes_written)
        await server.close()

    multiloop.run(main, loop=loop)


@loops
def test_the_end_of_either_side_closes_the_connection_in_order(certificates: Certificates, loop: Any) -> None:
    async def main() -> None:
        order: list[str] = []

        def serve(connection: net.Socket) -> None:
            connection.on("data", lambda data: None)
            connection.on("end", lambda: (order.append("end"), connection.write(b"last words")))
            connection.on("close", lambda had_error: order.append(f"close {had_error}"))

        server = net.create_server(serve, tls=certificates.server())
        await server.listen(0)
        client = await net.connect(server.address[1], "localhost", tls=certificates.trusting())
        client.end(b"bye")
        await client.wait_closed()
        await until(lambda: len(order) == 2)
        assert order == ["end", "close False"]

        greeting = net.create_server(lambda c: c.end(b"greeting"), tls=certificates.server())
        await greeting.listen(0)
        client = await net.connect(greeting.address[1], "localhost", tls=certificates.trusting())
        assert await client.read_all() == b"greeting"
        await client.wait_closed()
        await server.close()
        await greeting.close()

    multiloop.run(main, loop=loop)


@loops
def test_a_certificate_that_is_not_good_is_an_oserror(certificates: Certificates, loop: Any) -> None:
    async def main() -> None:
        before = await descriptors_at_rest()
        problems: list[Any] = []
        server = net.create_server(tls=certificates.server())
        server.on("tls_client_error", lambda error, address: problems.append(error))
        await server.listen(0)
        port = server.address[1]
        with pytest.raises(ssl.SSLCertVerificationError):
            await net.connect(port, "localhost", tls=True)  # the system does not know our authority
        with pytest.raises(ssl.SSLCertVerificationError):
            await net.connect(port, "127.0.0.1", tls=certificates.trusting(), server_hostname="other.example")
        (await net.connect(port, "127.0.0.1", tls=certificates.trusting())).destroy()
        await until(lambda: len(problems) == 2 and not server.connections)
        await server.close()
        await until(lambda: open_descriptors() <= before)

    multiloop.run(main, loop=loop)


def test_a_silent_client_is_dropped_after_the_handshake_timeout(certificates: Certificates) -> None:
    async def main() -> None:
        server = net.create_server(tls=certificates.server(), tls_handshake_timeout=0.05, max_connections=1)
        failed = events.once(server, "tls_client_error")
        await server.listen(0)
        client = await net.connect(server.address[1])
        mine = client.local_address
        await until(lambda: server.connections == 1)
        error, address = await asyncio.wait_for(failed, 5)
        assert isinstance(error, OSError)
        assert address == mine
        assert server.connections == 0, "its slot is free again"
        client.destroy()
        await server.close()

    multiloop.run(main)


def test_garbage_instead_of_a_handshake_harms_nobody(certificates: Certificates) -> None:
    async def main() -> None:
        server = net.create_server(lambda c: c.end(b"fine"), tls=certificates.server())
        await server.listen(0)
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 5000, b"\0"):
            client = await net.connect(server.address[1])
            client.write(garbage)
            client.end()
            await client.read_all()
        for _ in range(3):
            (await net.connect(server.address[1])).reset_and_destroy()
        client = await net.connect(server.address[1], "localhost", tls=certificates.trusting())
        assert await client.read_all() == b"fine"
        await until(lambda: server.connections == 0)
        await server.close()

    multiloop.run(main)


def test_clients_can_be_asked_for_a_certificate(certificates: Certificates) -> None:
    async def main() -> None:
        context = certificates.server(ca=certificates.ca, require_client_cert=True)
        server = net.create_server(lambda c: c.end(b"in"), tls=context)
        await server.listen(0)
        with_cert = certificates.trusting(cert=certificates.client)
        client = await net.connect(server.address[1], "localhost", tls=with_cert)
        assert await client.read_all() == b"in"
        stranger = await net.connect(server.address[1], "localhost", tls=certificates.trusting())
        try:
            assert await stranger.read_all() == b""
        except OSError:
            pass  # TLS 1.3 lets the client in until the server's alert arrives
        stranger.destroy()
        await server.close()

    multiloop.run(main)


def test_an_unfinished_handshake_does_not_hold_close_or_descriptors(certificates: Certificates) -> None:
    async def main() -> None:
        before = await descriptors_at_rest()
        server = net.create_server(tls=certificates.server())
        await server.listen(0)
        silent = socket.create_connection(server.address)
        await until(lambda: server.connections == 1)
        server.destroy_connections()
        await asyncio.wait_for(server.close(), 5)
        silent.close()
        await until(lambda: open_descriptors() <= before)

    multiloop.run(main)


def test_options_that_cannot_be_kept_are_refused(certificates: Certificates) -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match="half"):
            net.create_server(tls=certificates.server(), allow_half_open=True)
        with pytest.raises(UsageError, match="cert="):
            net.create_secure_context(server=True)
        with pytest.raises(UsageError, match="ca="):
            net.create_secure_context(server=True, cert=certificates.cert, require_client_cert=True)
        with pytest.raises(FileNotFoundError):
            net.create_secure_context(server=True, cert="/nowhere/cert.pem")

    multiloop.run(main)


@loops
def test_both_sides_may_end_a_tls_connection_at_once(
    certificates: Certificates, loop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    data = b"x" * 1_000_000
    left: list[Any] = []

    async def echo(connection: net.Socket) -> None:
        async for chunk in connection:
            if not connection.write(chunk, lambda error, _: left.append(error)):
                await connection.drain()

    async def main() -> None:
        async with net.create_server(echo, tls=certificates.server()) as server:
            await server.listen(0)
            for _ in range(3):
                client = await net.connect(server.address[1], "localhost", tls=certificates.trusting())

                async def send(client: net.Socket = client) -> None:
                    for at in range(0, len(data), 65536):
                        if not client.write(data[at : at + 65536]):
                            await client.drain()

                sending = asyncio.create_task(send())
                got = 0
                while got < len(data):
                    got += len(await client.read())
                client.end()
                await client.wait_closed()
                await sending
                assert client.error is None

    multiloop.run(main, loop=loop)
    assert set(left) == {None}
    assert not [record for record in caplog.records if record.name == "asyncio"]
