"""A headless Chromium for tests, driven over its DevTools WebSocket: a page is opened, clicked, read and photographed."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .support import wait_until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]

_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    *("--remote-debugging-port=0", "--force-device-scale-factor=1"),
)
_KEYS = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "Escape": 27, " ": 32}


class Page:
    """One tab: `run` evaluates JavaScript in it, `errors` is what its console complained about."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._number = 0
        self.errors: list[str] = []
        self.requested: list[str] = []  # what it fetched, from whom

    def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(30))
            self._note(message)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.errors.append(json.dumps(message["params"]))
        elif message.get("method") == "Network.requestWillBeSent":
            self.requested.append(message["params"]["request"]["url"])

    def open(self, url: str) -> None:
        """Go there and wait until the document is loaded."""
        self.call("Page.navigate", url=url)
        wait_until(lambda: self.run("document.readyState") == "complete" and self.run("location.href") != "about:blank")

    def run(self, code: str) -> Any:
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def text(self, selector: str) -> str:
        """What an element says: an id, or any selector."""
        selector = selector if selector[:1] in "#.[" or " " in selector else f"#{selector}"
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_KEYS[key])

    def size(self, width: int, height: int, *, scale: float = 1, mobile: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )

    def prefer(self, **features: str) -> None:
        """`prefer(color_scheme="dark")`: the media features that the page is told."""
        media = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=media)

    def shoot(self, path: Path, *, whole: bool = True) -> None:
        """Take a picture, of the whole page or of what is seen."""
        more: dict[str, Any] = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            more = {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **more)["data"]))


@contextlib.contextmanager
def browsing() -> Iterator[Page]:
    """A browser with a profile of its own and one empty page."""
    from websockets.sync.client import connect

    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with open(Path(folder) / "log", "w") as log:
            browser = subprocess.Popen(
                [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}/profile", "about:blank"], stdout=log, stderr=log
            )
        try:
            port_file = Path(folder) / "profile" / "DevToolsActivePort"
            wait_until(lambda: port_file.exists() and "\n" in port_file.read_text(), 60)
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port_file.read_text().split()[0]}/json", timeout=20
            ) as found:
                target = next(target for target in json.load(found) if target["type"] == "page")
            with connect(target["webSocketDebuggerUrl"], max_size=None, ping_interval=None) as socket:
                page = Page(socket)
                for domain in ("Runtime", "Log", "Page", "Network"):
                    page.call(f"{domain}.enable")
                yield page
        finally:
            browser.kill()
            browser.wait()
