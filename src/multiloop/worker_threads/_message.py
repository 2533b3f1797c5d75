"""Messages: a value, packed at the sender and unpacked at the receiver.

What lives here: `pack` and `unpack`, and the promises about copies and transfer lists. What must not: sockets
(`_link`), what ports and shared buffers do when they travel (they do it in `__reduce_ex__`).

    pack:    transfer list checked → pickled → large parts into memory of their own → transfer list detached
    unpack:  buffers mapped → unpickled on top of them

    memory:  pickle │ up to the next page │ buffer │ … │ buffer        each buffer aligned to 64 bytes

Rules
* What is packed is a snapshot. Parts from 64 KiB on (buffers of arrays, bytes, the pickle itself) are copied once, into
  memory that travels by its descriptor; arrays at the receiver are views of it. Python's own `bytes`, `bytearray` and
  `array.array` must own their memory: the receiver reads those out of it, without mapping what it reads.
* A transfer list is all or nothing: whatever fails, nothing was detached and nothing was sent.
"""

from __future__ import annotations

import array
import copyreg
import io
import mmap
import os
import pickle
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from .._limits import MAX_MESSAGE_BYTES, OUT_OF_BAND_MIN_BYTES
from .._wire._explain import path_to_unpicklable
from ..errors import FrameError, FrameTooLarge, NotSendable, TransferError
from . import _marks, _memory
from ._transit import Receiver, Receiving, Sending

INLINE, IN_MEMORY, IN_MEMORY_OF_MANY = 1, 2, 3  # frame kinds
KINDS = (INLINE, IN_MEMORY, IN_MEMORY_OF_MANY)

_ALIGN = 64
_PAGE_BYTES = mmap.ALLOCATIONGRANULARITY
_READ_BYTES = 64 * 1024
_SIZES = struct.Struct("<QQI")  # of the memory, of the pickle at its beginning, number of buffers; then their sizes


class Parcel(NamedTuple):
    """A packed message. The descriptors belong to whoever holds it."""

    kind: int
    body: bytes
    fds: list[int]
    memory_bytes: int = 0  # what it occupies beside the frame until the receiver has unpacked it


def pack(
    value: Any,
    transfer_list: Sequence[Any] = (),
    *,
    receiver: Receiver | None = None,
    sender: Any = None,
    for_many: bool = False,
    max_bytes: int = MAX_MESSAGE_BYTES,
) -> Parcel:
    """Pack a value, and detach what is in the transfer list.

    Args:
        receiver: the worker it goes to, where that is known.
        sender: the port it is posted on, which cannot travel in its own message.
        for_many: several will unpack it: none may see what another writes to it.

    Raises:
        NotSendable: a part cannot be pickled; the message names the path to it.
        TransferError: the transfer list cannot be honoured.
        FrameTooLarge: it is larger than `max_bytes`.
        OSError: no memory or descriptor is left.
        In each case nothing was detached.
    """
    if transfer_list:
        _check_transfer_list(transfer_list, sender)
    elif type(value) in _SIMPLE and not receiver:
        body = pickle.dumps(value, 5)
        if len(body) < OUT_OF_BAND_MIN_BYTES:
            return Parcel(INLINE, body, [])
    transit = Sending(receiver, transfer_list)
    try:
        pieces, buffers = _pickle(value, transit)
        for each in transfer_list:
            if not isinstance(each, bytearray) and id(each) in transit.transferred:
                raise TransferError(f"{each!r} is in transfer_list, but not in the message: it would be lost")
        parcel = _parcel(pieces, buffers, transit.fds, for_many, max_bytes)
    except BaseException:
        transit.roll_back()
        raise
    del buffers
    for each in transfer_list:
        if isinstance(each, bytearray):
            each.clear()
        else:
            each._detach()
    return parcel


_SIMPLE = frozenset({int, str, float, bool, type(None)})


def _check_transfer_list(transfer_list: Sequence[Any], sender: Any) -> None:
    if isinstance(transfer_list, str | bytes | bytearray):
        raise TransferError("transfer_list is a list of objects: transfer_list=[...]")
    seen: set[int] = set()
    for each in transfer_list:
        if id(each) in seen:
            raise TransferError(f"{each!r:.80} is in transfer_list twice")
        seen.add(id(each))
        if _marks.is_marked_as_untransferable(each):
            raise TransferError(f"{each!r:.80} was marked as not transferable")
        if isinstance(each, bytearray):
            _check_resizable(each)
        elif hasattr(each, "_check_transferable"):
            if each is sender:
                raise TransferError("a port cannot be transferred in a message on itself")
            each._check_transferable(sender)
        else:
            raise TransferError(
                f"transfer_list: a {type(each).__name__} cannot be transferred, only MessagePort, SharedBuffer and "
                "bytearray can; leave it out: other values are copied"
            )


def _check_resizable(value: bytearray) -> None:
    """Whether it can be cleared: not while a view of it exists. Shortening it by one asks without a copy."""
    if value:
        try:
            last = value.pop()
        except BufferError:
            raise TransferError(
                "a bytearray in transfer_list has views that are still in use: delete them first"
            ) from None
        value.append(last)


