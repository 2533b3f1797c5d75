"""Addresses: what they look like here, and telling IP addresses from names.

What lives here: `Address`, `is_ip` and its kin. What must not: resolving names (`multiloop.dns`).
"""

from __future__ import annotations

import ipaddress
from typing import Any

Address = tuple[str, int] | str | None
"""(host, port) of TCP and UDP; the path of a Unix socket; None or "" where there is none."""


def is_ip(text: object) -> int:
    """Return 4 or 6 for the text of an IP address, else 0. As in Node an IPv6 zone (`%eth0`) is allowed."""
    if not isinstance(text, str):
        return 0
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return 0


def is_ipv4(text: object) -> bool:
    """Whether this is the text of an IPv4 address."""
    return is_ip(text) == 4


def is_ipv6(text: object) -> bool:
    """Whether this is the text of an IPv6 address."""
    return is_ip(text) == 6


def from_kernel(raw: Any) -> Address:
    """Return the address as we show it: IPv6's flow and scope left out, a Unix path as text."""
    if isinstance(raw, tuple):
        return (raw[0], raw[1])
    if isinstance(raw, bytes):  # an abstract Unix address
        return raw.decode("utf-8", "surrogateescape")
    return raw  # type: ignore[no-any-return]


def readable(address: Address) -> str:
    """Return an address as error messages name it: `127.0.0.1:80`, `[::1]:80`, a path."""
    if isinstance(address, tuple):
        host, port = address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return address or "an unnamed peer"


def checked_port(port: Any) -> int:
    """Return a port. Raises TypeError or ValueError for anything that is none."""
    if not isinstance(port, int) or isinstance(port, bool):
        raise TypeError(f"a port is a whole number, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"a port is 0 to 65535, not {port}")
    return port
