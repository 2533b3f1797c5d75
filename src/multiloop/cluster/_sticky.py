"""What is sticky about a connection, and which worker that means. Pure.

What lives here: finding the key (an address, a header's or a cookie's value), and the worker of a key. What must not:
reading from a connection (`_heads`), policies (`_policy`).

The head is looked at as bytes and only to choose a worker; whether it is a good one, the worker's parser decides. So
nothing here can be tricked into more than a choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

BY = ("address", "header", "cookie")
END_OF_HEAD = b"\r\n\r\n"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def is_token(name: str) -> bool:
    """Whether this can be the name of a header or a cookie (RFC 9110 5.6.2)."""
    return _TOKEN.fullmatch(name) is not None


def host_of(peer: Any) -> bytes:
    """Return the host of an address that accept() gave; an IPv4 address looks the same through IPv6. b"" for none."""
    if not isinstance(peer, tuple) or not peer:
        return b""
    return str(peer[0]).removeprefix("::ffff:").encode()


def key_in_header(head: bytes, name: str) -> bytes:
    """Return the value of a header, the first of several; b"" when it is not there."""
    return next(_values(head, name), b"")


def key_in_cookie(head: bytes, name: str) -> bytes:
    """Return the value of a cookie; b"" when it is not there."""
    wanted = name.encode()
    for line in _values(head, "cookie"):
        for pair in line.split(b";"):
            found, _, value = pair.strip().partition(b"=")
            if found == wanted:
                return value.strip(b' "')
    return b""


def _values(head: bytes, name: str) -> Iterator[bytes]:
    wanted = name.lower().encode()
    lines = head.partition(END_OF_HEAD)[0].split(b"\r\n")
    for line in lines[1:]:
        found, _, value = line.partition(b":")
        if found.lower() == wanted and (value := value.strip()):
            yield value


def pick_by_key(key: bytes, workers: Sequence[Any]) -> Any:
    """Return the worker of a key: rendezvous hashing over their seats.

    Every seat draws a number for the key, the highest wins: when a worker goes, only its own keys move, each to the
    next highest; when it comes back, they do, too. Of two workers on one seat (a reload) the younger one has it.
    """
    return max(workers, key=lambda w: (blake2b(b"%d " % w.seat + key, digest_size=8).digest(), w.number))
