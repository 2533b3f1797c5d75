"""`compose`: several transforms as one stream.

What lives here: `compose`. What must not: how stages are tied together (`_pipeline`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ..errors import PrematureClose, UsageError
from ._pipeline import pipeline
from ._transform import Duplex, PassThrough


def compose(*stages: Any, high_water_mark: int | None = None) -> Duplex:
    """Make one stream of several stages: what is written to it goes into the first, what is taken comes out of the last.

    `await pipeline(source, compose(decrypt, unzip), destination)`. Stages are what may stand between in `pipeline`: a
    `Transform`, whatever can be written to and iterated over, or a function from an async iterable to one. Chunks are
    passed on as they are (objects, too). When a stage fails, the whole fails with its error; destroying the whole destroys
    every stage.

    Args:
        high_water_mark: objects that may wait on either side (16).
    """
    if not stages:
        raise UsageError("compose() needs at least one stage")
    return _Composed(stages, high_water_mark)


class _Composed(Duplex):
    """The stream round the stages."""

    def __init__(self, stages: tuple[Any, ...], high_water_mark: int | None) -> None:
        super().__init__(high_water_mark=high_water_mark, object_mode=True)
        self._first = PassThrough(high_water_mark=1, object_mode=True)
        self._last = PassThrough(high_water_mark=1, object_mode=True)
        self._tied = pipeline(self._first, *stages, self._last, callback=self._stages_ended)
        self._tied.unref()

    def _stages_ended(self, error: BaseException | None, _: None) -> None:
        if error is not None and not self.destroyed:
            self.destroy(error)

    async def _write(self, chunk: Any) -> None:
        # A stage that has seen enough leaves its input: the rest is dropped. One that fails destroys this stream, too.
        if not self._first.write(chunk):
            with suppress(PrematureClose):
                await self._first.drain()

    def _final(self) -> None:
        self._first.end()

    async def _read(self, size: int) -> Any:
        return await self._last.read()

    def _destroy(self, error: BaseException | None) -> Any:
        self._tied.cancel()
        return self._last.wait_closed()
