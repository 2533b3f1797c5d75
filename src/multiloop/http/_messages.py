"""What a native handler returns: `Response`.

What lives here: the type, and JSON. What must not: when it is sent (`_handler`), what a handler gets (`_request`).
"""

from __future__ import annotations

import json as _json
from collections.abc import Iterable, Mapping
from typing import Any

HeaderPairs = Mapping[str, str] | Iterable[tuple[str, str]]


class Response:
    """A reply with status and headers of one's own: `Response(body, status=200, headers={...})`.

    body: str (UTF-8), bytes, anything JSON can tell (dict, list), None, or an (async) iterator of str and bytes.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, body: Any = b"", status: int = 200, headers: HeaderPairs | None = None) -> None:
        self.body = body
        self.status = status
        self.headers = headers

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """The headers as bytes. Raises UnicodeEncodeError for what is not latin-1."""
        headers = self.headers
        if headers is None:
            return []
        items = headers.items() if isinstance(headers, Mapping) else headers
        return [(name.encode("latin-1"), str(value).encode("latin-1")) for name, value in items]


def encode_json(value: Any) -> bytes:
    """Compact JSON in UTF-8. Raises TypeError for what JSON cannot tell."""
    return _json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
