"""Requests and replies: one end asks, a 'request' listener of the other end answers.

What lives here: `Talk`, the base of everything that can be sent to: a worker, its own end, another worker. What must not:
the way (`_send_frame`, given by the subclasses).

* The first 'request' listener answers: what it returns is the reply, awaited if need be. An exception that it raises is
  raised at the asker, with the traceback of where it happened. Listeners on `cluster` get who asks first.
* A request that comes before anybody listens waits for a listener for a moment (`ANSWERER_COMES_S`): programs start.
* A request whose other end goes away fails: nobody waits for ever.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ... import _limits as limits
from ..._wire import forks as wire
from ..._wire.frames import Buffer, Frame, dumps, loads, snapshot
from ...errors import ChannelClosed, Unanswered
from ...events import EventEmitter
from ...loop import AnyOperation, ErrorFirst, begin, hub
from ...worker_threads._failures import pack_error, unpack_error


class Talk(EventEmitter):
    """Something at the other end that may be asked, and asks."""

    cluster: EventEmitter  # where listeners are looked for that are not here
    _asked: dict[int, AnyOperation[Any]] | None = None
    _next_request: int = 1
    _unanswered: dict[int, tuple[Buffer, Sequence[Buffer]]] | None = None  # requests that nobody listened for so far

    # -- for subclasses ------------------------------------------------------------------------------------------------
    def _send_frame(self, kind: int, body: bytes, buffers: Sequence[Buffer] = ()) -> bool:
        """Send a frame there; False when nobody is there any more (or it is congested: it was sent all the same)."""
        raise NotImplementedError

    def _is_there(self) -> bool:
        raise NotImplementedError

    def _who(self) -> str:
        """Say who this is, in an error's message."""
        raise NotImplementedError

    # -- asking --------------------------------------------------------------------------------------------------------
    def request(self, value: Any, *, timeout: float | None = None, callback: ErrorFirst | None = None) -> Any:
        """Ask: an operation that gives what the other end's 'request' listener returns for `value`.

        Args:
            timeout: seconds to wait for the answer; None: until the other end is gone.

        Raises:
            Exception: what the listener raised, with its traceback as cause.
            Unanswered: nobody listens for 'request' there.
            WorkerDied: the worker ended before it answered. ChannelClosed: it has disconnected, or the primary is gone.
            TimeoutError: no answer came in time.
            NotSendable: a part of `value` cannot be pickled; raised at once.
        """
        body, buffers = dumps(value)
        op: AnyOperation[Any] = begin(callback)
        if not self._is_there():
            op._hub.loop.call_soon(op._fail, ChannelClosed(f"{self._who()} is gone"))
            return op
        number = self._next_request
        self._next_request += 1
        asked = self._asked
        if asked is None:
            asked = self._asked = {}
        asked[number] = op
        timer = None if timeout is None else op._hub.loop.call_later(timeout, self._timed_out, number, timeout)

        def forget() -> None:
            asked.pop(number, None)
            if timer is not None:
                timer.cancel()

        op._stop = forget
        self._send_frame(wire.REQUEST, wire.NUMBER.pack(number) + body, [snapshot(buffer) for buffer in buffers])
        return op

    def _timed_out(self, number: int, timeout: float) -> None:
        op = (self._asked or {}).pop(number, None)
        if op is not None:
            op._fail(TimeoutError(f"{self._who()} did not answer within {timeout:g} s"))

    def _fail_requests(self, error: BaseException) -> None:
        """The other end is gone: nothing will be answered."""
        asked, self._asked = self._asked, None
        for op in (asked or {}).values():
            op._fail(error)

    # -- what arrives --------------------------------------------------------------------------------------------------
    def _talk(self, frame: Frame) -> None:
        """Take a frame of one of the three kinds."""
        (number,) = wire.NUMBER.unpack_from(frame.body)
        body = memoryview(frame.body)[wire.NUMBER.size :]
        if frame.kind == wire.REQUEST:
            self._answer(number, body, frame.buffers)
            return
        op = (self._asked or {}).pop(number, None)
        if op is None:
            return  # it was cancelled, or timed out
        try:
            if frame.kind == wire.FAILURE:
                raise unpack_error(body)
            value = loads(body, frame.buffers)
        except BaseException as error:
            op._fail(error)
        else:
            op._succeed(value)

    def _answerer(self) -> Callable[[Any], Any] | None:
        """Return who answers."""
        if listeners := self.listeners("request"):
            return listeners[0]
        if listeners := self.cluster.listeners("request"):
            return partial(listeners[0], self)
        return None

    def _answer(self, number: int, body: Buffer, buffers: Sequence[Buffer]) -> None:
        answerer = self._answerer()
        if answerer is None:
            waiting = self._unanswered
            if waiting is None:
                waiting = self._unanswered = {}
            waiting[number] = (body, buffers)
            hub().loop.call_later(limits.ANSWERER_COMES_S, self._give_up, number)
            return
        try:
            result = answerer(loads(body, buffers))
        except Exception as error:
            self._reply_failure(number, error)
            return
        if inspect.isawaitable(result):
            hub().adopt(self._answer_later(number, result))
        else:
            self._reply(number, result)

    def _give_up(self, number: int) -> None:
        if self._unanswered is not None and self._unanswered.pop(number, None) is not None:
            self._reply_failure(number, Unanswered("nobody listens for 'request' there: worker.on('request', handler)"))

    def answer_waiting(self) -> None:
        """Somebody listens for requests: answer those that came before."""
        if self._unanswered and self._answerer() is not None:
            waiting, self._unanswered = self._unanswered, None
            for number, (body, buffers) in waiting.items():
                hub().loop.call_soon(self._answer, number, body, buffers)

    async def _answer_later(self, number: int, result: Any) -> None:
        try:
            self._reply(number, await result)
        except Exception as error:
            self._reply_failure(number, error)

    def _reply(self, number: int, value: Any) -> None:
        try:
            body, buffers = dumps(value)
            self._send_frame(wire.REPLY, wire.NUMBER.pack(number) + body, [snapshot(buffer) for buffer in buffers])
        except Exception as error:  # it cannot travel, or is too large
            self._reply_failure(number, error)

    def _reply_failure(self, number: int, error: BaseException) -> None:
        self._send_frame(wire.FAILURE, wire.NUMBER.pack(number) + pack_error(error))
