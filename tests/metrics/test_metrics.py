"""The user's metrics in one process: made once, collected as changes."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from typing import Any

import pytest
from tests.support import environment

from multiloop import metrics
from multiloop.metrics._collect import Collector


def name() -> str:
    return f"test_{uuid.uuid4().hex[:10]}"


def values(collector: Collector, family: str) -> dict[Any, float | None]:
    return {key[1:]: value for key, value in collector.changes()[1].items() if key[0] == family}


def test_a_metric_is_made_once_however_often_it_is_asked_for() -> None:
    one = name()
    assert metrics.counter(one, "Help.") is metrics.counter(f"{one}_total", "Help.")
    with pytest.raises(ValueError, match="exists as a Counter"):
        metrics.gauge(one, "Help.")
    with pytest.raises(ValueError, match="exists as a Counter"):
        metrics.counter(one, "Help.", labels=("a",))
    with pytest.raises(ValueError, match="across='average'"):
        metrics.gauge(name(), "Help.", across="average")


def test_only_what_changed_is_told() -> None:
    one = name()
    collector = Collector()
    orders = metrics.counter(one, "Orders.", labels=("country",))
    orders.labels(country="nl").inc(2)
    described, changed = collector.changes()
    assert described[one] == ("counter", "Orders.", "", "sum")
    key = (one, f"{one}_total", (("country", "nl"),))
    assert changed[key] == 2.0
    assert collector.changes() == ({}, {})
    orders.labels(country="nl").inc()
    assert collector.changes() == ({}, {key: 3.0})
    orders.remove("nl")
    assert collector.changes() == ({}, {key: None})


def test_histograms_and_gauges_travel_with_how_they_are_joined() -> None:
    sizes, level = name(), name()
    collector = Collector()
    metrics.histogram(sizes, "Sizes.", buckets=(1, 5), unit="bytes").observe(3)
    metrics.gauge(level, "Level.", across="max").set(7)
    described, changed = collector.changes()
    full = f"{sizes}_bytes"
    assert described[full] == ("histogram", "Sizes.", "bytes", "sum")
    assert described[level][3] == "max"
    found = {key[1:]: value for key, value in changed.items() if key[0] == full}
    assert found[f"{full}_bucket", (("le", "5.0"),)] == 1.0
    assert found[f"{full}_count", ()] == 1.0
    assert not any(key[1].endswith("_created") for key in changed)


def test_a_registry_of_ones_own_is_published_once_it_is_registered(caplog: pytest.LogCaptureFixture) -> None:
    from prometheus_client import CollectorRegistry, Gauge

    registry, one = CollectorRegistry(), name()
    gauge = Gauge(one, "Own.", registry=registry)
    gauge.set(4)
    collector = Collector()
    assert values(collector, one) == {}
    metrics.register(registry)
    metrics.register(registry)
    assert values(collector, one) == {(one, ()): 4.0}
    gauge.set_function(lambda: 1 // 0)
    assert values(collector, one) == {(one, ()): None}
    assert "its registry is not published" in caplog.text
    registry.unregister(gauge)


def test_the_process_own_metrics_are_left_out() -> None:
    described, changed = Collector().changes()
    assert not [family for family in (*described, *(key[0] for key in changed)) if family.startswith("p")]


def test_importing_it_loads_no_library() -> None:
    code = "import sys; from multiloop import metrics; print('prometheus_client' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout.strip().lower()) is False
