"""Figures equal to what clients counted: through reloads, kills and a load generator's own account."""

from __future__ import annotations

import http.client
import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support import wait_until

from .harness import Admin, Samples, serving, total

pytestmark = pytest.mark.slow


class Checker:
    """Clients that place orders all the time, and count what was answered."""

    def __init__(self, admin: Admin, clients: int = 6) -> None:
        self._admin = admin
        self._stop = threading.Event()
        self._counts = [0] * clients
        self.lost = [0] * clients
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(clients)]
        for thread in self._threads:
            thread.start()

    @property
    def count(self) -> int:
        return sum(self._counts)

    def stop(self) -> int:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.count

    def _run(self, number: int) -> None:
        connection = None
        while not self._stop.is_set():
            connection = connection or http.client.HTTPConnection("127.0.0.1", self._admin.port, timeout=20)
            try:
                connection.request("GET", "/order?nl")
                reply = connection.getresponse()
                reply.read()
            except (OSError, http.client.HTTPException):
                self.lost[number] += 1
                connection.close()
                connection = None
                continue
            self._counts[number] += 1
            if number % 2:  # half of them come anew each time
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


def backwards(before: Samples, after: Samples) -> list[str]:
    """The counters that became smaller, or went away."""
    growing = ("_total", "_count", "_bucket", "_sum")
    fallen = [key for key in before if key[0].endswith(growing) and after.get(key, -1) < before[key]]
    return [f"{key}: {before[key]} to {after.get(key)}" for key in fallen]


def test_every_request_is_counted_once_through_ten_reloads(tmp_path: Path) -> None:
    with serving(tmp_path) as admin:
        checker = Checker(admin)
        seen: list[Samples] = [admin.metrics()]
        for _ in range(10):
            admin.call("reload", timeout_s=None)
            seen.append(admin.metrics())
        count = checker.stop()
        seen.append(admin.metrics())
        assert sum(checker.lost) == 0
        assert total(seen[-1], "multiloop_http_requests_total") == count
        assert total(seen[-1], "multiloop_http_requests_total", status="2xx") == count
        assert total(seen[-1], "multiloop_http_request_duration_seconds_count") == count
        assert total(seen[-1], "shop_orders_total") == count
        assert total(seen[-1], "shop_size_count") == count
        assert total(seen[-1], "shop_size_sum") == 3 * count
        assert total(seen[-1], "multiloop_generation") == 11
        for before, after in itertools.pairwise(seen):
            assert backwards(before, after) == []


def test_no_counter_goes_backwards_when_workers_are_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as admin:
        checker = Checker(admin)
        seen: list[Samples] = [admin.metrics()]
        for _ in range(6):
            wait_until(lambda: len(admin.workers()) == 2, 60)
            os.kill(min(admin.workers().values()), signal.SIGKILL)
            restarts = len(seen)
            wait_until(lambda restarts=restarts: admin.everything()["state"]["cluster"]["restarts"] == restarts, 60)  # type: ignore[misc]
            seen.append(admin.metrics())
        count, lost = checker.stop(), sum(checker.lost)
        seen.append(admin.metrics())
        # Replies are counted in memory that outlives the worker: all but the one that was being written when it died.
        # And a client may have lost the reply of one that was counted.
        assert count - 6 <= total(seen[-1], "multiloop_http_requests_total") <= count + lost
        assert total(seen[-1], "multiloop_worker_restarts_total") == 6
        for before_, after in itertools.pairwise(seen):
            assert backwards(before_, after) == []


@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_figures_are_those_of_wrk(tmp_path: Path) -> None:
    with serving(tmp_path) as admin:
        before = admin.metrics()
        command = ["wrk", "-t1", "-c8", "-d3s", f"http://127.0.0.1:{admin.port}/"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"(\d+) requests in", said)
        assert found is not None
        wait_until(lambda: sum(worker["active"] for worker in admin.everything()["state"]["workers"]) == 0, 20)
        grown = total(admin.metrics(), "multiloop_http_requests_total") - total(before, "multiloop_http_requests_total")
        assert int(found[1]) <= grown <= int(found[1]) + 8  # wrk cuts what is under way, on each of its connections
