"""What the kernel would hold: connections, descriptors, the listening socket, handoff sockets.

What lives here: `Kernel`, `Connection`, `ListeningSocket`, `Handoff`. What must not: who decides anything.

A connection lives as long as somebody has a descriptor of it, or it waits in the backlog, or it is on its way in a
handoff socket. When the last one is closed, the client sees the end. `serving` is the worker that reads it now; there is
never more than one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ...cluster import _link
from ._invariants import InvariantBroken
from ._world import Loop, Machine, World

_QUEUE_RECORDS = 40  # records that fit into a handoff socket


class Connection:
    """One connection of a client."""

    __slots__ = (
        "client",
        "has_eof",
        "is_over",
        "is_shut",
        "number",
        "readers",
        "reads",
        "references",
        "serving",
        "unread",
    )

    def __init__(self, number: int, client: Any) -> None:
        self.number = number
        self.client = client
        self.unread: deque[int] = deque()  # requests that nobody has read
        self.readers: list[Machine] = []  # workers that have read from it
        self.reads = 0
        self.serving: Machine | None = None
        self.references = 0
        self.has_eof = False  # the client has closed
        self.is_shut = False  # a worker has shut it down: the client sees the end, whatever copies there are
        self.is_over = False  # nobody has it any more

    def __repr__(self) -> str:
        return f"connection {self.number}"


class Kernel:
    """The table of all descriptors."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.open: dict[int, tuple[Machine, Connection]] = {}
        self.limits: dict[Machine, int] = {}  # descriptors that a process may have; absent: as many as it likes
        self.counts: dict[Machine, int] = {}
        self._next = 10

    def of(self, machine: Machine) -> _link.Kernel:
        """Return what the dealer asks in this process."""
        return _link.Kernel(self.close, self.was_read, self.bytes_read)

    def give(self, machine: Machine, connection: Connection) -> int | None:
        """Give a process a descriptor; None when it has no room."""
        if self.counts.get(machine, 0) >= self.limits.get(machine, 1 << 30):
            return None
        descriptor, self._next = self._next, self._next + 1
        self.open[descriptor] = (machine, connection)
        self.counts[machine] = self.counts.get(machine, 0) + 1
        connection.references += 1
        return descriptor

    def close(self, descriptor: int) -> None:
        """Close a descriptor; InvariantBroken when it is not open."""
        found = self.open.pop(descriptor, None)
        if found is None:
            raise InvariantBroken(f"descriptor {descriptor} is closed twice")
        self.counts[found[0]] -= 1
        self.drop(found[1])

    def drop(self, connection: Connection) -> None:
        """One who had it has it no more."""
        connection.references -= 1
        if connection.references == 0 and not connection.is_over:
            connection.is_over = True
            self.world.at(self.world.soon(), None, connection.client.closed, connection)

    def shut(self, connection: Connection) -> None:
        """A worker ends it, whatever copies there are."""
        if not connection.is_shut:
            connection.is_shut = True
            self.world.at(self.world.soon(), None, connection.client.closed, connection)

    def was_read(self, descriptor: int, before: int = 0) -> bool:
        """Whether anybody has read more from it than that."""
        return self.bytes_read(descriptor) > before

    def bytes_read(self, descriptor: int) -> int:
        """How much was read from it, in requests."""
        return self.open[descriptor][1].reads

    def dead(self, machine: Machine) -> None:
        """A process is gone: its descriptors are closed."""
        for descriptor, (owner, connection) in list(self.open.items()):
            if owner is machine:
                if connection.serving is machine:
                    connection.serving = None
                self.close(descriptor)

    def held_by(self, machine: Machine) -> list[Connection]:
        """Return the connections of which a process has a descriptor."""
        return [connection for owner, connection in self.open.values() if owner is machine]


class Readable:
    """A socket that wakes whoever watches it."""

    def __init__(self) -> None:
        self._loop: Loop | None = None

    def watched_by(self, loop: Loop) -> None:
        """This loop wants to know when something comes."""
        self._loop = loop

    def wake(self) -> None:
        """Something may have come."""
        if self._loop is not None:
            self._loop.wake(self)

    def is_readable(self) -> bool:
        """Whether there is something."""
        raise NotImplementedError


