"""The header fields of a request, checked before anything is sent.

What lives here: what a field may be, and that a request says one thing about the length of its body. What must not: what
is sent besides (`_client_options`). The rules are those of the server's replies (`_wire/http1.header_line`), for text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..errors import UsageError

Headers = Mapping[str, str] | Iterable[tuple[str, str]]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2: a token
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # in a value: control characters, except the tab


def checked_headers(headers: Headers | None) -> list[tuple[str, str]]:
    """Return header fields as pairs. Raises UsageError for one that would corrupt the request, TypeError for no text."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers or ())
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"headers are str, not {name!r}: {value!r}")
        if _FORBIDDEN.search(name + value) is not None:
            raise UsageError(f"a header cannot contain line breaks or other control characters: {name!r}: {value!r}")
        if _NAME.fullmatch(name) is None:
            raise UsageError(f"not the name of a header: {name!r}: ASCII letters, digits and !#$%&'*+-.^_`|~ make one")
        if name.lower() == "transfer-encoding":
            raise UsageError(f"{name}: {value}: leave it out: a body that is iterated over is sent in chunks by itself")
    said = [value for name, value in pairs if name.lower() == "content-length"]
    if len(said) > 1 or not all(value.isascii() and value.isdigit() for value in said):
        raise UsageError(f"Content-Length: {', '.join(said)}: one number, or none: it is added where it is known")
    return pairs


def check_length(headers: list[tuple[str, str]], body: bytes | str | None) -> None:
    """Raise UsageError for a Content-Length that is not the length of the body: the server would wait, or be misled."""
    for name, value in headers:
        if name.lower() == "content-length":
            size_bytes = len(body.encode() if isinstance(body, str) else body or b"")
            if int(value) != size_bytes:
                raise UsageError(
                    f"{name}: {value} with a body of {size_bytes} bytes: leave it out, it is added by itself"
                )
