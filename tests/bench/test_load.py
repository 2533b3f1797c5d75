"""What the load generators print."""

from __future__ import annotations

import pytest
from bench.harness.load import read_ab, read_wrk
from bench.harness.processes import Failed, ticks_of
from bench.rows._scripts import read_samples
from bench.rows.websockets import read_load

WRK = """Running 2s test @ http://127.0.0.1:8000/
  1 threads and 64 connections
  Latency Distribution
     50%  830.00us
     75%    1.20ms
     90%    1.90ms
     99%    1.02s
  90210 requests in 2.01s, 11.20MB read
Requests/sec:  44880.60
"""
AB = """Concurrency Level:      32
Time taken for tests:   1.250 seconds
Complete requests:      8000
Failed requests:        0

Percentage of the requests served within a certain time (ms)
  50%      4
  99%     11
 100%     19 (longest request)
"""


def test_wrk_says_how_many_in_how_long_and_latencies_in_any_unit() -> None:
    seen = read_wrk(WRK)
    assert (seen.requests, seen.seconds) == (90210, 2.01)
    assert (seen.p50_ms, seen.p99_ms) == pytest.approx((0.83, 1020.0))


@pytest.mark.parametrize(
    "more",
    ["  Non-2xx or 3xx responses: 7\n", "  Socket errors: connect 0, read 3, write 0, timeout 0\n"],
)
def test_a_window_with_bad_replies_counts_nothing(more: str) -> None:
    with pytest.raises(Failed, match="went wrong"):
        read_wrk(WRK + more)


def test_a_window_without_replies_counts_nothing() -> None:
    with pytest.raises(Failed, match="0 requests were answered"):
        read_wrk(WRK.replace("90210", "0"))


def test_ab_says_the_same() -> None:
    seen = read_ab(AB)
    assert (seen.requests, seen.seconds, seen.p50_ms, seen.p99_ms) == (8000, 1.25, 4.0, 11.0)
    with pytest.raises(Failed, match="12 of 8000"):
        read_ab(AB.replace("Failed requests:        0", "Failed requests:        12"))


@pytest.mark.parametrize("read", [read_wrk, read_ab, read_load, read_samples])
def test_what_is_no_report_is_an_error(read: object) -> None:
    with pytest.raises(Failed):
        read("command not found")  # type: ignore[operator]


def test_samples_of_a_program_come_one_a_line_without_those_that_warmed_up() -> None:
    text = "cpu_us 9.5 wall_us 10\nsomething a library says\ncpu_us 8.5 wall_us 9\n"
    assert read_samples(text, skip=1) == [{"cpu_us": 8.5, "wall_us": 9.0}]
    with pytest.raises(Failed, match="no samples"):
        read_samples(text, skip=2)
    with pytest.raises(Failed, match="not a sample"):
        read_samples("cpu_us nine\n")


def test_cpu_time_is_read_behind_the_name_whatever_it_holds() -> None:
    fields = ["S", *map(str, range(1, 11)), "100", "20", "3", "4", *["0"] * 30]
    assert ticks_of(f"12 (a) b (c)) {' '.join(fields)}") == 127
