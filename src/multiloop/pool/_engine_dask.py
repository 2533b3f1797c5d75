"""Dask as the engine of a pool.

What lives here: `DaskCluster`: one lease for each worker, the words to it, Dask's store, its dashboard. What must not: tasks
(`_engine_far`), an import of Dask before the first use.

A lease is a long-running task of Dask's: the scheduler finds it a place, with the resources asked for; there it keeps a
`FarHost`, which is spoken to through `Client.run`. Dask runs a lease again when its worker is lost: the second run is told
to go, and the pool starts another, so that no task runs twice.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import sys
import threading
import uuid
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any

from .. import _limits as limits
from ..errors import EngineLost, UsageError
from . import _far_protocol as far
from ._far_cluster import Died, Handle, Lost, Resources, Returns, Then
from ._far_host import FarHost

_TOPIC = "multiloop"
_CONNECT_S = 10.0


def import_dask() -> Any:
    """Return `distributed`. Raises UsageError where it is not installed."""
    try:
        import distributed
    except ImportError as error:
        raise UsageError("engine='dask://…' needs Dask: pip install 'multiloop[dask]'") from error
    return distributed


class DaskCluster:
    """A connection to a Dask scheduler."""

    name = "dask"

    def __init__(self, address: str, resources: Resources) -> None:
        """`address` is "dask://host:port", of the scheduler."""
        self.address = address
        self._distributed = import_dask()
        self._resources = resources
        if resources.cpus not in (None, 1):
            raise UsageError("cpus=... cannot be kept on Dask, whose tasks take one thread each: use resources={...}")
        self._client: Any = None
        self._returns: Returns | None = None
        self._handles: dict[str, DaskHandle] = {}
        self._lock = threading.Lock()

    def bind(self, returns: Returns) -> None:
        """See FarCluster."""
        self._returns = returns

    # -- the connection --------------------------------------------------------------------------------------------
    def connect(self) -> int:
        """See FarCluster."""
        with self._lock:
            if self._client is not None and not self.is_alive():
                client, self._client = self._client, None
                self._end(client)
            if self._client is None:
                self._client = self._connected()
                self._client.loop.add_callback(self._beat, self._client)
            return max(1, sum(int(worker["nthreads"]) for worker in self._workers().values()))

    def _connected(self) -> Any:
        url = "tcp://" + self.address.removeprefix("dask://")
        try:
            client = self._distributed.Client(url, timeout=_CONNECT_S, set_as_default=False, name="multiloop")
        except Exception as error:
            raise EngineLost(f"cannot connect to {self.address}: {str(error) or type(error).__name__}") from error
        client.subscribe_topic(_TOPIC, self._event)
        return client

    def _workers(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client.scheduler_info()["workers"]
        return found

    async def _beat(self, client: Any) -> None:
        """Tell the leases now and then that we are still here."""
        while client is self._client and client.status in ("running", "connecting"):
            for handle in list(self._handles.values()):
                handle.tell("beat")
            await asyncio.sleep(limits.POOL_FAR_LEASH_S / 6)

    def is_alive(self) -> bool:
        """See FarCluster."""
        return self._client is not None and self._client.status == "running"

    @property
    def dashboard(self) -> str:
        """See FarCluster."""
        try:
            return str(self._client.dashboard_link or "") if self.is_alive() else ""
        except Exception:
            return ""

    def room(self) -> str:
        """See FarCluster."""
        try:
            workers = self._workers().values()
        except Exception as error:
            return str(error)
        if not workers:
            return "no worker"
        return "; ".join(f"{each['nthreads']} threads, {each.get('resources') or 'no resources'}" for each in workers)

    # -- leases ----------------------------------------------------------------------------------------------------
    def start(self, boot: far.Boot, then: Then) -> Handle:
        """See FarCluster."""
        assert self._returns is not None
        asked = self._resources
        resources = dict(asked.others)
        if asked.gpus is not None:
            resources["GPU"] = asked.gpus
        if asked.memory is not None:
            resources["memory"] = asked.memory
        key = f"multiloop-{boot.name}-{boot.number}-{uuid.uuid4().hex}"
        handle = DaskHandle(self, key, self._returns, then)
        self._handles[key] = handle
        client = self._client

        def submit() -> None:
            try:
                handle.lease = client.submit(
                    lease, key, tuple(boot), key=key, pure=False, retries=0, resources=resources or None
                )
            except Exception as error:
                handle.over(error)
                return
            handle.lease.add_done_callback(lambda ended: handle.has_ended(ended))

        client.loop.add_callback(submit)
        return handle

    def _event(self, event: tuple[float, Any]) -> None:
        """A lease has begun; called on Dask's loop."""
        _, message = event
        handle = self._handles.get(message["key"])
        if handle is not None:
            handle.has_begun(message["address"], far.Started(*message["started"]))

    def run(self, address: str, function: Callable[..., Any], args: tuple[Any, ...], then: Then) -> None:
        """Call a function on a worker's loop."""
        client = self._client
        if client is None:
            then(None, Lost("the connection was closed"))
            return

        async def work() -> None:
            try:
                answers = await client.run(function, *args, workers=[address])
            except asyncio.CancelledError:
                then(None, Lost("the connection was closed"))
                raise
            except Exception as error:
                await asyncio.sleep(0)
                reason = str(error) or type(error).__name__
                if await _answers(client):
                    then(None, Died(f"its Dask worker {address} is gone ({reason})"))
                else:
                    then(None, Lost(reason))
                return
            if address not in answers:
                then(None, Died(f"its Dask worker {address} is gone"))
                return
            then(*answers[address])

        try:
            client.loop.add_callback(work)
        except RuntimeError as error:
            then(None, Lost(str(error)))

    def forget(self, key: str) -> None:
        """A lease is over."""
        self._handles.pop(key, None)

    # -- values ----------------------------------------------------------------------------------------------------
    def put(self, value: Any) -> tuple[Any, int]:
        """See FarCluster."""
        [future] = self._client.scatter([value], hash=False)
        return _Published(self._client, future), int(getattr(value, "nbytes", 0) or sys.getsizeof(value))

    def adopt(self, value: Any) -> Any:
        """See FarCluster."""
        return _Published(value.client, value) if isinstance(value, self._distributed.Future) else None

    def cloud(self) -> far.Dumps:
        """See FarCluster."""
        from cloudpickle import dumps

        return dumps  # type: ignore[no-any-return]

    def close(self) -> None:
        """See FarCluster."""
        client, self._client = self._client, None
        if client is not None:
            threading.Thread(target=self._end, args=(client,), name="multiloop-dask-close").start()

    def _end(self, client: Any) -> None:
        until = monotonic() + limits.POOL_EXIT_GRACE_S
        while self._handles and client.status == "running" and monotonic() < until:
            threading.Event().wait(0.01)
        try:
            client.close(timeout=2)
        except Exception:
            pass  # the scheduler is gone


