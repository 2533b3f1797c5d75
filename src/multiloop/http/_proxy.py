"""Proxies before us: which may say who the client is, and what they say.

What lives here: `TrustedProxies` (X-Forwarded-For, X-Forwarded-Proto, RFC 7239 Forwarded). What must not: the PROXY
protocol, which comes before HTTP (`_proxy_protocol`).

Rules
* Only a peer on the list is believed. The chain of addresses is walked from the right, where our peer wrote; the first
  that is not on the list is the client. All on the list: the leftmost.
* Fields of one name are one list, in order. An entry that is no address ends the walk: the hop that wrote it is the client.
* X-Forwarded-For wins over Forwarded, which clients could send through a proxy that does not know it; "forwarded" on the
  list turns this round for proxies that write only that one.
* The scheme is taken as far from the right as the client was found, or leftmost when there are fewer.
* Host and Port are never taken over: proxies commonly pass on what the client wrote there. A proxy sets `Host` itself.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from ..errors import ConfigError

_MAX_HOPS = 64
_MAX_ERRORS = 16
_MAX_KNOWN = 1024
_SCHEMES = ("http", "https", "ws", "wss")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Client = tuple[str, int]

# one parameter of a Forwarded element: a token or a quoted string, then what separates it from the next
_PARAMETER = re.compile(r"""[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^",;\s]*))[ \t]*([,;]|$)""")


class TrustedProxies:
    """The peers whose word about the client is taken: addresses, networks ("10.0.0.0/8"), "unix", or "*" for all.

    Raises ConfigError for an entry that is none of these.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._all = False
        self._unix = False
        self._rfc7239_only = False
        self._addresses: set[Address] = set()
        self._networks: list[Network] = []
        for entry in entries:
            self._add(entry.strip())
        self._known: dict[str, tuple[str, int, bool] | None] = {}  # what `_hop` found, since the same come again

    def _add(self, entry: str) -> None:
        if entry == "*":
            self._all = True
        elif entry.lower() == "unix":
            self._unix = True
        elif entry.lower() == "forwarded":
            self._rfc7239_only = True
        else:
            try:
                network = ipaddress.ip_network(entry)
            except ValueError as error:
                raise ConfigError(
                    f"--trusted-proxies {entry!r}: use an address, a network as 10.0.0.0/8, unix or * ({error})"
                ) from None
            if network.num_addresses == 1:
                self._addresses.add(network.network_address)
            else:
                self._networks.append(network)

    def trusts(self, host: str | None) -> bool:
        """Whether a peer is believed; None is one on a Unix socket."""
        if self._all:
            return True
        if host is None:
            return self._unix
        hop = self._hop(host)
        return hop is not None and hop[2]

    def client_of(self, peer: Client | None, headers: Iterable[tuple[bytes, bytes]]) -> Client | None:
        """The client's address and port (0 where a proxy did not tell it); None on a Unix socket that tells nothing."""
        return self._find(peer, headers)[0]

    def apply(self, scope: dict[str, Any]) -> None:
        """Set client and scheme of an ASGI scope to what the proxies say."""
        client, scheme = self._find(scope["client"], scope["headers"])
        scope["client"] = client
        if scheme is not None:
            if scope["type"] == "websocket":
                scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
            else:
                scheme = {"ws": "http", "wss": "https"}.get(scheme, scheme)
            scope["scheme"] = scheme

    def _find(self, peer: Client | None, headers: Iterable[tuple[bytes, bytes]]) -> tuple[Client | None, str | None]:
        if not self.trusts(peer[0] if peer is not None else None):
            return peer, None
        hops: list[str] = []
        schemes: list[str] = []
        forwarded: list[str] = []
        for name, value in headers:
            if name == b"x-forwarded-for":
                hops += value.decode("latin-1").split(",")
            elif name == b"x-forwarded-proto":
                schemes += value.decode("latin-1").split(",")
            elif name == b"forwarded":
                forwarded.append(value.decode("latin-1"))
        if forwarded and (self._rfc7239_only or not hops):
            hops, schemes = _parse_forwarded(", ".join(forwarded))
        elif self._rfc7239_only:
            return peer, None
        client, from_right = self._walk(peer, hops)
        scheme = _at(schemes, from_right)
        return client, scheme if scheme in _SCHEMES else None

    def _walk(self, peer: Client | None, hops: list[str]) -> tuple[Client | None, int]:
        """The client, and how far from the right its entry stands."""
        client, found_at = peer, 0
        for distance, entry in enumerate(reversed(hops[-_MAX_HOPS:])):
            hop = self._hop(entry)
            if hop is None:
                break
            client, found_at = (hop[0], hop[1]), distance
            if not hop[2]:
                break
        return client, found_at

    def _hop(self, entry: str) -> tuple[str, int, bool] | None:
        """Address, port and whether it is trusted of one entry; None when it is no address."""
        known = self._known
        if entry in known:
            return known[entry]
        found: tuple[str, int, bool] | None = None
        address, port = parse_address(entry)
        if address is not None:
            trusted = self._all or address in self._addresses or any(address in network for network in self._networks)
            found = (str(address), port, trusted)
        if len(known) >= _MAX_KNOWN:
            known.clear()
        if len(entry) <= 64:
            known[entry] = found
        return found


def parse_address(entry: str) -> tuple[Address | None, int]:
    """Read `1.2.3.4`, `1.2.3.4:56`, `::1`, `[::1]` or `[::1]:56`; (None, 0) for anything else."""
    text = entry.strip()
    host, port = text, ""
    if text[:1] == "[":
        host, closed, port = text[1:].partition("]")
        if not closed or (port and port[0] != ":"):
            return None, 0
        port = port[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if len(host) > 45 or "%" in host:  # a scope id could be any text
        return None, 0
    try:
        address: Address = ipaddress.ip_address(host)
    except ValueError:
        return None, 0
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    return address, number if number <= 65535 else 0


def _at(values: list[str], from_right: int) -> str | None:
    if not values:
        return None
    return values[max(0, len(values) - 1 - from_right)].strip().lower()


def _parse_forwarded(text: str) -> tuple[list[str], list[str]]:
    """Read the `for` and `proto` of each element. From a malformed one on, leftwards, nothing is known: empty entries."""
    hops: list[str] = []
    schemes: list[str] = []
    hop = scheme = ""
    position = errors = 0
    while position < len(text):
        found = _PARAMETER.match(text, position)
        if found is None:
            # What is left of here cannot be told apart: only elements behind the next comma are certain.
            errors += 1  # each one may look at all that follows: only so many, then the last element alone
            comma = text.find(",", position) if errors < _MAX_ERRORS else text.rfind(",", position)
            hops, schemes = [*hops, ""], [*schemes, ""]
            hop = scheme = ""
            if comma < 0:
                return hops, schemes
            position = comma + 1
            continue
        name, quoted, token, separator = found.groups()
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token
        if name.lower() == "for":
            hop = value
        elif name.lower() == "proto":
            scheme = value
        position = found.end()
        if separator != ";":
            hops.append(hop)
            schemes.append(scheme)
            hop = scheme = ""
    return hops, schemes
