"""The demo's page in a real browser (headless Chromium, driven over its DevTools WebSocket)."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import wait_until

from .test_demo import url as url

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]


class Page:
    """One tab: `run` evaluates JavaScript in it, `errors` is what its console complained about."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._number = 0
        self.errors: list[str] = []

    def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(20))
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(json.dumps(message["params"]))
            if message.get("id") == self._number:
                return message["result"]

    def run(self, code: str) -> Any:
        return self.call("Runtime.evaluate", expression=code, returnByValue=True)["result"].get("value")

    def text(self, element: str) -> str:
        return str(self.run(f"document.getElementById('{element}').textContent"))


@pytest.fixture
def page(tmp_path: Path, url: str) -> Iterator[Page]:
    from websockets.sync.client import connect

    assert CHROMIUM is not None
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    with open(tmp_path / "log", "w") as log:
        browser = subprocess.Popen([CHROMIUM, *arguments, f"--user-data-dir={tmp_path / 'profile'}"], stderr=log)
    try:
        port_file = tmp_path / "profile" / "DevToolsActivePort"
        wait_until(lambda: port_file.exists() and "\n" in port_file.read_text(), 30)
        with urllib.request.urlopen(f"http://127.0.0.1:{port_file.read_text().split()[0]}/json", timeout=10) as reply:
            target = next(target for target in json.load(reply) if target["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
            found = Page(socket)
            for domain in ("Runtime", "Log", "Page"):
                found.call(f"{domain}.enable")
            found.call("Page.navigate", url=url)
            wait_until(lambda: found.run("document.readyState") == "complete")
            yield found
    finally:
        browser.kill()
        browser.wait()


def test_every_button_answers_with_its_worker_and_the_chart_runs(page: Page) -> None:
    wait_until(lambda: page.text("workers").count("worker") == 2, 20)
    for button, output, words in (
        ("fast", "fast-out", "answered at once"),
        ("offload", "work-out", "off the loop"),
        ("block", "work-out", "on the loop"),
        ("upload", "upload-out", "took 64,000,000 bytes"),
    ):
        page.run(f"document.getElementById('{button}').click()")
        wait_until(lambda output=output, words=words: words in page.text(output), 40)  # type: ignore[misc]
        assert page.text(output).startswith("worker ")
    page.run("document.querySelector('#echo button').click()")
    wait_until(lambda: "echoed 'hello'" in page.text("echo-out"), 20)
    wait_until(lambda: "half took less than" in page.text("summary"), 20)
    wait_until(lambda: "half took less than" in page.text("summary-new"), 20)
    assert page.errors == []


def test_the_page_fits_a_phone_and_every_control_is_reached_with_the_keyboard(page: Page) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=2, mobile=True)
    assert page.run("document.documentElement.scrollWidth") <= 390
    reached = []
    for _ in range(8):
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(page.run("document.activeElement.id || document.activeElement.textContent"))
    assert reached[:7] == ["fast", "block", "offload", "file", "upload", "echo-text", "Send"]
