"""What a pool says to workers on other machines, and they to it, whichever engine carries it.

What lives here: declarations that both ends read, and the way values are packed for this trip. What must not: Ray, Dask,
what is done with a message. The pool asks, the worker answers:

    work(call, blob, buffers, shared)   run these tasks, in order → frames, buffers, bytes held (or 0)
    peek(to)                            what is done so far? Of the others begin none before number `to` → Peeked
    stop(number, to)                    this task is not wanted any more; of the others begin none → Peeked
    expire(number, timeout_s, to)       has this task run for so long? Then stop it → Peeked, whether it had
    listen()                            wait for what tasks report and yield → [(task, kind, body, buffers)]
    credit(number, items)               a stream may send that many more
    leave()                             run the finalizer; nothing more will come

Rules
* Tasks of one worker are numbered 1, 2, 3 … in the order in which they are sent, and begun in that order.
* A blob is marshal: (definitions, first number, functions, flags, calls, keys of shared values that nobody will name again);
  a definition is (number of the function, pickle).
* A frame is as in `_protocol`, with the task's running time as `ended`, and 0 as `began`: clocks of two machines differ.
* A task of a call that returns without a frame of it was not begun.
* At most two calls are on their way to a worker. What a call's tasks gave stays in its half of the worker's page until the
  call after next begins, so that the page of a worker that was killed tells what had ended, and what it was doing.
* Buffers travel beside a body, which then is marshal: (pickle, first buffer, how many).
"""

from __future__ import annotations

import _pickle
import marshal
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ..errors import UsageError
from . import _protocol as protocol
from ._protocol import FROM_WORKER, JOURNAL_BYTES

HALF_BYTES = JOURNAL_BYTES // 2
SMALL_BYTES = 1024  # a result up to this size is kept in the page, too
LARGE_BYTES = 64 * 1024  # memory from this size travels beside the pickle
_NAMES_MAIN = (b"__main__", b"__mp_main__")  # in a pickle: something that other machines do not have

Dumps = Callable[..., bytes]

RAN = 20  # in the page only: the task has ended, its result was too large to be kept there
EXPIRED_FRAME = 21  # the task ended, or was stopped, after its time was over
DIED = 22  # the process that ran the task has ended: marshal of (signal, exit code)


class Boot(NamedTuple):
    """What a worker needs before its first task."""

    name: str  # of the pool
    number: int  # of the worker within it
    version: str  # of multiloop; both ends must have the same
    python: tuple[int, int]
    path: tuple[str, ...]  # the program's sys.path
    context: tuple[str, ...]
    initializer: bytes | None
    finalizer: bytes | None
    nice: int | None
    tells_rss: bool


class Started(NamedTuple):
    """A worker is ready."""

    pid: int
    host: str
    place: str  # what the engine needs to find the page of this worker later
    page: str  # its path there, "" where there is none


class Peeked(NamedTuple):
    """What a worker is doing."""

    started: int  # the task that it began last; of the others that were sent none will begin
    is_running: bool
    for_ns: int  # how long
    calls: tuple[int, ...]  # numbers of the calls …
    frames: tuple[bytes, ...]  # … and what their tasks have given so far, as far as it is small
    rss: int


class PackedError(Exception):
    """An exception of a task on its way through a process that need not know its type."""

    def __init__(self, packed: bytes) -> None:
        super().__init__(packed)
        self.packed = packed


class NotTheSame(Exception):
    """The other machine's Python or multiloop is another one. The message says which."""


def check_same(boot: Boot, version: str, python: tuple[int, int], host: str) -> None:
    """Raise NotTheSame where marshal and our own frames could be misread."""
    if boot.python != python:
        raise NotTheSame(f"{host} has Python {python[0]}.{python[1]}, this program {boot.python[0]}.{boot.python[1]}")
    if boot.version != version:
        raise NotTheSame(f"{host} has multiloop {version}, this program {boot.version}")


def pack_far(value: Any, cloud: Callable[[], Dumps]) -> tuple[bytes, list[Any]]:
    """Pickle a value; returns the pickle and the large memory beside it (as PickleBuffers).

    `cloud` finds cloudpickle's `dumps`, which is used for what only this program has: it travels by value.
    """
    kind = type(value)
    if _is_large_bytes(value):
        value = _Bytes(value)
    elif kind is tuple or kind is list:
        value = kind([_Bytes(item) if _is_large_bytes(item) else item for item in value])
    try:
        body, buffers = _dump(_pickle.dumps, value)
    except UsageError:
        raise
    except Exception as reason:
        try:
            return _dump(cloud(), value)
        except Exception:
            raise reason from None  # it says more
    if any(name in body for name in _NAMES_MAIN):
        return _dump(cloud(), value)
    return body, buffers


def _dump(dumps: Dumps, value: Any) -> tuple[bytes, list[Any]]:
    buffers: list[Any] = []

    def keep(buffer: Any) -> bool:
        if buffer.raw().nbytes < LARGE_BYTES:
            return True  # in band
        buffers.append(buffer)
        return False

    return dumps(value, 5, buffer_callback=keep), buffers


def _is_large_bytes(value: Any) -> bool:
    return type(value) in (bytes, bytearray) and len(value) >= LARGE_BYTES


class _Bytes:
    """Stands for bytes in a pickle, and makes them travel beside it."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self._value = value

    def __reduce_ex__(self, version: Any) -> Any:
        return type(self._value), (pickle.PickleBuffer(self._value),)


def frames_in(data: bytes | memoryview) -> Iterator[tuple[int, int, int, memoryview]]:
    """Iterate (kind, task, nanoseconds, body) of what a call gave."""
    view = memoryview(data)
    position = 0
    while position < len(view):
        kind, size, number, _, took_ns = FROM_WORKER.unpack_from(view, position)
        position += FROM_WORKER.size
        yield kind, number, took_ns, view[position : position + size]
        position += size


def frame(kind: int, number: int, took_ns: int, body: bytes) -> bytes:
    """Make one."""
    return FROM_WORKER.pack(kind, len(body), number, 0, took_ns) + body


def value_frame(number: int, took_ns: int, value: Any, cloud: Callable[[], Dumps], buffers: list[Any]) -> bytes:
    """Make the frame of a result; its large memory is added to `buffers`."""
    if type(value) in protocol.PLAIN_TYPES:
        return frame(protocol.PLAIN, number, took_ns, marshal.dumps(value, 2))
    body, own = pack_far(value, cloud)
    if not own:
        return frame(protocol.VALUE, number, took_ns, body)
    head = marshal.dumps((body, len(buffers), len(own)))
    buffers += own
    return frame(protocol.VALUE_PARCEL, number, took_ns, head)


def value_of(kind: int, body: memoryview, buffers: Sequence[Any]) -> Any:
    """Make the value of a frame again."""
    if kind == protocol.PLAIN:
        return marshal.loads(body)
    if kind == protocol.VALUE:
        return _pickle.loads(body)
    pickled, first, count = marshal.loads(body)
    return _pickle.loads(pickled, buffers=[bytearray(each) for each in buffers[first : first + count]])


def load(body: bytes, buffers: Sequence[Any]) -> Any:
    """Make a reported or yielded value again."""
    return _pickle.loads(body, buffers=[bytearray(each) for each in buffers])
