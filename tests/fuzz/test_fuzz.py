"""Every target with its corpus and with changed inputs, the same in every run; `python -m tests.fuzz` looks further."""

from __future__ import annotations

import random

import pytest

from . import over_bytes, over_http
from .target import TARGETS, Target, mutate, pieces, target

__all__ = ["over_bytes", "over_http"]


def fuzz(one: Target, seed: int, count: int) -> None:
    chance, corpus = random.Random(f"{seed} {one.name}"), one.corpus()
    for _ in range(count):
        data = mutate(chance.choice(corpus), one, corpus, chance)
        try:
            one.check(data, chance)
        except Exception as error:
            raise AssertionError(f"{one.name} broke on {data[:500]!r}") from error


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_and_what_is_like_it_break_nothing(name: str) -> None:
    one = TARGETS[name]
    for data in one.corpus():
        one.check(data, random.Random(data))
    fuzz(one, 1, one.short)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_inputs_break_nothing(name: str) -> None:
    fuzz(TARGETS[name], 2, 8 * TARGETS[name].short)


def test_pieces_are_all_of_it_and_a_change_is_one() -> None:
    chance = random.Random(0)
    data = bytes(range(200))
    assert all(b"".join(pieces(data, chance)) == data for _ in range(200))
    assert sum(mutate(data, TARGETS["http"], [data], chance) != data for _ in range(200)) > 190


def test_a_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.target.TARGETS", {})

    @target("planted", [b"0123456789"], [b"x"])
    def planted(data: bytes, chance: random.Random) -> None:
        assert b"xx" not in data

    from .target import TARGETS as planted_targets

    one, chance = planted_targets["planted"], random.Random(0)
    found = 0
    for _ in range(20_000):
        try:
            one.check(mutate(b"0123456789", one, [b"0123456789"], chance), chance)
        except AssertionError:
            found += 1
    assert found
