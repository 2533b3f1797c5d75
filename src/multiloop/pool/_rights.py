"""Descriptors that travel beside frames.

What lives here: how both ends write and read them. What must not: what they lead to.

The kernel ends a read after the message that brought descriptors, so they come in the order of the frames that they
belong to. A receiver whose table of open files is full loses them without an error: fewer come than were announced.
"""

from __future__ import annotations

import _socket
import os
import struct
from collections import deque
from collections.abc import Iterable
from typing import Any

LOST = -1  # the kind of a parcel whose descriptors did not all arrive

Parcel = tuple[int, list[int]]  # its kind and its descriptors


def rights_of(descriptors: list[int]) -> list[tuple[int, int, bytes]]:
    """Return what sendmsg takes to send descriptors along."""
    return [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))]


def descriptors_of(ancillary: Any) -> list[int]:
    """Return the descriptors that came with a message, not inheritable."""
    found: list[int] = []
    for _, _, data in ancillary:
        found.extend(struct.unpack_from(f"{len(data) // 4}i", data))
    for descriptor in found:
        os.set_inheritable(descriptor, False)
    return found


def claim(came: deque[list[int]], kind: int, count: int) -> Parcel:
    """Return an announced parcel: its kind is LOST when not all of its descriptors came."""
    found = came.popleft() if count and came else []
    if len(found) == count:
        return kind, found
    close_all(found)
    return LOST, []


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors that nobody needs any more."""
    for descriptor in descriptors:
        os.close(descriptor)
