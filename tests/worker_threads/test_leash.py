"""Where a thread is met when it is interrupted."""

import asyncio
import queue
import threading

import pytest
from tests.support import wait_until

from multiloop.worker_threads import _leash
from multiloop.worker_threads._leash import await_outside, is_inside, stack_of


def spin(has_ended: list[bool]) -> None:
    while not has_ended:
        pass


def test_a_thread_in_the_library_is_left_alone_for_a_moment_and_one_in_code_of_the_user_is_not() -> None:
    done: queue.Queue[None] = queue.Queue()
    has_ended: list[bool] = []
    waiting = threading.Thread(target=done.get)  # in queue.py, which holds a lock now and then
    spinning = threading.Thread(target=spin, args=(has_ended,))
    waiting.start()
    spinning.start()
    try:
        wait_until(lambda: is_inside(waiting.ident or 0))
        wait_until(lambda: not is_inside(spinning.ident or 0))
        assert "spin" in stack_of(spinning.ident or 0)
        await_outside(waiting.ident or 0)  # it does not come out: this ends all the same
        assert is_inside(waiting.ident or 0)
    finally:
        done.put(None)
        has_ended.append(True)
        waiting.join()
        spinning.join()
    assert not is_inside(waiting.ident or 0)


@pytest.mark.parametrize(
    ("file", "is_library"),
    [
        (f"{_leash._LIBRARY[0]}asyncio/events.py", True),
        ("<frozen importlib._bootstrap>", True),
        (_leash.__file__, True),
        (f"{_leash._LIBRARY[0]}site-packages/numpy/core.py", False),
        ("/home/me/program.py", False),
        ("<string>", False),
    ],
)
def test_installed_packages_are_code_of_the_user_and_ours_is_not(file: str, is_library: bool) -> None:
    entered: list[bool] = []
    has_ended: list[bool] = []
    code = compile("entered.append(True)\nwhile not has_ended: pass", file, "exec")
    thread = threading.Thread(target=exec, args=(code, {"entered": entered, "has_ended": has_ended}))
    thread.start()
    try:
        wait_until(lambda: entered)
        assert is_inside(thread.ident or 0) is is_library
    finally:
        has_ended.append(True)
        thread.join()


def test_a_loop_that_is_just_being_made_does_not_end_the_watch() -> None:
    unmade = asyncio.BaseEventLoop.__new__(
        asyncio.BaseEventLoop
    )  # as the collector sees one whose __init__ has not begun
    try:
        _leash._stop_loops()
    finally:
        asyncio.BaseEventLoop.__init__(unmade)  # it is closed like any other
        unmade.close()
