"""What is fuzzed: a function that takes bytes, what it starts from, and how its inputs are changed.

What lives here: `Target`, the register of them, `mutate`. What must not: what a target checks (`over_*.py`).

A target raises nothing for good and bad input alike, and AssertionError (or anything else) for a bug: the check is in
the target, because "it did not crash" says little about a parser.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
MAX_BYTES = 64 * 1024

Check = Callable[[bytes, random.Random], None]  # the chance decides how the input is cut into pieces

_NUMBERS = (b"0", b"1", b"-1", b"00", b"7fffffff", b"18446744073709551616", b"1e3", b"0x10", b"65536")
_BYTES = (0, 9, 10, 13, 32, 127, 128, 255)


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that takes bytes.

    Attributes:
        seeds: where mutation starts, beside what lies in `corpus/NAME`.
        words: what is inserted now and then, because chance would never find it.
        short: how many inputs a short run takes: about a fifth of a second.
    """

    name: str
    check: Check
    seeds: Sequence[bytes]
    words: Sequence[bytes]
    short: int

    def corpus(self) -> list[bytes]:
        """The seeds and the kept inputs: what once found something, or reached something new."""
        return [*self.seeds, *(path.read_bytes() for path in sorted((CORPUS / self.name).glob("*")))]


TARGETS: dict[str, Target] = {}


def target(name: str, seeds: Sequence[bytes], words: Sequence[bytes], *, short: int = 250) -> Callable[[Check], Check]:
    """Register a check."""

    def register(check: Check) -> Check:
        assert name not in TARGETS, name
        TARGETS[name] = Target(name, check, seeds, words, short)
        return check

    return register


def pieces(data: bytes, chance: random.Random) -> list[bytes]:
    """Cut bytes into pieces: byte by byte, at one place, or anywhere."""
    if not data:
        return []
    kind = chance.random()
    if kind < 0.15 and len(data) <= 2000:
        cuts = list(range(1, len(data)))
    elif kind < 0.4:
        cuts = [chance.randrange(len(data))]
    else:
        cuts = sorted(chance.randrange(len(data)) for _ in range(chance.randrange(1, 12)))
    parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [part for part in parts if part]


def mutate(data: bytes, one: Target, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Return a changed copy: a few changes of any kind, small ones mostly."""
    changed = bytearray(data)
    for _ in range(min(1 + int(chance.expovariate(0.7)), 8)):
        chance.choice(_CHANGES)(changed, one, others, chance)
        if not changed:
            changed += chance.choice(one.words)
    return bytes(changed[:MAX_BYTES])


def _place(data: bytearray, chance: random.Random) -> int:
    return chance.randrange(len(data)) if data else 0


def _slice(data: Sequence[int], chance: random.Random) -> slice:
    begin = chance.randrange(len(data)) if data else 0
    return slice(begin, begin + 1 + int(chance.expovariate(0.08)))


def _flip(data: bytearray, one: Target, others: Sequence[bytes], chance: random.Random) -> None:
    if data:
        data[_place(data, chance)] ^= 1 << chance.randrange(8)


def _byte(data: bytearray, one: Target, others: Sequence[bytes], chance: random.Random) -> None:
    if data:
        data[_place(data, chance)] = chance.choice(_BYTES)


def _insert(data: bytearray, one: Target, others: Sequence[bytes], chance: random.Random) -> None:
    at = _place(data, chance)
    data[at:at] = chance.choice(one.words)


def _noise(data: bytearray, one: Target, others: Sequence[bytes], chance: random.Random) -> None:
    at = _place(data, chance)
    data[at:at] = chance.randbytes(chance.randrange(1, 9))


def _remove(data: bytearray, one: Target, others: Sequence[bytes], chance: random.Random) -> None:
    del data[_slice(data, chance)]


def _repeat(data: bytearray, one: Target, others: Sequence[bytes], chance: random.Random) -> None:
    part = bytes(data[_slice(data, chance)])
    at = _place(data, chance)
    data[at:at] = part * chance.choice((1, 1, 2, 20, 300))


def _number(data: bytearray, one: Target, others: Sequence[bytes], chance: random.Random) -> None:
    digits = [index for index, byte in enumerate(data) if 48 <= byte < 58]
    if digits:
        at = chance.choice(digits)
        data[at : at + 1] = chance.choice(_NUMBERS)


def _splice(data: bytearray, one: Target, others: Sequence[bytes], chance: random.Random) -> None:
    other = chance.choice(others)
    if other:
        data[_place(data, chance) :] = other[chance.randrange(len(other)) :]


def _append(data: bytearray, one: Target, others: Sequence[bytes], chance: random.Random) -> None:
    data += chance.choice(others)


_CHANGES = (_flip, _byte, _insert, _insert, _noise, _remove, _repeat, _number, _splice, _append)
