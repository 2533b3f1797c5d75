"""`finished`: wait for the end of a stream, ours or any emitter like it.

What lives here: what counts as an end, and as too early. What must not: moving chunks (`_pipeline`).
"""

from __future__ import annotations

from typing import Any

from ..errors import PrematureClose
from ..events import EventEmitter
from ..loop import ErrorFirst, begin
from ._base import Stream
from ._readable import Readable
from ._writable import Writable


def finished(
    stream: EventEmitter, callback: ErrorFirst | None = None, *, readable: bool = True, writable: bool = True
) -> Any:
    """Wait until a stream has nothing more to give ('end') and has written everything ('finish').

    Works for our streams, sockets, children's pipes and whatever emits 'end', 'finish', 'error' and 'close' like them.
    Raises what it was destroyed with, PrematureClose when it was closed before the end.

    Args:
        readable, writable: False: do not wait for that side of a stream that has both.
    """
    op = begin(callback)
    wait_end = readable and _has_side(stream, Readable, "__aiter__")
    wait_finish = writable and _has_side(stream, Writable, "write")
    state = {"end": not wait_end or _is_over(stream, "readable_ended"), "finish": not wait_finish}
    state["finish"] = state["finish"] or _is_over(stream, "writable_finished")

    def settle(error: BaseException | None) -> None:
        forget()
        if error is None:
            op._succeed(None)
        else:
            op._fail(error)

    def happened(name: str) -> Any:
        def listener(*_: Any) -> None:
            state[name] = True
            if all(state.values()):
                settle(None)

        return listener

    def failed(error: Any = None, *_: Any) -> None:
        settle(error if isinstance(error, BaseException) else PrematureClose(f"{_name(stream)} failed: {error!r}"))

    def closed(*_: Any) -> None:
        settle(None if all(state.values()) else PrematureClose(f"{_name(stream)} was closed before its end"))

    listeners = {"end": happened("end"), "finish": happened("finish"), "error": failed, "close": closed}

    def forget() -> None:
        for name, listener in listeners.items():
            stream.off(name, listener)

    loop = op._hub.loop
    if all(state.values()):
        loop.call_soon(op._succeed, None)
    elif isinstance(stream, Stream) and stream.closed:
        loop.call_soon(op._fail, stream._gone())
    else:
        for name, listener in listeners.items():
            stream.on(name, listener)
        op._stop = forget
    return op


def _has_side(stream: object, ours: type[Stream], sign: str) -> bool:
    return isinstance(stream, ours) if isinstance(stream, Stream) else hasattr(stream, sign)


def _is_over(stream: object, name: str) -> bool:
    return bool(getattr(stream, name, False))


def _name(stream: object) -> str:
    return type(stream).__name__
