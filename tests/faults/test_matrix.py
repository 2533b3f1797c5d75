"""Every row of the fault matrix, in its short run; `make faults` does the long ones."""

from __future__ import annotations

import pytest

from . import random_run, rows_clients, rows_life, rows_system, rows_workers
from .matrix import ROWS, run_row

__all__ = ["random_run", "rows_clients", "rows_life", "rows_system", "rows_workers"]


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", sorted(ROWS, key=int))
def test_the_promise_is_kept(number: str) -> None:
    result = run_row(ROWS[number], is_full=False)
    assert result.ok, result.figure
