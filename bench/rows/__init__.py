"""The rows of the report, in its order."""

from __future__ import annotations

from ..harness.model import Row
from . import (
    bodies,
    connections,
    database,
    files,
    hello,
    memory,
    pool,
    programs,
    responsive,
    sockets,
    websockets,
    workers,
)

ROWS: tuple[Row, ...] = (
    *hello.ROWS,
    *connections.ROWS,
    *memory.ROWS,
    *files.ROWS,
    *pool.ROWS,
    *workers.ROWS,
    *responsive.ROWS,
    *bodies.ROWS,
    *sockets.ROWS,
    *websockets.ROWS,
    *database.ROWS,
    *programs.ROWS,
)


def by_key(key: str) -> Row:
    """The row of this key. Raises KeyError."""
    return {row.key: row for row in ROWS}[key]
