"""The page of words that a worker shares with its pool.

What lives here: making and mapping it. What must not: what the words mean (`_protocol`), imports that a worker's start
would feel.
"""

from __future__ import annotations

import mmap
import os

from ._protocol import PAGE_BYTES, WORDS_BYTES

Words = memoryview  # of 64-bit words; `words[i] = n` is one aligned store


class Page:
    """Shared memory of one worker: `words`, and the bytes of its `journal`. `close` unmaps it."""

    __slots__ = ("_map", "journal", "words")

    def __init__(self, descriptor: int) -> None:
        """Map the page behind a descriptor, which stays the caller's."""
        self._map = mmap.mmap(descriptor, PAGE_BYTES)
        whole = memoryview(self._map)
        self.words: Words = whole[:WORDS_BYTES].cast("Q")
        self.journal = whole[WORDS_BYTES:]

    def close(self) -> None:
        """Unmap; safe to call twice."""
        self.words.release()
        self.journal.release()
        self._map.close()


def make_page() -> tuple[Page, int]:
    """Make a page; returns it and a descriptor for the worker, which the caller closes. Nothing has a name on disk."""
    from ..worker_threads._memory import create

    descriptor = create(PAGE_BYTES, "pool-page")
    try:
        return Page(descriptor), descriptor
    except BaseException:
        os.close(descriptor)
        raise
