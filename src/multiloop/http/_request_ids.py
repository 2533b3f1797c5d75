"""Ids of requests: what a trusted proxy sent as X-Request-ID, else made here; and where an exchange's is found.

What lives here: `RequestIds`. What must not: when requests have ids (`_surround`), writing them (`_access`, `logs`).

An id from outside is taken only from a peer that `--trusted-proxies` names, and only if it is short, printable ASCII without
spaces: it stands in logs. A made one is unique: eight random hexadecimal digits of the process, and a count.
"""

from __future__ import annotations

import itertools
import os
import re
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._exchange import Exchange
    from ._service import HttpService

_GOOD = re.compile(rb"[!-~]{1,128}")


class RequestIds:
    """The ids of one service's requests, kept as long as their exchanges live."""

    def __init__(self, service: HttpService) -> None:
        self._proxies = service.proxies
        self._prefix = os.urandom(4).hex()
        self._count = itertools.count(1)
        self._ids: weakref.WeakKeyDictionary[Exchange, str] = weakref.WeakKeyDictionary()

    def of(self, exchange: Exchange) -> str:
        """Return the id of an exchange; the first time it is found or made."""
        found = self._ids.get(exchange)
        if found is None:
            found = self._ids[exchange] = self._sent(exchange) or f"{self._prefix}-{next(self._count):x}"
        return found

    def known(self, exchange: Exchange) -> str | None:
        """Return the id of an exchange that has one. From any thread."""
        return self._ids.get(exchange)

    def _sent(self, exchange: Exchange) -> str | None:
        if self._proxies is None:
            return None
        for name, value in exchange.headers:
            if name == b"x-request-id":
                peer = exchange.connection.peer()
                trusted = self._proxies.trusts(peer[0] if peer is not None else None)
                return value.decode("ascii") if trusted and _GOOD.fullmatch(value) else None
        return None
