"""Every scenario of the instruction counts does its work, in both forms."""

from __future__ import annotations

import asyncio

import pytest
from bench.check.scenarios import scenarios

from ..support import descriptors_left, open_descriptors


@pytest.mark.parametrize("name", list(scenarios()))
def test_a_scenario_does_its_work(name: str) -> None:
    prepare, _ = scenarios()[name]

    async def main() -> None:
        await (await prepare())(3)

    asyncio.run(main())


def test_scenarios_leave_nothing_open() -> None:
    async def main() -> None:
        await (await scenarios()["asgi-hello"][0]())(1)

    asyncio.run(main())
    before = open_descriptors()
    asyncio.run(main())
    assert not descriptors_left(before)
