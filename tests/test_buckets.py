"""The shared buckets: where a duration falls, what quantiles say, what OpenMetrics is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multiloop import _buckets as buckets
from multiloop.health._histogram import Histogram
from multiloop.pool._meter import Series


def counts_of(*seconds: float) -> list[int]:
    counts = [0] * buckets.COUNT
    for one in seconds:
        counts[buckets.index_of(one)] += 1
    return counts


@given(st.floats(0, 1000))
def test_a_duration_is_at_most_the_bound_of_its_bucket_and_over_the_one_before(seconds: float) -> None:
    index = buckets.index_of(seconds)
    assert index == len(buckets.BOUNDS_S) or seconds <= buckets.BOUNDS_S[index]
    assert index == 0 or seconds > buckets.BOUNDS_S[index - 1]


@given(st.lists(st.floats(1e-5, 90), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_is_right_within_a_bucket(seconds: list[float], share: float) -> None:
    exact = sorted(seconds)[max(0, -(-int(share * len(seconds) * 1000) // 1000) - 1)]
    found = buckets.quantile(counts_of(*seconds), share)
    assert found is not None
    index = buckets.index_of(exact)
    assert buckets.BOUNDS_S[max(0, index - 1)] * 0.85 <= found * 1.01 or found <= buckets.BOUNDS_S[index] * 1.2


def test_no_counts_have_no_quantile_and_the_last_bucket_its_bound() -> None:
    assert buckets.quantile([], 0.5) is None
    assert buckets.quantile(buckets.EMPTY, 0.5) is None
    assert buckets.quantile(counts_of(5000.0), 0.5) == 100.0


def test_a_counter_that_began_anew_counts_from_zero() -> None:
    before, now = counts_of(0.1, 0.1, 0.2), counts_of(0.1)
    assert sum(buckets.since(now, before)) == 1
    assert sum(buckets.since(counts_of(0.1, 0.1, 0.2, 0.3), before)) == 1


def test_exposed_buckets_are_cumulative_and_end_with_everything() -> None:
    exposed = dict(buckets.exposed(counts_of(0.0001, 0.01, 0.0101, 3.0, 5000.0)))
    assert exposed["0.0001"] == 1
    assert exposed["0.01"] == 2
    assert exposed["0.025"] == 3
    assert exposed["5.0"] == 4
    assert exposed["+Inf"] == 5
    assert list(exposed.values()) == sorted(exposed.values())


def test_every_histogram_of_ours_can_be_added_up() -> None:
    delays, tasks = Histogram(), Series()
    for seconds in (0.0012, 0.03, 2.2):
        delays.record(seconds)
        tasks.fresh.append(int(seconds * 1e9))
    for found in (delays.snapshot(), tasks.snapshot()):
        assert sum(found.buckets) == found.count == 3
        assert abs(found.total - 2.2312) < 1e-6
        for seconds in (0.0012, 0.03, 2.2):
            at = buckets.index_of(seconds)
            assert sum(found.buckets[at - 1 : at + 2]) == 1
