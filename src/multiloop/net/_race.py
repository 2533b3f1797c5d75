"""Happy eyeballs: connecting to a host with several addresses as fast as its best one allows (RFC 8305).

What lives here: the race, and connecting one raw socket. What must not: names (`dns`), transports, TLS.

Each address gets a head start; then, or at once when it fails, the next one is tried beside it. The first to connect
wins, the others are closed. (Node gives each address up after the head start; here a slow one may still win.)
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Iterable, Sequence

from ..dns._lookup import SocketAddress
from ._address import readable

Candidate = tuple[int, SocketAddress]


def interleaved(found: Iterable[Candidate]) -> list[Candidate]:
    """Return the addresses with the families taking turns, the first answer's family first."""
    families: dict[int, deque[Candidate]] = {}
    for candidate in found:
        families.setdefault(candidate[0], deque()).append(candidate)
    ordered: list[Candidate] = []
    while families:
        for family in list(families):
            ordered.append(families[family].popleft())
            if not families[family]:
                del families[family]
    return ordered


async def connect_any(
    candidates: Sequence[Candidate], host: str, delay_s: float, local: tuple[str, int] | None
) -> socket.socket:
    """Return a connected socket that does not block. Raises the OSError of the one address, or one for all of them."""
    if len(candidates) == 1:
        return await connect_one(candidates[0], local)
    loop = asyncio.get_running_loop()
    waiting = deque(candidates)
    running: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    winner: socket.socket | None = None
    try:
        while winner is None and (waiting or running):
            if waiting:
                running.add(loop.create_task(connect_one(waiting.popleft(), local)))
            done, running = await asyncio.wait(
                running, timeout=delay_s if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is None and winner is None:
                    winner = task.result()
                elif error is None:
                    task.result().close()
                elif isinstance(error, OSError):
                    errors.append(error)
                else:
                    raise error
    except BaseException:
        if winner is not None:
            winner.close()
        raise
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_close_late)
    if winner is None:
        raise _all_failed(errors, host, candidates[0][1][1])
    return winner


async def connect_one(candidate: Candidate, local: tuple[str, int] | None) -> socket.socket:
    """Return a socket connected to one address. Raises OSError with that address as its `filename`."""
    family, where = candidate
    name = readable((where[0], where[1]))
    sock: socket.socket | None = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        if local is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(local)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise OSError(error.errno, error.strerror or str(error), name) from None
    except BaseException:
        if sock is not None:
            sock.close()
        raise
    return sock


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _all_failed(errors: list[OSError], host: str, port: int) -> OSError:
    first = errors[0]
    same = all(error.errno == first.errno for error in errors)
    reason = first.strerror if same else "; ".join(f"{error.filename}: {error.strerror}" for error in errors)
    failure = OSError(first.errno, reason, readable((host, port)))
    failure.__cause__ = ExceptionGroup("every address failed", errors)
    return failure
