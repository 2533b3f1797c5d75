"""Messages to a worker by its id, from anywhere in the tree: `post_message_to_thread`.

What lives here: the desk of each place that sends, passes on, delivers and answers. What must not: which link leads where
(`_exchange`), packing (`_message`).

    post ─▶ desk ─ up ─▶ … the place that both are below … ─ down ─▶ desk ─▶ 'worker_message' listeners
                    ◀──────────────────── answer: handled, or why not ────────────┘
"""

from __future__ import annotations

import itertools
import marshal
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from .._limits import MAX_MESSAGE_BYTES
from ..errors import NotDelivered, UsageError
from ..events import EventEmitter, Listener
from ..loop import AnyOperation, ErrorFirst, begin, hub
from ._exchange import Exchange
from ._link import Link, Packet
from ._message import pack, unpack
from ._place import Place
from ._transit import close_all
from ._words import DIRECT

_EVENT = "worker_message"
_SIZE = struct.Struct("<H")  # of the marshalled head, which comes first
_HANDLED, _NO_LISTENER, _RAISED = 0, 1, 2


class _Head(NamedTuple):
    """What stands before the packed value. An answer has an outcome and a text instead of a value."""

    target: int
    source: int
    number: int  # of the message, at its source
    kind: int  # of the packed value; of an answer: its outcome
    is_answer: bool = False


class _Listeners(EventEmitter):
    """Who listens in this place; the tree is told whether anybody does."""

    def __init__(self, desk: DirectDesk) -> None:
        self._desk = desk

    def _listeners_changed(self, name: Any, count: int) -> None:
        if name == _EVENT:
            self._desk.listening(count > 0)


class DirectDesk:
    """One place's part in direct messages."""

    def __init__(self, place: Place, exchange: Exchange) -> None:
        self.listeners = _Listeners(self)
        self._place = place
        self._exchange = exchange
        self._numbers = itertools.count(1)
        self._waiting: dict[int, AnyOperation[None]] = {}
        self._passed_down: dict[tuple[int, int], Link] = {}  # (source, number): not answered yet
        self._is_listening = False

    def listening(self, wanted: bool) -> None:
        """The first listener came, or the last one left."""
        if wanted == self._is_listening:
            return
        self._is_listening = wanted
        name = _name_of(self._place.thread_id)
        if wanted:
            self._exchange.open(name, self)
            self._exchange.use()
        else:
            self._exchange.close(name, self)

    def take_broadcast(self, packet: Packet) -> None:
        """Nobody broadcasts under these names."""
        close_all(packet.fds)

    # -- sending ---------------------------------------------------------------------------------------------------
    def post(
        self,
        thread_id: int,
        value: Any,
        transfer_list: Sequence[Any],
        timeout_s: float | None,
        callback: ErrorFirst | None,
    ) -> AnyOperation[None]:
        if thread_id == self._place.thread_id:
            raise UsageError(f"post_message_to_thread({thread_id}): that is this place itself")
        here = hub()
        failure = self._failure(thread_id)
        if failure is not None:  # nothing is transferred
            refused: AnyOperation[None] = begin(callback, here)
            here.loop.call_soon(refused._fail, failure)
            return refused
        kind, body, fds, _ = pack(value, transfer_list, max_bytes=MAX_MESSAGE_BYTES)
        op: AnyOperation[None] = begin(callback, here)
        number = next(self._numbers)
        self._waiting[number] = op
        op._stop = lambda: self._waiting.pop(number, None)
        if timeout_s is not None:
            here.loop.call_later(timeout_s, self._time_is_over, number, thread_id, timeout_s)
        self._exchange.use()  # the answer may come from the parent
        self._forward(_Head(thread_id, self._place.thread_id, number, kind), body, fds)
        return op

    def _time_is_over(self, number: int, thread_id: int, timeout_s: float) -> None:
        op = self._waiting.pop(number, None)
        if op is not None:
            op._fail(TimeoutError(f"worker {thread_id} did not handle the message within {timeout_s:g} s"))

    def _failure(self, target: int) -> NotDelivered | None:
        """Why a message cannot go there, as far as this place can tell."""
        link = self._exchange.route(target)
        if link is None:
            return NotDelivered(f"there is no worker {target}")
        if link is not self._place.control and not self._exchange.is_wanted_by(link, _name_of(target)):
            return NotDelivered(f"worker {target} has no 'worker_message' listener")
        return None

    def _forward(self, head: _Head, body: bytes, fds: list[int]) -> None:
        link = self._exchange.route(head.target)
        if link is None:  # it has ended meanwhile
            close_all(fds)
            return
        if not head.is_answer and link is not self._place.control:
            self._passed_down[(head.source, head.number)] = link
        packed = marshal.dumps(tuple(head))
        link.send(DIRECT, _SIZE.pack(len(packed)) + packed + body, fds)

    # -- passing on and receiving ----------------------------------------------------------------------------------
    def arrived(self, link: Link, packet: Packet) -> None:
        """A message or an answer came from a neighbour."""
        size = _SIZE.unpack_from(packet.body)[0]
        head = _Head(*marshal.loads(packet.body[_SIZE.size : _SIZE.size + size]))
        body = bytes(packet.body[_SIZE.size + size :])
        if head.is_answer:
            self._passed_down.pop((head.target, head.number), None)
            if head.target == self._place.thread_id:
                self._settle(head, body)
            else:
                self._forward(head, body, [])
        elif packet.lost:
            self._answer(head, _NO_LISTENER, f"the buffers of the message were lost on the way to worker {head.target}")
        elif head.target == self._place.thread_id:
            self._deliver(head, body, list(packet.fds))
        elif (failure := self._failure(head.target)) is not None:
            close_all(packet.fds)
            self._answer(head, _NO_LISTENER, str(failure))
        else:
            if link is not self._place.control:
                self._exchange.use()  # its answer may come from the parent
            self._forward(head, body, list(packet.fds))

    def _deliver(self, head: _Head, body: bytes, fds: list[int]) -> None:
        if not self._is_listening:
            close_all(fds)
            self._answer(head, _NO_LISTENER, f"worker {head.target} has no 'worker_message' listener")
            return

        def handle() -> None:
            try:
                self.listeners.emit(_EVENT, unpack(head.kind, body, fds), head.source)
            except Exception as error:
                self._answer(head, _RAISED, f"worker {head.target} raised {type(error).__name__}: {error}")
            else:
                self._answer(head, _HANDLED, "")

        hub().call(handle)

    def _answer(self, head: _Head, outcome: int, text: str) -> None:
        self._passed_down.pop((head.source, head.number), None)
        answer = _Head(head.source, head.target, head.number, outcome, is_answer=True)
        if answer.target == self._place.thread_id:
            self._settle(answer, text.encode())
        else:
            self._forward(answer, text.encode(), [])

    def _settle(self, answer: _Head, body: bytes) -> None:
        op = self._waiting.pop(answer.number, None)
        if op is None:
            return  # cancelled, or out of time
        if answer.kind == _HANDLED:
            op._succeed(None)
        else:
            op._fail(NotDelivered(body.decode(), has_raised=answer.kind == _RAISED))

    def neighbour_left(self, link: Link) -> None:
        """A worker has ended: what was on its way to it, or through it, gets no answer any more."""
        for (source, number), passed_to in list(self._passed_down.items()):
            if passed_to is link:
                del self._passed_down[(source, number)]
                gone = _Head(source, 0, number, _NO_LISTENER, is_answer=True)
                text = b"the worker ended before it had handled the message"
                if source == self._place.thread_id:
                    self._settle(gone, text)
                else:
                    self._forward(gone, text, [])


