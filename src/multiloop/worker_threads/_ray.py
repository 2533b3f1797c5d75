"""This process's connection to Ray: for the pool's engine and for workers with engine="ray".

What lives here: `RayLink`, and Ray's errors as ours. What must not: what actors do; an import of Ray before the first use.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

from ..errors import EngineLost, UsageError

_HELLO_S = 1.0  # to find out whether the head answers
_CONNECT_S = 10.0
_CLIENT_PORT = 10001  # where Ray's client server listens unless told otherwise


class Died(Exception):
    """A worker on another machine is gone. The message is what the engine says of it."""


class Lost(Exception):
    """The engine itself cannot be reached any more. The message says why."""


class _Thread:
    """The one thread that starts Ray, and lives as long as the process: the kernel ends Ray's processes with it."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pid = 0

    def call(self, function: Callable[[], Any]) -> Any:
        """Call there, and wait for the outcome."""
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                threading.Thread(target=self._run, name="multiloop-ray", daemon=True).start()
        future: Future[Any] = Future()
        self._calls.put((function, future))
        return future.result()

    def _run(self) -> None:
        while True:
            function, future = self._calls.get()
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)


_thread = _Thread()


def import_ray() -> Any:
    """Return Ray. Raises UsageError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
    except ImportError as error:
        raise UsageError("engine='ray' needs Ray: pip install 'multiloop[ray]'") from error
    return ray


class RayLink:
    """The Ray that this process is connected to, or a new connection."""

    def __init__(self, address: str) -> None:
        """`address` is "ray" (the one in use, or RAY_ADDRESS, or one on this machine) or "ray://host:port"."""
        self.address = address
        self.ray = import_ray()
        self.dashboard = ""
        self._head: tuple[str, int] | None = None

    def connect(self) -> None:
        """Connect, or connect again; may take long. Raises EngineLost, UsageError."""
        _thread.call(self._connect)

    def _connect(self) -> None:
        # One connection for the whole process, whatever pools there are.
        if self.ray.is_initialized():
            if self.is_alive():
                self._check_address()
            else:
                self.ray.shutdown()
        if not self.ray.is_initialized():
            self._init()
        self._learn()

    def _init(self) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
        if self.address != "ray":
            options["address"] = self.address
        try:
            _refuse_if_nobody_listens(self.address)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.ray.init(**options)
        except ImportError as error:
            raise EngineLost(f"{self.address} needs Ray's client: pip install 'ray[client]' ({error})") from error
        except Exception as error:
            hint = ""
            if self.address != "ray":
                hint = "; the port is the one of `ray start --ray-client-server-port`, 10001 unless you chose another"
            raise EngineLost(f"cannot connect to {self.address}: {first_line(error)}{hint}") from error

    def _check_address(self) -> None:
        """One process has one connection to Ray."""
        if self.address == "ray":
            return
        client = self.ray.util.client.ray
        if not client.is_connected():
            raise UsageError(
                f"this process is connected to Ray as a driver already: use engine='ray', not {self.address!r}"
            )

    def _learn(self) -> None:
        """Find out where the head and its dashboard are."""
        self._head = None if self._is_client else self._find_head()
        self.dashboard = _dashboard_of(self.ray)

    @property
    def _is_client(self) -> bool:
        return bool(self.ray.util.client.ray.is_connected())

    def _find_head(self) -> tuple[str, int]:
        host, _, port = self.ray.get_runtime_context().gcs_address.rpartition(":")
        return host.strip("[]"), int(port)

    def is_alive(self) -> bool:
        """Whether it can be reached; takes a moment."""
        if not self.ray.is_initialized():
            return False
        if self._is_client:
            return True
        try:
            socket.create_connection(self._head or self._find_head(), _HELLO_S).close()
        except OSError:
            return False
        return True

    def translate(self, error: BaseException) -> BaseException:
        """Turn Ray's error into one of ours."""
        errors = self.ray.exceptions
        if isinstance(error, errors.RayTaskError):
            return error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(error, errors.ActorDiedError | errors.ActorUnavailableError | errors.WorkerCrashedError):
            if not self.is_alive():
                return Lost(first_line(error))
            return Died(_reason_of(error))
        if isinstance(error, ConnectionError | errors.RaySystemError | errors.RpcError):
            return Lost(first_line(error))
        return error


def _refuse_if_nobody_listens(address: str) -> None:
    """Raise ConnectionRefusedError at once for a "ray://host:port" where nobody is: Ray itself tries for half a minute."""
    found = urlsplit(address)
    if found.scheme != "ray" or not found.hostname:
        return
    try:
        socket.create_connection((found.hostname, found.port or _CLIENT_PORT), _CONNECT_S).close()
    except ConnectionRefusedError:
        raise
    except OSError:
        pass  # Ray may know another way (a proxy), and says what is wrong if not


def when_done(reference: Any, then: Callable[[Any, BaseException | None], Any]) -> None:
    """Call with the outcome of a reference, on a thread of Ray's."""
    future = reference.future()

    def done(ended: Any) -> None:
        error = ended.exception()
        then(None if error is not None else ended.result(), error)

    future.add_done_callback(done)


def _dashboard_of(ray: Any) -> str:
    try:
        found = ray._private.worker.get_dashboard_url()
    except Exception:
        found = None
    if not found:
        return ""
    return str(found) if "://" in found else f"http://{found}"


def _reason_of(error: BaseException) -> str:
    """Say in one line why an actor died: Ray says it in twenty."""
    text = str(error)
    for mark in (
        "exit detail:",
        "Worker exit detail:",
        "The actor died because",
        "actor died unexpectedly before finishing",
    ):
        at = text.find(mark)
        if at >= 0:
            return " ".join(text[at:].split())[:300].removeprefix("exit detail: ")
    return first_line(error)


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
