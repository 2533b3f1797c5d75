"""EventEmitter, once() and on(): the rows E1 to E7 of the Node table."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest

import multiloop
from multiloop import events
from multiloop.errors import MaxListenersExceededWarning, UnhandledError, UsageError
from multiloop.events import EventEmitter, error_monitor
from multiloop.loop import Handle


# --- emit (E1) --------------------------------------------------------------------------------------------------------
def test_listeners_are_called_in_the_order_they_were_added() -> None:
    emitter, seen = EventEmitter(), []
    emitter.on("x", lambda v: seen.append(("a", v))).on("x", lambda v: seen.append(("b", v)))
    emitter.prepend_listener("x", lambda v: seen.append(("first", v)))
    assert emitter.emit("x", 1) is True
    assert seen == [("first", 1), ("a", 1), ("b", 1)]


def test_emit_says_whether_anybody_listened() -> None:
    emitter = EventEmitter()
    assert emitter.emit("x") is False
    emitter.on("x", lambda: None)
    assert emitter.emit("x") is True
    assert emitter.emit("y") is False


def test_a_listener_added_during_emit_waits_for_the_next_emit() -> None:
    emitter, seen = EventEmitter(), []
    emitter.on("x", lambda: emitter.on("x", lambda: seen.append("late")))
    emitter.emit("x")
    assert seen == []
    emitter.emit("x")
    assert seen == ["late"]


def test_a_listener_removed_during_emit_is_still_called() -> None:
    emitter, seen = EventEmitter(), []

    def second() -> None:
        seen.append("second")

    emitter.on("x", lambda: emitter.off("x", second))
    emitter.on("x", second)
    emitter.emit("x")
    emitter.emit("x")
    assert seen == ["second"]


def test_an_exception_in_a_listener_leaves_emit_and_stops_the_others() -> None:
    emitter, seen = EventEmitter(), []
    emitter.on("x", lambda: 1 / 0)
    emitter.on("x", lambda: seen.append(1))
    with pytest.raises(ZeroDivisionError):
        emitter.emit("x")
    assert seen == []


def test_no_loop_is_needed_for_plain_listeners_and_no_init_either() -> None:
    class Mine(EventEmitter):
        def __init__(self) -> None:
            self.colour = "red"

    seen: list[str] = []
    mine = Mine()
    mine.on("x", lambda: seen.append(mine.colour))
    mine.emit("x")
    assert seen == ["red"]


def test_an_emitter_can_be_a_handle_too() -> None:
    class Both(Handle, EventEmitter):
        pass

    seen: list[int] = []
    both = Both()
    both.on("x", seen.append)
    both.emit("x", 1)
    assert seen == [1]
    assert both.has_ref


@pytest.mark.parametrize("method", ["on", "once", "prepend_listener", "prepend_once_listener", "add_listener"])
def test_a_listener_that_cannot_be_called_is_refused_at_once(method: str) -> None:
    emitter = EventEmitter()
    with pytest.raises(TypeError, match="callable"):
        getattr(emitter, method)("x", 42)
    assert emitter.event_names() == []


def test_on_decorates() -> None:
    emitter, seen = EventEmitter(), []

    @emitter.on("x")
    def always(value: int) -> None:
        seen.append(value)

    @emitter.once("x")
    def first(value: int) -> None:
        seen.append(-value)

    emitter.emit("x", 1)
    emitter.emit("x", 2)
    assert seen == [1, -1, 2]
    emitter.off("x", always)
    assert emitter.event_names() == []


# --- once, off and looking (E2) ---------------------------------------------------------------------------------------
def test_a_once_listener_is_removed_before_it_is_called() -> None:
    emitter, counts = EventEmitter(), []
    emitter.once("x", lambda: (counts.append(emitter.listener_count("x")), emitter.emit("x")))
    emitter.emit("x")
    assert counts == [0]


def test_a_once_listener_is_removed_by_its_original() -> None:
    emitter, seen = EventEmitter(), []
    emitter.once("x", seen.append)
    assert emitter.listeners("x") == [seen.append]
    (raw,) = emitter.raw_listeners("x")
    assert raw is not seen.append
    assert raw.listener == seen.append
    emitter.off("x", seen.append)
    assert emitter.emit("x", 1) is False


def test_calling_a_raw_once_wrapper_fires_and_removes_it() -> None:
    emitter, seen = EventEmitter(), []
    emitter.once("x", seen.append)
    emitter.raw_listeners("x")[0](5)
    assert seen == [5]
    assert emitter.listener_count("x") == 0


def test_off_removes_the_latest_of_equal_listeners_and_ignores_unknown_ones() -> None:
    emitter, seen = EventEmitter(), []

    def twice() -> None:
        seen.append("twice")

    emitter.on("x", twice).on("x", lambda: seen.append("between")).on("x", twice)
    assert emitter.listener_count("x", twice) == 2
    emitter.off("x", twice).off("x", print).off("y", print)
    emitter.emit("x")
    assert seen == ["twice", "between"]


def test_prepend_once_goes_first_and_only_once() -> None:
    emitter, seen = EventEmitter(), []
    emitter.on("x", lambda: seen.append("on"))
    emitter.prepend_once_listener("x", lambda: seen.append("once"))
    emitter.emit("x")
    emitter.emit("x")
    assert seen == ["once", "on", "on"]


def test_names_are_anything_hashable_and_listed_in_order() -> None:
    emitter = EventEmitter()
    for name in ("b", 7, ("t", 1), "a"):
        emitter.on(name, print)
    assert emitter.event_names() == ["b", 7, ("t", 1), "a"]
    emitter.remove_all_listeners(7)
    assert emitter.event_names() == ["b", ("t", 1), "a"]
    emitter.remove_all_listeners()
    assert emitter.event_names() == []


def test_a_subclass_can_follow_its_listeners() -> None:
    class Following(EventEmitter):
        def __init__(self) -> None:
            self.changes: list[Any] = []

        def _listeners_changed(self, name: Any, count: int) -> None:
            self.changes.append((name, count))

    emitter = Following()
    emitter.on("x", print).once("x", repr)
    emitter.remove_all_listeners()
    assert emitter.changes == [("x", 1), ("x", 2), ("x", 1), ("x", 0)]


# --- 'error' (E3) -----------------------------------------------------------------------------------------------------
def test_an_error_without_listener_raises_what_was_emitted() -> None:
    problem = ValueError("no")
    with pytest.raises(ValueError) as caught:
        EventEmitter().emit("error", problem)
    assert caught.value is problem


@pytest.mark.parametrize("args", [(), ("just text",)])
def test_an_error_that_is_no_exception_is_wrapped(args: tuple[Any, ...]) -> None:
    with pytest.raises(UnhandledError) as caught:
        EventEmitter().emit("error", *args)
    assert caught.value.context == (args[0] if args else None)


def test_error_monitors_see_the_error_first_and_do_not_handle_it() -> None:
    emitter, seen = EventEmitter(), []
    emitter.on(error_monitor, lambda e: seen.append("monitor"))
    with pytest.raises(ValueError):
        emitter.emit("error", ValueError())
    emitter.on("error", lambda e: seen.append("listener"))
    assert emitter.emit("error", ValueError()) is True
    assert seen == ["monitor", "monitor", "listener"]


# --- meta events and the leak warning (E4) ----------------------------------------------------------------------------
def test_new_listener_comes_before_and_remove_listener_after() -> None:
    emitter, seen = EventEmitter(), []
    emitter.on("new_listener", lambda name, f: seen.append(("new", name, f, emitter.listener_count("x"))))
    emitter.on("remove_listener", lambda name, f: seen.append(("gone", name, f, emitter.listener_count("x"))))
    emitter.once("x", print)
    emitter.emit("x")
    assert seen[1:] == [("new", "x", print, 0), ("gone", "x", print, 0)]


def test_remove_all_listeners_tells_of_each() -> None:
    emitter, gone = EventEmitter(), []
    emitter.on("remove_listener", lambda name, f: gone.append(name))
    emitter.on("a", print).on("b", print)
    emitter.remove_all_listeners()
    assert gone == ["a", "b"]


def test_many_listeners_warn_once_for_each_event() -> None:
    emitter = EventEmitter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(15):
            emitter.on("x", print)
    (warning,) = caught
    message = warning.message
    assert isinstance(message, MaxListenersExceededWarning)
    assert (message.emitter, message.name, message.count) == (emitter, "x", 11)
    assert warning.filename == __file__


def test_the_limit_of_listeners_can_be_set_and_switched_off() -> None:
    emitter = EventEmitter().set_max_listeners(1)
    emitter.on("x", print)
    with pytest.warns(MaxListenersExceededWarning):
        emitter.on("x", print)
    quiet = EventEmitter().set_max_listeners(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(100):
            quiet.on("x", print)
    assert quiet.get_max_listeners() == 0
    with pytest.raises(UsageError):
        quiet.set_max_listeners(-1)


# --- async listeners (E5) ---------------------------------------------------------------------------------------------
def test_an_async_listener_that_fails_becomes_an_error_event() -> None:
    async def main() -> None:
        emitter = EventEmitter()

        async def bad(value: int) -> None:
            await asyncio.sleep(0)
            raise KeyError(value)

        emitter.on("x", bad)
        happened = events.once(emitter, "error")
        assert emitter.emit("x", 7) is True
        assert not happened.done(), "a rejection must not come inside emit"
        (error,) = await happened
        assert isinstance(error, KeyError)

    multiloop.run(main)


def test_an_async_rejection_without_error_listener_ends_the_program() -> None:
    def main() -> None:
        async def bad() -> None:
            raise KeyError("nobody")

        EventEmitter().on("x", bad).emit("x")

    with pytest.raises(KeyError, match="nobody"):
        multiloop.run(main)


def test_a_failing_async_error_listener_is_not_emitted_again() -> None:
    calls: list[BaseException] = []

    def main() -> None:
        async def bad(error: BaseException) -> None:
            calls.append(error)
            raise KeyError("from the error listener")

        EventEmitter().on("error", bad).emit("error", ValueError())

    with pytest.raises(KeyError, match="from the error listener"):
        multiloop.run(main)
    assert len(calls) == 1


def test_the_program_waits_for_async_listeners() -> None:
    seen: list[str] = []

    def main() -> None:
        async def slow() -> None:
            await asyncio.sleep(0.01)
            seen.append("done")

        EventEmitter().on("x", slow).emit("x")

    multiloop.run(main)
    assert seen == ["done"]


def test_an_async_listener_without_a_loop_is_refused_in_one_line() -> None:
    async def listener() -> None: ...

    with pytest.raises(UsageError, match="running loop"):
        EventEmitter().on("x", listener).emit("x")


# --- once() (E6) ------------------------------------------------------------------------------------------------------
def test_once_gives_the_list_of_arguments_and_leaves_no_listener() -> None:
    async def main() -> None:
        emitter = EventEmitter()
        waiting = events.once(emitter, "x")
        emitter.emit("x", 1, 2)
        assert await waiting == [1, 2]
        assert emitter.event_names() == []

    asyncio.run(main())


def test_once_raises_on_error_unless_that_is_what_it_waits_for() -> None:
    async def main() -> None:
        emitter = EventEmitter()
        waiting = events.once(emitter, "x")
        emitter.emit("error", ValueError("first"))
        with pytest.raises(ValueError, match="first"):
            await waiting
        waiting_for_error = events.once(emitter, "error")
        emitter.emit("error", ValueError("second"))
        assert str((await waiting_for_error)[0]) == "second"
        assert emitter.event_names() == []

    multiloop.run(main)


def test_a_cancelled_once_leaves_no_listener() -> None:
    async def main() -> None:
        emitter = EventEmitter()
        waiting = events.once(emitter, "x")
        waiting.cancel()
        assert emitter.event_names() == []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await events.once(emitter, "x")
        assert emitter.event_names() == []

    multiloop.run(main)


def test_once_takes_a_callback_and_does_not_hold_the_program() -> None:
    seen: list[Any] = []

    def main() -> None:
        emitter = EventEmitter()
        events.once(emitter, "x", callback=lambda error, args: seen.append((error, args)))
        emitter.emit("x", 3)
        events.once(EventEmitter(), "never", callback=lambda error, args: seen.append("wrong"))

    multiloop.run(main)
    assert seen == [(None, [3])]


# --- on() (E7) --------------------------------------------------------------------------------------------------------
def test_on_keeps_what_comes_between_two_turns() -> None:
    async def main() -> None:
        emitter = EventEmitter()
        seen = []
        iterator = events.on(emitter, "x", close=["end"])
        for value in range(5):
            emitter.emit("x", value)
        emitter.emit("end")
        async for (value,) in iterator:
            seen.append(value)
        assert seen == [0, 1, 2, 3, 4]
        assert emitter.event_names() == []

    multiloop.run(main)


def test_on_wakes_one_who_waits() -> None:
    async def main() -> None:
        emitter = EventEmitter()
        asyncio.get_running_loop().call_later(0.005, emitter.emit, "x", "late")
        async for args in events.on(emitter, "x"):
            assert args == ["late"]
            break
        assert emitter.event_names() == [], "leaving the loop removes the listeners"

    multiloop.run(main)


def test_on_raises_an_error_after_what_came_before_it() -> None:
    async def main() -> None:
        emitter = EventEmitter()
        iterator = events.on(emitter, "x")
        emitter.emit("x", 1)
        emitter.emit("error", ValueError("broken"))
        assert await anext(iterator) == [1]
        with pytest.raises(ValueError, match="broken"):
            await anext(iterator)
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)
        assert emitter.event_names() == []

    multiloop.run(main)


def test_on_pauses_the_emitter_at_the_mark_and_resumes_it_below() -> None:
    class Source(EventEmitter):
        state = "flowing"

        def pause(self) -> None:
            self.state = "paused"

        def resume(self) -> None:
            self.state = "flowing"

    async def main() -> None:
        source = Source()
        async with events.on(source, "x", high_water_mark=3, low_water_mark=1) as iterator:
            states = []
            for value in range(3):
                states.append(source.state)
                source.emit("x", value)
            assert [*states, source.state] == ["flowing", "flowing", "flowing", "paused"]
            await anext(iterator)
            assert source.state == "paused"
            await anext(iterator)
            assert source.state == "flowing"
        assert source.event_names() == []

    multiloop.run(main)


def test_on_with_a_mark_needs_an_emitter_that_can_pause() -> None:
    with pytest.raises(UsageError, match="pause"):
        events.on(EventEmitter(), "x", high_water_mark=1)


def test_an_iterator_that_is_dropped_removes_its_listeners() -> None:
    emitter = EventEmitter()
    iterator = events.on(emitter, "x")
    assert emitter.listener_count("x") == 1
    del iterator
    gc.collect()
    assert emitter.event_names() == []
