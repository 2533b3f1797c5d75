"""What the tests of the pool run in workers."""

from __future__ import annotations

import contextvars
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from multiloop import pool

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
seen: list[Any] = []


def identity(value: Any = None) -> Any:
    return value


def call(function: Any, *args: Any) -> Any:
    return function(*args)


def wait_for(path: str) -> str:
    """Return the path once it exists; "" at once."""
    while path and not os.path.exists(path):
        time.sleep(0.005)
    return path


def add(left: int, right: int = 0) -> int:
    return left + right


def everything(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def pid(_: Any = None) -> int:
    return os.getpid()


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def spin(seconds: float) -> float:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return seconds


def forever() -> None:
    while True:
        pass


def forever_politely(path: str, within: float | None = None) -> str:
    """Run until asked to stop, then write a file."""
    if within is not None:
        pool.stop_within(within)
    pool.stop_requested()  # from here on it is not killed at once
    with open(path + ".begun", "w"):
        pass
    while not pool.stop_requested():
        time.sleep(0.001)
    with open(path, "w") as file:
        file.write("stopped by itself")
    return "dropped"


def fork_and_return(value: int) -> int:
    """Return twice: here, and in a child."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return value


def fork_and_report(value: int) -> int:
    child = os.fork()
    if not child:
        pool.report("from the child")
        os._exit(0)
    os.waitpid(child, 0)
    pool.report("from the worker")
    return value


def promise_and_forget() -> None:
    pool.stop_within(0.05)
    forever()


def die(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    time.sleep(10)


def leave(code: int) -> None:
    os._exit(code)


def exit_politely(code: int) -> None:
    sys.exit(code)


def die_once(path: str) -> str:
    """Die the first time, succeed the second."""
    if not os.path.exists(path):
        with open(path, "w"):
            pass
        die()
    return "second"


class Odd(Exception):
    """Cannot be unpickled: its __init__ wants more than it passes on."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")


class Holder(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("holder")
        self.lock = threading.Lock()


def fail(text: str = "broken") -> None:
    raise ValueError(text)


def fail_oddly() -> None:
    raise Odd(1, 2)


def fail_holding() -> None:
    raise Holder


def fail_richly() -> None:
    try:
        {}["missing"]
    except KeyError as cause:
        error = ValueError("rich")
        error.add_note("a note")
        error.detail = 7  # type: ignore[attr-defined]
        raise error from cause


def fail_in_except() -> None:
    try:
        raise Holder
    except Holder:
        fail("while handling")


def stop_iteration() -> None:
    raise StopIteration(3)


def unpicklable() -> Any:
    return {"fine": 1, "deep": [0, threading.Lock()]}


class BadReduce:
    """Fails while it is pickled, or unpickled, as told."""

    def __init__(self, when: str) -> None:
        self.when = when

    def __reduce__(self) -> Any:
        if self.when == "pickling":
            raise RuntimeError("in __reduce__")
        return _bad_make, (self.when,)


def _bad_make(when: str) -> None:
    if when == "exit":
        sys.exit(3)
    if when == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    raise RuntimeError("while unpickling")


def bad(when: str) -> BadReduce:
    return BadReduce(when)


def ignore(value: Any) -> str:
    return "ignored"


def count(up_to: int, pause: float = 0.0) -> Iterator[int]:
    for number in range(up_to):
        time.sleep(pause)
        yield number


def count_and_tell(up_to: int, path: str) -> Iterator[int]:
    try:
        yield from range(up_to)
    finally:
        with open(path, "w") as file:
            file.write("closed")


def count_and_fail(up_to: int) -> Iterator[int]:
    yield from range(up_to)
    raise ValueError("after the last")


def report_steps(steps: int) -> str:
    for step in range(steps):
        pool.report(step)
    return "done"


def get_variable() -> tuple[str, str | None]:
    return variable.get(), pool.traceparent.get()


def set_up(value: Any) -> None:
    seen.append(value)


def set_up_badly() -> None:
    raise ValueError("the initializer")


def get_seen() -> list[Any]:
    return seen


def tell_end(path: str = "") -> None:
    with open(os.environ["POOL_TEST_FILE"], "a") as file:
        file.write("end\n")


def grow(size_bytes: int) -> int:
    seen.append(b"x" * size_bytes)
    return os.getpid()


def grow_a_moment(size_bytes: int) -> int:
    return len(b"x" * size_bytes)


def niceness() -> int:
    return os.nice(0)


def cores() -> set[int]:
    return os.sched_getaffinity(0)


async def coroutine() -> None: ...


def touch(path: str, seconds: float = 0.0) -> str:
    """Say that this has begun, then work."""
    with open(path, "a") as file:
        file.write("begun\n")
    spin(seconds)
    return path


def fill(buffer: Any, value: int) -> Any:
    """Write to a shared buffer in place; returns the buffer itself."""
    buffer[0] = value
    buffer[len(buffer) - 1] = value
    return buffer


def change_and_die_once(array: Any, path: str) -> Any:
    """Change the argument, then die; the second run must not see the change."""
    found = int(array[0])
    array[0] = 7
    die_once(path)
    return found


def first_byte_changed(array: Any) -> Any:
    array[0] = 99
    return array


def copied(values: Any) -> Any:
    return values.copy()


def wait_for_file(path: str) -> str:
    """Say that this has begun, then wait."""
    with open(os.path.splitext(path)[0] + ".begun", "w"):
        pass
    while not os.path.exists(path):
        time.sleep(0.005)
    return path


def die_at(number: int, fatal: int) -> int:
    if number == fatal:
        die()
    return number


def total(values: Any, name: str) -> int:
    return int(values[name].sum())


def overwrite(values: Any, name: str) -> None:
    values[name][0] = 1


def assigned_resources() -> dict[str, float]:
    import ray

    found: dict[str, float] = ray.get_runtime_context().get_assigned_resources()
    return {name: amount for name, amount in found.items() if "group" not in name}


def parent_pid() -> int:
    return os.getppid()