class _Published:
    """A value in Dask's store, under a name by which any client of the cluster finds it, as long as this lives here."""

    def __init__(self, client: Any, future: Any) -> None:
        self._future = future
        self.name = f"multiloop-{uuid.uuid4().hex}"
        client.publish_dataset(future, name=self.name)
        weakref.finalize(self, _unpublish, client, self.name).atexit = False

    def __reduce__(self) -> Any:
        return str, (self.name,)


def _unpublish(client: Any, name: str) -> None:
    async def work() -> None:
        await client.unpublish_dataset(name)

    if client.status == "running":
        try:
            client.loop.add_callback(work)
        except RuntimeError:
            pass  # that loop is over


class DaskHandle:
    """One lease."""

    def __init__(self, cluster: DaskCluster, key: str, returns: Returns, then: Then) -> None:
        self.lease: Any = None
        self._cluster = cluster
        self._key = key
        self._returns = returns
        self._then: Then | None = then  # waits for Started
        self._address = ""
        self._gone: Callable[[Exception], Any] | None = None

    # -- what Dask says, on its loop -------------------------------------------------------------------------------
    def has_begun(self, address: str, started: far.Started) -> None:
        """The lease runs on a worker."""
        then, self._then = self._then, None
        if then is not None:
            self._address = address
            self._returns.put(then, started, None)
        else:  # Dask has lost its worker, and runs it again elsewhere
            self._cluster.run(address, words, (self._key, "leave", (True,)), lambda value, error: None)
            self._is_gone("Dask has lost its worker")

    def has_ended(self, lease: Any) -> None:
        """The lease has ended, or could not begin."""
        self._cluster.forget(self._key)
        if lease.status == "error":
            self.over(lease.exception() if not self._then else _error_of(lease))
        else:
            self._is_gone("its lease has ended")

    def over(self, error: BaseException | None) -> None:
        """It could not begin."""
        then, self._then = self._then, None
        self._cluster.forget(self._key)
        if then is not None:
            self._returns.put(then, None, error or Died("its lease has ended"))
        else:
            self._is_gone(str(error))

    def _is_gone(self, why: str) -> None:
        """It has ended by itself, or because nobody is there any more; called on Dask's loop."""
        gone, self._gone = self._gone, None
        if gone is None:
            return
        returns, client = self._returns, self.lease.client

        async def tell() -> None:
            error = Died(why) if await _answers(client) else Lost("its scheduler does not answer")
            returns.put(lambda value, _: gone(error), None, None)

        client.loop.add_callback(tell)

    # -- what the pool says ----------------------------------------------------------------------------------------
    def when_gone(self, function: Callable[[Exception], Any]) -> None:
        """See Handle."""
        self._gone = function

    def ask(self, method: str, args: tuple[Any, ...], then: Then) -> None:
        """See Handle."""
        returns = self._returns
        self._cluster.run(
            self._address, words, (self._key, method, args), lambda value, error: returns.put(then, value, error)
        )

    def tell(self, method: str, *args: Any) -> None:
        """See Handle."""
        if self._address:
            self._cluster.run(self._address, words, (self._key, method, args), lambda value, error: None)

    def kill(self) -> None:
        """See Handle."""
        self._then = self._gone = None
        self.tell("leave", True)
        self._cancel()

    def leave(self) -> None:
        """See Handle."""
        self._gone = None
        self.tell("leave", False)

    def _cancel(self) -> None:
        lease = self.lease
        if lease is not None:
            try:
                lease.client.loop.add_callback(lambda: lease.cancel(force=True))
            except RuntimeError:
                pass  # that loop is over
        self._cluster.forget(self._key)

    def salvage(self, started: far.Started | None, then: Then) -> None:
        """See Handle. The process died with the worker, and nothing of it is left."""
        self._cancel()
        self._returns.put(then, None, None)


