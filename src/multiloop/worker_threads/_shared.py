"""`SharedBuffer`: memory that every kind of worker sees, without a copy.

What lives here: the buffer, its registration as a member, how it travels. What must not: atomic operations
(`_atomic_ops`), the head's layout (`_head`), messages (`_message`).

    descriptor (memfd, sealed) ── map of the head (members, waiters) + map of the data: the buffer itself

Rules
* The size never changes: nobody can make another's map fault. Nothing has a name, so nothing can be left behind.
* In one place (main program or worker) a buffer is one object: receiving it again gives the same object.
* Dropped or closed, it lets go of its memory and descriptors at once: it keeps no view of itself, which would be a cycle.
  It leaves the list of members; a worker that ends while it has it open counts as a death.
"""

from __future__ import annotations

import functools
import mmap
import os
import weakref
from typing import TYPE_CHECKING, Any, cast

from ..errors import ClosedError, FrameError, TransferError, UsageError
from . import _memory
from ._head import HEAD_BYTES, LOCKED, NATIVE, Head, Identity, Member, read_identity, start_time, write_identity
from ._locked import LockedAtomics
from ._place import current
from ._primitives import Primitives, native
from ._transit import receiving, sending

if TYPE_CHECKING:
    import numpy

ITEM_BYTES = {"i": 4, "I": 4, "q": 8, "Q": 8, "B": 1}
_NUMPY_TYPES = {"i": "i4", "I": "u4", "q": "i8", "Q": "u8", "B": "u1"}
_own_start: dict[int, int] = {}  # of this process, by pid: a fork has another


def own_start() -> int:
    """When this process started, as `_head.start_time` tells it."""
    pid = os.getpid()
    if pid not in _own_start:
        _own_start[pid] = start_time(pid)
    return _own_start[pid]


