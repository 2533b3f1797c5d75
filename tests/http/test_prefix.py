"""What others have read from a connection comes first, whatever waits in its socket."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from .harness import answer, read_body, run, service_of

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: " + b"a" * 5000 + b"\r\nContent-Length: 5\r\n\r\n"
REQUEST = HEAD + b"hello"


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http", "no lifespan here"
    await answer(send, await read_body(receive))


@pytest.mark.parametrize("read_before", [1, 100, 5000, len(HEAD) - 1, len(HEAD), len(REQUEST) - 1, len(REQUEST)])
@pytest.mark.parametrize("is_whole", [True, False], ids=["all that follows is there", "it comes later"])
def test_a_request_of_which_the_first_bytes_were_read_is_answered(read_before: int, is_whole: bool) -> None:
    async def main() -> None:
        async with service_of(app) as service:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                client = socket.create_connection(listener.getsockname())
                theirs, _ = listener.accept()
            theirs.setblocking(False)
            client.setblocking(False)
            loop, rest = asyncio.get_running_loop(), REQUEST[read_before:]
            with client:
                if is_whole:
                    await loop.sock_sendall(client, rest)
                    client.shutdown(socket.SHUT_WR)  # and the end is seen as soon as the rest
                service.adopt(theirs, prefix=REQUEST[:read_before])
                if not is_whole:
                    await asyncio.sleep(0)
                    await loop.sock_sendall(client, rest)
                data = b""
                while more := await asyncio.wait_for(loop.sock_recv(client, 65536), 10):
                    data += more
        assert data.startswith(b"HTTP/1.1 200 ")
        assert data.endswith(b"hello")

    run(main)
