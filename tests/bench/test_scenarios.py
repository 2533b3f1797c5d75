"""Every scenario of the instruction counts does its work, in both forms."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from bench.check.scenarios import scenarios

from ..support import descriptors_left, open_descriptors


@pytest.mark.parametrize("name", list(scenarios()))
def test_a_scenario_does_its_work(name: str) -> None:
    prepare, _ = scenarios()[name]

    async def main() -> None:
        with ExitStack() as closing:
            await (await prepare(closing))(3)

    asyncio.run(main())


def test_scenarios_leave_nothing_open() -> None:
    async def main() -> None:
        for prepare, _ in scenarios().values():
            with ExitStack() as closing:
                await (await prepare(closing))(1)

    asyncio.run(main())
    before = open_descriptors()
    asyncio.run(main())
    assert not descriptors_left(before)
