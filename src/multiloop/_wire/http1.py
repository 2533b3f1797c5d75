"""HTTP/1.1 as rules: what a request head must satisfy, how a reply head is built and its body framed.

What lives here: pure functions over bytes. What must not: a socket, a clock, the parser (llhttp through httptools), the
application. llhttp checks the grammar of lines, fields, lengths and chunks; here is what it leaves open:
Host (RFC 9112 3.2), the target's form (RFC 9112 3.2.1-3.2.4), codings (RFC 9112 6.1), versions, and all that an
application may get wrong in a reply (RFC 9110 5.5: no CR, LF or NUL ever leaves in a field).
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Final, NamedTuple

Fields = list[tuple[bytes, bytes]]

# --- requests -------------------------------------------------------------------------------------------------------

METHOD_NAMES: Final[dict[bytes, str]] = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT")
}

# reg-name or IPv4 (unreserved / sub-delims / percent-encoded, no comma: a list is not a host), or [IPv6], and a port
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_TARGET = re.compile(rb"/[!-\"$-~]*")  # visible ASCII without "#"
_ABSOLUTE = re.compile(rb"https?://([^/?#@]*)((?:[/?][!-\"$-~]*)?)", re.IGNORECASE)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class BadRequest(Exception):
    """A request that must not reach the application: the status to answer with, and why (for the log)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


_hosts_seen: dict[bytes, bool] = {}


def is_valid_host(value: bytes) -> bool:
    """Whether a Host field names one host and nothing else."""
    known = _hosts_seen.get(value)
    if known is None:
        known = _HOST.fullmatch(value) is not None
        if len(_hosts_seen) < 256 and len(value) < 256:
            _hosts_seen[value] = known
    return known


