"""What `run`, `submit`, `map` and `stream` give and raise."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import pickle
import resource
import sys
import threading
import traceback
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import multiloop
from multiloop import pool
from multiloop.errors import NotSendable, PoolBroken, PoolClosed, RemoteError, TaskExited, UsageError
from multiloop.pool import Pool
from multiloop.worker_threads import SharedBuffer
from tests.pool import functions as work
from tests.support import LOOPS, proportional_bytes, until


def in_pool(main: Any, *, loop: Any = "auto", **options: Any) -> Any:
    """Run `main(pool)` with a pool that is closed afterwards."""

    async def program() -> Any:
        async with Pool(**{"workers": 2, **options}) as made:
            return await main(made)

    return multiloop.run(program, loop=loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_run_gives_what_the_function_returns(loop: Any) -> None:
    async def main(made: Pool) -> list[Any]:
        return [
            await made.run(work.add, 1, right=2),
            await made.run(work.everything, 1, callback=2, self=3),
            await made.run(pow, 2, 8),
            await made.run(str.upper, "a"),
            await made.run("a b".split),
            await made.run(functools.partial(work.add, 4), 5),
            await made.run(dict, a=1),
            await made.run(work.identity, {"a": [1, (2, b"3"), None, 1.5]}),
        ]

    assert in_pool(main, loop=loop) == [
        3, ((1,), {"callback": 2, "self": 3}), 256, "A", ["a", "b"], 9, {"a": 1}, {"a": [1, (2, b"3"), None, 1.5]},
    ]  # fmt: skip


def test_plain_values_come_back_as_they_were() -> None:
    values = [0, -1, 2**70, "", "ä\ud800", 1.5, float("inf"), True, False, None, b"", "x" * 200_000]

    async def main(made: Pool) -> Any:
        return await asyncio.gather(*(made.run(work.identity, value) for value in values))

    results = in_pool(main)
    assert results == values
    assert [type(value) for value in results] == [type(value) for value in values]


def test_many_tiny_tasks_all_come_back_in_their_place() -> None:
    async def main(made: Pool) -> Any:
        return await asyncio.gather(*(made.run(work.add, number, 1) for number in range(5000)))

    assert in_pool(main) == list(range(1, 5001))


def test_tasks_run_in_other_processes_and_in_parallel() -> None:
    async def main(made: Pool) -> Any:
        barrier = [made.run(work.sleep, 0.3) for _ in range(2)]
        return await asyncio.gather(*barrier, *(made.run(work.pid) for _ in range(10)))

    pids = set(in_pool(main)[2:])
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2


def test_an_exception_keeps_type_cause_notes_attributes_and_the_remote_traceback() -> None:
    async def main(made: Pool) -> Any:
        with pytest.raises(ValueError, match="rich") as caught:
            await made.run(work.fail_richly)
        return caught.value

    error = in_pool(main)
    assert error.__notes__ == ["a note"]
    assert error.detail == 7
    assert type(error.__cause__) is KeyError
    text = "".join(traceback.format_exception(error))
    assert "in fail_richly" in text
    assert '{}["missing"]' in text
    assert "_worker_main" not in text


def test_an_exception_that_was_raised_while_another_was_handled_keeps_it_as_far_as_it_travels() -> None:
    async def main(made: Pool) -> Any:
        with pytest.raises(ValueError, match="while handling") as caught:
            await made.run(work.fail_in_except)
        return caught.value

    error = in_pool(main)
    assert isinstance(error.__context__, RemoteError)
    assert error.__context__.type_name.endswith("Holder")


@pytest.mark.parametrize("function", [work.fail_oddly, work.fail_holding])
def test_an_exception_that_cannot_travel_arrives_as_remote_error(function: Any) -> None:
    async def main(made: Pool) -> Any:
        with pytest.raises(RemoteError) as caught:
            await made.run(function)
        assert await made.run(work.add, 1) == 1
        return caught.value

    error = in_pool(main)
    assert error.type_name in ("tests.pool.functions.Odd", "tests.pool.functions.Holder")
    assert isinstance(error.__cause__, pool.RemoteTraceback)


@pytest.mark.parametrize(("function", "args"), [(work.exit_politely, (3,)), (work.stop_iteration, ())])
def test_what_would_end_the_program_arrives_as_task_exited(function: Any, args: Any) -> None:
    async def main(made: Pool) -> Any:
        with pytest.raises(TaskExited) as caught:
            await made.run(function, *args)
        return caught.value, await made.run(work.add, 1)

    error, after = in_pool(main)
    assert after == 1
    assert isinstance(error.reason, SystemExit | StopIteration)
    assert isinstance(pickle.loads(pickle.dumps(error)), TaskExited)


def test_arguments_that_cannot_be_pickled_raise_at_the_call_and_name_the_path() -> None:
    async def main(made: Pool) -> None:
        with pytest.raises(NotSendable) as caught:
            made.run(work.identity, {"a": [1, threading.Lock()]})
        assert caught.value.path == 'args[0]["a"][1]'
        with pytest.raises(NotSendable) as caught:
            made.run(work.identity, value=threading.Lock())
        assert caught.value.path == 'kwargs["value"]'
        with pytest.raises(NotSendable, match="in __reduce__"):
            made.run(work.identity, work.BadReduce("pickling"))
        with pytest.raises(NotSendable):
            made.submit(work.identity, threading.Lock())
        assert await made.run(work.add, 1) == 1

    in_pool(main)


def test_a_lambda_travels_by_cloudpickle_or_raises_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiloop.pool import _calls

    three = 3

    async def main(made: Pool) -> Any:
        monkeypatch.setattr(_calls, "_cloudpickle", lambda: None)
        with pytest.raises(NotSendable, match="top level of a module, or install multiloop\\[cloudpickle\\]"):
            made.run(lambda: three)
        monkeypatch.undo()
        pytest.importorskip("cloudpickle")
        results = [await made.run(lambda value: value + three, 1)]
        three_more = 5
        results.append(await made.run(lambda: three_more))
        return results

    assert in_pool(main) == [4, 5]


def test_results_that_cannot_be_pickled_fail_their_task_and_name_the_path() -> None:
    async def main(made: Pool) -> None:
        with pytest.raises(pickle.PicklingError, match=r'value\["deep"\]\[1\]'):
            await made.run(work.unpicklable)
        assert await made.run(work.add, 1) == 1

    in_pool(main, workers=1)


@pytest.mark.parametrize("when", ["pickling", "unpickling"])
def test_bad_classes_fail_only_their_task(when: str) -> None:
    async def main(made: Pool) -> None:
        tasks = [made.run(work.bad, when), made.run(work.add, 1)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], Exception)
        assert results[1] == 1
        if when != "pickling":
            with pytest.raises(RuntimeError, match="while unpickling"):
                await made.run(work.ignore, work.BadReduce(when))
        assert await made.run(work.add, 2) == 2

    in_pool(main, workers=1)


def test_asynchronous_functions_and_things_that_are_no_functions_are_refused() -> None:
    async def main(made: Pool) -> None:
        with pytest.raises(UsageError, match="asynchronous"):
            made.run(work.coroutine)
        with pytest.raises(UsageError, match="runs functions, not int"):
            made.run(work.add(1))  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"pool\.stream"):
            made.run(work.count, 3)

    in_pool(main)


def test_a_callback_gets_error_first_and_no_future_is_needed() -> None:
    async def main(made: Pool) -> Any:
        got: asyncio.Queue[Any] = asyncio.Queue()
        made.options(callback=lambda error, value: got.put_nowait((error, value))).run(work.add, 1, 2)
        made.options(callback=lambda error, value: got.put_nowait((str(error), value))).run(work.fail)
        return [await got.get(), await got.get()]

    assert sorted(in_pool(main), key=str) == sorted([(None, 3), ("broken", None)], key=str)


def test_without_a_loop_run_says_what_to_do() -> None:
    with Pool(workers=1) as made, pytest.raises(RuntimeError, match=r"pool\.submit"):
        made.run(work.add, 1)


def test_submit_works_without_a_loop_and_on_any_thread() -> None:
    with Pool(workers=2) as made:
        futures = [made.submit(work.add, number) for number in range(50)]
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(made.submit(work.add, 7).result()))
        thread.start()
        thread.join()
        assert isinstance(futures[0], Future)
        assert [future.result() for future in futures] == list(range(50))
        assert found == [7]


def test_result_on_the_loop_that_reads_it_raises_instead_of_waiting_forever() -> None:
    async def main(made: Pool) -> None:
        await made.run(work.add, 1)
        future = made.submit(work.add, 2)
        with pytest.raises(RuntimeError, match="would stop the loop"):
            future.result()
        with pytest.raises(RuntimeError, match="would stop the loop"):
            future.exception(timeout=5)
        assert await asyncio.wrap_future(future) == 2
        assert future.result() == 2

    in_pool(main)


def test_a_pool_in_use_by_synchronous_code_can_be_awaited_too() -> None:
    with Pool(workers=2) as made:
        assert made.submit(work.add, 1).result() == 1

        async def main() -> Any:
            many = await asyncio.gather(*(made.run(work.add, number) for number in range(100)))
            with pytest.raises(ValueError, match="broken"):
                await made.run(work.fail)
            return many

        assert multiloop.run(main) == list(range(100))
        assert asyncio.run(main()) == list(range(100))


def test_a_pool_moves_to_the_next_loop_when_its_own_has_ended() -> None:
    made = Pool(workers=1)

    async def main() -> int:
        return await made.run(work.add, 1)

    assert [multiloop.run(main), asyncio.run(main()), multiloop.run(main)] == [1, 1, 1]
    with made:
        assert made.submit(work.add, 5).result() == 5


@pytest.mark.parametrize("ordered", [True, False])
def test_map_gives_every_value(ordered: bool) -> None:
    async def main(made: Pool) -> Any:
        return [value async for value in made.map(work.add, range(200), ordered=ordered)]

    values = in_pool(main)
    assert (values if ordered else sorted(values)) == list(range(200))
    with Pool(workers=2) as made:
        values = list(made.map(work.add, range(200), ordered=ordered))
    assert (values if ordered else sorted(values)) == list(range(200))


def test_map_takes_items_lazily_also_from_asynchronous_sources() -> None:
    taken: list[int] = []

    async def source() -> Any:
        for number in range(1000):
            taken.append(number)
            yield number

    async def main(made: Pool) -> Any:
        got = []
        async for value in made.map(work.add, source(), buffer=5):
            got.append(value)
            if len(got) == 10:
                break
        return got

    assert in_pool(main) == list(range(10))
    assert len(taken) <= 16


def test_map_gives_what_is_ready_first_when_order_does_not_matter(tmp_path: Path) -> None:
    sign = tmp_path / "the others have come"

    async def main(made: Pool) -> Any:
        values = []
        async for value in made.map(work.wait_for, [str(sign), "", ""], ordered=False):
            values.append(value)
            if len(values) == 2:
                sign.touch()
        return values

    assert in_pool(main) == ["", "", str(sign)]


def test_map_raises_the_first_error_and_stops_what_is_under_way() -> None:
    async def main(made: Pool) -> None:
        with pytest.raises(ValueError, match="2"):
            async for _ in made.map(work.fail, ["2", "3"]):
                pass
        assert await made.run(work.add, 1) == 1

    in_pool(main)
    with Pool(workers=2) as made:
        with pytest.raises(ValueError, match="x"):
            list(made.map(work.fail, ["x"]))
        assert made.submit(work.add, 1).result() == 1


def test_further_errors_of_a_map_are_not_uncaught() -> None:
    uncaught: list[BaseException] = []

    async def main(made: Pool) -> None:
        for ordered in (True, False):
            with pytest.raises(ValueError, match="x"):
                async for _ in made.map(work.fail, ["x"] * 30, ordered=ordered):
                    await asyncio.sleep(0.05)
        gc.collect()

    before = multiloop.on_uncaught(uncaught.append)
    try:
        in_pool(main)
    finally:
        multiloop.on_uncaught(before)
    assert not uncaught


def test_map_draws_a_bar(capfd: pytest.CaptureFixture[str]) -> None:
    with Pool(workers=1) as made:
        assert list(made.map(work.add, range(20), progress=True)) == list(range(20))
    assert "20/20" in capfd.readouterr().err


def test_stream_gives_what_a_generator_yields() -> None:
    async def main(made: Pool) -> Any:
        return [value async for value in made.stream(work.count, 100)]

    assert in_pool(main) == list(range(100))
    with Pool(workers=1) as made:
        assert list(made.stream(work.count, 100)) == list(range(100))


def test_stream_raises_what_the_generator_raises_after_what_it_yielded() -> None:
    got: list[int] = []

    async def main(made: Pool) -> None:
        async def take() -> None:
            async for value in made.stream(work.count_and_fail, 20):
                got.append(value)

        with pytest.raises(ValueError, match="after the last"):
            await take()

    in_pool(main)
    assert got == list(range(20))


def test_leaving_a_stream_closes_the_generator_and_keeps_the_worker(tmp_path: Any) -> None:
    path = str(tmp_path / "closed")

    async def main(made: Pool) -> None:
        before = await made.run(work.pid)
        items = aiter(made.stream(work.count_and_tell, 10_000, path))
        assert [await anext(items) for _ in range(3)] == [0, 1, 2]
        await items.aclose()  # type: ignore[attr-defined]
        assert await made.run(work.pid) == before
        assert made.statistics().stopped == 1

    in_pool(main, workers=1)
    assert (tmp_path / "closed").read_text() == "closed"


def test_a_stream_is_read_on_a_foreign_loop_and_other_tasks_go_on_beside_it() -> None:
    with Pool(workers=2) as made:
        made.submit(work.add, 1).result()

        async def main() -> Any:
            return [value async for value in made.stream(work.count, 50)], await made.run(work.add, 1)

        assert multiloop.run(main) == (list(range(50)), 1)


def test_reports_arrive_in_order_before_the_result() -> None:
    async def main(made: Pool) -> Any:
        got: list[int] = []
        result = await made.options(on_report=got.append).run(work.report_steps, 30)
        return got, result

    assert in_pool(main) == (list(range(30)), "done")
    work.report_steps(3)  # outside of a task nothing happens
    assert not pool.stop_requested()


def test_after_close_everything_is_refused() -> None:
    async def main() -> None:
        async with Pool(workers=1) as made:
            assert await made.run(work.add, 1) == 1
        with pytest.raises(PoolClosed):
            await made.run(work.add, 1)
        with pytest.raises(RuntimeError):
            made.submit(work.add, 1)
        await made.close()

    multiloop.run(main)


def test_closing_waits_for_what_was_given_and_an_exception_stops_it() -> None:
    async def main() -> None:
        async with Pool(workers=1) as made:
            tasks = [made.run(work.sleep, 0.02) for _ in range(5)]
        assert [task.result() for task in tasks] == [0.02] * 5
        stopped: list[Any] = []

        async def leave() -> None:
            async with Pool(workers=1) as made:
                stopped.extend(made.run(work.forever) for _ in range(3))
                await asyncio.sleep(0.05)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await leave()
        assert all(task.cancelled() for task in stopped)

    multiloop.run(main)


def test_numpy_arrays_and_large_bytes_travel_through_shared_memory() -> None:
    numpy = pytest.importorskip("numpy")

    async def main(made: Pool) -> None:
        array = numpy.arange(100_000)
        result = await made.run(work.first_byte_changed, array)
        assert result[0] == 99
        assert (result[1:] == array[1:]).all()
        assert array[0] == 0
        result[5] = 1  # what comes back can be written to
        mixed = await made.run(work.identity, {"a": array, "b": bytes(100_000), "c": bytearray(b"x" * 100_000)})
        assert (mixed["a"] == array).all()
        assert mixed["b"] == bytes(100_000)
        assert mixed["c"] == bytearray(b"x" * 100_000)
        assert type(mixed["c"]) is bytearray

    in_pool(main)


def test_a_shared_buffer_crosses_without_a_copy() -> None:
    async def main(made: Pool) -> None:
        buffer = SharedBuffer(100 * 2**20)
        await made.ready()
        await made.run(work.fill, SharedBuffer(8), 1)  # what it takes is imported
        pids = os.getpid(), await made.run(work.pid)
        before = proportional_bytes(*pids)
        back = await made.run(work.fill, buffer, 42)
        assert back is buffer
        assert (buffer[0], buffer[len(buffer) - 1]) == (42, 42)
        assert proportional_bytes(*pids) - before < 10 * 2**20  # two pages of it were touched
        del back
        buffer.close()

    in_pool(main, workers=1)


def test_an_idempotent_task_does_not_see_what_its_first_run_changed(tmp_path: Any) -> None:
    numpy = pytest.importorskip("numpy")

    async def main(made: Pool) -> Any:
        task = made.options(idempotent=True).run(
            work.change_and_die_once, numpy.arange(100_000), str(tmp_path / "died")
        )
        return await task

    assert in_pool(main, workers=1) == 0


def test_without_descriptors_to_spare_large_values_fail_alone() -> None:
    async def main(made: Pool) -> None:
        await made.ready()
        assert len(await made.run(work.identity, bytes(100_000))) == 100_000
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        try:
            task = made.run(work.add, 1)
            with pytest.raises(OSError, match=r"[Tt]oo many open files"):
                await made.run(work.identity, bytes(100_000))
            with pytest.raises(OSError, match=r"[Tt]oo many open files"):
                await made.run(bytes, 100_000)
            assert await task == 1
        finally:
            for descriptor in taken:
                os.close(descriptor)
        assert len(await made.run(bytes, 100_000)) == 100_000

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        in_pool(main, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_large_values_of_all_kinds_come_back_whole() -> None:
    async def main(made: Pool) -> None:
        for size in (65_000, 65_536, 70_000, 1_000_000, 20_000_000):
            assert len(await made.run(work.identity, b"x" * size)) == size
            assert len(await made.run(work.identity, "y" * size)) == size
        numbers = list(range(300_000))
        assert await made.run(work.identity, numbers) == numbers
        assert (
            await asyncio.gather(*(made.run(work.identity, bytes(100_000)) for _ in range(50))) == [bytes(100_000)] * 50
        )

    in_pool(main)


def test_module_level_functions_use_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> Any:
        first, second = await pool.run(work.pid), await pool.run(work.pid)
        values = [value async for value in pool.map(work.add, range(5))]
        items = [value async for value in pool.stream(work.count, 3)]
        assert pool.default_pool() is pool.default_pool()
        assert [taken.name for taken in pool.statistics()] == ["default"]
        return first == second, values, items, await pool.options(timeout=5).run(work.add, 1)

    assert multiloop.run(main) == (True, [0, 1, 2, 3, 4], [0, 1, 2], 1)
    assert not pool.statistics()


@pool.offloaded
def doubled(value: int) -> int:
    """Twice."""
    return value * 2


@pool.offloaded(timeout=5)
def quadrupled(value: int) -> int:
    return doubled(doubled(value))  # type: ignore[arg-type,return-value]


def test_an_offloaded_function_is_awaited() -> None:
    async def main() -> Any:
        return await doubled(4), await quadrupled(4)

    assert multiloop.run(main) == (8, 16)
    assert doubled.__doc__ == "Twice."
    assert doubled.__wrapped__(2) == 4


class Scale:
    """Offloaded functions that belong to a class."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @pool.offloaded
    def times(self, value: int) -> int:
        return self.factor * value

    @classmethod
    @pool.offloaded
    def named(cls, value: int) -> tuple[str, int]:
        return cls.__name__, value

    @staticmethod
    @pool.offloaded
    def same(value: int) -> int:
        return value


