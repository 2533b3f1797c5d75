"""`BlockList`: IP addresses that are not let in.

What lives here: the rules and the check; nothing else of net. Plain data: it can be pickled to workers.
"""

from __future__ import annotations

import ipaddress

from ..errors import UsageError

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class BlockList:
    """Addresses, ranges and subnets, IPv4 and IPv6. An IPv4 rule also holds for the address mapped into IPv6."""

    def __init__(self) -> None:
        self._addresses: set[_IP] = set()
        self._ranges: list[tuple[_IP, _IP]] = []
        self._subnets: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []

    def add_address(self, address: str) -> None:
        """Block one address. Raises ValueError when it is none."""
        self._addresses.add(_parse(address))

    def add_range(self, start: str, end: str) -> None:
        """Block from `start` to `end`, both included. Raises ValueError, or UsageError when `end` comes first."""
        first, last = _parse(start), _parse(end)
        if first.version != last.version or int(first) > int(last):
            raise UsageError(f"add_range({start!r}, {end!r}): two addresses of one family, the lower one first")
        self._ranges.append((first, last))

    def add_subnet(self, network: str, prefix: int | None = None) -> None:
        """Block a subnet: `add_subnet("10.0.0.0", 8)` or `add_subnet("10.0.0.0/8")`. Raises ValueError when it is none."""
        text = network if prefix is None else f"{network}/{prefix}"
        self._subnets.append(ipaddress.ip_network(text, strict=False))

    def check(self, address: str) -> bool:
        """Whether the address is blocked. Raises ValueError when it is no IP address."""
        parsed = _parse(address)
        if self._holds(parsed):
            return True
        mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
        return mapped is not None and self._holds(mapped)

    def _holds(self, address: _IP) -> bool:
        number, version = int(address), address.version
        return (
            address in self._addresses
            or any(first.version == version and int(first) <= number <= int(last) for first, last in self._ranges)
            or any(address in subnet for subnet in self._subnets)
        )

    @property
    def rules(self) -> list[str]:
        """The rules as text."""
        return [
            *(f"Subnet: IPv{subnet.version} {subnet}" for subnet in self._subnets),
            *(f"Range: IPv{first.version} {first}-{last}" for first, last in self._ranges),
            *(f"Address: IPv{each.version} {each}" for each in sorted(self._addresses, key=str)),
        ]

    def __repr__(self) -> str:
        return f"<BlockList of {len(self._subnets) + len(self._ranges) + len(self._addresses)} rules>"


def _parse(address: str) -> _IP:
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id:
        return ipaddress.IPv6Address(int(parsed))  # a zone says where, not who
    return parsed
