"""What the dashboard shows, from made-up snapshots: rates, quantiles, shares, ends, offenders, history."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from multiloop import _buckets as buckets
from multiloop import stats
from multiloop.cluster import _status
from multiloop.dashboard._model import Model

APP = stats.AppStatistics(
    *("shop", "shop:app", "serving", ("http://127.0.0.1:8000",), "round_robin"),
    *(1, 0, {}, "", 0, 0, 0, 0, 2),
)
BLOCK = stats.BlockedLoop(0.41, "/srv/app.py", 57, "block", 'File "/srv/app.py", line 57, in block', "GET /block", 50.0)


def counted(fast: int, slow: int = 0, failed: int = 0) -> tuple[tuple[int, ...], ...]:
    """So many replies of 1 ms and of 1 s, and 5xx of 1 ms."""
    ok, bad = [0] * buckets.COUNT, [0] * buckets.COUNT
    ok[buckets.index_of(0.001)] += fast
    ok[buckets.index_of(1.0)] += slow
    bad[buckets.index_of(0.001)] += failed
    empty = (0,) * buckets.COUNT
    return (empty, empty, tuple(ok), empty, empty, tuple(bad))


def worker(number: int = 1, **more: Any) -> stats.WorkerStatistics:
    given: dict[str, Any] = {
        "app": "shop",
        "number": number,
        "pid": 100 + number,
        "slot": number - 1,
        "state": "ready",
        "generation": 1,
        "age": 5.0,
        "silent": 0.1,
        "dealt": 3,
        "dealt_total": 10,
        "rss": 1 << 20,
        "cpu": 1.0,
        "http": stats.HttpStatistics(3, 1, 10, 0, 0, False),
    }
    return stats.WorkerStatistics(**{**given, **more})


def report(at: float, active: float, **more: Any) -> stats.WorkerReport:
    return stats.WorkerReport(sent_at=at, idle=at - active, active=active, health=stats.HealthStatistics(**more))


def snapshot(at: float, *workers: stats.WorkerStatistics, **more: Any) -> stats.ClusterStatistics:
    given: dict[str, Any] = {"pid": 1, "version": "1", "uptime": at, "rss": 1 << 20, "cpu": at / 100}
    return stats.ClusterStatistics(at=at, time=1000 + at, apps=(APP,), workers=workers, **{**given, **more})


def test_before_the_first_snapshot_there_is_nothing_to_show() -> None:
    assert Model().state() == {}
    assert Model().events() == Model().offenders.as_plain() == []


def test_rates_and_quantiles_are_of_the_last_seconds() -> None:
    model = Model()
    for at in range(20):
        model.sample(snapshot(at, worker(replies=counted(100 * at, at, 2 * at))))
    state = model.state()
    (one,) = state["workers"]
    assert abs(one["rate"] - 103) < 1
    assert abs(state["now"]["rate"] - 103) < 1
    assert abs(state["now"]["errors"] - 2) < 0.1
    assert 0.0008 < one["p50"] <= 0.001
    assert 0.0008 < one["p99"] <= 0.001  # one in 103 took a second
    model.sample(snapshot(20, worker(replies=counted(2000, 200, 40))))
    assert 0.8 < model.state()["workers"][0]["p99"] <= 1.0


def test_without_a_measure_nothing_is_invented() -> None:
    model = Model()
    model.sample(snapshot(0, worker()))
    model.sample(snapshot(1, worker()))
    (one,) = model.state()["workers"]
    assert one["rate"] is one["p50"] is one["p99"] is one["delay"] is one["util"] is None
    assert model.state()["now"]["rate"] is None


def test_the_rate_of_the_cluster_survives_the_end_of_a_worker() -> None:
    model = Model()
    for at in range(5):
        model.sample(snapshot(at, worker(1, replies=counted(100 * at)), worker(2, replies=counted(100 * at))))
    model.ended(1004.5, worker(1, replies=counted(450)), "it died (SIGKILL)")
    assert len(model.state()["workers"]) == 2  # as of the last snapshot
    model.sample(snapshot(5, worker(2, replies=counted(500)), worker(3, slot=0, replies=counted(0))))
    assert abs(model.state()["now"]["rate"] - (50 + 100 + 200) / 2) < 1
    assert [(w["n"], [end["why"] for end in w["ends"]]) for w in model.state()["workers"]] == [
        (2, []),
        (3, ["it died (SIGKILL)"]),
    ]


def test_a_silent_worker_is_fully_used_and_as_late_as_it_is_silent() -> None:
    model = Model()
    for at in range(4):
        model.sample(snapshot(at, worker(report=report(at, 0.1 * at))))
    assert abs(model.state()["workers"][0]["util"] - 0.1) < 0.001
    blocked = worker(report=report(3, 0.3), silent=2.5, state="silent", blocked_at=BLOCK)
    model.sample(snapshot(5, blocked))
    (one,) = model.state()["workers"]
    assert one["util"] == 1.0
    assert abs(one["delay"] - 2.25) < 0.01
    assert one["blocked"]["line"] == 57
    assert one["blocked"]["seconds"] == 2.5


def test_loop_delay_is_the_p99_of_the_last_beats() -> None:
    beats = [0] * buckets.COUNT
    beats[buckets.index_of(0.02)] = 100
    delay = stats.Durations(count=100, buckets=tuple(beats))
    model = Model()
    model.sample(snapshot(0, worker(report=report(0, 0.0))))
    model.sample(snapshot(1, worker(report=report(1, 0.0, loop_delay=delay))))
    assert 0.018 <= model.state()["workers"][0]["delay"] <= 0.02


def test_offenders_are_told_by_place_the_dearest_first() -> None:
    model = Model()
    for _ in range(3):
        model.blocked(60.0, 1, BLOCK)
    model.blocked(61.0, 2, replace(BLOCK, duration=9.0, line=99, request=None))
    first, second = model.offenders.as_plain()
    assert (first["line"], first["count"], first["total"]) == (99, 1, 9.0)
    assert (second["line"], second["count"], second["worst"]) == (57, 3, 0.41)
    assert second["request"] == "GET /block"
    assert model.offenders.stack(second["id"]) == 'File "/srv/app.py", line 57, in block'
    assert model.offenders.stack(12345) is None


def test_one_place_that_blocks_again_and_again_is_told_once_in_a_while() -> None:
    model = Model()
    for second in range(25):
        model.blocked(100.0 + second, 1, BLOCK)
    assert len(model.events()) == 3
    assert "blocked for 0.41 s at /srv/app.py:57 in block (GET /block)" in model.events()[0]["text"]


def test_a_worker_that_was_killed_while_it_was_blocked_is_an_offender() -> None:
    model = Model()
    model.ended(1.0, worker(silent=31.0, blocked_at=BLOCK, state="killed"), "was blocked for 31.0 s")
    (found,) = model.offenders.as_plain()
    assert (found["killed"], found["worst"]) == (1, 31.0)


def test_places_are_forgotten_when_there_are_too_many_the_cheapest_first() -> None:
    model = Model()
    for line in range(150):
        model.blocked(1.0, 1, replace(BLOCK, line=line, duration=1.0 + line))
    found = model.offenders.as_plain()
    assert len(found) == 100
    assert {one["line"] for one in found} == set(range(50, 150))


def test_what_comes_from_outside_is_made_safe() -> None:
    bad = "\x1b[31m<script>alert(1)</script>\r\n\x00\x9b"
    model = Model()
    model.blocked(1.0, 1, replace(BLOCK, request=f"GET /{bad}", function=bad, file=f"/{bad}", stack=f"a\n{bad}"))
    model.event(1.0, "error", bad, f"one\n{bad}")
    model.sample(snapshot(0, worker(app=bad, silent=3.0, blocked_at=replace(BLOCK, stack=bad, request=bad))))
    texts = json.dumps([model.events(), model.offenders.as_plain(), model.state(), model.offenders.stack(1)])
    assert "<script>" in texts  # the page sets text: nothing needs to be done to it
    for control in ("\\u001b", "\\u0000", "\\r", "\\u009b"):
        assert control not in texts


def test_history_is_a_column_for_each_series_and_forgets() -> None:
    model = Model()
    for at in range(1000):
        model.sample(snapshot(at, worker(replies=counted(at))))
    columns = model.history.as_plain()
    assert {len(column) for column in columns.values()} == {900}
    assert columns["t"][-1] == 1999.0
    assert columns["p99"][0] is not None
    json.dumps(columns, allow_nan=False)


def test_events_are_numbered_and_the_newest_are_kept() -> None:
    model = Model()
    for number in range(400):
        model.event(float(number), "info", f"event {number}")
    assert len(model.events()) == 300
    assert model.newest_event == 400
    assert [event["text"] for event in model.events(398)] == ["event 398", "event 399"]


def test_pools_of_one_name_count_together() -> None:
    def pool(queued: int) -> stats.PoolStatistics:
        durations = stats.Durations(count=1, buckets=counted(1)[2], total=0.001)
        numbers = (queued, 1, 0, 5, 1, 0, 0, 0, 0, 1, 0, 0.5)
        return stats.PoolStatistics("default", "process", "local", 2, (), *numbers, durations, durations)

    workers = [worker(n, report=replace(report(1, 0.5), pools=(pool(n),))) for n in (1, 2)]
    model = Model()
    model.sample(snapshot(0, *workers))
    (found,) = model.state()["pools"]
    assert (found["inside"], found["queued"], found["done"], found["failed"]) == (2, 3, 10, 2)
    assert 0.0008 < found["run50"] <= 0.001
    assert model.state()["now"]["queued"] == 3


def test_a_snapshot_survives_the_way_over_the_control_socket() -> None:
    whole = worker(replies=counted(3), reply_seconds=(0.0,) * 6, report=report(1.0, 0.5), blocked_at=BLOCK)
    found = snapshot(3.0, whole, worker(2, slot=None, state="standby", http=None))
    found = replace(found, apps=(replace(APP, ended=(stats.EndedWorker(1, 0, 1, "died", "SIGKILL", 2.0),)),))
    there_and_back = _status.from_raw(json.loads(json.dumps(_status.raw(found))))
    assert there_and_back == found
    assert json.loads(json.dumps(_status.status(found)))["workers"][0]["latency"]["count"] == 3
