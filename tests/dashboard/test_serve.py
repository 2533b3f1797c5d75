"""A real server with its dashboard: who gets in, what it says while workers are blocked, killed and reloaded."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wait_until

from .harness import Admin, serving, total

ROUTES = (
    *("/", "/events", "/api/state", "/api/stack?id=1", "/metrics", "/health/live", "/health/ready"),
    *("/api/reload", "/api/scale", "/api/restart", "/nothing", "/favicon.ico"),
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with serving(tmp_path_factory.mktemp("admin"), "--admin-actions", "--grace", "1") as found:
        yield found


# --- who gets in --------------------------------------------------------------------------------------------------
def test_the_link_opens_the_page_and_its_cookie_opens_the_rest(admin: Admin) -> None:
    status, headers, page = admin.ask(f"/?token={admin.token}", Authorization="")
    assert status == 200
    assert "<title>multiloop</title>" in page
    assert admin.token not in page
    cookie = headers["set-cookie"].partition(";")[0]
    assert admin.token not in headers["set-cookie"]
    assert admin.ask("/api/state", Authorization="", Cookie=cookie)[0] == 200
    assert admin.ask("/", Authorization="", Cookie=cookie)[0] == 200


def test_without_the_token_there_is_a_page_to_sign_in_and_nothing_else(admin: Admin) -> None:
    status, _, page = admin.ask("/", Authorization="")
    assert status == 401
    assert "<form" in page
    for route in ROUTES:
        if not route.startswith("/health") and route not in ("/nothing", "/favicon.ico"):
            method = "POST" if route in ("/api/reload", "/api/scale", "/api/restart") else "GET"
            assert admin.ask(route, method, Authorization="")[0] == 401, route
            assert admin.ask(route, method, Authorization="Bearer wrong")[0] == 401, route


def _attack(admin: Admin, method: str, route: str, *fields: str) -> int:
    """Send a request with the token and fields of the attacker's choice; returns the status."""
    with socket.create_connection(("127.0.0.1", admin.admin_port), timeout=20) as sock:
        fields = (*fields, f"Authorization: Bearer {admin.token}", "Content-Type: application/json")
        body = "{}" if method in ("POST", "PUT", "PATCH") else ""
        head = "".join(f"{field}\r\n" for field in (*fields, f"Content-Length: {len(body)}", "Connection: close"))
        sock.sendall(f"{method} {route} HTTP/1.1\r\n{head}\r\n{body}".encode())
        return int(sock.makefile("rb").readline().split()[1])


