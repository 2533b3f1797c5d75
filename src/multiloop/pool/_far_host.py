"""A worker on another machine whose tasks run in a process beside it: what a Dask worker does for a pool.

What lives here: `FarHost`, on the loop of the other machine's process, and `run_packed`, in the process that it keeps
for the tasks. What must not: Dask (`_engine_dask` brings the calls).

Dask runs tasks in threads, which nobody can stop. So each far worker is a local pool of one process: stopping a task, and a
crash, cost that task and nothing of Dask's.

    work ─→ the local pool ║ run_packed: unpickle, call, pickle ║ ─→ frames
"""

from __future__ import annotations

import _pickle
import asyncio
import marshal
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from time import monotonic, monotonic_ns
from typing import Any

from ..errors import WorkerDied
from ..worker_threads._failures import pack_error
from . import _far_protocol as far
from . import _protocol as protocol
from ._context import WorkerContext
from ._far_protocol import Boot, Peeked, Started
from ._protocol import IS_FULL, IS_HEARD, IS_PARCEL, IS_PLAIN, IS_SINGLE, IS_STREAM, STREAM_WINDOW
from ._runner import define
from ._shared import Shared, put_local, remember

_TINY_NS = 1_000_000  # functions that take no longer are given to the process ahead …
_AHEAD = 32  # … so many calls
_HEARD_S = 5.0  # how long the end of a task waits for its messages to be heard: the pool may be gone

Fetch = Callable[[Any], Awaitable[Any]]
Answer = tuple[int, Any, Sequence[Any], int]  # kind of frame, body, memory beside it, nanoseconds


