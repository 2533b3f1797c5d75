"""`Worker(..., engine="ray")`: a worker on another machine, with the same messages.

What lives here: `RemoteWorker`, what users hold, and `RemotePlace`, what keeps a Worker for it there. What must not: the
connection to Ray (`_ray`), how a worker lives (`_worker`): on the other machine it is an ordinary one, of kind "process".

    RemoteWorker ─ post ─→ the actor: RemotePlace ─ post_message ─→ Worker ══ its process
                 ←─ listen ─ messages, online, error, exit ←──────
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import sys
import tempfile
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

from .._limits import CHANNEL_HIGH_WATER_BYTES, MAX_MESSAGE_BYTES
from ..errors import ClosedError, FrameTooLarge, NotSendable, UsageError, WorkerDied
from ..events import EventEmitter
from ..loop import Handle, Operation, begin, hub
from ._failures import pack_error, unpack_error
from ._ray import Died, Lost, RayLink, when_done
from ._target import Target, describe, load_function


class Plan(NamedTuple):
    """What the other machine is told to start."""

    target: Target
    source: bytes | None  # of a file, which goes along
    worker_data: bytes
    name: str
    env: dict[str, str] | None
    argv: tuple[Any, ...]
    path: tuple[str, ...]
    version: str
    python: tuple[int, int]


class RemoteWorker(EventEmitter, Handle):
    """A worker on another machine: `Worker(target, engine="ray")` gives one.

    Events and order as of `Worker`. Messages are pickled; ports and SharedBuffers do not leave their machine. `pid` and
    `host` are known from 'online' on. When the machine or Ray is lost: 'error' (WorkerDied), 'exit' (1).
    """

    kind = "ray"
    kind_reason = "asked for"

    def __init__(self, plan: Plan, link: RayLink, options: dict[str, Any], max_message_size: int) -> None:
        Handle.__init__(self)
        self.name = plan.name
        self.pid: int | None = None
        self.host = ""
        self.exit_code: int | None = None
        self._link = link
        self._plan = plan
        self._options = options
        self._max_bytes = max_message_size
        self._actor: Any = None
        self._outbox: list[bytes] = []
        self._is_posting = False
        self.buffered_amount = 0
        self._inbox: deque[Any] = deque()
        self._wakers: list[asyncio.Future[None]] = []
        self._waits: list[Operation[int]] = []
        self._is_over = False
        self._opened(hub())
        threading.Thread(target=self._connect, name="multiloop-remote", daemon=True).start()

    # -- starting --------------------------------------------------------------------------------------------------
    def _connect(self) -> None:
        try:
            self._link.connect()
            ray = self._link.ray
            body = ray.remote(concurrency_groups={"talk": 1, "words": 1})(_actor_body(ray))
            actor = body.options(max_restarts=0, max_task_retries=0, **self._options).remote()
        except BaseException as error:
            self._on_loop(self._failed, error)
        else:
            self._on_loop(self._connected, actor)

    def _on_loop(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self._hub.loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            pass  # that loop is over

    def _connected(self, actor: Any) -> None:
        if self._is_over:
            self._link.ray.kill(actor, no_restart=True)
            return
        self._actor = actor
        self._ask("begin", (tuple(self._plan),), self._begun)

    def _begun(self, value: Any) -> None:
        self.pid, self.host = value
        self._listen()
        self._post()

    def _ask(self, method: str, args: tuple[Any, ...], then: Callable[[Any], Any]) -> None:
        """Call the actor; the answer comes on the loop, a failure ends this worker."""

        def done(value: Any, error: BaseException | None) -> None:
            if error is None:
                self._on_loop(then, value)
            else:
                self._on_loop(self._failed, self._link.translate(error))

        try:
            when_done(getattr(self._actor, method).remote(*args), done)
        except Exception as error:
            self._on_loop(self._failed, self._link.translate(error))

    # -- messages ----------------------------------------------------------------------------------------------------
    def post_message(self, value: Any, transfer_list: Sequence[Any] = ()) -> bool:
        """Send a copy of a value. False: so much waits that it is better to `await drain()`, or the worker is gone.

        Raises:
            NotSendable: a part cannot be pickled, or is a port or SharedBuffer. FrameTooLarge: over `max_message_size`.
            UsageError: there is a transfer list; what it names cannot leave this machine.
        """
        if transfer_list:
            raise UsageError("transfer_list=[...]: ports and buffers cannot leave this machine")
        if self._is_over:
            return False
        body = dumps(value)
        if len(body) > self._max_bytes:
            raise FrameTooLarge(len(body), self._max_bytes)
        self._outbox.append(body)
        self.buffered_amount += len(body)
        if self._actor is not None and self.pid is not None and not self._is_posting:
            self._is_posting = True
            self._hub.loop.call_soon(self._post)
        return self.buffered_amount < CHANNEL_HIGH_WATER_BYTES

    send = post_message

    def _post(self) -> None:
        self._is_posting = False
        if not self._outbox or self._is_over:
            return
        batch, self._outbox = self._outbox, []
        size = sum(map(len, batch))
        self._is_posting = True

        def posted(_: Any) -> None:
            self.buffered_amount -= size
            self._is_posting = False
            self._wake()
            self._post()

        self._ask("post", (batch,), posted)

    async def drain(self) -> None:
        """Wait until the other machine has taken what was posted. Raises ClosedError when the worker is gone."""
        while self.buffered_amount and not self._is_over:
            await self._wait_for_change()
        if self.buffered_amount:
            raise ClosedError(f"{self.name} is gone")

    def _listen(self) -> None:
        if not self._is_over:
            self._ask("listen", (), self._heard)

    def _heard(self, events: list[tuple[str, Any]]) -> None:
        for kind, value in events:
            if kind == "online":
                self._hub.call(self.emit, "online")
            elif kind == "message":
                self._take(value)
            elif kind == "error":
                self._tell_error(unpack_error(value))
            elif kind == "exit":
                self._exited(value)
                return
        self._listen()

    def _take(self, body: bytes) -> None:
        try:
            value = pickle.loads(body)
        except Exception as error:
            if self._events is not None and "messageerror" in self._events:
                self._hub.call(self.emit, "messageerror", error)
            else:
                self._hub.uncaught(error)
            return
        if self._events is not None and "message" in self._events:
            self._hub.call(self.emit, "message", value)
        else:
            self._inbox.append(value)
            self._wake()

    def _listeners_changed(self, name: Any, count: int) -> None:
        if name == "message" and count and self._inbox:
            waiting, self._inbox = self._inbox, deque()
            for value in waiting:
                self._hub.loop.call_soon(self._hub.call, self.emit, "message", value)

    async def _iterate(self) -> AsyncIterator[Any]:
        while True:
            while self._inbox:
                yield self._inbox.popleft()
            if self._is_over:
                return
            await self._wait_for_change()

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._events is not None and "message" in self._events:
            raise UsageError("there is a 'message' listener: the messages go there, not to `async for`")
        return self._iterate()

    async def _wait_for_change(self) -> None:
        waker: asyncio.Future[None] = self._hub.loop.create_future()
        self._wakers.append(waker)
        await waker

    def _wake(self) -> None:
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            if not waker.done():
                waker.set_result(None)

    # -- the end -----------------------------------------------------------------------------------------------------
    def _failed(self, error: BaseException) -> None:
        if self._is_over:
            return
        if isinstance(error, Died | Lost):
            where = f" on {self.host}" if self.host else ""
            error = WorkerDied(f"{self.name}{where} is gone: {error}")
        self._tell_error(error)
        self._exited(1)

    def _tell_error(self, error: BaseException) -> None:
        if self._events is not None and "error" in self._events:
            self._hub.call(self.emit, "error", error)
        else:
            self._hub.uncaught(error)

    def _exited(self, code: int) -> None:
        if self._is_over:
            return
        self._is_over = True
        self.exit_code = code
        self._end_actor()
        self._hub.call(self.emit, "exit", code)
        waits, self._waits = self._waits, []
        for op in waits:
            op._succeed(code)
        self._wake()
        self._ended()

    def wait(self) -> Operation[int]:
        """Wait for the end; gives the exit code."""
        op: Operation[int] = begin(None, self._hub)
        if self.exit_code is not None:
            op._succeed(self.exit_code)
        else:
            self._waits.append(op)
        return op

    def terminate(self) -> Operation[int]:
        """Stop it, whatever it does; gives the exit code."""
        op = self.wait()
        if not self._is_over:
            if self.pid is None:
                self._exited(1)
            else:
                self._ask("terminate", (), lambda code: None)  # 'exit' comes as always
        return op

    def _end_actor(self) -> None:
        if self._actor is not None:
            try:
                self._link.ray.kill(self._actor, no_restart=True)
            except Exception:
                pass  # it is gone, or Ray is

    def _shutdown(self) -> None:
        """The program ends."""
        self._is_over = True
        self._end_actor()
        self._ended()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.terminate()

    def __repr__(self) -> str:
        return f"<Worker {self.name!r} on ray {'ended' if self._is_over else self.host or 'starting'}>"


def dumps(value: Any) -> bytes:
    """Pickle a message. Raises NotSendable, with the path to what cannot be."""
    try:
        return pickle.dumps(value, 5)
    except Exception as error:
        from .._wire._explain import path_to_unpicklable

        path, part = path_to_unpicklable(value)
        raise NotSendable(path, part, error) from error


_REFUSED = ("stdin", "stdout", "stderr", "resource_limits", "transfer_list")


def remote_worker(target: Any, engine: str, options: Mapping[str, Any]) -> RemoteWorker:
    """Make what `Worker(..., engine=...)` gives. Raises UsageError for what it cannot keep."""
    from .. import __version__

    if engine != "ray" and not engine.startswith("ray://"):
        raise UsageError(f"Worker(engine={engine!r}): 'ray' or 'ray://host:port'")
    for name in _REFUSED:
        if options.get(name):
            raise UsageError(f"Worker({name}=...) cannot be kept on another machine")
    if options.get("kind", "auto") not in ("auto", "process"):
        raise UsageError("Worker(engine='ray') is of kind 'process' there")
    described = describe(target)
    if described.kind == "function" and getattr(target, "__module__", "__main__") == "__main__":
        raise UsageError(f"{target!r} is of the main file, which the other machine has not: put it into a module")
    source = None
    if described.kind == "file":
        with open(described.name, "rb") as file:
            source = file.read()
    env = options.get("env")
    plan = Plan(
        described,
        source,
        dumps(options.get("worker_data")),
        options.get("name") or f"remote {getattr(target, '__name__', target)}",
        None if env is None else dict(env),
        tuple(options.get("argv") or ()),
        tuple(sys.path),
        __version__,
        sys.version_info[:2],
    )
    asked: dict[str, Any] = {"num_cpus": 1 if options.get("cpus") is None else options["cpus"]}
    if options.get("gpus") is not None:
        asked["num_gpus"] = options["gpus"]
    if options.get("memory") is not None:
        asked["memory"] = options["memory"]
    return RemoteWorker(plan, RayLink(engine), asked, options.get("max_message_size") or MAX_MESSAGE_BYTES)


# --- on the other machine --------------------------------------------------------------------------------------------
class RemotePlace:
    """Keeps a Worker on a loop of its own, and what it says until it is fetched. Methods are called in threads."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: Any = None
        self._events: list[tuple[str, Any]] = []
        self._came = threading.Condition()

    def begin(self, fields: tuple[Any, ...]) -> tuple[int, str]:
        """Start the worker; returns the pid of this process and the name of this machine."""
        from .. import __version__

        plan = Plan(*fields)
        here = (__version__, sys.version_info[:2])
        if (plan.version, tuple(plan.python)) != here:
            raise UsageError(
                f"{socket.gethostname()} has multiloop and Python {here}, the program {plan.version, plan.python}"
            )
        sys.path += [entry for entry in plan.path if entry not in sys.path]
        started = threading.Event()

        def run() -> None:
            async def main() -> None:
                self._loop = asyncio.get_running_loop()
                started.set()
                await asyncio.Event().wait()

            asyncio.run(main())

        threading.Thread(target=run, name="multiloop-worker", daemon=True).start()
        started.wait()
        return self._call(partial(self._start, plan)), socket.gethostname()

    def _call(self, function: Callable[[], Any]) -> Any:
        assert self._loop is not None

        async def work() -> Any:
            value = function()
            return await value if hasattr(value, "__await__") else value

        return asyncio.run_coroutine_threadsafe(work(), self._loop).result()

    def _start(self, plan: Plan) -> int:
        from . import Worker

        target = _target_of(plan)
        worker = self._worker = Worker(
            target,
            worker_data=pickle.loads(plan.worker_data),
            kind="process",
            name=plan.name,
            env=plan.env,
            argv=plan.argv,
        )
        worker.on("online", lambda: self._put("online", None))
        worker.on("message", lambda value: self._put("message", pickle.dumps(value, 5)))
        worker.on("messageerror", lambda error: self._put("error", pack_error(error)))
        worker.on("error", lambda error: self._put("error", pack_error(error)))
        worker.on("exit", lambda code: self._put("exit", code))
        return int(os.getpid())

    def _put(self, kind: str, value: Any) -> None:
        with self._came:
            self._events.append((kind, value))
            self._came.notify_all()

    def listen(self) -> list[tuple[str, Any]]:
        """Wait for events, a second at most, and return them."""
        with self._came:
            if not self._events:
                self._came.wait(1.0)
            events, self._events = self._events, []
        return events

    def post(self, batch: list[bytes]) -> None:
        """Give messages to the worker; returns when it has room for more."""

        async def work() -> None:
            for body in batch:
                if not self._worker.post_message(pickle.loads(body)):
                    await asyncio.wait({asyncio.ensure_future(_drained(self._worker))}, timeout=60)

        self._call(work)

    def terminate(self) -> int:
        """Stop the worker."""

        async def work() -> int:
            return int(await self._worker.terminate())

        return int(self._call(work))


