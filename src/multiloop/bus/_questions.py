"""Request and reply over a bus: one of those who answer a topic is chosen, and runs the handler once.

What lives here: `Asker` and `Answerer`, the two sides. What must not: how frames travel.

    asker ─ ASK ─→ all who answer      answerer ─ OFFER ─→ asker
    asker ─ GO ──→ the first of them   answerer ─ REPLY or FAILED ─→ asker

The asker repeats what was not answered each second, so that an outage shorter than its timeout costs nothing; an answerer
knows the questions that it has, and answers a repeated one with the same reply, without running the handler again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from .. import _limits as limits
from ..errors import FrameTooLarge, NoAnswer, NotSendable, RemoteError
from ..loop import Hub
from ._frames import Frame, Kind

Send = Callable[[Frame, str], None]  # a frame, and the sender it is for ("" for all of the topic)


class Asker:
    """Questions of this end."""

    def __init__(self, sender: str, send: Send) -> None:
        self._sender = sender
        self._send = send
        self._ids = itertools.count(1)
        self._open: dict[str, _Question] = {}

    @property
    def open(self) -> int:
        """How many have no answer yet."""
        return len(self._open)

    async def ask(self, topic: str, value: Any, timeout_s: float) -> Any:
        """Ask, and return the reply. Raises NoAnswer, RemoteError."""
        question = _Question(f"{self._sender}.{next(self._ids)}", topic, value)
        self._open[question.id] = question
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._put(question)
                    done, _ = await asyncio.wait({question.answer}, timeout=limits.BUS_ASK_AGAIN_S)
                    if done:
                        return question.answer.result()
        except TimeoutError:
            who = "who offered to has not answered" if question.chosen else "nobody offered to answer"
            raise NoAnswer(f"{topic}: {who} within {timeout_s:g} s") from None
        finally:
            del self._open[question.id]
            question.answer.cancel()

    def _put(self, question: _Question) -> None:
        if question.chosen:
            frame = Frame(Kind.GO, self._sender, question.topic, 0, question.value, question.id, self._sender)
        else:
            frame = Frame(Kind.ASK, self._sender, question.topic, 0, None, question.id, self._sender)
        self._send(frame, question.chosen)

    def arrived(self, frame: Frame) -> None:
        """An OFFER, REPLY or FAILED has come."""
        question = self._open.get(frame.id)
        if question is None or question.answer.done():
            return
        if frame.kind is Kind.OFFER:
            if not question.chosen:
                question.chosen = frame.sender
                self._put(question)
        elif frame.sender != question.chosen:
            return
        elif frame.kind is Kind.REPLY:
            question.answer.set_result(frame.value)
        else:
            kind, text = _error_of(frame.value)
            question.answer.set_exception(RemoteError(kind, text))


class _Question:
    __slots__ = ("answer", "chosen", "id", "topic", "value")

    def __init__(self, question_id: str, topic: str, value: Any) -> None:
        self.id = question_id
        self.topic = topic
        self.value = value
        self.chosen = ""  # the sender that shall answer
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


def _error_of(value: Any) -> tuple[str, str]:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return value[0], value[1]
    return "Exception", "an error that is none"


class Answerer:
    """What this end answers."""

    def __init__(self, of: Hub, sender: str, send: Send) -> None:
        self._hub = of
        self._sender = sender
        self._send = send
        self._handlers: dict[str, Callable[[Any], Any]] = {}
        self._replies: OrderedDict[str, Frame | None] = OrderedDict()  # by question; None: the handler runs
        self._running: set[asyncio.Task[None]] = set()

    def handles(self, topic: str, handler: Callable[[Any], Any] | None) -> None:
        """Answer a topic with this, or no more."""
        if handler is None:
            self._handlers.pop(topic, None)
        else:
            self._handlers[topic] = handler

    def has(self, topic: str) -> bool:
        """Whether this end answers it."""
        return topic in self._handlers

    def arrived(self, frame: Frame) -> None:
        """An ASK or GO has come."""
        handler = self._handlers.get(frame.topic)
        if handler is None or not frame.id or not frame.answer_to:
            return
        if frame.kind is Kind.ASK:
            if len(self._running) < limits.BUS_ANSWERS_MOST:
                self._send(Frame(Kind.OFFER, self._sender, frame.topic, 0, None, frame.id), frame.answer_to)
            return
        if frame.id in self._replies:
            reply = self._replies[frame.id]
            if reply is not None:
                self._send(reply, frame.answer_to)
            return
        self._replies[frame.id] = None
        while len(self._replies) > limits.BUS_REPLIES_KEPT:
            self._replies.popitem(last=False)
        task = self._hub.loop.create_task(self._answer(handler, frame))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, handler: Callable[[Any], Any], frame: Frame) -> None:
        try:
            value = handler(frame.value)
            if hasattr(value, "__await__"):
                value = await value
            reply = Frame(Kind.REPLY, self._sender, frame.topic, 0, value, frame.id)
            self._send(reply, frame.answer_to)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            said = str(error)[: limits.BUS_ERROR_CHARS]
            if isinstance(error, NotSendable | FrameTooLarge):
                said = f"the answer cannot be sent: {said}"
            kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
            reply = Frame(Kind.FAILED, self._sender, frame.topic, 0, [kind, said], frame.id)
            self._send(reply, frame.answer_to)
        if frame.id in self._replies:
            self._replies[frame.id] = reply

    def close(self) -> None:
        """Stop what runs."""
        for task in self._running:
            task.cancel()
