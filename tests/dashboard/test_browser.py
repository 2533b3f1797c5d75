"""The dashboard in a real browser: the demo's blocking button pressed, a worker killed, the keyboard, a lost connection.

With MULTILOOP_PICTURES=1 the pictures of the documentation are taken anew (docs/images).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.browser import Page, browsing, needs_browser
from tests.support import wait_until

from .harness import APP, Admin, serving

pytestmark = needs_browser

DEMO = Path(__file__).parents[2] / "examples" / "demo"
IMAGES = Path(__file__).parents[2] / "docs" / "images"
TOKEN = "a-token-of-the-browser-tests"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browsing() as found:
        yield found


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    with serving(tmp_path, "--admin-actions", "--grace", "1") as found:
        yield found


@contextlib.contextmanager
def demo(folder: Path, workers: int) -> Iterator[Admin]:
    """The demo with its dashboard, as `make serve` starts them."""
    source = (DEMO / "app.py").read_text()
    (folder / "page.html").write_text((DEMO / "page.html").read_text())
    port = _free_port()
    link = f"http://127.0.0.1:{port}/?token={TOKEN}"
    variables = {"MULTILOOP_ADMIN_TOKEN": TOKEN, "DEMO_DASHBOARD": link}
    arguments = ("--admin", str(port), "--admin-actions", "--grace", "1")
    with serving(folder, *arguments, app=source, module="app", workers=workers, **variables) as found:
        yield found


def _free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def rows(page: Page) -> list[str]:
    return list(page.run("[...document.querySelectorAll('#workers tbody tr')].map((row) => row.innerText)"))


def opened(page: Page, url: str) -> None:
    page.call("Page.navigate", url="about:blank")  # the page of a server before may still try to reach it
    wait_until(lambda: page.run("location.href") == "about:blank")
    page.errors.clear()
    page.requested.clear()
    page.size(1360, 900)
    page.prefer(color_scheme="light")
    page.open(url)
    wait_until(lambda: page.text("live") == "live" and len(rows(page)) > 0, 30)


def test_the_demos_button_blocks_and_the_dashboard_names_the_line(page: Page, tmp_path: Path) -> None:
    with demo(tmp_path, 2) as admin:
        page.open(f"http://127.0.0.1:{admin.port}/")
        link = page.run("document.querySelector('#dashboard a').href")
        assert page.run("document.querySelector('#dashboard').offsetParent !== null")
        opened(page, link)
        assert "?" not in page.run("location.href")  # the token leaves the address bar
        source = (tmp_path / "app.py").read_text().splitlines()
        computing = ("sha256(digest", "thread_time() < end")
        inside = [number for number, line in enumerate(source, 1) if any(part in line for part in computing)]
        block = threading.Thread(target=admin.get, args=("/block?seconds=1.5",))
        block.start()
        wait_until(lambda: any(f"app.py:{line} compute" in page.text("offenders") for line in inside), 30)
        page.click("#offenders summary")
        wait_until(lambda: "in block" in page.text("#offenders pre"), 20)
        wait_until(lambda: "its loop was blocked for" in page.text("events"), 20)
        hosts = {urlsplit(url).netloc for url in page.requested if not url.startswith("data:")}
        assert hosts == {admin.host}  # nothing is loaded from elsewhere
        block.join()
        assert page.errors == []


def test_a_worker_that_is_blocked_is_shown_while_it_is(page: Page, admin: Admin) -> None:
    opened(page, admin.link)
    block = threading.Thread(target=admin.get, args=("/block?3",))
    block.start()
    wait_until(lambda: "is blocked for" in page.text("blocked-now"), 20)
    assert "shop.py" in page.text("blocked-now")
    assert "blocked" in page.run("document.title")
    block.join()
    wait_until(lambda: page.run("document.getElementById('blocked-now').hidden"), 20)


def test_a_killed_worker_is_replaced_before_ones_eyes(page: Page, admin: Admin) -> None:
    opened(page, admin.link)
    number, pid = min(admin.workers().items())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(f"pid {pid}" in row for row in rows(page)) and len(rows(page)) == 2, 30)
    wait_until(lambda: all("ready" in row for row in rows(page)), 30)
    assert any("died (SIGKILL)" in row for row in rows(page))
    assert f"worker {number} died (SIGKILL)" in page.text("events")
    assert page.errors == []


def test_the_page_acts_only_through_its_buttons(page: Page, admin: Admin) -> None:
    opened(page, admin.link)
    page.click("#more")
    wait_until(lambda: len(rows(page)) == 3 and all("ready" in row for row in rows(page)), 30)
    page.click("#fewer")
    wait_until(lambda: len(rows(page)) == 2, 30)
    before = set(admin.workers().values())
    page.click("#reload")
    wait_until(lambda: not before & set(admin.workers().values()) and page.text("#reload") == "Reload", 40)
    number = min(admin.workers())
    page.click("#workers tbody tr button")
    wait_until(lambda: number not in admin.workers() and len(admin.workers()) == 2, 30)
    assert page.errors == []


def test_markup_and_control_characters_stay_text(page: Page, tmp_path: Path) -> None:
    bad = "<img src=x onerror=alert(1)>\\x1b[31m"
    raising = f'if os.path.exists("bad"):\n    raise RuntimeError("{bad}")\n\n'
    app = APP.replace("def square", raising + "def square")
    with serving(tmp_path, "--admin-actions", app=app) as admin:
        opened(page, admin.link)
        (tmp_path / "bad").touch()
        page.click("#reload")
        wait_until(lambda: "<img src=x" in page.text("events"), 40)
        page.run("document.querySelectorAll('#events details').forEach((one) => { one.open = true; })")
        text = page.run("document.body.innerText")
        assert "<img src=x onerror=alert(1)>" in text
        assert "\x1b" not in page.run("document.documentElement.outerHTML")
        assert page.run("document.querySelectorAll('main img, main script').length") == 0
        wait_until(lambda: "reload failed" in page.text("lost"), 20)
        assert [one for one in page.errors if "409" not in one] == []  # the browser notes the refusal itself


def test_it_survives_a_reload_a_lost_connection_and_a_restart(page: Page, tmp_path: Path) -> None:
    port = str(_free_port())
    with serving(tmp_path, "--admin", port, MULTILOOP_ADMIN_TOKEN=TOKEN) as admin:
        opened(page, admin.link)
        page.call("Page.reload")
        wait_until(lambda: page.text("live") == "live" and len(rows(page)) == 2, 30)
        os.kill(admin.process.pid, signal.SIGSTOP)  # nobody closes anything: only the silence tells
        wait_until(lambda: page.text("live") == "lost", 30)
        os.kill(admin.process.pid, signal.SIGCONT)
        wait_until(lambda: page.text("live") == "live" and page.text("lost") == "", 30)
    wait_until(lambda: "Trying again" in page.text("lost"), 30)
    with serving(tmp_path, "--admin", port, MULTILOOP_ADMIN_TOKEN=TOKEN):
        wait_until(lambda: page.text("live") == "live" and page.text("lost") == "", 40)
    with serving(tmp_path, "--admin", port, MULTILOOP_ADMIN_TOKEN=TOKEN + "-another"):
        wait_until(lambda: "another token" in page.text("lost"), 40)
        page.open(f"http://127.0.0.1:{port}/")
        page.run(f"document.getElementById('token').value = {json.dumps(TOKEN + '-another')}")
        page.click("form button")
        wait_until(lambda: page.text("live") == "live", 30)


def test_it_is_used_with_the_keyboard_and_named_for_screen_readers(page: Page, admin: Admin) -> None:
    opened(page, admin.link)
    reached = []
    for _ in range(12):
        page.press("Tab")
        reached.append(page.run("document.activeElement.id || document.activeElement.className"))
    assert reached[0] == "skip"
    assert {"reload", "fewer", "more", "theme", "charts"} <= set(reached)
    page.run("document.getElementById('charts').focus()")
    wait_until(lambda: page.run("document.querySelectorAll('.chart path.a')[0].getAttribute('d').length") > 20, 20)
    page.press("ArrowLeft")
    wait_until(lambda: page.run("document.querySelector('.chart .at').textContent") != "", 10)
    assert "Requests/s" in page.run("document.getElementById('announcer').textContent")
    page.press("Escape")
    assert page.run("document.querySelector('.chart .at').textContent") == ""
    names = page.run(
        "[...document.querySelectorAll('button, summary, [role=img], table, section')]"
        ".filter((one) => one instanceof SVGElement ? !one.closest('[hidden]') : one.offsetParent !== null)"
        ".filter((one) => !one.getAttribute('aria-label') && !one.getAttribute('aria-labelledby'))"
        ".filter((one) => !one.textContent.trim())"
        ".map((one) => one.outerHTML.slice(0, 80))"
    )
    assert names == []


def test_it_fits_every_screen_and_both_schemes_are_readable(page: Page, admin: Admin) -> None:
    opened(page, admin.link)
    for width in (320, 390, 768, 1024, 1360, 2200):
        page.size(width, 900, mobile=width < 500)
        assert page.run("document.documentElement.scrollWidth") <= width, width
    for scheme in ("light", "dark"):
        page.prefer(color_scheme=scheme)
        assert page.run(_WORST_CONTRAST) >= 4.5, scheme
    page.size(1360, 900)
    for expected in ("light", "dark", "auto"):
        page.click("#theme")
        assert page.run("document.documentElement.dataset.theme") == expected


# The lowest contrast of any text that is seen, by WCAG's formula, against the nearest background that is opaque.
_WORST_CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const over = (top, below) => below.map((part, i) => top[i] * top[3] / 255 + part * (1 - top[3] / 255));
  const linear = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const light = (color) => color.reduce((sum, part, i) => sum + linear(part / 255) * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) {
      layers.push(rgba(getComputedStyle(one).backgroundColor));
      if (layers.at(-1)[3] === 255) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const isShown = (element) => !(element instanceof SVGElement) && element.offsetParent !== null
    && !element.closest(".hidden, [hidden], [disabled]");
  const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  let worst = 21;
  for (const element of document.querySelectorAll("main *, header *, footer")) {
    if (!isShown(element) || !hasText(element)) continue;
    const back = behind(element), front = over(rgba(getComputedStyle(element).color), back);
    const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
    worst = Math.min(worst, (high + 0.05) / (low + 0.05));
  }
  return worst;
})()"""