class ListeningSocket(Readable):
    """The listening socket, with the kernel's backlog."""

    family = 2

    def __init__(self, kernel: Kernel, machine: Machine) -> None:
        super().__init__()
        self._kernel = kernel
        self._machine = machine
        self.backlog: deque[Connection] = deque()
        self.is_open = True

    def connect(self, connection: Connection) -> bool:
        """A client connects; False: refused."""
        if not self.is_open:
            return False
        connection.references += 1
        self.backlog.append(connection)
        self.wake()
        return True

    def is_readable(self) -> bool:
        """Whether somebody waits."""
        return bool(self.backlog)

    def fileno(self) -> int:
        """Return a number; -1 when closed."""
        return 3 if self.is_open else -1

    def getsockname(self) -> tuple[str, int]:
        """Return the address."""
        return "192.0.2.2", 80

    def _accept(self) -> tuple[int, Any]:
        if not self.backlog:
            raise BlockingIOError
        descriptor = self._kernel.give(self._machine, self.backlog[0])
        if descriptor is None:
            raise OSError(24, "Too many open files")
        connection = self.backlog.popleft()
        self._kernel.drop(connection)  # the backlog's own reference; the descriptor keeps it
        return descriptor, ("192.0.2.1", connection.number)

    def close(self) -> None:
        """Close; who waits is refused."""
        self.is_open = False
        while self.backlog:
            self._kernel.drop(self.backlog.popleft())


class _Pipe(Readable):
    """One direction of a handoff pair."""

    def __init__(self) -> None:
        super().__init__()
        self.records: deque[tuple[bytes, list[Connection]]] = deque()
        self.receivers = 0  # ends that can still receive
        self.is_cut = False  # the sender is gone

    def is_readable(self) -> bool:
        return bool(self.records) or self.is_cut


class Handoff:
    """One end of a handoff pair, in one process. The face of `ipc._handoff.HandoffSocket`."""

    def __init__(self, kernel: Kernel, machine: Machine, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._kernel = kernel
        self._machine = machine
        self._in = incoming
        self._out = outgoing
        self._is_open = True
        incoming.receivers += 1
        self.sock = incoming

    @classmethod
    def pair(cls, kernel: Kernel, ours: Machine, theirs: Machine) -> tuple[Handoff, Handoff]:
        """Make both ends."""
        there, back = _Pipe(), _Pipe()
        return cls(kernel, ours, back, there), cls(kernel, theirs, there, back)

    def send(self, record: bytes, descriptors: list[int] | None = None) -> bool:
        """Send a record; False: no room. BrokenPipeError when nobody can receive it."""
        if not self._out.receivers:
            raise BrokenPipeError
        if len(self._out.records) >= _QUEUE_RECORDS:
            return False
        connections = [self._kernel.open[descriptor][1] for descriptor in descriptors or ()]
        for connection in connections:
            connection.references += 1
        self._out.records.append((bytes(record), connections))
        self._out.wake()
        return True

    def receive(self) -> tuple[bytes, list[int]] | None:
        """Return the next record; descriptors for which there is no room are lost."""
        if not self._in.records:
            if self._in.is_cut:
                raise EOFError
            return None
        record, connections = self._in.records.popleft()
        descriptors: list[int] = []
        full = False
        for connection in connections:
            descriptor = None if full else self._kernel.give(self._machine, connection)
            full = descriptor is None
            if descriptor is not None:
                descriptors.append(descriptor)
            self._kernel.drop(connection)
        return record, descriptors

    def copy_for(self, machine: Machine) -> Handoff:
        """Return a second descriptor of the same end, in another process."""
        return Handoff(self._kernel, machine, self._in, self._out)

    def fileno(self) -> int:
        """Return a number; -1 when closed."""
        return 4 if self._is_open else -1

    def close(self) -> None:
        """Close; with the last receiver, what was not received is gone. Safe to call twice."""
        if not self._is_open:
            return
        self._is_open = False
        self._in.receivers -= 1
        if not self._in.receivers:
            while self._in.records:
                for connection in self._in.records.popleft()[1]:
                    self._kernel.drop(connection)
            self._out.is_cut = True
            self._out.wake()


Notify = Callable[[], None]
