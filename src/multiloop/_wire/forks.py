"""What a program and the workers that it forked say to each other beside the user's messages, read by both ends.

What lives here: the kinds of frames, and the messages of the control frames (named tuples, told apart by their type).
What must not: sockets, and what is done with a message. Connections travel in the records of `messages`.

    worker → primary   Online  Attached  Ask  Join  Leave  Leaving  LockAsk  CounterAsk
                       (of `messages`: Report  Relay  Want  LogLines)
    primary → worker   Welcome  Listening  Drain  Peers  Congested  LockTold  CounterTold
                       (of `messages`: Listen  Relay  FollowLogs  ReopenLogs)
    both               REQUEST  REPLY  FAILURE  RELAY (any of the others, from worker to worker)

The user's own messages are the frames 0 and 1 of a child's channel. So nothing that a user sends can be mistaken for
one of ours.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

# Kinds of frames, behind MESSAGE (0) and WITH_HANDLE (1) of a child's channel.
CONTROL = 2  # one of the types below, pickled
REQUEST = 3  # (number, value), pickled: an answer is wanted
REPLY = 4  # (number, value), pickled
FAILURE = 5  # the number (8 bytes), then an exception as `worker_threads` packs them
RELAY = 6  # from worker to worker: a head, then the frame that is meant

_RELAY = struct.Struct("<QQH")  # sender, receiver, kind of the frame behind it
EVERYBODY = 0  # as receiver: all other workers
NUMBER = struct.Struct("<Q")


def pack_relay(sender: int, receiver: int, kind: int, body: bytes | bytearray | memoryview) -> bytes:
    """Put the head of a relayed frame in front of its body."""
    return _RELAY.pack(sender, receiver, kind) + bytes(body)


def unpack_relay(body: bytes | bytearray | memoryview) -> tuple[int, int, int, memoryview]:
    """Return sender, receiver, kind and body of a relayed frame."""
    sender, receiver, kind = _RELAY.unpack_from(body)
    return sender, receiver, kind, memoryview(body)[_RELAY.size :]


# --- workers ----------------------------------------------------------------------------------------------------------
class Online(NamedTuple):
    """The worker's program has begun."""


class Attached(NamedTuple):
    """The worker's loop runs."""

    capacity: int  # connections that its limit of descriptors leaves room for


class Wanted(NamedTuple):
    """What a worker wants to listen on. All workers that want the same get the same."""

    kind: str  # tcp | unix | fd | udp
    host: str = ""  # "": every address
    port: int = 0
    path: str = ""
    fd: int = -1  # the primary's
    family: int = 0  # of a UDP socket
    ipv6_only: bool = False
    nth: int = 0  # the how manieth of its kind in this worker: two listeners on port 0 are two ports


class Ask(NamedTuple):
    """Make this listener, or find it; answered with Listening."""

    number: int  # of the question
    wanted: Wanted
    backlog: int = 511  # of the first who asks, as all that follows
    path_mode: int = 0o600
    tls: bool = False
    udp: Any = None  # net's DatagramOptions


class Join(NamedTuple):
    """Connections may come."""

    listener: int


class Leave(NamedTuple):
    """No more connections: the server is closed."""

    listener: int


class Leaving(NamedTuple):
    """The worker disconnects by itself; answered with Drain."""

    grace_s: float | None
    at_once: bool = False  # it kills itself


class LockAsk(NamedTuple):
    """A word about a named lock; answered with LockTold, a release with nothing."""

    word: str  # request | release | query
    about: Any  # a `worker_threads._lock_table.Request`, or a key


class CounterAsk(NamedTuple):
    """Where is the counter of this name? Answered with CounterTold."""

    number: int  # of the question
    name: str


class Load(NamedTuple):
    """The statistics of a worker's Report."""

    requests: int  # answered
    active_requests: int  # in progress; where requests are not counted, connections
    connections: int


# --- the primary ------------------------------------------------------------------------------------------------------
class Welcome(NamedTuple):
    """The first message to a worker."""

    asks_for_requests: bool  # the policy wants to know often how many there are
    reports: bool  # a supervisor wants statistics


class Listening(NamedTuple):
    """Here it is, or why not."""

    number: int
    listener: int = 0
    address: Any = None
    family: int = 0
    error: BaseException | None = None  # an OSError, or what cannot be asked for


class LockTold(NamedTuple):
    """What was decided about a lock, or (snapshot) how all of them stand."""

    key: tuple[int, int]
    word: str  # granted | unavailable | stolen | snapshot
    about: Any = None


class CounterTold(NamedTuple):
    """A counter's place in the buffer whose descriptor comes along."""

    number: int
    place: int = -1
    error: BaseException | None = None


class Drain(NamedTuple):
    """Close every server, wait for their connections, then disconnect."""

    grace_s: float | None  # connections that are left then are cut
    give_back: bool  # idle kept connections may go back to the primary, for somebody else
    at_once: bool = False  # it kills itself: nothing is waited for


class Peers(NamedTuple):
    """Which other workers there are: all of them at first, then what changed."""

    added: tuple[int, ...]
    removed: tuple[int, ...]


class Congested(NamedTuple):
    """A worker that messages were relayed to takes them too slowly; or no longer so."""

    worker: int
    is_congested: bool
