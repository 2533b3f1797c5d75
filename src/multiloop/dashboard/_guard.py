"""Who may see and do what on the admin address. Pure: facts of a request in, a refusal or none out.

What lives here: `Guard` and its rules. What must not: sockets, the content of any answer.

The order, the same for every method and path:

1. Host: only names that are ours. So a page elsewhere cannot reach us under its own name (DNS rebinding).
2. Origin and Sec-Fetch-Site: only our own pages. One exception: following a link to the page itself.
3. The route and its method.
4. The token, except for health (and metrics when they are open): as a bearer, or a cookie that was set when the link
   with the token was followed. The token in the query counts for the page alone.
5. Actions: only when they were allowed at the start; with the cookie, the page's own CSRF token in a header and our
   Origin are needed, too.

Secrets are compared in constant time. What is refused learns which rule it broke, never more.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", re.ASCII)
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Access(Enum):
    """Who may use a route."""

    OPEN = "open"  # whoever can connect: health
    METRICS = "metrics"  # with the token, unless metrics are open
    PAGE = "page"  # with the token, also in the query
    VIEW = "view"  # with the token
    ACTION = "action"  # with the token, and only when actions are allowed


@dataclass(frozen=True, slots=True)
class Facts:
    """What the guard looks at in a request; None: the header is not there."""

    method: str
    host: str | None
    local_host: str = ""  # the address that the client connected to, as a Host header would have it
    origin: str | None = None
    fetch_site: str | None = None
    fetch_mode: str | None = None
    authorization: str | None = None
    cookie: str | None = None
    csrf: str | None = None
    content_type: str | None = None
    query_token: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a request that may not: status and one line."""

    status: int
    reason: str
    allow: str = ""  # for 405


class Guard:
    """The rules of one admin address.

    Args:
        token: the secret.
        host: where it listens; loopback names are ours unless it listens on one other address.
        port: distinguishes the cookies of several servers on one machine.
        hosts: further names of ours (`name`, or `name:port`).
    """

    def __init__(
        self,
        token: str,
        *,
        host: str,
        port: int,
        hosts: Iterable[str] = (),
        actions: bool = False,
        metrics_open: bool = False,
    ) -> None:
        self._token = token.encode()
        self.session = self._derived(f"session {port}")
        self.csrf = self._derived(f"csrf {port}")
        self.cookie_name = f"multiloop_{port}"
        self.actions = actions
        self._metrics_open = metrics_open
        bare = f"[{host}]" if ":" in host else host
        self._is_anywhere = host in ("", "*", "0.0.0.0", "::")
        self._names = {*_LOOPBACK} if self._is_anywhere or bare.lower() in _LOOPBACK else {bare.lower()}
        self._names |= {name.lower() for name in hosts}

    def _derived(self, purpose: str) -> str:
        return hmac.new(self._token, purpose.encode(), hashlib.sha256).hexdigest()

    def judge(self, facts: Facts, access: Access | None, methods: tuple[str, ...] = ("GET", "HEAD")) -> Refusal | None:
        """Return why a request is refused, or None: it may. `access` is None when there is no such route."""
        return (
            self._judge_host(facts)
            or self._judge_origin(facts, access)
            or _judge_route(facts, access, methods)
            or self._judge_token(facts, access)
            or (self._judge_action(facts) if access is Access.ACTION else None)
        )

    # -- the rules -----------------------------------------------------------------------------------------------------
    def _judge_host(self, facts: Facts) -> Refusal | None:
        found = _HOST.fullmatch(facts.host or "")
        if found is not None:
            name = found[1].lower()
            if name in self._names or f"{name}:{found[2]}" in self._names:
                return None
            if self._is_anywhere and facts.local_host and name == facts.local_host.lower():
                return None  # an address as a literal: nobody else's name leads here
        return Refusal(403, "this Host is none of ours (behind a proxy: --admin-host NAME)")

    @staticmethod
    def _judge_origin(facts: Facts, access: Access | None) -> Refusal | None:
        host = (facts.host or "").lower()
        if facts.origin is not None and facts.origin.lower() not in (f"http://{host}", f"https://{host}"):
            return Refusal(403, "requests of other pages are refused")
        if facts.fetch_site not in (None, "same-origin", "none"):
            is_link = facts.fetch_mode == "navigate" and access is Access.PAGE and facts.method == "GET"
            if not is_link or facts.origin is not None:
                return Refusal(403, "requests of other pages are refused")
        return None

    def _judge_token(self, facts: Facts, access: Access | None) -> Refusal | None:
        if access is Access.OPEN or (access is Access.METRICS and self._metrics_open):
            return None
        if self._has_bearer(facts) or self._has_session(facts):
            return None
        if access is Access.PAGE and self.has_query_token(facts):
            return None
        return Refusal(
            401, "the token is needed: follow the link that was printed at the start, or send it as a bearer"
        )

    def _judge_action(self, facts: Facts) -> Refusal | None:
        if not self.actions:
            return Refusal(403, "actions are off: start with --admin-actions")
        if (facts.content_type or "").partition(";")[0].strip().lower() != "application/json":
            return Refusal(415, "send JSON")
        if self._has_bearer(facts):
            return None
        if facts.origin is None or not _equal(facts.csrf, self.csrf):
            return Refusal(403, "the page's own token is missing (CSRF)")
        return None

    # -- secrets -------------------------------------------------------------------------------------------------------
    def has_query_token(self, facts: Facts) -> bool:
        """Whether the link with the token was followed."""
        return _equal(facts.query_token, self._token.decode())

    def _has_bearer(self, facts: Facts) -> bool:
        scheme, _, given = (facts.authorization or "").partition(" ")
        return scheme.lower() == "bearer" and _equal(given.strip(), self._token.decode())

    def _has_session(self, facts: Facts) -> bool:
        for pair in (facts.cookie or "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self.cookie_name and _equal(value, self.session):
                return True
        return False

    def set_cookie(self) -> str:
        """Return the Set-Cookie that makes the page's own requests pass."""
        return f"{self.cookie_name}={self.session}; Path=/; HttpOnly; SameSite=Strict"


def _judge_route(facts: Facts, access: Access | None, methods: tuple[str, ...]) -> Refusal | None:
    if access is None:
        return Refusal(404, "nothing is here")
    if facts.method not in methods:
        return Refusal(405, f"use {' or '.join(methods)}", ", ".join(methods))
    return None


def _equal(given: str | None, secret: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), secret.encode())