# --- pickling ---------------------------------------------------------------------------------------------------------
class _Pieces:
    """What the pickler writes to. Large bytes objects come as they are, not copied into a larger pickle."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any], None]) -> None:
        self.write = write


def _pickle(value: Any, transit: Sending) -> tuple[list[bytes], list[memoryview]]:
    pieces: list[bytes] = []
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND_MIN_BYTES:
            return True  # in band
        buffers.append(raw)
        return False

    pickler = _pickler(pieces.append, keep)
    with transit:
        try:
            pickler.dump(value)
        except TransferError:
            raise
        except Exception as error:
            path, culprit = path_to_unpicklable(value, can_be_pickled=_can_be_sent)
            raise NotSendable(path, culprit, error) from error
    return pieces, buffers


def _can_be_sent(value: Any) -> bool:
    """Whether a part could be sent by itself; nothing of the attempt remains."""
    attempt = Sending()
    attempt.accepts_everything = True
    try:
        _pickle_only(value, attempt)
    except Exception:
        return False
    finally:
        attempt.roll_back()
    return True


def _pickle_only(value: Any, transit: Sending) -> None:
    with transit:
        _pickler(lambda _: None, lambda buffer: not buffer.raw()).dump(value)


def _pickler(write: Callable[[Any], None], keep: Callable[[pickle.PickleBuffer], bool]) -> pickle.Pickler:
    kind = _CheckingPickler if _marks.has_uncloneable() else pickle.Pickler
    pickler = kind(_Pieces(write), 5, buffer_callback=keep)
    pickler.dispatch_table = {**copyreg.dispatch_table, **_REDUCERS}
    return pickler


class _CheckingPickler(pickle.Pickler):
    """Asks of each object whether it is marked: slower, and used only while something is."""

    def persistent_id(self, obj: Any) -> None:
        if _marks.is_marked_as_uncloneable(obj):
            raise TypeError("it was marked as not cloneable")


def _reduce_array(value: array.array[Any]) -> Any:
    return _rebuild_array, (value.typecode, pickle.PickleBuffer(value))


def _rebuild_array(typecode: str, data: Any) -> array.array[Any]:
    made = array.array(typecode)
    made.frombytes(data)
    return made


def _reduce_view(value: memoryview) -> Any:
    if not value.c_contiguous or len(value.format) != 1 or value.format == "P":
        raise TypeError(f"a memoryview travels if it is contiguous and of a plain format, not {value.format!r}")
    shape = None if value.ndim == 1 else value.shape
    return _rebuild_view, (pickle.PickleBuffer(value), value.format, shape)


def _rebuild_view(data: Any, format_: Any, shape: tuple[int, ...] | None) -> memoryview:
    view = memoryview(data).cast("B")
    return view.cast(format_) if shape is None else view.cast(format_, shape)


_REDUCERS: dict[type, Callable[[Any], Any]] = {array.array: _reduce_array, memoryview: _reduce_view}


# --- layout -----------------------------------------------------------------------------------------------------------
def _parcel(pieces: list[bytes], buffers: list[memoryview], fds: list[int], for_many: bool, max_bytes: int) -> Parcel:
    pickled = sum(map(len, pieces))
    if not buffers and pickled < OUT_OF_BAND_MIN_BYTES:
        return Parcel(INLINE, pieces[0] if len(pieces) == 1 else b"".join(pieces), fds)
    sizes = [buffer.nbytes for buffer in buffers]
    if pickled + sum(sizes) > max_bytes:
        raise FrameTooLarge(pickled + sum(sizes), max_bytes)
    parts: list[bytes | memoryview] = list(pieces)
    at = pickled
    align = _PAGE_BYTES
    for buffer, size in zip(buffers, sizes, strict=True):
        parts += (bytes(-at % align), buffer)
        at += -at % align + size
        align = _ALIGN
    memory = _memory.create_filled(parts, at, "message")
    fds.append(memory)
    body = _SIZES.pack(at, pickled, len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes)
    return Parcel(IN_MEMORY_OF_MANY if for_many else IN_MEMORY, body, fds, at)


def unpack(kind: int, body: bytes | bytearray | memoryview, fds: Iterable[int]) -> Any:
    """Unpack a message. The descriptors belong to this call; all of them are taken or closed when it returns.

    Raises whatever the classes in it raise, and FrameError for a message that is none.
    """
    with Receiving(fds) as transit:
        if kind == INLINE:
            return pickle.loads(body)
        total, pickled, count = _SIZES.unpack_from(body)
        sizes = struct.unpack_from(f"<{count}Q", body, _SIZES.size)
        memory_fd = transit.take(len(transit.fds) - 1)
        try:
            if not _memory.is_sealed(memory_fd):
                raise FrameError("a large message came in memory that is not sealed")
            buffers: list[memoryview] = []
            if sizes:
                at = pickled + -pickled % _PAGE_BYTES
                whole = memoryview(_memory.map_message(memory_fd, at, total, is_own=kind == IN_MEMORY))
                for size in sizes:
                    buffers.append(whole[:size])
                    whole = whole[size + -size % _ALIGN :]
            with io.BufferedReader(_memory.Reader(memory_fd), _READ_BYTES) as file:
                return pickle.load(file, buffers=buffers)
        finally:
            os.close(memory_fd)


def memory_bytes(kind: int, body: bytes | bytearray | memoryview) -> int:
    """What a packed message occupies beside its frame."""
    if kind == INLINE:
        return 0
    return int(_SIZES.unpack_from(body)[0])
