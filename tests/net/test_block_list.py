"""net.BlockList."""

from __future__ import annotations

import pickle

import pytest

from multiloop.errors import UsageError
from multiloop.net import BlockList


def _made() -> BlockList:
    blocked = BlockList()
    blocked.add_address("123.123.123.123")
    blocked.add_range("10.0.0.1", "10.0.0.10")
    blocked.add_subnet("8592:757c:efae:4e45::", 64)
    blocked.add_subnet("192.0.2.0/24")
    return blocked


@pytest.mark.parametrize(
    ("address", "blocked"),
    [
        ("123.123.123.123", True),
        ("123.123.123.124", False),
        ("10.0.0.1", True),
        ("10.0.0.10", True),
        ("10.0.0.11", False),
        ("192.0.2.255", True),
        ("8592:757c:efae:4e45:fb5d:d62a:0d00:8e17", True),
        ("8592:757c:efae:4e46::1", False),
        ("::ffff:7b7b:7b7b", True),
        ("::ffff:10.0.0.3", True),
        ("::1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_rules_hold_for_addresses_ranges_and_subnets(address: str, blocked: bool) -> None:
    assert _made().check(address) is blocked
    assert pickle.loads(pickle.dumps(_made())).check(address) is blocked


def test_rules_are_shown() -> None:
    assert _made().rules == [
        "Subnet: IPv6 8592:757c:efae:4e45::/64",
        "Subnet: IPv4 192.0.2.0/24",
        "Range: IPv4 10.0.0.1-10.0.0.10",
        "Address: IPv4 123.123.123.123",
    ]


def test_what_is_no_address_is_refused() -> None:
    blocked = BlockList()
    for wrong in ("localhost", "", "1.2.3"):
        with pytest.raises(ValueError):
            blocked.add_address(wrong)
        with pytest.raises(ValueError):
            blocked.check(wrong)
    with pytest.raises(ValueError):
        blocked.add_subnet("10.0.0.0", 33)
    with pytest.raises(UsageError):
        blocked.add_range("10.0.0.2", "10.0.0.1")
    with pytest.raises(UsageError):
        blocked.add_range("10.0.0.2", "::1")
