"""The head of a SharedBuffer: what everybody who has it open can read and write.

What lives here: the layout, and who is attached. What must not: waiting (`_waiters`), the buffer's own data.

    0      identity   magic, format, form of the atomic operations, size, 16 random bytes
    64     words      next ticket, number of waiters, deaths
    128    members    256 of (pid, stamp, start time): one for each place (process, interpreter, thread) that has it open
    4224   states     256 words: the states of the waiters
    5248   waiters    256 of (index, ticket, beat)

Rules
* A member's entry is claimed by setting its pid from 0, and given up by the one whose stamp is in it. A process is
  known by its pid and start time: a pid that was used again is another process.
* `deaths` counts members that went without giving up their entry, or ended as workers while they held it.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple

from ..errors import FrameError, LimitError
from ._memory import NO_DESCRIPTOR
from ._primitives import Primitives

HEAD_BYTES = 16 * 1024  # a multiple of every platform's granularity for maps
MAX_MEMBERS = 256
MAX_WAITERS = 256

_IDENTITY = struct.Struct("<8scxxxIQ16s")
_MAGIC = b"mlshared"
NATIVE, LOCKED = 0, 1  # forms of the atomic operations

TICKET, WAITERS, DEATHS = 8, 9 * 2, 9 * 2 + 1  # TICKET counts 64-bit words, the others 32-bit words
_MEMBERS_WORD = 128 // 4
_MEMBER_WORDS = 4
STATES_WORD = 4224 // 4
INFO_WIDE = 5248 // 8
INFO_WIDES = 3

_CLAIMING = 0xFFFFFFFF  # in place of a pid while an entry is filled


class Identity(NamedTuple):
    """What a buffer is: unchangeable from its creation on."""

    format: str
    form: int  # NATIVE or LOCKED
    size_bytes: int
    id: bytes


class Member(NamedTuple):
    """An entry in the list of members, and the stamp that proves whose it is."""

    slot: int
    stamp: int


def write_identity(fd: int, format: str, form: int, size_bytes: int) -> Identity:  # noqa: A002
    """Begin a new buffer's head."""
    identity = Identity(format, form, size_bytes, os.urandom(16))
    os.pwrite(fd, _IDENTITY.pack(_MAGIC, format.encode(), form, size_bytes, identity.id), 0)
    return identity


def read_identity(fd: int) -> Identity:
    """Read what a received descriptor is. Raises FrameError when it is no SharedBuffer."""
    data = os.pread(fd, _IDENTITY.size, 0)
    if len(data) == _IDENTITY.size:
        magic, format_, form, size_bytes, identity = _IDENTITY.unpack(data)
        if magic == _MAGIC and os.fstat(fd).st_size == HEAD_BYTES + size_bytes:
            return Identity(format_.decode(), form, size_bytes, identity)
    raise FrameError("a received descriptor is not a SharedBuffer")


class Head:
    """The mapped head: `words` (32 bits) and `wides` (64 bits) are two views of the same memory."""

    __slots__ = ("_map", "ops", "wides", "words")

    def __init__(self, fd: int, ops: Primitives) -> None:
        self._map = mmap.mmap(fd, HEAD_BYTES, **NO_DESCRIPTOR)
        self.words = memoryview(self._map).cast("I")
        self.wides = memoryview(self._map).cast("Q")
        self.ops = ops

    def close(self) -> None:
        """Unmap it. Not while somebody waits: the buffer itself holds that off."""
        self.words.release()
        self.wides.release()
        self._map.close()

    # -- members ---------------------------------------------------------------------------------------------------
    def join(self, pid: int, started: int) -> Member:
        """Enter a process into the list of members. Raises LimitError when the list is full of living ones."""
        for attempt in range(2):
            for slot in range(MAX_MEMBERS):
                at = _MEMBERS_WORD + slot * _MEMBER_WORDS
                if not self.words[at] and not self.ops.compare_exchange(self.words, at, 0, _CLAIMING):
                    stamp = _new_stamp()
                    self.words[at + 1] = stamp
                    self.wides[at // 2 + 1] = started
                    self.ops.store(self.words, at, pid)
                    return Member(slot, stamp)
            if attempt == 0:
                self.bury_the_dead()
        raise LimitError(f"a SharedBuffer can be open in at most {MAX_MEMBERS} workers at a time: close some")

    def assign(self, member: Member, pid: int, started: int) -> None:
        """Give an entry that was prepared to the process that it is for, before that can have adopted it."""
        at = _MEMBERS_WORD + member.slot * _MEMBER_WORDS
        if self.words[at + 1] == member.stamp:
            self.wides[at // 2 + 1] = started
            self.ops.store(self.words, at, pid)

    def leave(self, member: Member, *, died: bool = False) -> bool:
        """Give an entry up; False when it is not this member's any more."""
        at = _MEMBERS_WORD + member.slot * _MEMBER_WORDS
        stamp = self.ops.compare_exchange(self.words, at + 1, member.stamp, 0)
        if stamp != member.stamp:
            return False
        if died:
            self.ops.add(self.words, DEATHS, 1)
        self.ops.store(self.words, at, 0)
        return True

    def adopt(self, member: Member) -> Member | None:
        """Make an entry that the sender prepared one's own: under a new stamp, which the sender does not know."""
        at = _MEMBERS_WORD + member.slot * _MEMBER_WORDS
        stamp = _new_stamp()
        if self.ops.compare_exchange(self.words, at + 1, member.stamp, stamp) != member.stamp:
            return None
        return Member(member.slot, stamp)

    def bury_the_dead(self) -> None:
        """Give up the entries of processes that have ended."""
        own = os.getpid()
        for slot, (pid, stamp, started) in enumerate(self._members()):
            if pid and pid != own and pid != _CLAIMING and not is_alive(pid, started):
                self.leave(Member(slot, stamp), died=True)

    def is_forsaken(self, own: Member) -> bool:
        """Whether at least one member died and no other is left: nobody will ever notify."""
        self.bury_the_dead()
        if not self.ops.load(self.words, DEATHS):
            return False
        return not any(pid for slot, (pid, _, _) in enumerate(self._members()) if slot != own.slot)

    def _members(self) -> list[tuple[int, int, int]]:
        data = bytes(self._map[128 : 128 + MAX_MEMBERS * 16])
        return [(pid, stamp, started) for pid, stamp, started in struct.iter_unpack("<IIQ", data)]


def _new_stamp() -> int:
    return int.from_bytes(os.urandom(4), "little") | 1


def start_time(pid: int) -> int:
    """When a process started, in the kernel's ticks; 0 where that is not known, or it has ended."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def is_alive(pid: int, started: int) -> bool:
    """Whether the process that had this pid then still runs (a zombie does not)."""
    fields = _stat(pid)
    if fields is not None:
        return bool(fields) and fields[0] not in ("Z", "X") and (not started or int(fields[19]) == started)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat behind the name; [] when there is no such process, None without a /proc."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return [] if os.path.exists("/proc/self/stat") else None