def split_target(method: str, target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Split a request target into path, query and (of the absolute form) the host that overrides the Host field.

    Raises BadRequest for a form that the method does not take, a fragment, or characters that a target cannot have.
    """
    if target[:1] == b"/":
        if _TARGET.fullmatch(target) is None:
            raise BadRequest(400, "the request target has characters that it cannot have")
        path, _, query = target.partition(b"?")
        return path, query, None
    if target == b"*":
        if method == "OPTIONS":
            return b"*", b"", None
        raise BadRequest(400, "the asterisk form belongs to OPTIONS")
    if method == "CONNECT":
        raise BadRequest(501, "CONNECT is not offered")
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        raise BadRequest(400, "the request target is neither a path nor an http address")
    host, rest = found[1], found[2]
    if not is_valid_host(host):
        raise BadRequest(400, "the request target names no valid host")
    path, _, query = rest.partition(b"?")
    return path or b"/", query, host


class RequestHead(NamedTuple):
    """What the special fields of a request say, after they were found to agree."""

    chunked: bool
    length: int  # -1: no body announced, or chunked
    expect_continue: bool


NO_BODY: Final = RequestHead(chunked=False, length=-1, expect_continue=False)

SPECIAL_REQUEST_FIELDS: Final = frozenset((b"host", b"transfer-encoding", b"content-length", b"expect"))


def check_request(version: str, special: Fields) -> RequestHead:
    """Judge the fields that frame and route a request (those of SPECIAL_REQUEST_FIELDS, lower-cased, in order).

    Raises BadRequest: 400 for a missing, doubled or malformed Host, codings in HTTP/1.0 or lengths beside them; 417 for
    an expectation other than 100-continue; 501 for a coding other than chunked; 505 for another version.
    """
    if version == "1.1" and len(special) == 1 and special[0][0] == b"host" and _hosts_seen.get(special[0][1]):
        return NO_BODY  # what nearly every GET looks like
    if version != "1.1" and version != "1.0":
        raise BadRequest(505, f"HTTP/{version} is not spoken here")
    host: bytes | None = None
    coding: bytes | None = None
    length = -1
    expect = False
    for name, value in special:
        if name == b"host":
            if host is not None:
                raise BadRequest(400, "more than one Host field")
            host = value
        elif name == b"transfer-encoding":
            if coding is not None:
                raise BadRequest(400, "more than one Transfer-Encoding field")
            coding = value
        elif name == b"content-length":
            if length >= 0:
                raise BadRequest(400, "more than one Content-Length field")
            if not value.isdigit() or len(value) > 19:
                raise BadRequest(400, "Content-Length is not a number")
            length = int(value)
        elif value.lower() == b"100-continue":
            expect = version == "1.1"
        else:
            raise BadRequest(417, "an expectation other than 100-continue")
    if host is None:
        if version == "1.1":
            raise BadRequest(400, "no Host field")
    elif not is_valid_host(host):
        raise BadRequest(400, "the Host field names no valid host")
    if coding is not None:
        if version == "1.0":
            raise BadRequest(400, "Transfer-Encoding in HTTP/1.0")
        if length >= 0:
            raise BadRequest(400, "Content-Length beside Transfer-Encoding")
        if coding.lower() != b"chunked":
            known = all(_TOKEN.fullmatch(part.strip(b" \t")) for part in coding.split(b","))
            raise BadRequest(501 if known else 400, "a transfer coding other than chunked")
    return RequestHead(coding is not None, length, expect)


def status_of_parser_error(kind: str, reason: str, first_bytes: bytes) -> int:
    """Say which status answers a parser's error (the class name and text of httptools' exceptions)."""
    if kind == "HttpParserInvalidMethodError":
        method, space, _ = first_bytes.lstrip(b"\r\n").partition(b" ")
        return 501 if space and len(method) <= 32 and _TOKEN.fullmatch(method) else 400
    if reason == "Invalid HTTP version" or reason.startswith("Pause on PRI"):
        return 505
    if "Transfer-Encoding" in reason and "invalid" in reason:
        return 501
    return 400


def request_head(method: str, target: bytes, version: str, headers: Fields) -> bytes:
    """A request head again, from its parts."""
    lines = [b"%b %b HTTP/%b\r\n" % (method.encode(), target, version.encode())]
    lines += [b"%b: %b\r\n" % field for field in headers]
    lines.append(b"\r\n")
    return b"".join(lines)


# --- replies --------------------------------------------------------------------------------------------------------

PLAIN, LENGTH, CODING, CONNECTION, DATE, SERVER = range(6)  # what a reply's field means to its framing

_KINDS: Final[dict[bytes, int]] = {
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"date": DATE,
    b"server": SERVER,
}


def _reason(code: int) -> bytes:
    try:
        return HTTPStatus(code).phrase.encode()
    except ValueError:
        return b""


STATUS_LINES: Final[dict[int, bytes]] = {
    code: b"HTTP/1.1 %d %s\r\n" % (code, _reason(code)) for code in range(100, 600) if _reason(code)
}


def status_line(status: Any) -> bytes:
    """The first line of a reply. Raises ValueError for a status outside 100-999."""
    line = STATUS_LINES.get(status)
    if line is None:
        if not isinstance(status, int) or not 100 <= status <= 999:
            raise ValueError(f"a status is a number from 100 to 999, not {status!r}")
        line = b"HTTP/1.1 %d \r\n" % status
    return line


_FORBIDDEN_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_lines: dict[tuple[bytes, bytes], tuple[bytes, int, int]] = {}
_MAX_LINES: Final = 4096


def header_line(name: Any, value: Any) -> tuple[bytes, int, int]:
    """Build one field of a reply: the line, its kind, and the number in it (Content-Length) or 1 ("close").

    Raises ValueError for a name or value that would split or corrupt the reply, TypeError for what is not bytes.
    """
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        if isinstance(name, bytes | bytearray | memoryview) and isinstance(value, bytes | bytearray | memoryview):
            return header_line(bytes(name), bytes(value))
        raise TypeError(f"a header is a pair of bytes, not ({type(name).__name__}, {type(value).__name__})")
    found = _lines.get((name, value))
    if found is not None:
        return found
    if _TOKEN.fullmatch(name) is None:
        raise ValueError(f"header name {name!r} has characters that a name cannot have")
    if _FORBIDDEN_IN_VALUE.search(value) is not None:
        raise ValueError(f"the value of header {name!r} has control characters: {value[:100]!r}")
    lower = name.lower()
    kind = _KINDS.get(lower, PLAIN)
    number = 0
    if kind == LENGTH:
        if not value.isdigit() or len(value) > 19:
            raise ValueError(f"content-length {value!r} is not a number")
        number = int(value)
    elif kind == CONNECTION:
        number = 1 if b"close" in value.lower() else 0
    made = (b"%b: %b\r\n" % (name, value), kind, number)
    # Values that differ each time would fill the table and never be found again: short ones only, and no eviction.
    if len(value) <= 64 and len(_lines) < _MAX_LINES:
        _lines[name, value] = made
    return made


def has_no_body(method: bytes, status: int) -> bool:
    """Whether a reply has no body whatever its fields say (RFC 9112 6.3)."""
    return method == b"HEAD" or status == 204 or status == 304 or status < 200


def text_head(fields: bytes) -> bytes:
    """The beginning of the commonest reply, plain text with 200, up to its length; `fields` are whole lines."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\n" + fields


LENGTH_ENDS: Final = tuple(b"content-length: %d\r\n\r\n" % length for length in range(1024))
"""The end of a reply's head for each short body."""


def length_end(length: int) -> bytes:
    """The end of a reply's head for a body of this length."""
    return LENGTH_ENDS[length] if length < 1024 else b"content-length: %d\r\n\r\n" % length


LAST_CHUNK: Final = b"0\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def chunk(body: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def last_chunk(trailers: Fields) -> bytes:
    """The end of a chunked body with trailer fields. Raises as `header_line`; framing fields are refused."""
    lines = [b"0\r\n"]
    for name, value in trailers:
        line, kind, _ = header_line(name, value)
        if kind in (LENGTH, CODING, CONNECTION):
            raise ValueError(f"{name!r} cannot be a trailer")
        lines.append(line)
    lines.append(b"\r\n")
    return b"".join(lines)


def error_reply(status: int, date_and_server: bytes, *, body: bool = True, retry_after_s: int = 0) -> bytes:
    """A whole reply of ours that closes the connection: the status in words and nothing of the request."""
    text = (_reason(status) or b"Error") + b"\n"
    retry = b"retry-after: %d\r\n" % retry_after_s if retry_after_s else b""
    return b"".join(
        (
            status_line(status),
            date_and_server,
            retry,
            b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(text),
            text if body else b"",
        )
    )
