"""What scrapers read: parsed by prometheus_client's own parsers, whatever the workers and users put in."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from multiloop.dashboard._exposition import expose
from multiloop.dashboard._figures import FAMILIES, figures_of_cluster, figures_of_worker
from multiloop.dashboard._sums import Sums

from .test_model import counted, report, snapshot, worker

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def read(sums: Sums, accept: str = OPENMETRICS) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every value, by the sample's name and labels."""
    text, content_type = expose(sums.totals(), accept)
    parse: Any = parse_openmetrics if "openmetrics" in content_type else parse_prometheus
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text.decode())
        for sample in family.samples
    }


def made(*workers: Any) -> Sums:
    sums = Sums()
    sums.describe(FAMILIES)
    sums.replace(0, "", figures_of_cluster(snapshot(3.0, *workers)))
    for one in workers:
        sums.replace(one.number, str(one.slot), figures_of_worker(one))
    return sums


def measured(number: int, replies: int) -> Any:
    return worker(
        number, replies=counted(replies, 1, 2), reply_seconds=(0, 0, 1.5, 0, 0, 0.002), report=report(1, 0.25)
    )


@pytest.mark.parametrize("accept", [OPENMETRICS, "text/plain", "", "nonsense/∞"])
def test_both_forms_are_what_their_parsers_accept(accept: str) -> None:
    found = read(made(measured(1, 10), measured(2, 20)), accept)
    at = (("app", "shop"), ("worker", "1"))
    assert found["multiloop_http_requests_total", (*at[:1], ("status", "2xx"), *at[1:])] == 21
    assert found["multiloop_http_requests_total", (*at[:1], ("status", "5xx"), *at[1:])] == 2
    assert found["multiloop_http_request_duration_seconds_count", at] == 23
    assert found["multiloop_http_request_duration_seconds_sum", at] == 1.502
    assert found["multiloop_http_request_duration_seconds_bucket", (*at[:1], ("le", "0.001"), *at[1:])] == 22
    assert found["multiloop_http_request_duration_seconds_bucket", (*at[:1], ("le", "+Inf"), *at[1:])] == 23
    assert found["multiloop_loop_active_seconds_total", at] == 0.25
    assert found["multiloop_workers", (("app", "shop"), ("state", "ready"))] == 2


def test_every_family_has_a_description_and_a_unit_that_fits() -> None:
    for name, family in FAMILIES.items():
        assert family.help.endswith(".")
        assert not family.unit or name.endswith(f"_{family.unit}")
        assert not name.endswith("_total")


def test_a_successor_in_the_same_place_goes_on_counting() -> None:
    sums = made(measured(1, 10))
    sums.ended(1)
    after = measured(5, 3)
    sums.replace(5, "0", figures_of_worker(worker(5, slot=0, replies=after.replies, reply_seconds=after.reply_seconds)))
    at = (("app", "shop"), ("worker", "0"))
    found = read(sums)
    assert found["multiloop_http_requests_total", (*at[:1], ("status", "2xx"), *at[1:])] == 15
    assert found["multiloop_http_connections", at] == 3  # of the living alone


def test_a_standby_has_no_place_and_no_figures() -> None:
    assert figures_of_worker(worker(slot=None, state="standby")) == {}


def test_metrics_of_users_with_odd_labels_and_types_are_published() -> None:
    sums = Sums()
    sums.describe({"odd": ("gauge", 'A "help"\nwith\\lines', "", "sum"), "kind": ("weird", "?", "", "sum")})
    sums.update(1, "0", {("odd", "odd", (("path", '/"a"\n\\<script>'),)): 1.5, ("kind", "kind", ()): 2.0})
    assert read(sums)["odd", (("path", '/"a"\n\\<script>'),)] == 1.5
    assert read(sums)["kind", ()] == 2.0


def test_a_family_that_cannot_be_published_does_not_hide_the_others(caplog: pytest.LogCaptureFixture) -> None:
    sums = made()
    sums.describe({"": ("gauge", "no name", "", "sum")})
    sums.update(1, "0", {("", "", ()): 1})
    assert ("multiloop_uptime_seconds", ()) in read(sums)
    assert "is not published" in caplog.text