def _error_of(lease: Any) -> BaseException | None:
    try:
        error: BaseException | None = lease.exception()
    except Exception as failure:
        return failure
    return error


async def _answers(client: Any) -> bool:
    """Whether the scheduler does."""
    if client.status != "running":
        return False
    try:
        await asyncio.wait_for(client.scheduler.identity(), 2)
    except Exception:
        return False
    return True


# --- on Dask's worker -----------------------------------------------------------------------------------------------
_hosts: dict[str, FarHost] = {}
_ends: dict[str, queue.SimpleQueue[Any]] = {}


def lease(key: str, boot_fields: tuple[Any, ...]) -> str:
    """Keep a FarHost until it is told to leave, or the pool has not been heard of for long."""
    from distributed import get_worker, secede

    worker = get_worker()
    boot = far.Boot(*boot_fields)
    wanted: queue.SimpleQueue[Any] = queue.SimpleQueue()
    loop = worker.loop.asyncio_loop

    async def fetch(name: str) -> Any:
        answer: asyncio.Future[Any] = loop.create_future()
        wanted.put((name, answer))
        return await answer

    async def begin() -> tuple[FarHost, far.Started]:
        host = FarHost(boot, worker.address, fetch)
        try:
            return host, await host.begin()
        except BaseException:
            await host.leave(force=True)
            raise

    host, started = asyncio.run_coroutine_threadsafe(begin(), loop).result()
    _hosts[key] = host
    _ends[key] = wanted
    try:
        worker.log_event(_TOPIC, {"key": key, "address": worker.address, "started": tuple(started)})
        secede()
        while True:
            try:
                want = wanted.get(timeout=limits.POOL_FAR_LEASH_S / 4)
            except queue.Empty:
                if monotonic() - host.heard_at > limits.POOL_FAR_LEASH_S:
                    asyncio.run_coroutine_threadsafe(host.leave(force=True), loop).result()
                    return f"{socket.gethostname()}: the pool was not heard of any more"
                continue
            if want is None:
                return "left"
            name, answer = want
            _fetch(name, answer, loop)
    finally:
        _hosts.pop(key, None)
        _ends.pop(key, None)


def _fetch(name: str, answer: Any, loop: Any) -> None:
    """Get a value from Dask's store, on the lease's thread: there Dask has a client."""
    from distributed import get_client

    def settle(value: Any, error: BaseException | None) -> None:
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)

    try:
        value = get_client().get_dataset(name).result()
    except Exception as error:
        loop.call_soon_threadsafe(settle, None, error)
    else:
        loop.call_soon_threadsafe(settle, value, None)


async def words(key: str, method: str, args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    """Say something to a host, on its worker's loop. Returns the answer, or what it raised."""
    host = _hosts.get(key)
    if host is None:
        return None, Died("its lease has ended")
    try:
        value = await getattr(host, method)(*args)
    except Exception as error:
        return None, error
    if method == "leave":
        _hosts.pop(key, None)
        if (end := _ends.pop(key, None)) is not None:
            end.put(None)
    return value, None
