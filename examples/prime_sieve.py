"""Counts the primes below a number on all cores: a plain script, without a loop and without `async`.

    python examples/prime_sieve.py 50000000            # or: --workers 2, --quiet

What it shows: `Pool` in synchronous code, `pool.map` with a bar, a function of the script itself as the task, an
initializer that gives every worker what all its tasks need, and the guard that such a script has to have.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

from multiloop.pool import Pool

SEGMENT = 1_000_000  # numbers in one task: some milliseconds of work, and as many bytes of memory

_small_primes: list[int] = []


def sieve(below: int) -> list[int]:
    """Return the primes below a number, the simple way."""
    is_prime = bytearray([1]) * below
    is_prime[:2] = bytes(min(2, below))
    for number in range(2, int(below**0.5) + 1):
        if is_prime[number]:
            is_prime[number * number :: number] = bytes(len(range(number * number, below, number)))
    return [number for number in range(below) if is_prime[number]]


def prepare(limit: int) -> None:
    """Called once in each worker: the primes up to the root, which every segment is sieved with."""
    _small_primes[:] = sieve(int(limit**0.5) + 1)


def count_segment(segment: tuple[int, int]) -> tuple[int, int]:
    """Return how many primes there are from `start` to before `stop`, and the largest of them (0: there is none)."""
    start, stop = segment
    is_prime = bytearray([1]) * (stop - start)
    for prime in _small_primes:
        first = max(prime * prime, -(-start // prime) * prime)
        is_prime[first - start :: prime] = bytes(len(range(first, stop, prime)))
    largest = is_prime.rfind(1)
    return is_prime.count(1), start + largest if largest >= 0 else 0


def segments(limit: int) -> Iterator[tuple[int, int]]:
    """Cut the numbers from 2 to before the limit into pieces."""
    for start in range(2, limit, SEGMENT):
        yield start, min(start + SEGMENT, limit)


def count_primes(limit: int, workers: int | None = None, progress: bool = True) -> tuple[int, int]:
    """Return how many primes are below the limit, and the largest."""
    total, largest = 0, 0
    with Pool(workers=workers, initializer=prepare, initargs=(limit,)) as pool:
        for count, last in pool.map(count_segment, list(segments(limit)), progress=progress):
            total += count
            largest = last or largest
    return total, largest


def main() -> int:
    """Read the command line and count."""
    options = argparse.ArgumentParser(description="Count primes on all cores.")
    options.add_argument("limit", type=int, nargs="?", default=20_000_000)
    options.add_argument("--workers", type=int, default=None, help="how many at once (default: one for each core)")
    options.add_argument("--quiet", action="store_true", help="no bar")
    given = options.parse_args()
    if given.limit < 2:
        print("there is no prime below 2", file=sys.stderr)
        return 2
    begun = time.perf_counter()
    total, largest = count_primes(given.limit, given.workers, progress=not given.quiet)
    took_s = time.perf_counter() - begun
    print(f"{total:,} primes below {given.limit:,}; the largest is {largest:,} ({took_s:.2f} s)")
    return 0


if __name__ == "__main__":  # workers import this file to find count_segment
    sys.exit(main())
