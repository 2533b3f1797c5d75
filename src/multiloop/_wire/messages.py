"""Every message between the primary and a worker, read by both ends.

What lives here: the messages of the control channel (named tuples, told apart by their type: they are cheaper to define
than dataclasses, which a starting worker feels) and the records of the handoff socket (packed bytes, because one travels
for each connection). What must not: sockets, and what is done with a message.

    control channel   primary → worker   Start  Activate  Listen  Drain  ReopenLogs  FollowLogs  Measure  ReportNow  Relay
                      worker → primary   Imported  Ready  Failed  Leaving  Report  LogLines  Metrics  Blocked  Relay  Want
    handoff socket    primary → worker   CONNECTIONS (with descriptors)  TAKEN
                      worker → primary   ACKS  RETURNED (with descriptors)
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple


# --- the control channel ------------------------------------------------------------------------------------------
class Start(NamedTuple):
    """The first message to a worker: who it is and what it serves."""

    number: int  # 1, 2, 3, … never used twice
    generation: int  # which code: reloads count it up
    standby: bool  # import the application, then wait for Activate before its lifespan starts
    settings: Any  # cluster._settings.ServeSettings
    listeners: tuple[str, ...]  # what each listener is called, by index
    families: tuple[int, ...]  # and its address family
    factory: str  # "module:function" that makes the service
    argv: tuple[str, ...]  # the primary's command line, for applications that look at it
    workers: int  # how many share the machine, this one included
    label: str = ""  # what its lines in the log name beside its number: the application, when there are several


class Activate(NamedTuple):
    """To a standby worker: it is needed now; start the lifespan."""

    slot: int | None = None  # the place that it fills


class Listen(NamedTuple):
    """Accept from the listening sockets that come with this message (policies reuse_port and shared)."""

    indices: tuple[int, ...]  # the listener's index of each descriptor
    batch: int  # connections to accept in one turn; few where others wait at the same socket


class Drain(NamedTuple):
    """Take no more, finish what runs, leave."""

    grace_s: float
    give_back: bool  # idle kept connections may go back to the primary, for the next generation


class ReopenLogs(NamedTuple):
    """Open the log files anew (they were rotated)."""


class FollowLogs(NamedTuple):
    """Send the last lines of the log, and with `follow` every line from now on."""

    last: int
    follow: bool


class Measure(NamedTuple):
    """Count durations, watch for blocks and tell user metrics, for so long from now on; `math.inf`: always."""

    seconds: float


class ReportNow(NamedTuple):
    """Send the next Report at once: somebody reads the figures."""


class Imported(NamedTuple):
    """A standby worker has imported the application."""


class Ready(NamedTuple):
    """The lifespan has started: connections may come."""

    capacity: int  # connections that this worker's limit of descriptors leaves room for
    description: str  # what is served, for the log


class Failed(NamedTuple):
    """The worker cannot become ready and leaves."""

    reason: str  # one line
    details: str = ""  # the traceback, when it is not the user's mistake in a setting
    exit_code: int | None = None  # what the primary ends with when this happens at boot; None: never ready


class Relay(NamedTuple):
    """Bytes for all other workers of the application that want this name. Both ways."""

    name: str
    data: bytes


class Want(NamedTuple):
    """This worker wants to hear a name, or no more."""

    name: str
    wanted: bool


class Leaving(NamedTuple):
    """The worker drains because it was told so from outside (SIGTERM): deal to it no more."""


class Report(NamedTuple):
    """About once a second, and last before it leaves: what the worker has done and what it costs."""

    rss_bytes: int
    statistics: Any  # the service's own snapshot
    details: Any = None  # stats.WorkerReport, while it is measured


class Metrics(NamedTuple):
    """Values of the user's metrics that changed since the last message; while it is measured.

    A value is known by (family, name of the sample, labels as sorted pairs). None: it is not there any more.
    """

    described: dict[str, tuple[str, str, str, str]]  # new families: type, help, unit, how workers' values are joined
    values: dict[tuple[str, str, tuple[tuple[str, str], ...]], float | None]


class Blocked(NamedTuple):
    """The loop was blocked and turns again; while it is measured."""

    block: Any  # stats.BlockedLoop


class LogLines(NamedTuple):
    """Lines of the worker's log: the last ones that were asked for (`is_last`), or what was written since."""

    lines: tuple[str, ...]
    dropped: int  # lines that were not sent, because the primary took nothing
    is_last: bool


# --- the handoff socket -------------------------------------------------------------------------------------------
CONNECTIONS = 1  # entries with one descriptor each, then their prefixes
TAKEN = 2  # numbers: return id << 1 | 1 when its descriptor arrived, | 0 when it was lost on the way
ACKS = 3  # numbers: connection id << ACK_BITS | flags
RETURNED = 4  # entries with one descriptor each, their ids counted by the worker

ADOPTED = 1  # the worker has it: its credit is free again
RELEASED = 2  # its first byte was read, or it is closed: the primary's duplicate is not needed any more
CLOSED = 4  # it is gone
REFUSED = 8  # with CLOSED: the server there is full or closing; the connection comes back for another worker
NOT_RECEIVED = 0  # no flag at all: the descriptor was lost on the way

ACK_BITS = 4
ACK_FLAGS = (1 << ACK_BITS) - 1

KEPT = 1  # flag of an entry: a kept connection that already had requests

_HEAD = struct.Struct("<BxH4x")
_ENTRY = struct.Struct("<QHHI")
MAX_ENTRIES = 64  # in one record; the kernel takes at most 253 descriptors at once
MAX_PREFIX_BYTES = 8 * 1024


# One connection in a record: id, listener, flags, and the bytes that the primary has read of it already.
Entry = tuple[int, int, int, bytes]


def pack_entries(kind: int, entries: Sequence[Entry]) -> bytes:
    """Pack a CONNECTIONS or RETURNED record; the descriptors travel beside it, in the same order."""
    pack = _ENTRY.pack
    parts = [_HEAD.pack(kind, len(entries))]
    parts += [pack(number, listener, flags, len(prefix)) for number, listener, flags, prefix in entries]
    parts += [entry[3] for entry in entries if entry[3]]
    return b"".join(parts)


def unpack_entries(record: bytes | memoryview) -> list[Entry]:
    """Turn a CONNECTIONS or RETURNED record back into its entries."""
    position = _HEAD.size + _HEAD.unpack_from(record)[1] * _ENTRY.size
    entries = []
    for number, listener, flags, size in _ENTRY.iter_unpack(record[_HEAD.size : position]):
        if size:
            entries.append((number, listener, flags, bytes(record[position : position + size])))
            position += size
        else:
            entries.append((number, listener, flags, b""))
    return entries


def pack_numbers(kind: int, numbers: Sequence[int]) -> bytes:
    """Pack an ACKS or TAKEN record."""
    return _HEAD.pack(kind, len(numbers)) + array("Q", numbers).tobytes()


def unpack_numbers(record: bytes | memoryview) -> array[int]:
    """Turn an ACKS or TAKEN record back into its numbers."""
    numbers = array("Q")
    numbers.frombytes(record[_HEAD.size :])
    return numbers


def kind_of(record: bytes | memoryview) -> int:
    """Say which record this is."""
    return record[0]
