"""Who gets the next connection."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiloop.cluster._policy import (
    ConnectionView,
    LeastConnections,
    LeastRequests,
    RoundRobin,
    Sticky,
    checked_name,
    make_policy,
)
from multiloop.cluster._sticky import key_in_cookie, key_in_header, pick_by_key
from multiloop.errors import ConfigError
from multiloop.http._pace import Pace


@dataclass
class View:
    number: int
    connections: int = 0
    requests: int = 0
    seat: int = 0
    typical_s: float = 0.0


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


@given(st.lists(st.integers(0, 50), min_size=1, max_size=10))
def test_least_requests_picks_a_least_busy_worker(loads: list[int]) -> None:
    workers = [View(number, requests=load) for number, load in enumerate(loads, 1)]
    assert LeastRequests().pick(None, workers).requests == min(loads)


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0.0, 0.004)), min_size=1, max_size=10))
def test_least_requests_takes_what_chance_does_to_durations_for_nothing(loads: list[tuple[int, float]]) -> None:
    workers = [View(number, requests=load, typical_s=typical) for number, (load, typical) in enumerate(loads, 1)]
    assert LeastRequests().pick(None, workers).requests == min(load for load, _ in loads)


def test_a_much_slower_worker_gets_a_request_when_the_others_have_as_many_times_more() -> None:
    policy = LeastRequests()
    slow, quick, unknown = View(1, typical_s=0.05), View(2, typical_s=0.002), View(3)
    dealt = Counter()
    for _ in range(50):
        worker = policy.pick(None, [slow, quick, unknown])
        worker.requests += 1
        dealt[worker.number] += 1
    assert dealt == {1: 1, 2: 25, 3: 24}, "25 times as slow"
    assert LeastRequests().pick(None, [slow]) is slow
    slow.typical_s = 100.0
    assert LeastRequests().pick(None, [View(1, typical_s=100.0), View(2, requests=63, typical_s=0.002)]).number == 1


def test_the_usual_duration_is_not_moved_by_one_that_is_long() -> None:
    pace = Pace()
    assert pace.typical_s(10.0) == 0.0
    for number in range(100):
        pace.count(0.002, 10.0 + number / 100)
    assert pace.typical_s(10.99) == pytest.approx(0.002)
    pace.count(10.0, 11.0)
    assert 0.002 < pace.typical_s(11.0) < 0.0024
    for _ in range(200):
        pace.count(0.1, 11.0)
    assert pace.typical_s(11.0) == pytest.approx(0.1, rel=0.2)


def test_what_is_known_of_a_silent_worker_fades_and_its_next_replies_count_for_more() -> None:
    pace = Pace()
    for _ in range(100):
        pace.count(0.064, 10.0)
    assert pace.typical_s(16.0) == pytest.approx(0.001)
    pace.count(0.001, 16.0)
    assert pace.typical_s(16.0) < 0.01
    pace.count(0.0, 16.0)
    assert pace.typical_s(16.0) > 0


@pytest.mark.parametrize("make", [RoundRobin, LeastConnections, LeastRequests])
def test_among_equals_everybody_is_picked_before_anybody_is_picked_again(make: Any) -> None:
    policy, workers = make(), [View(n) for n in (2, 5, 6, 9)]
    picked = [policy.pick(None, workers).number for _ in range(12)]
    assert picked == [2, 5, 6, 9] * 3


@pytest.mark.parametrize("make", [LeastConnections, LeastRequests])
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_no_worker_starves_while_work_ends(make: Any, data: st.DataObject) -> None:
    policy, workers = make(), [View(n) for n in range(1, data.draw(st.integers(2, 6)) + 1)]
    open_now: list[View] = []
    picked: Counter[int] = Counter()
    for _ in range(60):
        worker = policy.pick(None, workers)
        picked[worker.number] += 1
        worker.connections += 1
        worker.requests += 1
        open_now.append(worker)
        if data.draw(st.booleans()):
            ended = open_now.pop(data.draw(st.integers(0, len(open_now) - 1)))
            ended.connections -= 1
            ended.requests -= 1
    assert set(picked) == {worker.number for worker in workers}


def connection(host: str = "127.0.0.1", head: bytes = b"") -> ConnectionView:
    return ConnectionView((host, 5), ("127.0.0.1", 80), head)


def head(**fields: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()


def test_a_client_keeps_its_worker() -> None:
    policy, workers = Sticky(), [View(n, seat=n) for n in range(1, 5)]
    for number in range(50):
        host = f"10.0.0.{number}"
        picked = {policy.pick(connection(host), workers).number for _ in range(3)}
        assert len(picked) == 1
    assert {policy.pick(connection(f"10.0.1.{n}"), workers).number for n in range(50)} == {1, 2, 3, 4}


def test_an_ipv4_client_is_the_same_through_ipv6() -> None:
    policy, workers = Sticky(), [View(n, seat=n) for n in range(1, 9)]
    plain, mapped = connection("10.1.2.3"), connection("::ffff:10.1.2.3")
    assert policy.pick(plain, workers) is policy.pick(mapped, workers)


@given(st.lists(st.binary(min_size=1), min_size=1, max_size=40), st.integers(2, 8), st.data())
def test_when_a_worker_goes_only_its_own_clients_move(keys: list[bytes], count: int, data: st.DataObject) -> None:
    workers = [View(n, seat=n) for n in range(count)]
    before = {key: pick_by_key(key, workers) for key in keys}
    gone = workers[data.draw(st.integers(0, count - 1))]
    left = [worker for worker in workers if worker is not gone]
    for key in keys:
        after = pick_by_key(key, left)
        assert after is before[key] or before[key] is gone
    replacement = View(number=99, seat=gone.seat)
    for key in keys:
        after = pick_by_key(key, [*left, replacement])
        assert after.seat == before[key].seat


def test_clients_are_spread_evenly() -> None:
    workers = [View(n, seat=n) for n in range(4)]
    dealt = Counter(pick_by_key(b"client %d" % n, workers).number for n in range(4000))
    assert all(800 < count < 1200 for count in dealt.values())


@pytest.mark.parametrize(
    ("policy", "one", "same", "other"),
    [
        (Sticky("header", "X-Session"), head(x_session="abc"), head(a="b", X_SESSION=" abc "), head(x_session="abd")),
        (Sticky("cookie", "sid"), head(cookie="sid=1"), head(Cookie='a=b; sid="1"; c=d'), head(cookie="sid=2; a=sid")),
    ],
)
def test_sticky_goes_by_a_header_or_a_cookie(policy: Sticky, one: bytes, same: bytes, other: bytes) -> None:
    workers = [View(n, seat=n) for n in range(200)]
    picked = policy.pick(connection(head=one), workers)
    assert policy.pick(connection("10.9.9.9", same), workers) is picked
    assert policy.pick(connection(head=other), workers) is not picked


def test_clients_without_a_key_go_round_robin() -> None:
    workers = [View(n, seat=n) for n in (1, 2, 3)]
    by_cookie = Sticky("cookie", "sid")
    for bare in (b"", head(), head(cookie="other=1"), head(cookie="sid="), b"\r\n\r\n\x00", b"GET"):
        assert {by_cookie.pick(connection(head=bare), workers).number for _ in range(3)} == {1, 2, 3}
    unix, by_address = ConnectionView("", "/run/app.sock"), Sticky()
    assert {by_address.pick(unix, workers).number for _ in range(3)} == {1, 2, 3}


@given(st.binary())
def test_any_bytes_are_looked_at_without_harm(noise: bytes) -> None:
    assert isinstance(key_in_cookie(noise, "sid"), bytes)
    assert isinstance(key_in_header(noise, "x"), bytes)


def test_what_cannot_be_sticky_is_one_clear_line() -> None:
    for how, said in (
        ("sticky:colour=red", "by one of address, header, cookie, not by 'colour'"),
        ("sticky:header", "by header needs the name of one"),
        ("sticky:address=x", "by address needs no name"),
        ("sticky:cookie=a b", "'a b' cannot be the name of a cookie"),
    ):
        with pytest.raises(ConfigError, match=said):
            make_policy(how)


def test_policies_have_names() -> None:
    for name, made in (
        ("round_robin", RoundRobin),
        ("least_connections", LeastConnections),
        ("least_requests", LeastRequests),
        ("sticky", Sticky),
        ("sticky:cookie=sid", Sticky),
        ("reuse_port", RoundRobin),
        ("shared", RoundRobin),
    ):
        assert isinstance(make_policy(name), made)
        assert checked_name(name) == name


class Last:
    """A policy of a user's."""

    def pick(self, connection: Any, workers: Any) -> Any:
        return workers[-1]


THE_LAST = Last()


@pytest.mark.parametrize("wanted", [Last, THE_LAST, f"{__name__}:Last", f"{__name__}:THE_LAST", lambda: THE_LAST])
def test_a_policy_of_ones_own_is_an_object_a_class_or_named(wanted: Any) -> None:
    assert make_policy(wanted).pick(None, [View(1), View(2)]).number == 2


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("fastest", r"--policy 'fastest': use one of round_robin, "),
        ("no_such_module:X", r"--policy 'no_such_module:X': ModuleNotFoundError"),
        (f"{__name__}:nothing", "AttributeError"),
        (f"{__name__}:View", "making it failed: TypeError"),
        (object(), r"has no pick\(connection, workers\)"),
    ],
)
def test_what_is_no_policy_is_one_clear_line(wanted: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        make_policy(wanted)
    assert "\n" not in str(raised.value)
