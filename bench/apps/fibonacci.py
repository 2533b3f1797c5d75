"""Work for a processor."""

from __future__ import annotations


def fibonacci(number: int) -> int:
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)


def work(number: int) -> int:
    """Some tens of milliseconds."""
    result = 0
    for _ in range(20):
        result = fibonacci(number)
    return result
