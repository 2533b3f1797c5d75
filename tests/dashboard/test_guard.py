"""Who may see and do what: every rule of the admin address alone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from multiloop.dashboard._guard import Access, Facts, Guard

TOKEN = "t0ken-of-the-tests"
GOOD = Facts("GET", "127.0.0.1:9000", authorization=f"Bearer {TOKEN}")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get")


def guard(**more: Any) -> Guard:
    return Guard(TOKEN, **{"host": "127.0.0.1", "port": 9000, "actions": True, **more})


def status(of: Guard, facts: Facts, access: Access | None = Access.VIEW, methods: tuple[str, ...] = ("GET",)) -> int:
    refusal = of.judge(facts, access, methods)
    return 200 if refusal is None else refusal.status


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "localhost:9000", "LOCALHOST:9000", "[::1]:9000", "localhost:4711"])
def test_our_own_names_are_let_in_on_any_port_that_a_tunnel_may_have(host: str) -> None:
    assert status(guard(), replace(GOOD, host=host)) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:9000", "127.0.0.1.evil.example", "localhost.evil.example:9000", "localhost6"),
        *("127.1", "0x7f000001", "2130706433", "127.0.0.2", "0.0.0.0", "0.0.0.0:9000", "[::]", "[::ffff:127.0.0.1]"),
        *("localhost.", "127.0.0.1.", "127.0.0.1:", "127.0.0.1:90000000", "user@127.0.0.1", "127.0.0.1:9000, evil"),
        *("127.0.0.1/x", "127.0.0.1\x00", " 127.0.0.1", "", None, "10.0.0.5:9000", "[::1%25lo]:9000", "locālhost"),
    ],
)
def test_a_foreign_or_odd_host_is_refused_on_every_route_with_every_method(host: str | None) -> None:
    for access, method in itertools.product((*Access, None), METHODS):
        assert status(guard(metrics_open=True), replace(GOOD, host=host, method=method), access, (method,)) == 403


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "http://evil.example", "https://evil.example", "http://127.0.0.1", "http://127.0.0.1:8000"),
        *("http://localhost:9000", "ftp://127.0.0.1:9000", "http://127.0.0.1:9000/", "http://127.0.0.1:9000.evil", ""),
    ],
)
def test_a_foreign_origin_is_refused_on_every_route_with_every_method(origin: str) -> None:
    for access, method in itertools.product((*Access, None), METHODS):
        assert status(guard(metrics_open=True), replace(GOOD, origin=origin, method=method), access, (method,)) == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
@pytest.mark.parametrize("mode", ["navigate", "no-cors", "cors", "websocket", None])
def test_a_browser_on_another_page_may_only_follow_a_link_to_the_page(site: str, mode: str | None) -> None:
    for access, method in itertools.product(Access, METHODS):
        facts = replace(GOOD, fetch_site=site, fetch_mode=mode, method=method)
        is_link = access is Access.PAGE and mode == "navigate" and method == "GET"
        assert status(guard(), facts, access, (method,)) == (200 if is_link else 403)


def test_our_own_page_and_programs_are_let_in() -> None:
    for site in ("same-origin", "none", None):
        assert status(guard(), replace(GOOD, fetch_site=site)) == 200
    assert status(guard(), replace(GOOD, origin="http://127.0.0.1:9000")) == 200


@pytest.mark.parametrize("access", [Access.PAGE, Access.VIEW, Access.METRICS, Access.ACTION])
@pytest.mark.parametrize(
    "wrong",
    [
        {"authorization": None},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"authorization": "Bearer \u00e9\u00e8"},
        {"authorization": None, "cookie": "multiloop_9000="},
        {"authorization": None, "cookie": f"multiloop_9000={TOKEN}"},
        {"authorization": None, "cookie": f"multiloop_9001={Guard(TOKEN, host='127.0.0.1', port=9001).session}"},
        {"authorization": None, "query_token": TOKEN + "x"},
        {"authorization": None, "query_token": ""},
    ],
)
def test_without_the_token_there_is_nothing(access: Access, wrong: dict[str, Any]) -> None:
    assert status(guard(), replace(GOOD, **wrong), access) == 401


def test_health_needs_no_token_and_metrics_none_when_they_are_open() -> None:
    bare = replace(GOOD, authorization=None)
    assert status(guard(), bare, Access.OPEN) == 200
    assert status(guard(metrics_open=True), bare, Access.METRICS) == 200
    assert status(guard(metrics_open=True), bare, Access.VIEW) == 401


def test_the_token_in_the_query_signs_in_to_the_page_and_opens_nothing_else() -> None:
    facts = replace(GOOD, authorization=None, query_token=TOKEN)
    assert status(guard(), facts, Access.PAGE) == 200
    for access in (Access.VIEW, Access.METRICS, Access.ACTION):
        assert status(guard(), facts, access) == 401


def test_the_cookie_that_the_page_sets_opens_what_the_page_fetches() -> None:
    found = guard()
    name, _, value = found.set_cookie().partition(";")[0].partition("=")
    assert "HttpOnly" in found.set_cookie()
    assert "SameSite=Strict" in found.set_cookie()
    assert status(found, replace(GOOD, authorization=None, cookie=f"other=1; {name}={value}")) == 200


def test_an_unknown_path_and_a_wrong_method_are_told_apart_only_from_inside() -> None:
    assert status(guard(), GOOD, None) == 404
    refusal = guard().judge(replace(GOOD, method="DELETE"), Access.VIEW)
    assert refusal is not None
    assert (refusal.status, refusal.allow) == (405, "GET, HEAD")


ACT = Facts("POST", "127.0.0.1:9000", content_type="application/json")


def act(of: Guard, facts: Facts) -> int:
    return status(of, facts, Access.ACTION, ("POST",))


def test_actions_with_the_cookie_need_the_pages_own_token_and_origin() -> None:
    found = guard()
    signed_in = replace(ACT, cookie=f"{found.cookie_name}={found.session}")
    whole = replace(signed_in, origin="http://127.0.0.1:9000", csrf=found.csrf)
    assert act(found, whole) == 200
    assert act(found, replace(whole, csrf=None)) == 403
    assert act(found, replace(whole, csrf=found.session)) == 403
    assert act(found, replace(whole, origin=None)) == 403
    assert act(found, replace(whole, content_type="text/plain")) == 415
    assert act(found, replace(whole, content_type=None)) == 415
    assert act(found, replace(whole, method="GET")) == 405


def test_actions_with_the_bearer_are_for_programs() -> None:
    assert act(guard(), replace(ACT, authorization=f"Bearer {TOKEN}")) == 200
    assert act(guard(), replace(ACT, authorization="Bearer wrong")) == 401


def test_actions_are_off_unless_they_were_allowed() -> None:
    assert act(guard(actions=False), replace(ACT, authorization=f"Bearer {TOKEN}")) == 403


def test_behind_a_proxy_its_name_is_ours_when_it_was_given() -> None:
    found = guard(hosts=("dash.example.org", "other.example:8443"))
    for host, expected in (
        ("dash.example.org", 200),
        ("dash.example.org:443", 200),
        ("other.example:8443", 200),
        ("other.example", 403),
        ("other.example:1", 403),
        ("xdash.example.org", 403),
    ):
        assert status(found, replace(GOOD, host=host)) == expected
    https = replace(GOOD, host="dash.example.org", origin="https://dash.example.org")
    assert status(found, https) == 200


def test_on_every_address_only_literals_of_the_one_that_was_reached_are_ours() -> None:
    found = guard(host="0.0.0.0")
    reached = replace(GOOD, host="192.0.2.7:9000", local_host="192.0.2.7")
    assert status(found, reached) == 200
    assert status(found, replace(reached, host="192.0.2.8:9000")) == 403
    assert status(found, replace(reached, host="rebound.example:9000")) == 403
    assert status(guard(), reached) == 403  # bound to loopback: no other address can be one of ours


def test_secrets_of_different_purposes_differ_and_hide_the_token() -> None:
    found = guard()
    assert len({found.session, found.csrf, TOKEN, guard(port=1).session}) == 4
    assert TOKEN not in found.set_cookie()
