"""The three questions to the system's resolver.

What lives here: the calls, their errors, and `addresses()` for the modules that connect. What must not: caching: the
system's resolver knows how long an answer is good.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, overload

from ..errors import UsageError
from ..loop import AnyOperation, CallbackOperation, ErrorFirst, Operation, begin, offload_to

Order = Literal["verbatim", "ipv4first", "ipv6first"]
SocketAddress = tuple[str, int] | tuple[str, int, int, int]

_FAMILIES = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}


class LookupAddress(NamedTuple):
    """One answer: the text of an address, and 4 or 6."""

    address: str
    family: int


@overload
def lookup(
    host: str, *, family: int = ..., all: Literal[False] = ..., order: Order = ...
) -> Operation[LookupAddress]: ...
@overload
def lookup(
    host: str, *, family: int = ..., all: Literal[True], order: Order = ...
) -> Operation[list[LookupAddress]]: ...
@overload
def lookup(
    host: str, *, family: int = ..., all: bool = ..., order: Order = ..., callback: ErrorFirst
) -> CallbackOperation[Any]: ...
def lookup(
    host: str,
    *,
    family: int = 0,
    all: bool = False,  # noqa: A002  Node's name
    order: Order = "verbatim",
    callback: ErrorFirst | None = None,
) -> AnyOperation[Any]:
    """Ask the system for the address of a host: the first one, or with `all` every one, each once.

    Args:
        family: 4, 6, or 0 for either.
        order: "verbatim" (the system's), "ipv4first" or "ipv6first".

    Raises:
        socket.gaierror: (an OSError) the name has no address, or nobody could be asked; the host is its `filename`.
    """
    if family not in _FAMILIES:
        raise UsageError(f"lookup(family={family!r}): 4, 6, or 0 for either")
    if order not in ("verbatim", "ipv4first", "ipv6first"):
        raise UsageError(f"lookup(order={order!r}): 'verbatim', 'ipv4first' or 'ipv6first'")
    _check_host(host)
    return _ask(callback, _lookup, host, family, all, order)


@overload
def lookup_service(address: str, port: int) -> Operation[tuple[str, str]]: ...
@overload
def lookup_service(address: str, port: int, *, callback: ErrorFirst) -> CallbackOperation[tuple[str, str]]: ...
def lookup_service(address: str, port: int, *, callback: ErrorFirst | None = None) -> AnyOperation[tuple[str, str]]:
    """Ask for the names of an address and a port: `("localhost", "ssh")`.

    Raises socket.gaierror (an OSError) with the address as its `filename`.
    """
    _check_host(address)
    if not 0 <= port <= 65535:
        raise ValueError(f"a port is 0 to 65535, not {port}")
    return _ask(callback, _lookup_service, address, port)


@overload
def reverse(address: str) -> Operation[list[str]]: ...
@overload
def reverse(address: str, *, callback: ErrorFirst) -> CallbackOperation[list[str]]: ...
def reverse(address: str, *, callback: ErrorFirst | None = None) -> AnyOperation[list[str]]:
    """Ask for the names of an IP address, the canonical one first.

    Raises socket.herror or socket.gaierror (both OSErrors) with the address as their `filename`.
    """
    _check_host(address)
    return _ask(callback, _reverse, address)


def _ask(callback: ErrorFirst | None, function: Callable[..., Any], *args: Any) -> AnyOperation[Any]:
    op: AnyOperation[Any] = begin(callback)
    offload_to(op, function, args, slow=True)
    return op


def _check_host(host: Any) -> None:
    if not isinstance(host, str):
        raise TypeError(f"a host is a str, not {type(host).__name__}")
    if "\0" in host:
        raise ValueError(f"a host cannot contain NUL: {host!r}")


# --- on the threads ---------------------------------------------------------------------------------------------------
def addresses(host: str, port: int, family: int = 0, *, passive: bool = False) -> list[tuple[int, SocketAddress]]:
    """Return (address family, socket address) of a host for TCP, blocking; each once, in the system's order."""
    try:
        found = socket.getaddrinfo(
            host,
            port,
            _FAMILIES[family],
            socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE if passive else 0,
        )
    except OSError as error:
        raise named(error, host) from None
    except UnicodeError:  # a label that is empty or too long
        raise named(socket.gaierror(socket.EAI_NONAME, "not a host name"), host) from None
    return list(dict.fromkeys((each, where) for each, _, _, _, where in found if isinstance(where[0], str)))


def _lookup(host: str, family: int, every: bool, order: Order) -> LookupAddress | list[LookupAddress]:
    answers = [
        LookupAddress(_text(where), 6 if each == socket.AF_INET6 else 4) for each, where in addresses(host, 0, family)
    ]
    if order != "verbatim":
        first = 4 if order == "ipv4first" else 6
        answers.sort(key=lambda answer: answer.family != first)
    return answers if every else answers[0]


def _text(where: SocketAddress) -> str:
    return f"{where[0]}%{where[3]}" if len(where) == 4 and where[3] else where[0]


def _lookup_service(address: str, port: int) -> tuple[str, str]:
    try:
        ((_, _, _, _, where), *_) = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
        return socket.getnameinfo(where, socket.NI_NAMEREQD)
    except OSError as error:
        raise named(error, address) from None


def _reverse(address: str) -> list[str]:
    try:
        socket.getaddrinfo(address, None, flags=socket.AI_NUMERICHOST)  # a name here is a mistake, not a question
        name, aliases, _ = socket.gethostbyaddr(address)
    except OSError as error:
        raise named(error, address) from None
    return list(dict.fromkeys([name, *aliases]))


def named(error: OSError, host: str) -> OSError:
    """Return a resolver's error with the host in it."""
    error.filename = host
    return error
