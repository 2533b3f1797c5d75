"""`Worker`: code that runs beside this loop, in a process, an interpreter or a thread of its own.

What lives here: the worker as its parent sees it: options in, events out, in Node's order. What must not: how each kind
is started and stopped (`_process`, `_interpreter`, `_thread`), what goes on inside (`_child`).

    Worker ── control link ──▶ START    ◀── ONLINE ERROR END     (and what the tree says: `_exchange`)
           ══ port ══════════▶ messages ◀══ messages
           ── body ──────────▶ stop     ◀── ended

Rules
* Order of events: online · message… · error · exit. Everything the worker sent is emitted before `exit`, the last one.
* Messages wait until somebody listens or iterates; those that nobody took by then can be iterated over after `exit`.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .._limits import MAX_MESSAGE_BYTES, STUCK_S, TERMINATE_S
from ..child_process._pipes import ReadPipe, WritePipe
from ..errors import ClosedError, UsageError, WorkerDied, WorkerStuck
from ..events import EventEmitter
from ..loop import AnyOperation, ErrorFirst, Handle, begin, hub
from . import _zombies
from ._body import Birth, Body, Ending
from ._choose import Choice, choose
from ._cpu import CpuUsage, cpu_usage_of
from ._crossing import exchange_of
from ._failures import unpack_error
from ._link import Link, Packet, socket_pair
from ._main_module import GUARD, answer_to_both_names, is_importing_main
from ._message import pack
from ._options import KINDS, KindName, checked, refusal, require_transfer_list
from ._place import current
from ._port import MessagePort
from ._start import Streams, make_body, open_streams
from ._target import describe
from ._transit import Receiver
from ._words import BROADCAST, DIRECT, END, ERROR, LOCK, ONLINE, SUBSCRIBE, Start

_log = logging.getLogger("multiloop.worker_threads")


class Worker(EventEmitter, Handle):
    """Run a file, a module or a function beside this loop, and exchange messages with it.

    Events: 'online' (its code begins) · 'message' (value) · 'messageerror' (error) · 'error' (an exception that it did
    not catch, with its traceback; or WorkerDied) · 'exit' (code; the last event, after all messages).

    Args:
        target: a path (ends in .py or has a separator; from the working folder), the name of a module, or a function of
            a module's top level. A function gets `worker_data` if it takes an argument, and may be async.
        worker_data: a copy of it is `worker_threads.worker_data` there.
        kind: "process" (true isolation, can always be stopped), "interpreter" (3.14: cheaper, in this process),
            "thread" (no isolation), or "auto": interpreter where the target's packages load there, else process.
        name: shown in lists of processes and threads.
        env: its environment, exactly; None is a copy of ours.
        argv: behind the target's name in its sys.argv.
        stdin, stdout, stderr: True gives the stream of that name, on `worker.stdin` and so on; otherwise it reads
            nothing and writes to ours.
        resource_limits: {"memory": bytes, "cpu_time": seconds, "open_files": n, "stack": bytes}, kind process.
        transfer_list: ports and buffers in `worker_data` that move there.
        max_message_size: of one message, in bytes, both ways.
        engine: "ray" or "ray://host:port": on another machine (then this call gives a `RemoteWorker`, with the same events
            and methods). A file goes along; modules and functions are found there by name. Ports and buffers do not leave
            this machine, and `stdin`, `stdout`, `stderr` and `resource_limits` are refused.
        cpus, gpus, memory: what a worker on another machine asks of the engine.

    Raises:
        TypeError, UsageError: the target or an option cannot be meant; a kind cannot keep an option, or start here.
        NotSendable, TransferError: `worker_data` cannot travel. Nothing was started.
        OSError: no descriptors are left for the channels to it. Nothing was started, nothing transferred.
        RuntimeError: no loop runs in this thread.

    A missing file or module, a syntax error and everything later come as 'error' and `exit(1)`.
    """

    if not TYPE_CHECKING:

        def __new__(cls, target: Any = None, *args: Any, engine: str | None = None, **options: Any) -> Any:
            if engine is None:
                return super().__new__(cls)
            from ._remote import remote_worker

            return remote_worker(target, engine, options)

    def __init__(
        self,
        target: Any,
        *,
        worker_data: Any = None,
        kind: KindName = "auto",
        name: str = "",
        env: Mapping[str, str] | None = None,
        argv: Sequence[Any] = (),
        stdin: bool = False,
        stdout: bool = False,
        stderr: bool = False,
        resource_limits: Mapping[str, float] | None = None,
        transfer_list: Sequence[Any] = (),
        max_message_size: int = MAX_MESSAGE_BYTES,
        engine: None = None,
        cpus: float | None = None,
        gpus: float | None = None,
        memory: int | None = None,
    ) -> None:
        if (cpus, gpus, memory) != (None, None, None):
            raise UsageError("Worker(cpus=..., gpus=..., memory=...) are asked of an engine: engine='ray'")
        Handle.__init__(self)
        here = hub()
        place = current()
        if is_importing_main():
            raise UsageError(f"the main script started a worker while a worker was importing it: {GUARD}")
        if kind not in KINDS:
            raise UsageError(f"Worker(kind={kind!r}): use one of {', '.join(KINDS)}")
        answer_to_both_names()
        self._place = place
        self.thread_id = place.next_thread_id()
        require_transfer_list(transfer_list)
        self._options = checked(
            describe(target),
            name=f"worker {self.thread_id}" if name == "" else name,
            env=env,
            argv=argv,
            streams=(stdin, stdout, stderr),
            resource_limits=resource_limits,
            max_message_size=max_message_size,
        )
        self.name = self._options.name
        if kind != "auto" and (refused := refusal(kind, self._options, place)) is not None:
            raise UsageError(f"Worker: {refused}")
        self.kind: str = kind
        self.kind_reason = "asked for"
        self.exit_code: int | None = None
        self._reset()
        self._receiver = Receiver(os.getpid(), 0)
        start = Start(self._options.target, worker_data, place.environment)
        with ExitStack() as undo:  # nothing is transferred unless there are descriptors for the way there
            control, self._inner_control = (undo.enter_context(end) for end in socket_pair())
            port, self._inner_port = (undo.enter_context(end) for end in socket_pair())
            first = pack(start, transfer_list, receiver=self._receiver, max_bytes=max_message_size)
            undo.pop_all()
        self._opened(here)
        self._connect(control, port)
        self._control.send(first.kind, first.body, first.fds)
        if kind == "auto":
            choose(target, self._options, place, self._chosen)
        else:
            self._begin()

    def _reset(self) -> None:
        self._body: Body | None = None
        self._streams = Streams()
        self._error: BaseException | None = None
        self._end_code: int | None = None  # what its code ended with, as it says itself
        self._is_online = False
        self._is_stopping = False  # terminate() was called
        self._is_stuck = False
        self._is_ended = False
        self._stuck_timer: Any = None
        self._terminations: list[AnyOperation[int | None]] = []
        self._waits: list[AnyOperation[int]] = []
        self._iterators = 0  # of `async for`: they raise the error, if nobody listens for it

    # -- beginning -------------------------------------------------------------------------------------------------
    def _connect(self, control: socket.socket, port: socket.socket) -> None:
        self._control = Link(control)
        self._control.attach(self._hub.loop, self._control_readable, _nothing)
        self._control.read(True)
        self._port = MessagePort(
            Link(port),
            emitter=self,
            max_message_size=self._options.max_message_bytes,
            receiver=self._receiver,
            refuse_transfer="a worker's own port cannot be transferred: use a MessageChannel",
        )
        exchange_of(self._place).join(self._control, self.thread_id)

    def _chosen(self, choice: Choice) -> None:
        self.kind, self.kind_reason = choice
        if not self._is_ended:
            self._begin()

    def _begin(self) -> None:
        inner = (self._inner_control.detach(), self._inner_port.detach())
        if self._is_stopping:  # while the kind was being chosen
            for fd in inner:
                os.close(fd)
            self._hub.loop.call_soon(self._body_ended, Ending())
            return
        try:
            self._streams, outfit = open_streams(self._hub, self._options, inner)
            birth = Birth(self._options, outfit, self._place, self.thread_id, self._hub.loop, self._body_ended)
            self._body = make_body(self.kind, birth)
        except Exception as error:  # no process, thread, memory or descriptor to be had
            self._hub.loop.call_soon(self._body_ended, Ending(failure=error))
            return
        self._settle_receiver()

    def _settle_receiver(self) -> None:
        from ._head import start_time

        assert self._body is not None
        self._receiver.settle(self._body.pid, start_time(self._body.pid))

    # -- looking ---------------------------------------------------------------------------------------------------
    @property
    def pid(self) -> int | None:
        """The process it is in; None before it has begun."""
        return None if self._body is None else self._body.pid

    @property
    def stdin(self) -> WritePipe | None:
        """Its standard input, with `stdin=True`."""
        return self._streams.stdin

    @property
    def stdout(self) -> ReadPipe | None:
        """What it prints, with `stdout=True`. Complete when 'exit' comes."""
        return self._streams.stdout

    @property
    def stderr(self) -> ReadPipe | None:
        """Its standard error, with `stderr=True`. Complete when 'exit' comes."""
        return self._streams.stderr

    @property
    def resource_limits(self) -> dict[str, float]:
        """The limits it runs under; empty once it has ended."""
        return {} if self._is_ended else dict(self._options.resource_limits)

    def cpu_usage(self) -> CpuUsage:
        """How much of a processor's time it has used so far, in seconds; of an interpreter or thread, its own thread.

        Raises ClosedError when it has not begun or has ended, OSError where the system does not tell.
        """
        if self._body is None or self._is_ended:
            raise ClosedError(f"{self.name!r} does not run")
        return cpu_usage_of(self._body.pid, self._body.native_thread)

    def __repr__(self) -> str:
        state = "stuck" if self._is_stuck else f"exited {self.exit_code}" if self._is_ended else "running"
        return f"<Worker {self.thread_id} {self.name!r} {self.kind} {state}>"

    # -- messages --------------------------------------------------------------------------------------------------
    def post_message(self, value: Any, transfer_list: Sequence[Any] = ()) -> bool:
        """Send a copy of `value`; as `MessagePort.post_message`. False when it has ended."""
        return self._port.post_message(value, transfer_list)

    def send(self, value: Any, transfer_list: Sequence[Any] = ()) -> bool:
        """The same as `post_message`: the name that children and cluster workers have."""
        return self._port.post_message(value, transfer_list)

    def drain(self, callback: ErrorFirst | None = None) -> Any:
        """Wait until there is room for more messages. True: go on; False: it has ended."""
        return self._port.drain(callback)

    @property
    def buffered_amount(self) -> int:
        """Bytes posted that the worker has not taken yet."""
        return self._port.buffered_amount

    def _listeners_changed(self, name: Any, count: int) -> None:
        if name == "message" and self._is_ended:
            self._port._tell_again(self, count)
        elif name == "message":
            self._port._message_listeners(count)

    def __aiter__(self) -> AsyncIterator[Any]:
        return _Messages(self)

    # -- what it says ----------------------------------------------------------------------------------------------
    def _control_readable(self) -> None:
        for packet in self._control.receive():
            self._said(packet)
        if self._control.is_ended:
            self._control.read(False)

    def _said(self, packet: Packet) -> None:
        if packet.kind == ONLINE:
            self._is_online = True
            self._hub.call(self.emit, "online")
        elif packet.kind == ERROR:
            self._error = unpack_error(packet.body)
        elif packet.kind == END:
            self._end_code = int.from_bytes(packet.body, "little", signed=True)
            self._port._read_everything()  # it waits for that before it goes
        elif packet.kind in (BROADCAST, SUBSCRIBE, LOCK, DIRECT):
            exchange_of(self._place).arrived(self._control, packet)

    # -- the end ---------------------------------------------------------------------------------------------------
    def wait(self, callback: ErrorFirst | None = None) -> Any:
        """Wait until it has ended; returns its exit code, at once when it had ended before. Its error is not raised."""
        op: AnyOperation[int] = begin(callback, self._hub)
        if self._is_ended:
            self._hub.loop.call_soon(op._succeed, self.exit_code or 0)
        else:
            self._waits.append(op)
            op._stop = lambda: self._forget_wait(op)
        return op

    def _forget_wait(self, op: AnyOperation[int]) -> None:
        if op in self._waits:
            self._waits.remove(op)

    def terminate(self, callback: ErrorFirst | None = None) -> Any:
        """Stop it at once, whatever it does; returns its exit code (1), or None when it had ended before.

        A process is killed. An interpreter is interrupted wherever it runs bytecode; a thread ends with the loop it runs.

        Raises WorkerStuck (for kinds interpreter and thread) when it has not stopped after two seconds (4.5 on a starved
        machine): it goes on inside C code, is counted by `zombies()`, and no longer keeps the program running. 'exit' comes
        if it ever ends.
        """
        op: AnyOperation[int | None] = begin(callback, self._hub)
        if self._is_ended:
            self._hub.loop.call_soon(op._succeed, None)
            return op
        self._terminations.append(op)
        if not self._is_stopping:
            self._is_stopping = True
            if self._body is not None:
                self._body.stop()
            if self.kind != "process":
                self._stuck_timer = self._hub.loop.call_later(TERMINATE_S, self._report_stuck)
        elif self._is_stuck:
            self._hub.loop.call_soon(self._report_stuck)
        return op

    def _report_stuck(self, is_late: bool = False) -> None:
        if self._is_ended or self._body is None:
            return
        if not self._is_stuck:
            stack = self._body.stack()
            if (
                not stack and not is_late
            ):  # it was seen to stop, and ends slowly; or nothing in it runs for want of a core
                self._stuck_timer = self._hub.loop.call_later(STUCK_S - TERMINATE_S, self._report_stuck, True)
                return
            self._is_stuck = True
            self._stuck_error = WorkerStuck(
                f"{self.kind} {self.name!r} does not stop: it is inside C code, or handles every exception; "
                "it is left behind (worker_threads.zombies()). What must be stoppable needs kind='process'",
                stack=stack,
            )
            _zombies.add(self.thread_id, self.name, self.kind, stack, self._body.is_over)
            _log.error("%s\n%s", self._stuck_error, stack)
            self.unref()
            self._hub.call(self._emit_error_if_heard, self._stuck_error)
        terminations, self._terminations = self._terminations, []
        for op in terminations:
            op._fail(self._stuck_error)
            if hasattr(op, "exception"):
                op.exception()  # reported here already: nobody has to await it

    def _body_ended(self, ending: Ending) -> None:
        """Nothing of it runs any more: take what it left, then tell the end."""
        if self._is_ended:
            return
        self._is_ended = True
        if self._stuck_timer is not None:
            self._stuck_timer.cancel()
        while packets := self._control.receive():
            for packet in packets:
                self._said(packet)
        code, error = self._verdict(ending)
        self.exit_code = code
        exchange_of(self._place).leave(self._control, self.thread_id)
        self._receiver.gone()
        self._control.close()
        self._port._peer_died()
        self._streams.finish()
        if error is not None and not self._is_stopping:
            self._tell_error(error)
        terminations, self._terminations = self._terminations, []
        for op in terminations:
            op._succeed(code)
        waits, self._waits = self._waits, []
        for wait in waits:
            wait._succeed(code)
        self._hub.call(self.emit, "exit", code)
        self._ended()

    def _verdict(self, ending: Ending) -> tuple[int, BaseException | None]:
        if self._is_stopping:
            return 1, None
        if ending.failure is not None:
            return 1, ending.failure
        if ending.signal is not None:
            name = _signal_name(ending.signal)
            return 128 + ending.signal, WorkerDied(f"{self.name!r} was killed by {name}", signal=name)
        code = ending.code if ending.code is not None else self._end_code
        if self._error is None and not self._is_online and code != 0:
            died = WorkerDied(f"{self.name!r} ended with code {code} before its code began", exit_code=code)
            return 1 if code is None else code, died
        return code or 0, self._error

    def _tell_error(self, error: BaseException) -> None:
        if self._iterators and not self.listener_count("error"):
            self._error = error  # `async for` raises it behind the last message
            return
        self._error = None
        self._hub.call(self.emit, "error", error)

    def _take_error(self) -> BaseException | None:
        error, self._error = self._error, None
        return error if self._is_ended and not self._is_stopping else None

    def _shutdown(self) -> None:
        """The program on this loop ends, and its workers with it, silently."""
        for each in self._hub.handles:  # all of them first: they end together, not one after the other
            if isinstance(each, Worker) and each._body is not None and not each._is_stopping:
                each._is_stopping = True
                each._body.stop()
        self._is_ended = True
        if self._stuck_timer is not None:
            self._stuck_timer.cancel()
        if self._body is not None:
            self._body.abandon()
        else:
            self._inner_control.close()
            self._inner_port.close()
        exchange_of(self._place).leave(self._control, self.thread_id)
        self._receiver.gone()
        self._control.close()
        self._port._shutdown()
        self._streams.destroy()
        self._ended()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.terminate()


class _Messages(AsyncIterator[Any]):
    """`async for message in worker`: until it has ended; raises its error behind the last message."""

    __slots__ = ("__weakref__", "_is_counted", "_messages", "_worker")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._messages = worker._port.__aiter__()
        self._is_counted = True
        worker._iterators += 1

    async def __anext__(self) -> Any:
        try:
            return await self._messages.__anext__()
        except StopAsyncIteration:
            worker = self._worker
            if not worker._is_ended:  # its end of the port is closed, but it still runs
                await worker.wait()
            error = worker._take_error()
            self._uncount()
            if error is not None:
                raise error from error.__cause__
            raise

    def _uncount(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self._worker._iterators -= 1

    def __del__(self) -> None:
        self._uncount()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _nothing() -> None:
    return None
