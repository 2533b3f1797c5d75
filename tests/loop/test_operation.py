"""Operations: started, awaitable, cancellable, counted; the same with a callback."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Callable
from typing import Any

import pytest
from tests.support import LOOPS, until

import multiloop
from multiloop import fs, timers
from multiloop.loop import CallbackOperation, Operation, begin, call, call_always, hub, launch

loops = pytest.mark.parametrize("loop", LOOPS)


# --- begin ------------------------------------------------------------------------------------------------------------
@loops
def test_it_settles_once_and_counts_until_then(loop: Any) -> None:
    async def main() -> None:
        op: Operation[int] = begin()
        assert op.has_ref
        assert hub().refs == 1
        assert op._succeed(1)
        assert hub().refs == 0
        assert not op._succeed(2)
        op._fail(ValueError())
        assert not op.has_ref
        assert await op == 1
        assert await op == 1

    multiloop.run(main, loop=loop)


@loops
def test_ref_and_unref_may_be_called_at_any_time(loop: Any) -> None:
    async def main() -> None:
        op = begin()
        assert op.unref().unref() is op
        assert hub().refs == 0
        assert op.ref().ref() is op
        assert hub().refs == 1
        op._succeed(None)
        op.ref().unref()
        assert hub().refs == 0

        op = begin().unref()
        op.cancel()
        op.unref().ref()
        assert hub().refs == 0

    multiloop.run(main, loop=loop)


@loops
def test_cancel_stops_the_work_and_the_awaiter(loop: Any) -> None:
    async def main() -> None:
        stopped: list[int] = []
        op = begin()
        op._stop = lambda: stopped.append(1)
        assert op.cancel("why")
        assert not op.cancel()
        assert stopped == [1]
        assert not op._succeed(1)
        with pytest.raises(asyncio.CancelledError, match="why"):
            await op
        assert hub().refs == 0

    multiloop.run(main, loop=loop)


@loops
def test_cancelling_the_awaiting_task_cancels_the_operation(loop: Any) -> None:
    async def main() -> None:
        op = begin()

        async def wait() -> None:
            await op

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert op.cancelled()
        assert hub().refs == 0

    multiloop.run(main, loop=loop)


@loops
def test_it_works_with_what_asyncio_has(loop: Any) -> None:
    async def main() -> None:
        assert await asyncio.gather(fs.exists("/"), fs.exists("/nope")) == [True, False]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(begin(), 0.01)
        op = begin()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(op), 0.01)
        assert not op.done()
        op._succeed(3)
        done, _ = await asyncio.wait([op])
        assert done == {op}
        async with asyncio.timeout(1):
            assert await op == 3

    multiloop.run(main, loop=loop)


@loops
def test_one_that_fails_and_is_never_awaited_is_uncaught(loop: Any) -> None:
    seen: list[BaseException] = []

    async def main() -> None:
        begin()._fail(KeyError("lost"))
        gc.collect()
        op = begin()
        op._fail(KeyError("seen"))
        with pytest.raises(KeyError):
            await op

    multiloop.on_uncaught(seen.append)
    try:
        multiloop.run(main, loop=loop)
    finally:
        multiloop.on_uncaught(None)
    assert [error.args for error in seen] == [("lost",)]


def test_async_with_and_async_for_reach_the_result(tmp_path: Any) -> None:
    (tmp_path / "a").write_text("one\ntwo\n")

    async def main() -> None:
        async with fs.open(tmp_path / "a") as file:
            assert [line async for line in file] == ["one", "two"]
        assert file.closed
        assert [name async for name in fs.readdir(tmp_path)] == ["a"]
        assert [entry.name async for entry in fs.opendir(tmp_path)] == ["a"]

    multiloop.run(main)


# --- callbacks --------------------------------------------------------------------------------------------------------
@loops
def test_a_callback_gets_error_or_value_and_never_both(loop: Any) -> None:
    seen: list[Any] = []

    def main() -> None:
        fs.exists("/", callback=lambda *args: seen.append(args))
        fs.stat("/nope", callback=lambda *args: seen.append((type(args[0]), args[1])))

    multiloop.run(main, loop=loop)
    assert sorted(seen, key=str) == sorted([(None, True), (FileNotFoundError, None)], key=str)


@loops
def test_a_callback_comes_later_never_inside_the_call(loop: Any) -> None:
    order: list[str] = []

    def main() -> None:
        for path in ("/", "a\0b"):
            fs.stat(path, callback=lambda *_: order.append("callback"))
        order.append("main")

    multiloop.run(main, loop=loop)
    assert order == ["main", "callback", "callback"]


@loops
def test_a_cancelled_one_reports_that(loop: Any) -> None:
    seen: list[Any] = []

    async def main() -> None:
        op = begin(lambda error, value: seen.append((type(error), value)))
        assert isinstance(op, CallbackOperation)
        assert op.cancel()
        assert not op.cancel()
        assert op.done()
        assert seen == [], "later"
        op._succeed(1)
        op._fail(ValueError())
        await until(lambda: seen)

    multiloop.run(main, loop=loop)
    assert seen == [(asyncio.CancelledError, None)]


@loops
def test_a_callback_runs_in_the_context_of_its_call_and_may_be_async(loop: Any) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    seen: list[int] = []

    async def done(error: Any, value: Any) -> None:
        await timers.sleep(0.001)
        seen.append(variable.get())

    def main() -> None:
        variable.set(1)
        fs.exists("/", callback=done)
        variable.set(2)

    multiloop.run(main, loop=loop)
    assert seen == [1]


@loops
def test_it_counts_and_may_be_unrefd(loop: Any) -> None:
    async def main() -> None:
        op = begin(print)
        assert (op.has_ref, hub().refs) == (True, 1)
        assert op.unref() is op
        assert (op.has_ref, hub().refs) == (False, 0)
        op.ref()
        assert hub().refs == 1
        op.unref()

    multiloop.run(main, loop=loop)


# --- launch -----------------------------------------------------------------------------------------------------------
@loops
def test_launch_starts_a_coroutine_at_once(loop: Any) -> None:
    async def work() -> str:
        await asyncio.sleep(0.001)
        return "done"

    async def fails() -> str:
        raise LookupError("mine")

    async def main() -> None:
        assert await launch(work()) == "done"
        with pytest.raises(LookupError):
            await launch(fails())
        seen: list[Any] = []
        launch(work(), lambda *args: seen.append(args))
        await until(lambda: seen)
        assert seen == [(None, "done")]

    multiloop.run(main, loop=loop)


@loops
def test_a_cancelled_launch_cleans_up_before_the_program_ends(loop: Any) -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.01)
            seen.append("cleaned up")

    async def main() -> None:
        op = launch(work())
        await asyncio.sleep(0)
        op.cancel()

    multiloop.run(main, loop=loop)
    assert seen == ["cleaned up"]


@loops
def test_a_result_after_the_cancel_is_discarded(loop: Any) -> None:
    discarded: list[str] = []

    async def stubborn() -> str:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            pass
        return "resource"

    async def main() -> None:
        op = launch(stubborn(), discard=discarded.append)
        await asyncio.sleep(0)
        op.cancel()
        await until(lambda: discarded)

    multiloop.run(main, loop=loop)
    assert discarded == ["resource"]


# --- a callback that cannot be called ---------------------------------------------------------------------------------
@loops
@pytest.mark.parametrize("wrong", [3, 0, "print", [print]])
def test_a_callback_that_cannot_be_called_is_refused_in_the_call_and_nothing_has_begun(loop: Any, wrong: Any) -> None:
    ran: list[str] = []

    async def work() -> None:
        ran.append("the coroutine")

    async def main() -> None:
        starts: list[Callable[[], Any]] = [
            lambda: begin(wrong),
            lambda: launch(work(), wrong),
            lambda: call(wrong, ran.append, ("a function",)),
            lambda: call_always(wrong, ran.append, ("one that frees",)),
            lambda: fs.read_file("/etc/hostname", callback=wrong),
        ]
        for start in starts:
            with pytest.raises(TypeError, match="callback="):
                start()
            assert hub().refs == 0
        await multiloop.offload(int)  # whatever a thread was given before this has run
        assert ran == []

    multiloop.run(main, loop=loop)