class FarHost:
    """One worker of a pool, inside somebody else's process. All methods run on that process's loop."""

    def __init__(self, boot: Boot, place: str, fetch: Fetch) -> None:
        """Begin. Raises NotTheSame."""
        from .. import __version__
        from ._pool import Pool

        far.check_same(boot, __version__, sys.version_info[:2], socket.gethostname())
        sys.path += [entry for entry in boot.path if entry not in sys.path]
        initializer, args = (None, ()) if boot.initializer is None else _pickle.loads(boot.initializer)
        finalizer = None if boot.finalizer is None else _pickle.loads(boot.finalizer)
        self._pool = Pool(
            1, "process", nice=boot.nice, initializer=initializer, initargs=args, finalizer=finalizer, name=boot.name
        )
        self._place = place
        self._fetch = fetch
        self._names = boot.context
        self._definitions: dict[int, bytes] = {}
        self._took_ns: dict[int, int] = {}  # by function: how long it took last
        self._shared: dict[int, Shared] = {}
        self._running: dict[int, tuple[Any, int]] = {}  # by task: what the local pool gave, and since when
        self._last = 0  # the task that was given to the process last
        self._revoked = (0, 0)
        self._frames: dict[int, list[bytes]] = {}  # by call
        self._messages: deque[tuple[int, int, bytes, list[Any]]] = deque()
        self._credits: dict[int, int] = {}
        self._changed = asyncio.Event()
        self._listens = 0  # how often the pool has asked …
        self._fetched = 0  # … and when it got messages last; it has dealt with them once it asks again
        self._turn = asyncio.Lock()  # calls run one after the other
        self.heard_at = monotonic()

    async def begin(self) -> Started:
        """Start the process. Raises PoolBroken with what the initializer raised."""
        await self._pool.ready()
        return Started(self._pool.statistics().workers[0].pid, socket.gethostname(), self._place, "")

    # -- tasks -----------------------------------------------------------------------------------------------------
    async def work(self, call: int, blob: bytes, buffers: Sequence[Any], shared: Mapping[int, Any]) -> Any:
        """See `_far_protocol`."""
        definitions, first, functions, flags, calls, dropped = marshal.loads(blob)
        for key in dropped:
            self._shared.pop(key, None)
        for key, name in shared.items():
            self._shared[key] = put_local(await self._fetch(name))
        self._definitions.update(definitions)
        async with self._turn:
            frames = self._frames[call] = []
            out: list[Any] = []
            under_way: set[asyncio.Task[None]] = set()
            for place, argument in enumerate(calls):
                function = functions[place]
                most = _AHEAD if self._took_ns.get(function, _TINY_NS) < _TINY_NS else 1
                while len(under_way) >= most:
                    _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                number = first + place
                if self._revoked[0] <= number < self._revoked[1]:
                    continue
                self._last = number
                one = asyncio.ensure_future(self._one(number, function, flags[place], argument, buffers, frames, out))
                self._running[number] = one, monotonic_ns()  # a stop may come before it has made its first step
                one.add_done_callback(lambda _, number=number: self._running.pop(number, None))  # type: ignore[misc]
                under_way.add(one)
                await asyncio.sleep(0)
            if under_way:
                await asyncio.wait(under_way)
            del self._frames[call]
        rss = self._pool.statistics().workers
        return b"".join(frames), out, rss[0].rss if rss else 0

    async def _one(
        self,
        number: int,
        function: int,
        flags: int,
        call: Any,
        buffers: Sequence[Any],
        frames: list[bytes],
        out: list[Any],
    ) -> None:
        """Run one task and add its frame."""
        began = monotonic_ns()
        try:
            kind, body, beside, took_ns = await self._run(number, function, flags, call, buffers)
        except asyncio.CancelledError:
            frames.append(far.frame(far.EXPIRED_FRAME, number, monotonic_ns() - began, b""))
            return
        except WorkerDied as error:
            self._took_ns.pop(function, None)
            said = marshal.dumps((error.signal, error.exit_code))
            frames.append(far.frame(far.DIED, number, monotonic_ns() - began, said))
            return
        except BaseException as error:
            frames.append(far.frame(protocol.FAILED, number, monotonic_ns() - began, pack_error(error)))
            return
        finally:
            self._running.pop(number, None)
        self._took_ns[function] = took_ns
        if beside:
            body = marshal.dumps((body, len(out), len(beside)))
            out += beside
        frames.append(far.frame(kind, number, took_ns, body))

    async def _run(self, number: int, function: int, flags: int, call: Any, buffers: Sequence[Any]) -> Answer:
        definition = self._definitions.get(function)
        beside: Sequence[Any] = ()
        if flags & IS_PARCEL:
            call, first, count = call
            beside = buffers[first : first + count]
        given = (definition, flags & ~IS_HEARD, call, beside, self._names, self._shared or None)
        if flags & IS_STREAM:
            answer = await self._stream(number, given)
        else:
            pool: Any = self._pool
            if flags & IS_HEARD:
                pool = pool.options(on_report=lambda value: self._tell(number, protocol.REPORT, value))
            operation = pool.run(run_packed, *given)
            self._running[number] = operation, monotonic_ns()
            answer = await operation
        if flags & IS_HEARD:
            await self._wait_until_heard()
        return answer

    async def _stream(self, number: int, given: tuple[Any, ...]) -> Answer:
        self._credits[number] = STREAM_WINDOW
        began = monotonic_ns()
        self._running[number] = asyncio.current_task(), began
        items: Any = aiter(self._pool.stream(stream_packed, *given))
        try:
            async for body, beside in items:
                while self._credits[number] <= 0:
                    await self._wait_for_change()
                self._credits[number] -= 1
                self._put((number, protocol.ITEM, body, list(beside)))
        except far.PackedError as error:
            return protocol.FAILED, error.packed, (), monotonic_ns() - began
        finally:
            del self._credits[number]
            await items.aclose()  # a cancel does not close it
        return protocol.PLAIN, marshal.dumps(None, 2), (), monotonic_ns() - began

    # -- what tasks send -------------------------------------------------------------------------------------------
    def _tell(self, number: int, kind: int, value: Any) -> None:
        body, beside = far.pack_far(value, _cloud)
        self._put((number, kind, body, beside))

    def _put(self, message: tuple[int, int, bytes, list[Any]]) -> None:
        self._messages.append(message)
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait_for_change(self, seconds: float = 1.0) -> None:
        try:
            async with asyncio.timeout(seconds):  # wait_for would swallow a cancel that comes together with the event
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _wait_until_heard(self) -> None:
        """Let the end of a task not overtake its messages."""
        until = monotonic() + _HEARD_S
        while (self._messages or self._listens <= self._fetched) and monotonic() < until:
            await self._wait_for_change(0.1)

    async def listen(self) -> list[tuple[int, int, bytes, list[Any]]]:
        """See `_far_protocol`."""
        self._listens += 1
        self._change()
        until = monotonic() + 1.0
        while not self._messages and monotonic() < until:
            await self._wait_for_change(until - monotonic())
        fetched = list(self._messages)
        if fetched:
            self._messages.clear()
            self._fetched = self._listens
            self._change()
        return fetched

    async def credit(self, number: int, items: int) -> None:
        """See `_far_protocol`."""
        if number in self._credits:
            self._credits[number] += items
            self._change()

    # -- what is not wanted any more -------------------------------------------------------------------------------
    async def peek(self, to: int) -> Peeked:
        """See `_far_protocol`."""
        self._revoked = self._last + 1, to
        oldest = min((since for _, since in self._running.values()), default=monotonic_ns())
        calls = tuple(sorted(self._frames))
        frames = tuple(b"".join(self._small(self._frames[call])) for call in calls)
        workers = self._pool.statistics().workers
        rss = workers[0].rss if workers else 0
        return Peeked(self._last, bool(self._running), monotonic_ns() - oldest, calls, frames, rss)

    @staticmethod
    def _small(frames: list[bytes]) -> Iterator[bytes]:
        """Frames without memory beside them: that goes with the call."""
        return (each for each in frames if each[0] != protocol.VALUE_PARCEL)

    async def stop(self, number: int, to: int) -> Peeked:
        """See `_far_protocol`."""
        seen = await self.peek(to)
        self._halt(number)
        return seen._replace(is_running=False)  # it is ended here: the engine has nothing to watch over

    async def expire(self, number: int, timeout_s: float, to: int) -> tuple[Peeked, bool]:
        """See `_far_protocol`."""
        seen = await self.peek(to)
        running = self._running.get(number)
        is_over = running is not None and monotonic_ns() - running[1] >= timeout_s * 1e9
        if is_over:
            self._halt(number)
        return seen, is_over

    def _halt(self, number: int) -> None:
        running = self._running.get(number)
        if running is not None:
            running[0].cancel()

    # -- the end ---------------------------------------------------------------------------------------------------
    async def beat(self) -> None:
        """The pool is still there."""
        self.heard_at = monotonic()

    async def leave(self, force: bool = False) -> None:
        """End the process: in peace, or at once."""
        await self._pool.close(force=force)


