"""Ray as the engine of a pool.

What lives here: `RayCluster`: actors as workers, Ray's object store, its dashboard. What must not: tasks (`_engine_far`), an
import of Ray before the first use.

A worker is an actor with three threads: tasks, reports, and the words about both. Ray restarts no actor and repeats no
call, so a task runs at most once. The page of an actor is a file in Ray's folder on its node; when an actor has died, a
task of Ray's on that node reads it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from ..worker_threads._ray import RayLink, first_line, when_done
from . import _far_protocol as far
from ._far_cluster import Handle, Resources, Returns, Then
from ._far_worker import FarWorker, read_page

_Mark = Callable[[Any], Any]


class RayCluster:
    """The Ray that this process is connected to, or a new connection."""

    name = "ray"

    def __init__(self, address: str, resources: Resources) -> None:
        """`address` is "ray" (the one in use, or RAY_ADDRESS, or one on this machine) or "ray://host:port"."""
        self.address = address
        self._resources = resources
        self.link = RayLink(address)
        self._actor_class: Any = None
        self._reader: Any = None
        self._returns: Returns | None = None

    def bind(self, returns: Returns) -> None:
        """Answers go to this loop from now on."""
        self._returns = returns

    def connect(self) -> int:
        """See FarCluster."""
        self.link.connect()
        ray = self.link.ray
        self._actor_class = ray.remote(concurrency_groups={"talk": 1, "words": 2})(_actor_body(ray))
        self._reader = ray.remote(read_page)
        return self._room_for()

    def is_alive(self) -> bool:
        """See FarCluster."""
        return self.link.is_alive()

    def _room_for(self) -> int:
        found = self.link.ray.cluster_resources()
        each = self._resources.cpus
        room = found.get("CPU", 1) / (1 if each is None else each) if each != 0 else sys.maxsize
        if self._resources.gpus:
            room = min(room, found.get("GPU", 0) / self._resources.gpus)
        for name, amount in self._resources.others:
            room = min(room, found.get(name, 0) / amount)
        return max(1, min(int(room), 10_000))

    @property
    def dashboard(self) -> str:
        """See FarCluster."""
        return self.link.dashboard

    def room(self) -> str:
        """See FarCluster."""
        try:
            found = self.link.ray.available_resources()
        except Exception as error:
            return first_line(error)
        return ", ".join(f"{name} {amount:g}" for name, amount in sorted(found.items()) if ":" not in name) or "nothing"

    # -- workers ---------------------------------------------------------------------------------------------------
    def start(self, boot: far.Boot, then: Then) -> Handle:
        """See FarCluster."""
        assert self._returns is not None
        asked = self._resources
        options: dict[str, Any] = {
            "num_cpus": 1 if asked.cpus is None else asked.cpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "name": None,
        }
        if asked.gpus is not None:
            options["num_gpus"] = asked.gpus
        if asked.memory is not None:
            options["memory"] = asked.memory
        if asked.others:
            options["resources"] = dict(asked.others)
        actor = self._actor_class.options(**options).remote(tuple(boot))
        handle = RayHandle(self, actor, self._returns)
        handle.ask("started", (), then)
        return handle

    def read(self, started: far.Started, then: Then) -> None:
        """Read the page of a worker that has died, on its node."""
        assert self._returns is not None
        returns = self._returns
        if started.host == socket.gethostname() and os.path.exists(started.page):
            returns.put(then, read_page(started.page), None)
            return
        try:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            strategy = NodeAffinitySchedulingStrategy(node_id=started.place, soft=False)
            reference = self._reader.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote(
                started.page
            )
            when_done(reference, lambda value, error: returns.put(then, value, error))
        except Exception as error:
            returns.put(then, None, error)

    # -- values ----------------------------------------------------------------------------------------------------
    def put(self, value: Any) -> tuple[Any, int]:
        """See FarCluster."""
        reference = self.link.ray.put(value)
        return reference, int(getattr(value, "nbytes", 0) or sys.getsizeof(value))

    def adopt(self, value: Any) -> Any:
        """See FarCluster."""
        return value if isinstance(value, self.link.ray.ObjectRef) else None

    def cloud(self) -> far.Dumps:
        """See FarCluster."""
        from ray.cloudpickle import dumps

        return dumps  # type: ignore[no-any-return]

    def close(self) -> None:
        """The connection is the process's, not the pool's: Ray ends it with the program."""


class RayHandle:
    """One actor."""

    def __init__(self, cluster: RayCluster, actor: Any, returns: Returns) -> None:
        self._cluster = cluster
        self._actor = actor
        self._returns = returns

    def ask(self, method: str, args: tuple[Any, ...], then: Then) -> None:
        """See Handle."""
        returns, cluster = self._returns, self._cluster
        try:
            reference = getattr(self._actor, method).remote(*args)
        except Exception as error:
            returns.put(then, None, cluster.link.translate(error))
            return

        def done(value: Any, error: BaseException | None) -> None:
            returns.put(then, value, None if error is None else cluster.link.translate(error))

        when_done(reference, done)

    def tell(self, method: str, *args: Any) -> None:
        """See Handle."""
        self.ask(method, args, lambda value, error: None)

    def when_gone(self, function: Callable[[Exception], Any]) -> None:
        """See Handle. Ray says it to who asks; the page then tells that nothing had begun."""

    def kill(self) -> None:
        """See Handle."""
        try:
            self._cluster.link.ray.kill(self._actor, no_restart=True)
        except Exception:
            pass  # it is gone, or the engine is: what it was asked says so

    def leave(self) -> None:
        """See Handle. The pool's loop may be over before the answer comes; Ray's own thread must not wait for Ray."""
        try:
            reference = self._actor.leave.remote()
        except Exception:
            return  # the engine is gone, and the actor with it
        when_done(reference, lambda value, error: threading.Thread(target=self.kill, daemon=True).start())

    def salvage(self, started: far.Started | None, then: Then) -> None:
        """See Handle."""
        if started is None:
            self._returns.put(then, None, None)
        else:
            self._cluster.read(started, then)


def _actor_body(ray: Any) -> type:
    """Return the class of the actors; it is made here because Ray marks its methods."""
    talk: _Mark = ray.method(concurrency_group="talk")
    words: _Mark = ray.method(concurrency_group="words")

    class MultiloopWorker:
        """What runs on the other machine: only how Ray calls it."""

        def __init__(self, boot: tuple[Any, ...]) -> None:
            self._boot = boot

        def started(self) -> Any:
            from ray.cloudpickle import dumps

            place = ray.get_runtime_context().get_node_id()
            self._worker = FarWorker(far.Boot(*self._boot), place, _session_folder(), lambda: dumps)
            return self._worker.started()

        def work(self, call: int, blob: bytes, buffers: Any, shared: Any) -> Any:
            if shared:
                shared = dict(zip(shared, ray.get(list(shared.values())), strict=True))
            return self._worker.work(call, blob, buffers, shared)

        @talk
        def listen(self) -> Any:
            return self._worker.listen()

        @words
        def peek(self, to: int) -> Any:
            return self._worker.peek(to)

        @words
        def stop(self, number: int, to: int) -> Any:
            return self._worker.stop(number, to)

        @words
        def expire(self, number: int, timeout_s: float, to: int) -> Any:
            return self._worker.expire(number, timeout_s, to)

        @words
        def credit(self, number: int, items: int) -> None:
            self._worker.credit(number, items)

        def leave(self) -> None:
            self._worker.leave()

    return MultiloopWorker


def _session_folder() -> str | None:
    """Where Ray keeps what belongs to this run of the node: it goes when that is cleaned up."""
    try:
        from ray._private.worker import global_worker

        folder = global_worker.node.get_session_dir_path()
    except Exception:
        return None
    return folder if os.path.isdir(folder) else None
