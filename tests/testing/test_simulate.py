"""The simulator finds what is wrong, says it again, and makes it short; the product's own code passes it."""

from __future__ import annotations

from typing import Any

import pytest

from multiloop.cluster import _link
from multiloop.cluster._dealer import Dealer
from multiloop.cluster._supervisor import Supervisor
from multiloop.testing.simulate import Finding, Scenario, growth, run, schedule, search
from multiloop.testing.simulate._kernel import Kernel


def failures(count: int, first: int = 0, scenario: Scenario | None = None) -> list[Finding]:
    return [one for one in search(count, first=first, scenario=scenario) if isinstance(one, Finding)]


def test_random_schedules_break_no_promise() -> None:
    assert [str(found) for found in failures(25)] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_random_schedules_break_no_promise() -> None:
    assert [str(found) for found in failures(400, first=1_000_000)] == []


def test_a_seed_replays_event_for_event() -> None:
    first, again = run(7), run(7)
    assert first.history == again.history
    assert first.events == again.events > 100
    assert run(8).history != first.history


def test_a_schedule_can_be_written_down() -> None:
    steps = schedule(11)
    assert run(11, steps=steps).history == run(11).history
    assert run(11, steps=steps[:-1]).history != run(11).history


@pytest.mark.parametrize("policy", ["round_robin", "least_connections"])
def test_a_calm_cluster_answers_everybody(policy: str) -> None:
    outcome = run(3, Scenario(workers=3, policy=policy, clients=40, faults=0))
    assert outcome.ok, outcome.error
    assert outcome.lost == 0
    assert outcome.answered >= 40


# --- planted bugs -------------------------------------------------------------------------------------------------
def first_finding(count: int, scenario: Scenario | None = None) -> Finding:
    for one in search(count, scenario=scenario):
        if isinstance(one, Finding):
            return one
    raise AssertionError("the planted bug was not found")


def test_a_connection_that_is_closed_instead_of_dealt_again_is_found_and_made_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def of(self: Kernel, machine: Any) -> Any:
        return _link.Kernel(self.close, lambda descriptor, before=0: True, self.bytes_read)

    monkeypatch.setattr(Kernel, "of", of)
    found = first_finding(200, Scenario(kinds=("kill", "reload", "scale", "slow")))
    assert "nobody who read from it had died" in found.error
    assert len(found.steps) <= 2
    assert not run(found.seed, Scenario(kinds=("kill", "reload", "scale", "slow")), found.steps).ok


def test_a_connection_with_two_owners_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    take_back = Dealer._take_back

    def twice(self: Dealer, link: Any) -> None:
        """What is held is dealt again at once, without waiting for the death of its worker."""
        take_back(self, link)
        for number in list(link.held):
            self._held -= 1
            self._wait(link.held.pop(number))

    monkeypatch.setattr(Dealer, "_take_back", twice)
    found = first_finding(200, Scenario(kinds=("stop",), clients=20))
    assert "two owners" in found.error or "wait" in found.error or "closed" in found.error


def test_a_worker_that_goes_before_its_heir_is_ready_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Supervisor._begin_reload

    def eager(self: Supervisor, tokens: list[int], now: float) -> None:
        begin(self, tokens, now)
        for slot in self.slots:
            if slot.serving is not None:
                self._dismiss(slot.serving, now, "too early", give_back=True)

    monkeypatch.setattr(Supervisor, "_begin_reload", eager)
    found = first_finding(100, Scenario(kinds=("reload",), workers=2))
    assert found.error


def test_restarts_without_a_limit_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiloop.cluster._backoff.Intensity.delay", lambda self, now: 0.0)
    found = first_finding(60, Scenario(kinds=("kill",), faults=60, workers=2, clients=0, seconds=10.0))
    assert "restarts in" in found.error


def test_the_primary_s_work_grows_with_its_workers_and_not_faster() -> None:
    small, large = growth((10, 80), connections=100)
    assert large.tick_us < 8 * 4 * small.tick_us + 200
