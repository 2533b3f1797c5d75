"""How a primary notices that its program ends.

What lives here: `Keeper`. What must not: what is done then (`_primary`).
"""

from __future__ import annotations

from collections.abc import Callable

from ...loop import Handle, Hub


class Keeper(Handle):
    """Tells that the program ends, when its open handles are closed. Keeps nothing running."""

    def __init__(self, of: Hub, program_ends: Callable[[], None]) -> None:
        super().__init__()
        self._counted = False
        self._program_ends = program_ends
        self._opened(of)

    def end(self) -> None:
        """It is known."""
        self._ended()

    def _shutdown(self) -> None:
        self._program_ends()
        self._ended()
