"""What stands for a side, and whether it is ahead."""

from __future__ import annotations

import pytest
from bench.harness.statistics import beyond_noise, column, ratios_by_round, stands_for, summarize
from hypothesis import given
from hypothesis import strategies as st

figures = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=20)


def test_the_least_of_costs_and_the_most_of_rates() -> None:
    assert stands_for([3.0, 1.0, 2.0], "least") == 1.0
    assert stands_for([3.0, 1.0, 2.0], "least", more_is_better=True) == 3.0
    assert stands_for([3.0, 1.0, 200.0], "median") == 3.0


def test_nothing_stands_for_no_figures() -> None:
    with pytest.raises(ValueError, match="no figures"):
        stands_for([], "least")


@given(figures)
def test_what_stands_for_figures_lies_among_them(values: list[float]) -> None:
    assert min(values) == stands_for(values, "least") <= stands_for(values, "median") <= max(values)


def test_a_summary_has_the_spread_of_the_samples_that_have_the_metric() -> None:
    samples = [{"cpu_us": 3.0, "rate": 10.0}, {"cpu_us": 2.0}, {"rate": 30.0}]
    cpu, rate = summarize(samples, "cpu_us", "least"), summarize(samples, "rate", "least")
    assert (cpu.value, cpu.low, cpu.high, cpu.count) == (2.0, 2.0, 3.0, 2)
    assert rate.value == 30.0
    assert column(samples, "kb") == []


def test_ratios_are_of_the_same_round() -> None:
    ours = [[{"cpu_us": 1.0}, {"cpu_us": 9.0}], [{"cpu_us": 4.0}], [{"cpu_us": 5.0}]]
    theirs = [[{"cpu_us": 2.0}], [{"cpu_us": 2.0}], []]
    assert ratios_by_round(ours, theirs, "cpu_us", "least") == [0.5, 2.0]


def test_ahead_or_behind_only_when_every_round_agrees() -> None:
    assert beyond_noise([0.5, 0.9]) == "less"
    assert beyond_noise([1.1, 1.5]) == "more"
    assert beyond_noise([0.9, 1.1]) == "same"
    assert beyond_noise([]) == "same"