# --- pictures -----------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not os.environ.get("MULTILOOP_PICTURES"), reason="the pictures are taken with MULTILOOP_PICTURES=1")
def test_the_pictures_of_the_documentation_are_taken(page: Page, tmp_path: Path) -> None:
    IMAGES.mkdir(exist_ok=True)
    with demo(tmp_path, 4) as admin, _visitors(admin, 100):
        admin.get("/offload?seconds=0.1")
        opened(page, admin.link)
        threading.Event().wait(75)
        block = threading.Thread(target=admin.get, args=("/block?seconds=5",))
        block.start()
        wait_until(lambda: "is blocked for" in page.text("blocked-now"), 30)
        for scheme in ("light", "dark"):
            page.prefer(color_scheme=scheme)
            threading.Event().wait(0.4)
            page.shoot(IMAGES / f"dashboard-{scheme}.png")
        block.join()


@contextlib.contextmanager
def _visitors(admin: Admin, seconds: float) -> Iterator[None]:
    """Some who stay and some who come, for a picture that has something to show."""
    end = time.monotonic() + seconds
    stop = threading.Event()

    def visit(kept: bool, paths: tuple[str, ...]) -> None:
        connection: Any = None
        number = 0
        while not stop.is_set() and time.monotonic() < end:
            number += 1
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", admin.port, timeout=20)
                connection.request("GET", paths[number % len(paths)])
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection.close()
                connection = None
            if not kept and connection is not None:
                connection.close()
                connection = None
            stop.wait(0.05 if kept else 0.15)
        if connection is not None:
            connection.close()

    offload = "/offload?seconds=0.02"
    plans = [*[(True, ("/fast",) * 30 + (offload,))] * 10, *[(False, ("/fast",) * 90 + ("/block?seconds=0.2",))] * 2]
    threads = [threading.Thread(target=visit, args=plan) for plan in plans]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
