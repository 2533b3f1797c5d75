"""How long accepting pauses without descriptors."""

from __future__ import annotations

import itertools

from multiloop._limits import ACCEPT_RETRY_FIRST_S, ACCEPT_RETRY_S, FULL_TABLE_SAID_S
from multiloop.net._full import FullTable


def test_a_table_that_stays_full_is_looked_at_ever_less_often() -> None:
    full = FullTable()
    pauses = [full.pause(0.0, 7) for _ in range(20)]
    assert pauses[0].seconds == ACCEPT_RETRY_FIRST_S
    assert all(
        later.seconds == min(2 * earlier.seconds, ACCEPT_RETRY_S) for earlier, later in itertools.pairwise(pauses)
    )
    assert pauses[-1].seconds == ACCEPT_RETRY_S
    assert [pause.helped for pause in pauses] == [True] + [False] * 19


def test_whatever_was_accepted_makes_the_next_pause_short_again() -> None:
    full = FullTable()
    for _ in range(20):
        full.pause(0.0, 7)
    pause = full.pause(0.0, 8)
    assert (pause.seconds, pause.helped) == (ACCEPT_RETRY_FIRST_S, True)
    assert full.pause(0.0, 8).seconds == 2 * ACCEPT_RETRY_FIRST_S


def test_a_long_backlog_in_gulps_of_one_table_costs_a_short_pause_each() -> None:
    full = FullTable()
    waiting, accepted, slept = 500, 0, 0.0
    while waiting:
        gulp = min(30, waiting)
        waiting, accepted = waiting - gulp, accepted + gulp
        slept += full.pause(slept, accepted).seconds
    assert slept <= 0.1  # ten times a second, it would be 1.7


def test_it_is_said_at_most_once_a_second() -> None:
    full = FullTable()
    said = [now / 10 for now in range(100) if full.pause(now / 10, now).is_said]
    assert said == [float(second) for second in range(10)]
    assert FULL_TABLE_SAID_S == 1.0
