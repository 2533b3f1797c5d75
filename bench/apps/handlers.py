"""The same work as native handlers."""

from __future__ import annotations

import os
from typing import Any

from multiloop import http, timers

_10K = "x" * 10_000
_1M = "x" * 1_000_000


def hello(request: Any) -> str:
    return "Hello, World!"


def reply_10k(request: Any) -> str:
    return _10K


def reply_1m(request: Any) -> str:
    return _1M


async def wait_10ms(request: Any) -> str:
    await timers.sleep(0.010)
    return "Hello, World!"


async def upload(request: Any) -> str:
    size = 0
    async for piece in request:
        size += len(piece)
    return str(size)


if "BENCH_STATIC" in os.environ:
    files = http.static(os.environ["BENCH_STATIC"])
