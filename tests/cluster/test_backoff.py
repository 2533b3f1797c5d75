"""How soon a worker may be started again."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from multiloop import _limits as limits
from multiloop.cluster._backoff import Intensity, delay_after_failures, jittered
from multiloop.cluster._settings import SupervisorSettings

SETTINGS = SupervisorSettings(restart_max=5, restart_window=30.0)


def middle() -> float:
    return 0.5


def test_the_delay_doubles_from_the_first() -> None:
    delays = [
        delay_after_failures([100.0 - n for n in range(count)], 100.0, SETTINGS, middle) for count in (1, 2, 3, 4)
    ]
    assert delays == [0.1, 0.2, 0.4, 0.8]


def test_many_failures_within_the_window_wait_the_longest_delay() -> None:
    assert delay_after_failures([96.0, 97.0, 98.0, 99.0, 100.0], 100.0, SETTINGS, middle) == limits.RESTART_DELAY_MAX_S


def test_the_delay_never_grows_beyond_the_longest() -> None:
    failures = [n * 1000.0 for n in range(2000)]
    assert delay_after_failures(failures, failures[-1], SETTINGS, middle) == limits.RESTART_DELAY_MAX_S


@given(st.floats(0, 0.999999), st.floats(0.01, 100))
def test_jitter_stays_within_its_share(random: float, delay: float) -> None:
    assert abs(jittered(delay, lambda: random) - delay) <= delay * limits.RESTART_JITTER * 1.000001


def test_a_burst_of_deaths_is_answered_at_once_and_then_one_a_second() -> None:
    intensity = Intensity(3, middle)
    assert [intensity.delay(10.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert intensity.delay(10.0) == 1.0
    assert intensity.delay(10.0) == 2.0
    assert intensity.delay(20.0) == 0.0


@settings(max_examples=30)
@given(st.lists(st.floats(0, 0.3), min_size=50, max_size=200))
def test_replacements_are_held_to_the_rate_in_the_long_run(gaps: list[float]) -> None:
    intensity, now, starts = Intensity(5, middle), 0.0, []
    for gap in gaps:
        now += gap
        starts.append(now + intensity.delay(now))
    within = max(starts) - min(starts)
    assert len(starts) <= 5 + within * limits.RESTART_RATE_S + 1.001