def _cloud() -> far.Dumps:
    from cloudpickle import dumps

    return dumps  # type: ignore[no-any-return]


# --- in the process ------------------------------------------------------------------------------------------------
_functions: dict[bytes, Callable[..., Any]] = {}
_contexts: dict[tuple[str, ...], WorkerContext] = {}
_FUNCTIONS_MOST = 4096


def _loaded(
    definition: bytes | None, flags: int, call: Any, beside: Sequence[Any], names: tuple[str, ...], shared: Any
) -> Callable[[], Any]:
    """Return the call, ready to be made."""
    for key, value in (shared or {}).items():
        remember(key, value)
    target: Any = None
    if definition is not None:
        target = _functions.get(definition)
        if target is None:
            if len(_functions) >= _FUNCTIONS_MOST:
                _functions.clear()
            target = _functions[definition] = define(definition)
    if flags & IS_SINGLE:
        return lambda: target(call)
    if flags & IS_PARCEL:
        loaded = _pickle.loads(call, buffers=beside)
    else:
        loaded = call if flags & IS_PLAIN else _pickle.loads(call)
    if not flags & IS_FULL:
        return lambda: target(*loaded)
    args, kwargs, own, carried = loaded
    function = own if target is None else target
    if carried is None:
        return lambda: function(*args, **kwargs)
    context = _contexts.setdefault(names, WorkerContext(names))
    return lambda: context.run(carried, lambda: function(*args, **kwargs))


def run_packed(*given: Any) -> Answer:
    """Run a call as `_calls` made it; returns what goes into its frame."""
    began = monotonic_ns()
    try:
        value = _loaded(*given)()
        if hasattr(value, "__await__"):
            if hasattr(value, "close"):
                value.close()
            raise TypeError("the function is asynchronous: tasks of a pool are plain functions")
        took_ns = monotonic_ns() - began
        if type(value) in protocol.PLAIN_TYPES:
            return protocol.PLAIN, marshal.dumps(value, 2), (), took_ns
        try:
            body, beside = far.pack_far(value, _cloud)
        except Exception as error:
            raise _pickle.PicklingError(f"the result cannot be sent back: {error}") from error
        return (protocol.VALUE_PARCEL if beside else protocol.VALUE), body, beside, took_ns
    except BaseException as error:
        return protocol.FAILED, pack_error(error), (), monotonic_ns() - began


def stream_packed(*given: Any) -> Iterator[tuple[bytes, list[Any]]]:
    """Iterate what a call yields, each item packed."""
    iterator: Any = None
    try:
        iterator = iter(_loaded(*given)())
        for item in iterator:
            yield far.pack_far(item, _cloud)
    except GeneratorExit:
        raise
    except BaseException as error:
        raise far.PackedError(pack_error(error)) from None
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
