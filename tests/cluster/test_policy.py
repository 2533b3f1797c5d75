"""Who gets the next connection."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiloop.cluster._policy import LeastConnections, RoundRobin, make_policy
from multiloop.errors import ConfigError


@dataclass
class View:
    number: int
    connections: int = 0
    requests: int = 0


def test_round_robin_deals_64_connections_to_4_workers_16_each() -> None:
    policy, workers = RoundRobin(), [View(n) for n in (3, 4, 7, 9)]
    dealt = Counter(policy.pick(None, workers).number for _ in range(64))
    assert dealt == {3: 16, 4: 16, 7: 16, 9: 16}


@given(st.sets(st.integers(1, 200), min_size=1, max_size=20), st.integers(1, 200))
def test_round_robin_never_differs_by_more_than_one(numbers: set[int], rounds: int) -> None:
    policy, workers = RoundRobin(), [View(n) for n in sorted(numbers)]
    dealt = Counter(dict.fromkeys(numbers, 0))
    dealt.update(policy.pick(None, workers).number for _ in range(rounds))
    assert max(dealt.values()) - min(dealt.values()) <= 1


@given(st.lists(st.sets(st.integers(1, 6), min_size=1), min_size=1, max_size=100))
def test_round_robin_picks_only_from_what_is_offered(offers: list[set[int]]) -> None:
    policy = RoundRobin()
    for offered in offers:
        assert policy.pick(None, [View(n) for n in sorted(offered)]).number in offered


def test_a_worker_that_was_not_offered_misses_only_that_turn() -> None:
    policy, workers = RoundRobin(), [View(1), View(2), View(3)]
    assert policy.pick(None, workers).number == 1
    assert policy.pick(None, [workers[0], workers[2]]).number == 3
    assert [policy.pick(None, workers).number for _ in range(3)] == [1, 2, 3]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=10))
def test_least_connections_picks_a_least_loaded_worker(loads: list[int]) -> None:
    workers = [View(number, load) for number, load in enumerate(loads, 1)]
    assert LeastConnections().pick(None, workers).connections == min(loads)


def test_least_connections_takes_turns_among_equals() -> None:
    policy, workers = LeastConnections(), [View(n) for n in (1, 2, 3)]
    assert [policy.pick(None, workers).number for _ in range(6)] == [1, 2, 3, 1, 2, 3]


def test_an_unknown_policy_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match=r"--policy 'fastest': use one of round_robin, "):
        make_policy("fastest")
    assert isinstance(make_policy("reuse_port"), RoundRobin)
