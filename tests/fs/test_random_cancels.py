"""Random cancels of everything: descriptors, threads and tasks are back at the start."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.support import LOOPS, open_descriptors, until

import multiloop
from multiloop import fs, stream
from multiloop.loop import hub

loops = pytest.mark.parametrize("loop", LOOPS)


def operations(top: Path) -> list[Any]:
    small, large, fifo = top / "small", top / "large", top / "fifo"

    async def copy() -> None:
        await stream.pipeline(fs.create_read_stream(large), fs.create_write_stream(top / f"copy{random.random()}"))

    async def to_fifo() -> None:
        await stream.pipeline(fs.create_read_stream(large), fs.create_write_stream(fifo))

    async def lines() -> None:
        async with fs.open(large) as file:
            async for _ in file:
                pass

    async def chunks() -> None:
        async for _ in fs.create_read_stream(large):
            await asyncio.sleep(0)

    async def listed() -> None:
        async for _ in fs.opendir(top):
            pass

    return [
        copy,
        to_fifo,
        lines,
        chunks,
        listed,
        lambda: fs.read_file(small),
        lambda: fs.read_file(large),
        lambda: fs.read_file(fifo),
        lambda: fs.write_file(top / "written", b"x" * 200_000),
        lambda: fs.write_file(fifo, b"x" * 200_000),
        lambda: fs.write_file(top / "parts", [b"x"] * 10),
        lambda: fs.copy_file(large, top / "copied"),
        lambda: fs.cp(top / "tree", top / f"tree{random.random()}", recursive=True),
        lambda: fs.cp(top / "tree", top / f"tree{random.random()}", recursive=True, filter=lambda a, b: True),
        lambda: fs.glob("**/*", cwd=top / "tree"),
        lambda: fs.glob("**/*", cwd=top / "tree", exclude=lambda path: False),
        lambda: fs.readdir(top / "tree", recursive=True),
        lambda: fs.mkdtemp(top / "tmp"),
        lambda: fs.stat(small),
        lambda: fs.open(fifo, "w"),
        lambda: fs.opendir(top),
        lambda: fs.open(small),
    ]


async def one(start: Any) -> None:
    result = await start()
    if hasattr(result, "close"):
        await result.close()


async def cancel_at_random(top: Path, count: int) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    await asyncio.gather(*(fs.stat("/") for _ in range(100)))
    before, tasks_before = open_descriptors(), len(asyncio.all_tasks())
    starts = operations(top)
    for _ in range(count // 20):
        tasks = [asyncio.ensure_future(one(chance.choice(starts))) for _ in range(20)]
        await asyncio.sleep(chance.random() * 0.004)
        chance.shuffle(tasks)
        for task in tasks:
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            fine = outcome is None or isinstance(outcome, asyncio.CancelledError | BrokenPipeError | FileNotFoundError)
            assert fine, f"seed {seed}: {outcome!r}"
        if chance.random() < 0.02:
            for made in list(top.iterdir()):
                if made.name.startswith(("tree0", "copy0", "tmp")):
                    await fs.rm(made, recursive=True, force=True)
    del tasks, task, outcome  # their exceptions lead to frames, and these to what was open
    try:
        await until(lambda: open_descriptors() <= before)
        await until(lambda: len(asyncio.all_tasks()) == tasks_before)
        await until(lambda: hub().refs == 0)
        offload = [each for each in threading.enumerate() if each.name.startswith("multiloop-offload")]
        assert len(offload) <= 5
    except AssertionError:
        pytest.fail(f"seed {seed}: left {open_descriptors() - before}, refs {hub().refs}, {asyncio.all_tasks()}")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "small").write_text("small")
    (tmp_path / "large").write_bytes(b"a line of text\n" * 40_000)
    os.mkfifo(tmp_path / "fifo")
    for number in range(60):
        (tmp_path / "tree" / str(number % 6)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / str(number % 6) / str(number)).write_text("x")
    return tmp_path


@loops
def test_three_hundred_random_cancels_leave_nothing(top: Path, loop: Any) -> None:
    multiloop.run(cancel_at_random, top, 300, loop=loop)


@pytest.mark.slow
@loops
def test_ten_thousand_random_cancels_leave_nothing(top: Path, loop: Any) -> None:
    multiloop.run(cancel_at_random, top, 10_000, loop=loop)
