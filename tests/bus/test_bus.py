"""A bus without a server: in one process."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tests.support import until

import multiloop
from multiloop import bus
from multiloop.errors import ClosedError, FrameTooLarge, NoAnswer, NotSendable, RemoteError, UsageError


def test_all_ends_hear_what_is_published_in_its_order() -> None:
    async def main() -> None:
        async with bus.connect() as left, bus.connect() as right:
            heard = [left.subscribe("chat"), right.subscribe("chat"), right.subscribe("other")]
            for number in range(100):
                assert left.publish("chat", {"number": number})
            for subscription, own in zip(heard[:2], (True, False), strict=True):
                got = [await anext(aiter(subscription)) for _ in range(1)]
                assert (got[0].value, got[0].own, got[0].topic) == ({"number": 0}, own, "chat")
                rest = []
                async for message in subscription:
                    rest.append(message.value["number"])
                    if len(rest) == 99:
                        break
                assert rest == list(range(1, 100))
            assert right.statistics().received == 100
            assert left.statistics().sent == 100

    multiloop.run(main)


def test_a_subscription_that_does_not_keep_up_is_told_what_it_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiloop._limits.BUS_QUEUE_MESSAGES", 10)

    async def main() -> None:
        async with bus.connect() as end:
            subscription = end.subscribe("fast")
            gaps: list[bus.Gap] = []
            subscription.on("gap", gaps.append)
            for number in range(25):
                end.publish("fast", number)
            await until(lambda: gaps)
            assert [(gap.missed, gap.where) for gap in gaps] == [(15, "queue")]
            assert (await anext(aiter(subscription))).value == 15

    multiloop.run(main)


def test_a_message_that_was_lost_is_a_gap() -> None:
    async def main() -> None:
        async with bus.connect() as left, bus.connect() as right:
            gaps: list[bus.Gap] = []
            right.on("gap", gaps.append)
            heard: list[Any] = []
            right.subscribe("topic").on("message", lambda message: heard.append(message.value))
            left.publish("topic", 1)
            await until(lambda: heard)
            lose, left._transport.publish = left._transport.publish, lambda channel, data: None  # type: ignore[method-assign]
            left.publish("topic", 2)
            left.publish("topic", 3)
            left._transport.publish = lose  # type: ignore[method-assign]
            left.publish("topic", 4)
            await until(lambda: heard == [1, 4])
            assert [(gap.topic, gap.missed, gap.sender) for gap in gaps] == [("topic", 2, left.id)]

    multiloop.run(main)


def test_a_lost_last_message_is_noticed_by_a_beat() -> None:
    async def main() -> None:
        async with bus.connect() as left, bus.connect() as right:
            gaps: list[bus.Gap] = []
            subscription = right.subscribe("topic")
            subscription.on("gap", gaps.append)
            left.publish("topic", 1)
            assert (await anext(aiter(subscription))).value == 1
            lose, left._transport.publish = left._transport.publish, lambda channel, data: None  # type: ignore[method-assign]
            left.publish("topic", 2)
            left._transport.publish = lose  # type: ignore[method-assign]
            await until(lambda: gaps)
            assert gaps[0].missed == 1

    multiloop.run(main)


def test_one_of_those_who_answer_is_chosen_and_runs_once() -> None:
    async def main() -> None:
        ran: list[str] = []

        async def slow(value: Any) -> Any:
            ran.append("slow")
            await asyncio.sleep(0.01)
            return {"twice": value * 2}

        def quick(value: Any) -> Any:
            ran.append("quick")
            return {"twice": value * 2}

        async with bus.connect() as asks, bus.connect() as one, bus.connect() as two:
            one.answer("double", slow)
            two.answer("double", quick)
            replies = await asyncio.gather(*(asks.request("double", number) for number in range(50)))
            assert replies == [{"twice": 2 * number} for number in range(50)]
            assert len(ran) == 50
            assert asks.statistics().questions == 0

    multiloop.run(main)


def test_errors_of_a_handler_and_silence_reach_who_asked() -> None:
    async def main() -> None:
        def fails(value: Any) -> Any:
            raise KeyError(value)

        async with bus.connect() as end:
            end.answer("fails", fails)
            end.answer("odd", lambda value: {1, 2})
            end.answer("never", lambda value: asyncio.sleep(60))
            with pytest.raises(RemoteError, match="KeyError: 'tea'"):
                await end.request("fails", "tea")
            with pytest.raises(RemoteError, match="cannot be sent"):
                await end.request("odd")
            with pytest.raises(NoAnswer, match="nobody offered"):
                await end.request("nobody", timeout=0.05)
            with pytest.raises(TimeoutError, match="has not answered"):
                await end.request("never", timeout=0.2)
            with pytest.raises(UsageError, match="answers 'odd' already"):
                end.answer("odd", print)

    multiloop.run(main)


def test_a_repeated_question_gets_the_same_reply_without_running_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiloop._limits.BUS_ASK_AGAIN_S", 0.02)

    async def main() -> None:
        ran = 0

        async def handler(value: Any) -> int:
            nonlocal ran
            ran += 1
            await asyncio.sleep(0.2)  # asked again many times meanwhile
            return ran

        async with bus.connect() as asks, bus.connect() as answers:
            answers.answer("count", handler)
            assert await asks.request("count") == 1
        assert ran == 1

    multiloop.run(main)


def test_what_cannot_be_sent_is_refused_at_the_call_and_leaves_no_gap() -> None:
    async def main() -> None:
        async with bus.connect(max_message_size=1000) as end:
            heard = end.subscribe("topic")
            gaps: list[bus.Gap] = []
            end.on("gap", gaps.append)
            end.publish("topic", 1)
            with pytest.raises(NotSendable):
                end.publish("topic", {1})
            with pytest.raises(FrameTooLarge):
                end.publish("topic", "x" * 2000)
            with pytest.raises(FrameTooLarge):
                await end.request("topic", "x" * 2000)
            end.publish("topic", 2)
            assert [(await anext(aiter(heard))).value for _ in range(2)] == [1, 2]
            assert not gaps
        with pytest.raises(ClosedError):
            end.publish("topic", 1)
        with pytest.raises(ValueError, match="topic"):
            bus.connect().publish("", 1)

    multiloop.run(main)


def test_two_loops_of_one_process_hear_each_other() -> None:
    got: list[Any] = []
    ready = threading.Event()

    def other() -> None:
        async def main() -> None:
            async with bus.connect() as end, end.subscribe("threads") as heard:
                ready.set()
                got.append((await anext(aiter(heard))).value)

        asyncio.run(main())

    thread = threading.Thread(target=other)
    thread.start()
    assert ready.wait(10)

    async def main() -> None:
        async with bus.connect() as end:
            end.publish("threads", "hello")

    multiloop.run(main)
    thread.join(10)
    assert got == ["hello"]


def test_a_subscription_keeps_the_program_running_until_it_is_closed() -> None:
    seen: list[Any] = []

    async def main() -> None:
        end = bus.connect()
        subscription = end.subscribe("topic")

        def take(message: bus.Message) -> None:
            seen.append(message.value)
            subscription.close()

        subscription.on("message", take)
        end.publish("topic", "last")

    multiloop.run(main)
    assert seen == ["last"]


def test_urls_that_are_none_are_refused() -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match="redis://host:port"):
            bus.connect("http://localhost")

    multiloop.run(main)
