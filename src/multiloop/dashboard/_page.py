"""The page: its parts put together into one document, and the policy under which a browser runs it.

What lives here: `page`, `sign_in`, `HEADERS`. What must not: any content that comes from a worker or a client; the page
fetches that, and sets it as text.

One document, nothing loaded from elsewhere: style and scripts stand in it, and the policy allows exactly these by hash.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from importlib import resources

_SCRIPTS = ("basics.js", "charts.js", "map.js", "tables.js", "main.js")

HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}
"""What goes with every answer that is no page."""


@lru_cache(maxsize=1)
def page() -> tuple[bytes, dict[str, str]]:
    """Return the dashboard's document and its headers."""
    style = _read("style.css")
    script = "\n".join(_read(name) for name in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}\n}})();\n'
    text = _read("page.html").replace("/*style*/", style).replace("/*script*/", script)
    return text.encode(), _html_headers(style, script)


@lru_cache(maxsize=1)
def sign_in() -> tuple[bytes, dict[str, str]]:
    """Return the document that asks for the token, and its headers."""
    style = _read("style.css")
    text = _read("sign-in.html").replace("/*style*/", style)
    return text.encode(), _html_headers(style, "")


def _read(name: str) -> str:
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _html_headers(style: str, script: str) -> dict[str, str]:
    policy = [
        "default-src 'none'",
        f"style-src {_hash(style)}",
        f"script-src {_hash(script)}" if script else "script-src 'none'",
        "connect-src 'self'",
        "img-src data:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
    return {
        **HEADERS,
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": "; ".join(policy),
        "cross-origin-opener-policy": "same-origin",
    }


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