class Attachment:
    """What keeps a buffer open here: the descriptor, the mapped head, the entry in the list of members."""

    __slots__ = ("fd", "head", "identity", "member", "pid")

    def __init__(self, fd: int, identity: Identity, reserved: Member | None = None) -> None:
        self.fd = fd
        self.identity = identity
        self.head = Head(fd, _operations(fd, identity))
        self.pid = os.getpid()
        adopted = self.head.adopt(reserved) if reserved is not None else None
        try:
            self.member = adopted or self.head.join(self.pid, own_start())
        except BaseException:
            self.head.close()
            raise

    def end(self, *, died: bool = False) -> None:
        """Leave the members and let go of everything. Safe to call twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            if os.getpid() == self.pid:  # a fork has the memory, but is no member
                self.head.leave(self.member, died=died)
            self.head.close()
            if isinstance(self.head.ops, LockedAtomics):
                self.head.ops.close()
            os.close(fd)


def _operations(fd: int, identity: Identity) -> Primitives:
    if identity.form == LOCKED:
        return LockedAtomics(fd)
    compiled = native()
    if compiled is None:
        raise UsageError(
            "this SharedBuffer was made where the compiled atomic operations are, and they are missing here: "
            "build the extension here too, or set MULTILOOP_PURE=1 for all"
        )
    return compiled


class SharedBuffer(mmap.mmap):
    """Memory shared by all workers that it is sent to: what one writes, the others read, without a copy.

    `post_message(buffer)` shares it; with `transfer_list=[buffer]` it is closed here. `memoryview(buffer)` gives its
    bytes, `buffer.view` its elements, `buffer.numpy()` an array; all of them are the memory itself. `buffer[i]`,
    `len(buffer)` and the `Atomics` count elements of the format.

    Args:
        size_bytes: its size, a multiple of the element's. It begins zeroed and never changes.
        format: "q" and "Q" (64 bits, signed and unsigned), "i" and "I" (32 bits), "B" or "bytes" (bytes).

    Raises:
        UsageError: an unknown format, or a size that is not a multiple of its elements.
        OSError: no memory or no descriptor is left.
    """

    _attachment: Attachment

    def __new__(cls, size_bytes: int, format: str = "q") -> SharedBuffer:  # noqa: A002
        code = "B" if format == "bytes" else format
        if code not in ITEM_BYTES:
            raise UsageError(f"SharedBuffer(format={format!r}): use i, I, q, Q or bytes")
        if size_bytes < 1 or size_bytes % ITEM_BYTES[code]:
            raise UsageError(
                f"SharedBuffer({size_bytes}): the size is in bytes, at least 1 and a multiple of {ITEM_BYTES[code]} "
                f"for the format {code!r}"
            )
        fd = _memory.create(HEAD_BYTES + size_bytes, "shared")
        return cls._open(fd, write_identity(fd, code, LOCKED if native() is None else NATIVE, size_bytes))

    @classmethod
    def _open(cls, fd: int, identity: Identity, reserved: Member | None = None) -> SharedBuffer:
        """Open a descriptor, which belongs to the buffer from now on."""
        try:
            attachment = Attachment(fd, identity, reserved)
        except BaseException:
            os.close(fd)
            raise
        try:
            self = mmap.mmap.__new__(cls, fd, identity.size_bytes, offset=HEAD_BYTES, **_memory.NO_DESCRIPTOR)
        except BaseException:
            attachment.end()
            raise
        self._attachment = attachment
        weakref.finalize(self, attachment.end).atexit = False
        current().buffers[identity.id] = self
        return self

    # -- looking ---------------------------------------------------------------------------------------------------
    @property
    def format(self) -> str:
        """The format of its elements: i, I, q, Q or B."""
        return self._attachment.identity.format

    @property
    def size_bytes(self) -> int:
        """Its size in bytes; `len()` counts elements."""
        return self._attachment.identity.size_bytes

    @property
    def view(self) -> memoryview:
        """A new memoryview of its elements. While one exists, the buffer can be neither closed nor transferred."""
        return self._open_cells()

    def numpy(self) -> numpy.ndarray[Any, Any]:
        """A NumPy array of its elements: the memory itself, no copy. Keeps the buffer open as a view does."""
        import numpy

        self._open_cells()
        return numpy.frombuffer(cast(Any, self), dtype=_NUMPY_TYPES[self.format])

    def __len__(self) -> int:
        return self.size_bytes // ITEM_BYTES[self.format]

    def __getitem__(self, index: Any) -> Any:
        return self._open_cells()[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._open_cells()[index] = value

    def __iter__(self) -> Any:
        return iter(self._open_cells())

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.size_bytes} bytes"
        return f"<SharedBuffer {state}, format {self.format}>"

    def _open_cells(self) -> memoryview:
        if self.closed:
            raise ClosedError("this SharedBuffer was closed, or transferred to another worker")
        return memoryview(self).cast(cast(Any, self._attachment.identity.format))

    # -- the end ---------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Let go of it here; the others keep it. Safe to call twice.

        Raises BufferError when a view or an array of it is still in use here: delete those first.
        """
        if self.closed:
            return
        try:
            super().close()
        except BufferError:
            raise BufferError("views or arrays of this SharedBuffer are still in use: delete them first") from None
        self._forget()

    def __exit__(self, *exc: object) -> None:
        self.close()  # mmap's own would not let go of the rest

    def _abandon(self) -> None:
        """The worker ends while the buffer is open here: those who wait for it shall know."""
        self._attachment.end(died=True)
        try:
            self.close()
        except BufferError:
            pass  # the program's own views of it go with the interpreter

    def _forget(self) -> None:
        buffers = current().buffers
        if buffers.get(self._attachment.identity.id) is self:
            del buffers[self._attachment.identity.id]
        self._attachment.end()

    # -- travelling ------------------------------------------------------------------------------------------------
    def _check_transferable(self, sender: Any) -> None:
        """Raise TransferError unless it could be closed now; changes nothing."""
        if self.closed:
            raise TransferError("a SharedBuffer in transfer_list is closed, or was transferred before")
        try:
            super().resize(self.size_bytes)  # its own size: only asks whether anything holds on to the map
        except ValueError:
            pass  # nothing does, and a map without a descriptor has no other size
        except BufferError:
            raise TransferError(
                "a SharedBuffer in transfer_list has views or arrays that are still in use: delete them first"
            ) from None

    def __reduce_ex__(self, protocol: Any) -> Any:
        transit = sending("a SharedBuffer")
        self._open_cells()
        transit.found(self)
        reserved: Member | None = None
        if (receiver := transit.receiver) is not None:
            reserved = receiver.reserve(self)
            if reserved is not None:
                transit.undo.append(functools.partial(receiver.forget, self))
        return _received, (transit.attach(self._attachment.fd), reserved)

    def _give_up(self, member: Member) -> None:
        """A receiver has ended: its entry counts as a death, unless it is another's by now."""
        if not self.closed:
            self._attachment.head.leave(member, died=True)

    def _detach(self) -> None:
        """It was transferred: close it here."""
        self.close()

    def __copy__(self) -> SharedBuffer:
        raise UsageError("a SharedBuffer cannot be copied: it is shared. bytes(buffer) copies its content")

    def __deepcopy__(self, memo: Any) -> SharedBuffer:
        return self.__copy__()


def _received(position: int, reserved: Member | None) -> SharedBuffer:
    return open_shared(receiving().take(position), reserved)


def open_shared(fd: int, reserved: Member | None = None) -> SharedBuffer:
    """Return the buffer behind a descriptor, which is taken over. Raises FrameError for one that could be shrunk."""
    try:
        if not _memory.is_sealed(fd):
            raise FrameError("a received SharedBuffer is not sealed: its maker could shrink it under our feet")
        identity = read_identity(fd)
    except BaseException:
        os.close(fd)
        raise
    known = current().buffers.get(identity.id)
    if known is None or known.closed:
        return SharedBuffer._open(fd, identity, reserved)
    os.close(fd)
    if reserved is not None:
        known._attachment.head.leave(reserved)
    return known
