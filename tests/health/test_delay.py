"""loop_delay, utilization and the histogram under them."""

import asyncio
import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import LOOPS, until

import multiloop
from multiloop import health
from multiloop.errors import UsageError
from multiloop.health._histogram import Histogram
from multiloop.stats import Durations


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(1, 100))
def test_a_histogram_is_exact_in_extremes_and_mean_and_close_in_quantiles(values, percent):
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    ordered = sorted(values)
    assert histogram.count == len(values)
    assert (histogram.min, histogram.max) == (ordered[0], ordered[-1])
    assert histogram.mean == pytest.approx(sum(values) / len(values))
    wanted = ordered[max(1, -int(-len(values) * percent // 100)) - 1]
    assert histogram.percentile(percent) == pytest.approx(wanted, rel=0.04, abs=1e-6)


# Between whole microseconds, where rounding cannot put them into another bucket.
@given(st.lists(st.integers(-10, 10**12).map(lambda whole: whole * 1000 + 500), max_size=100), st.integers(0, 100))
def test_many_at_once_count_as_one_by_one(nanoseconds, cut):
    one_by_one, at_once = Histogram(), Histogram()
    for each in nanoseconds:
        one_by_one.record(each / 1e9)
    at_once.record_all(nanoseconds[:cut])
    at_once.record_all(nanoseconds[cut:])
    wanted, got = one_by_one.snapshot(), at_once.snapshot()
    assert got == dataclasses.replace(wanted, mean=got.mean, total=got.total)
    assert (got.mean, got.total) == (pytest.approx(wanted.mean), pytest.approx(wanted.total))
    assert at_once.stddev == pytest.approx(one_by_one.stddev, rel=1e-3, abs=1.0)


def test_an_empty_histogram_says_nothing():
    histogram = Histogram()
    assert histogram.snapshot() == Durations()
    assert (histogram.mean, histogram.stddev, histogram.percentile(50)) == (0.0, 0.0, 0.0)
    histogram.record(-1.0)
    assert histogram.min == 0.0
    for wrong in (0, 101, -1):
        with pytest.raises(ValueError):
            histogram.percentile(wrong)


@pytest.mark.parametrize("loop", LOOPS)
def test_loop_delay_measures_how_late_the_loop_is(loop):
    async def main():
        delay = health.loop_delay(resolution=0.01)
        await asyncio.sleep(0.3)
        assert delay.count > 10
        assert 0 <= delay.min <= delay.p50 <= delay.p99 <= delay.max
        delay.reset()
        assert delay.count == 0
        time.sleep(0.15)
        await asyncio.sleep(0.03)
        assert delay.max > 0.12
        assert delay.percentile(100) == delay.max
        assert delay.snapshot().max == delay.max
        assert delay.stddev > 0
        delay.stop()
        delay.stop()
        count = delay.count
        await asyncio.sleep(0.05)
        assert delay.count == count

    multiloop.run(main, loop=loop)


def test_a_resolution_that_cannot_be_meant_is_refused():
    async def main():
        for wrong in (0, -1, 1000):
            with pytest.raises(UsageError):
                health.loop_delay(resolution=wrong)

    multiloop.run(main)


def test_utilization_tells_idle_from_active():
    async def main():
        start = health.utilization()
        await asyncio.sleep(0.3)
        idle = health.utilization(start)
        assert idle.utilization < 0.3
        assert idle.idle + idle.active == pytest.approx(0.3, abs=0.1)
        before, used = health.utilization(), time.thread_time()
        while time.thread_time() - used < 0.3:
            sum(range(100))
        busy = health.utilization(before)
        assert busy.active >= 0.3
        assert busy.utilization > idle.utilization

    multiloop.run(main)


def test_a_block_without_computing_counts_as_active_when_watched():
    async def main():
        health.watch()
        await asyncio.sleep(0.12)
        before = health.utilization()
        time.sleep(0.5)
        await until(lambda: health.statistics().blocked_count)
        assert health.utilization(before).active > 0.4

    multiloop.run(main)


def test_statistics_without_a_watch_are_there_too():
    async def main():
        found = health.statistics()
        assert not found.watching
        assert found.blocked_count == 0

    multiloop.run(main)