def test_a_foreign_host_or_origin_gets_nothing_on_any_route_with_any_method(admin: Admin) -> None:
    ours = f"Host: {admin.host}"
    attacks = [
        *((f"Host: {host}",) for host in ("evil.example", f"evil.example:{admin.admin_port}", "127.1", "localhost6")),
        *((f"Host: {host}",) for host in ("0x7f000001", "2130706433", "127.0.0.2", "0.0.0.0", "[::ffff:127.0.0.1]")),
        *((ours, f"Origin: {origin}") for origin in ("null", "http://evil.example", f"http://127.0.0.1:{admin.port}")),
        (ours, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors"),
        (ours, "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors"),
    ]
    accepted = [
        (method, route, fields)
        for method, route, fields in itertools.product(METHODS, ROUTES, attacks)
        if _attack(admin, method, route, *fields) not in (400, 403)
    ]
    assert accepted == []
    assert len(admin.workers()) == 2  # nothing was reloaded, scaled or restarted


def test_no_answer_may_be_embedded_sniffed_or_kept(admin: Admin) -> None:
    for route in ROUTES[:1] + ROUTES[2:]:
        _, headers, _ = admin.ask(route)
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "unsafe" not in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


def test_large_bodies_and_wrong_paths_are_refused(admin: Admin) -> None:
    assert admin.ask("/api/scale", "POST", {"workers": "x" * 20_000})[0] == 413
    for path in ("//", "/../", "/%2e%2e/x", "/api", "/api/", "/metrics/", "/Events"):
        assert admin.ask(path)[0] == 404
    for number in ("", "x", "-1", "999999999999999999999", "1;", "%F0%9F"):
        assert admin.ask(f"/api/stack?id={number}")[0] == 404


def test_the_workers_learn_neither_token_nor_variable(admin: Admin) -> None:
    for pid in admin.workers().values():
        environ = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
        assert admin.token.encode() not in environ


# --- what it says -------------------------------------------------------------------------------------------------
def test_a_blocked_loop_is_named_in_the_log_and_on_the_page_with_its_line(admin: Admin) -> None:
    line = next(i for i, text in enumerate((admin.folder / "shop.py").read_text().splitlines(), 1) if "sleep" in text)
    with admin.following() as events:
        events.next("hello")
        admin.get("/block?0.4")
        offenders = events.until("offenders", lambda found: any(one["line"] == line for one in found))
    (found,) = [one for one in offenders if one["line"] == line]
    assert found["file"] == "shop.py"
    assert 0.3 <= found["worst"] <= 0.6
    assert f"shop.py:{line}" in admin.log
    stack = json.loads(admin.ask(f"/api/stack?id={found['id']}")[2])["stack"]
    assert f'shop.py", line {line}, in app' in stack
    assert any(f"shop.py:{line}" in event["text"] for event in admin.everything()["events"])


def test_control_characters_and_markup_from_clients_are_shown_as_text(admin: Admin) -> None:
    with admin.following() as events:
        events.next("hello")
        admin.get("/block?0.2&%1b[31m<script>alert(1)</script>")
        events.next("offenders")
    for route in ("/api/state", "/metrics"):
        text = admin.ask(route)[2]
        assert "\x1b" not in text
        assert "\\u001b" not in text


def test_metrics_count_what_was_asked_and_what_users_count(admin: Admin) -> None:
    before = admin.metrics()
    for number in range(20):
        admin.get(f"/order?{'nl' if number % 4 else 'de'}")
    admin.get("/fail")
    admin.get("/pool")
    after = admin.metrics()

    def grown(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    assert grown("multiloop_http_requests_total") == 22
    assert grown("multiloop_http_requests_total", status="5xx") == 1
    assert grown("multiloop_http_request_duration_seconds_count") == 22
    assert grown("shop_orders_total", country="nl") == 15
    assert grown("shop_orders_total", country="de") == 5
    assert grown("shop_size_bucket", le="10.0") == grown("shop_size_count") == 20
    assert total(after, "shop_open") == max(admin.workers().values())  # across="max"
    assert total(after, "multiloop_pool_tasks_total", outcome="completed") >= 1
    assert total(after, "multiloop_workers", state="ready") == 2


def test_the_events_begin_with_everything_and_go_on_each_second(admin: Admin) -> None:
    with admin.following() as events:
        hello = events.next("hello")
        assert set(hello) >= {"state", "history", "events", "offenders", "csrf"}
        first, second = events.next("state"), events.next("state")
    assert second["t"] > first["t"]
    assert [worker["state"] for worker in second["workers"]] == ["ready", "ready"]
    assert first["apps"][0]["listen"] == [f"http://127.0.0.1:{admin.port}"]


def test_clients_that_leave_or_take_nothing_cost_nothing(admin: Admin) -> None:
    for _ in range(40):
        sock = socket.create_connection(("127.0.0.1", admin.admin_port))
        sock.sendall(
            f"GET /events HTTP/1.1\r\nHost: {admin.host}\r\nAuthorization: Bearer {admin.token}\r\n\r\n".encode()
        )
        sock.recv(10)
        sock.close()
    with admin.following() as events:  # more than MAX_STREAMS came and went: there is room again
        events.next("hello")


# --- what it does -------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_page_can_restart_scale_and_reload(admin: Admin) -> None:
    old = min(admin.workers())
    with admin.following() as events:
        events.next("hello")
        status, _, text = admin.ask("/api/restart", "POST", {"worker": old})
        assert status == 200, text
        events.until("state", lambda state: old not in [worker["n"] for worker in state["workers"]])
    assert admin.ask("/api/scale", "POST", {"workers": 3})[0] == 200
    wait_until(lambda: len(admin.workers()) == 3, 30)
    assert admin.ask("/api/scale", "POST", {"workers": 2})[0] == 200
    before = set(admin.workers().values())
    assert admin.ask("/api/reload", "POST", {})[0] == 200
    wait_until(lambda: len(admin.workers()) == 2 and not before & set(admin.workers().values()), 30)
    assert "asked for on the dashboard: reload" in admin.log
    for body, expected in (({"workers": 0}, 409), ({"workers": "two"}, 409), ([], 400), ({"worker": 1}, 409)):
        assert admin.ask("/api/scale", "POST", body)[0] == expected
    assert admin.ask("/api/restart", "POST", {"worker": 999_999})[0] == 409
    assert admin.ask("/api/reload", "GET")[0] == 405


@pytest.mark.slow
def test_the_page_of_a_server_without_actions_only_looks(tmp_path: Path) -> None:
    token = "a-token-for-prometheus"
    with serving(tmp_path, "--metrics-open", workers=1, MULTILOOP_ADMIN_TOKEN=token) as admin:
        assert token not in admin.log
        assert admin.ask("/api/state")[0] == 200
        assert admin.ask("/api/reload", "POST", {})[0] == 403
        assert admin.everything()["csrf"] == ""
        assert admin.ask("/metrics", Authorization="")[0] == 200
        assert admin.ask("/api/state", Authorization="")[0] == 401
        (pid,) = admin.workers().values()
        assert b"ADMIN_TOKEN" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert admin.call("status")["dashboard"] == admin.link


def test_everything_answers_while_every_worker_is_blocked(admin: Admin) -> None:
    blocks = [threading.Thread(target=admin.get, args=("/block?2.5",)) for _ in admin.workers()]
    for block in blocks:
        block.start()
    wait_until(lambda: len(admin.workers("silent")) == 2, 30)
    assert admin.ask("/health/live", Authorization="")[0] == 200
    assert admin.ask("/health/ready", Authorization="")[0] == 503
    assert admin.ask(f"/?token={admin.token}", Authorization="")[0] == 200
    assert total(admin.metrics(), "multiloop_workers", state="silent") == 2
    found = admin.everything()["state"]["workers"]
    assert {(worker["blocked"]["file"], worker["util"]) for worker in found} == {("shop.py", 1.0)}
    assert len(admin.workers("silent")) == 2  # they still were
    for block in blocks:
        block.join()
    wait_until(lambda: admin.ask("/health/ready", Authorization="")[0] == 200, 30)


@pytest.mark.slow
def test_a_killed_worker_is_told_with_its_reason_and_its_successor(admin: Admin) -> None:
    wait_until(lambda: len(admin.workers()) == 2, 30)
    number, pid = min(admin.workers().items())
    with admin.following() as events:
        events.next("hello")
        os.kill(pid, signal.SIGKILL)
        state = events.until(
            "state",
            lambda state: (
                number not in [w["n"] for w in state["workers"]]
                and [w["state"] for w in state["workers"]] == ["ready", "ready"]
            ),
        )
    ends = [end for worker in state["workers"] for end in worker["ends"] if end["worker"] == number]
    assert [end["why"] for end in ends] == ["died (SIGKILL)"]
    assert any(f"worker {number} died (SIGKILL)" in event["text"] for event in admin.everything()["events"])


def test_an_address_that_is_taken_is_one_line_and_exit_code_6(tmp_path: Path, admin: Admin) -> None:
    from tests.cli.harness import ASGI, mistake

    (tmp_path / "main.py").write_text(ASGI)
    said = mistake(tmp_path, 6, "serve", "main:app", "--port", "0", "--admin", f"127.0.0.1:{admin.admin_port}")
    assert said.startswith("multiloop: --admin: ")
