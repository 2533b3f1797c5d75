"""The demo's page in a real browser (headless Chromium)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.browser import Page, browsing, needs_browser
from tests.support import wait_until

from .test_demo import url as url

pytestmark = needs_browser


@pytest.fixture
def page(url: str) -> Iterator[Page]:
    with browsing() as found:
        found.open(url)
        yield found


def test_every_button_answers_with_its_worker_and_the_chart_runs(page: Page) -> None:
    wait_until(lambda: page.text("workers").count("worker") == 2, 20)
    for button, output, words in (
        ("fast", "fast-out", "answered at once"),
        ("offload", "work-out", "off the loop"),
        ("block", "work-out", "on the loop"),
        ("upload", "upload-out", "took 64,000,000 bytes"),
    ):
        page.click(f"#{button}")
        wait_until(lambda output=output, words=words: words in page.text(output), 40)  # type: ignore[misc]
        assert page.text(output).startswith("worker ")
    page.click("#echo button")
    wait_until(lambda: "echoed 'hello'" in page.text("echo-out"), 20)
    wait_until(lambda: "half took less than" in page.text("summary"), 20)
    wait_until(lambda: "half took less than" in page.text("summary-new"), 20)
    assert page.run("document.getElementById('dashboard').hidden") is True  # nobody said where one is
    assert page.errors == []


def test_the_page_fits_a_phone_and_every_control_is_reached_with_the_keyboard(page: Page) -> None:
    page.size(390, 800, scale=2, mobile=True)
    assert page.run("document.documentElement.scrollWidth") <= 390
    reached = []
    for _ in range(8):
        page.press("Tab")
        reached.append(page.run("document.activeElement.id || document.activeElement.textContent"))
    assert reached[:7] == ["fast", "block", "offload", "file", "upload", "echo-text", "Send"]