def _target_of(plan: Plan) -> Any:
    """What the worker runs here: a file is written to a folder of its own, a function is imported."""
    if plan.source is not None:
        folder = tempfile.mkdtemp(prefix="multiloop-worker-")
        path = os.path.join(folder, os.path.basename(plan.target.name))
        with open(path, "wb") as file:
            file.write(plan.source)
        return path
    if plan.target.kind == "function":
        return load_function(Target(*plan.target))
    return plan.target.name


async def _drained(worker: Any) -> None:
    try:
        await worker.drain()
    except Exception:
        pass  # it has ended, which 'exit' tells


def _actor_body(ray: Any) -> type:
    """Return the class of the actor; it is made here because Ray marks its methods."""
    talk: Callable[[Any], Any] = ray.method(concurrency_group="talk")
    words: Callable[[Any], Any] = ray.method(concurrency_group="words")

    class MultiloopRemote:
        """How Ray calls a RemotePlace."""

        def __init__(self) -> None:
            self._place = RemotePlace()

        def begin(self, plan: tuple[Any, ...]) -> Any:
            return self._place.begin(plan)

        def post(self, batch: list[bytes]) -> None:
            self._place.post(batch)

        @talk
        def listen(self) -> Any:
            return self._place.listen()

        @words
        def terminate(self) -> Any:
            return self._place.terminate()

    return MultiloopRemote