def test_offloaded_methods_are_awaited_and_an_offloaded_function_travels_by_its_name() -> None:
    async def main() -> Any:
        assert await Scale(3).times(4) == 12
        assert await Scale.named(5) == ("Scale", 5)
        assert await Scale.same(6) == 6
        assert await pool.run(work.identity, doubled) is doubled
        assert await pool.run(work.call, doubled, 4) == 8

    multiloop.run(main)


def test_an_offloaded_function_that_no_worker_finds_is_refused_by_the_call(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)

    @pool.offloaded
    def inside(value: int) -> int:
        return value

    async def main() -> Any:
        with pytest.raises(NotSendable, match=r"the function .*inside .*top level"):
            inside(4)

    multiloop.run(main)


# --- the second face --------------------------------------------------------------------------------------------------
def test_ready_put_and_close_report_to_a_callback() -> None:
    seen: list[Any] = []

    def main() -> None:
        made = Pool(workers=1)

        def is_ready(*told: Any) -> None:
            seen.append(("ready", *told))
            made.put(b"value", callback=is_put)

        def is_put(error: Any, shared: Any) -> None:
            seen.append(("put", error))
            made.options(callback=has_run).run(work.identity, shared)

        def has_run(*told: Any) -> None:
            seen.append(("run", *told))
            made.close(callback=lambda *told: seen.append(("closed", *told)))

        for start in (made.ready, made.close, functools.partial(made.put, b"")):
            with pytest.raises(TypeError, match="callback=3"):
                start(callback=3)  # type: ignore[operator]
        made.ready(callback=is_ready)
        assert seen == [], "never inside the call"

    multiloop.run(main)
    assert seen == [("ready", None, None), ("put", None), ("run", None, b"value"), ("closed", None, None)]


def test_what_ready_and_put_raise_reaches_the_callback() -> None:
    async def main() -> None:
        seen: dict[str, Any] = {}
        broken = Pool(workers=1, initializer=work.fail)
        broken.ready(callback=lambda error, _: seen.update(ready=error))
        async with Pool(workers=1) as made:
            made.put(lambda: None, callback=lambda error, _: seen.update(put=error))
            await until(lambda: len(seen) == 2)
        await broken.close(force=True)
        assert isinstance(seen["ready"], PoolBroken)
        assert isinstance(seen["put"], NotSendable)

    multiloop.run(main)