def _name_of(thread_id: int) -> str:
    """Under which name a place tells its parents that it listens. No channel of a user has it."""
    return f"\0worker {thread_id}"


def _desk() -> DirectDesk:
    from ._crossing import exchange_of
    from ._place import current

    found = exchange_of(current()).direct
    assert isinstance(found, DirectDesk)
    return found


# --- the public functions ---------------------------------------------------------------------------------------------
def post_message_to_thread(
    thread_id: int,
    value: Any,
    transfer_list: Sequence[Any] = (),
    timeout: float | None = None,
    *,
    callback: ErrorFirst | None = None,
) -> Any:
    """Send a copy of `value` to any worker of the tree, 0 being the main program; done when its listeners have run.

    Over there: `worker_threads.on("worker_message", lambda value, source: ...)`, which keeps nothing running.

    Args:
        timeout: seconds; None waits for ever.

    Raises, when called:
        UsageError: it is addressed to this place itself.
        NotSendable, TransferError, FrameTooLarge: as `MessagePort.post_message`.
    Raises, when awaited:
        NotDelivered: there is no such worker, nobody listens there, a listener raised, or it ended before.
        TimeoutError: it was not handled in time.
    """
    return _desk().post(thread_id, value, transfer_list, timeout, callback)


def on(name: str, listener: Listener) -> None:
    """Listen to what `post_message_to_thread` sends here: `on("worker_message", listener)`; called with (value, source)."""
    _checked(name)
    _desk().listeners.on(name, listener)


def once(name: str, listener: Listener) -> None:
    """The same, for one message."""
    _checked(name)
    _desk().listeners.once(name, listener)


def off(name: str, listener: Listener) -> None:
    """Listen no more."""
    _checked(name)
    _desk().listeners.off(name, listener)


def _checked(name: str) -> None:
    if name != _EVENT:
        raise UsageError(f"worker_threads.on({name!r}): the only event of this module is {_EVENT!r}")
