"""How one task is run, whatever brought it here.

What lives here: `Runner`: what a worker beside its pool (`_worker_main`) and one on another machine (`_far_worker`) have in
common. What must not: sockets, waiting for tasks, any import that a worker's start would feel.
"""

from __future__ import annotations

import _pickle
from collections.abc import Callable
from typing import Any

from . import _protocol as protocol
from ._page import Words
from ._protocol import COOPERATIVE, GRACE_MS, IS_FULL, IS_STREAM, STARTED, STOP_ASKED, STREAM_WINDOW


class Runner:
    """Runs calls as `_calls` made them, and sends what they report or yield."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self._functions: dict[int, Callable[..., Any]] = {}
        self._credits: dict[int, int] = {}  # items that a stream may still send
        self.context_names: tuple[str, ...] = ()  # of the variables that the pool carries; set by the boot
        self._context: Any = None

    # -- what a worker brings --------------------------------------------------------------------------------------
    def _load(self, flags: int, call: Any) -> Any:
        """Return the call as it was packed."""
        raise NotImplementedError

    def _send(self, kind: int, value: Any, what: str, number: int) -> None:
        """Send a report or an item. Raises PicklingError."""
        raise NotImplementedError

    def _wait_for_credit(self, number: int) -> None:
        """Wait until something has come: credit, or the word that the task is not wanted any more."""
        raise NotImplementedError

    def forget(self) -> None:
        """In a forked child: let nothing of the worker be touched."""
        raise NotImplementedError

    # -- tasks -----------------------------------------------------------------------------------------------------
    def _run_other(self, number: int, function: int, flags: int, call: Any) -> Any:
        """Run a task that has buffers, keyword arguments, a context, a callable of its own, or gives a stream."""
        loaded = self._load(flags, call)
        context = None
        if flags & IS_FULL:
            args, kwargs, target, context = loaded
            if target is None:
                target = self._functions[function]
        else:
            args, kwargs, target = loaded, {}, self._functions[function]
        del loaded
        if context is None:
            return self._call(number, flags, target, args, kwargs)
        if self._context is None:
            from ._context import WorkerContext

            self._context = WorkerContext(self.context_names)
        return self._context.run(context, self._call, number, flags, target, args, kwargs)

    def _call(
        self, number: int, flags: int, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        value = target(*args, **kwargs)
        if flags & IS_STREAM:
            return self._stream(number, value)
        if hasattr(value, "__await__"):
            if hasattr(value, "close"):
                value.close()
            raise TypeError(
                f"{getattr(target, '__qualname__', target)} is asynchronous: tasks of a pool are plain functions "
                "(call asyncio.run() inside of one)"
            )
        return value

    def _stream(self, number: int, items: Any) -> None:
        """Send the items of an iterator, at most STREAM_WINDOW ahead of the consumer."""
        words = self.words
        words[GRACE_MS] = 1000
        words[COOPERATIVE] = number  # it stops by itself between two items
        self._credits[number] = STREAM_WINDOW
        iterator = iter(items)
        try:
            for item in iterator:
                if words[STOP_ASKED] == number:
                    break
                self._send(protocol.ITEM, item, "an item of the stream", number)
                del item
                self._credits[number] -= 1
                while self._credits[number] <= 0 and words[STOP_ASKED] != number:
                    self._wait_for_credit(number)
        finally:
            del self._credits[number]
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def report(self, value: Any) -> None:
        """Send a progress message of the running task."""
        self._send(protocol.REPORT, value, "the report", self.words[STARTED])


def define(definition: bytes) -> Callable[..., Any]:
    """Load a function; one that cannot be loaded fails each of its tasks."""
    try:
        function: Callable[..., Any] = _pickle.loads(definition)
    except BaseException as failure:
        error, trace = failure, failure.__traceback__

        def undefined(*args: Any, **kwargs: Any) -> Any:
            raise error.with_traceback(trace)

        return undefined
    return function
