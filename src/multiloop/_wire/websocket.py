"""WebSocket (RFC 6455, 7692) as rules: a handshake judged and answered, frames in, messages out.

What lives here: `Handshake` and `MessageStream`, adapters round the websockets library's protocol, which does no I/O.
What must not: a socket, a clock, the application. Import it late: it loads the library.

What the library leaves open is done here: messages put together with a cap on the number of fragments (the size is
capped by the library, also while inflating), text decoded piece by piece so that a bad byte is found in its own frame.

Most frames are whole, short and neither fragments nor compressed. Those are read and written here, in a few steps; each
other frame goes to the library, which is never given a part of one that was read here, so both always agree on where
a frame begins.

permessage-deflate is agreed on without context takeover in both directions: a session that is quiet holds no window and
no dictionary (64 KB and more otherwise), and messages that gain nothing from it are sent as they are.
"""

from __future__ import annotations

import codecs
import logging
import struct
from typing import TYPE_CHECKING, Final

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.headers import parse_subprotocol
from websockets.http11 import Request
from websockets.protocol import Protocol, Side, State
from websockets.server import ServerProtocol

from .._limits import WS_DEFLATE_MAX_BYTES, WS_DEFLATE_MIN_BYTES
from .http1 import BadRequest, Fields, header_line

try:
    from websockets.speedups import apply_mask
except ImportError:  # the library was installed without its compiled part
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from websockets.extensions import Extension

NO_STATUS: Final = 1005  # the peer's Close had no code
ABNORMAL: Final = 1006  # the connection was lost without a Close

_MAX_REASON_BYTES: Final = 123
_DATA: Final = (Opcode.TEXT, Opcode.BINARY)
# fields of the 101 reply that an application cannot set
_OURS: Final = {b"connection", b"upgrade", b"content-length", b"transfer-encoding", b"sec-websocket-accept"}
_OURS.update((b"sec-websocket-extensions", b"sec-websocket-protocol", b"sec-websocket-key", b"sec-websocket-version"))

_TEXT, _BINARY = 0x81, 0x82  # first byte of an unfragmented, uncompressed frame (RFC 6455 5.2)
_MASKED = 0x80
_SIZE_IN_2, _SIZE_IN_8 = 126, 127  # the size follows, in so many bytes
_PLAIN_MAX_BYTES = 0xFFFF
_TEXT_HEADS = [bytes((_TEXT, size)) for size in range(_SIZE_IN_2)]
_BINARY_HEADS = [bytes((_BINARY, size)) for size in range(_SIZE_IN_2)]
_HEAD_WITH_2 = struct.Struct(">BBH").pack

_quiet = logging.getLogger("multiloop.http.frames")  # the library says "connection closed" on the info level
_quiet.setLevel(logging.ERROR)

_DEFLATE: Final = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    server_max_window_bits=12,
    client_max_window_bits=12,
    compress_settings={"memLevel": 5},
)


class _SparingDeflate(PerMessageDeflate):
    """Compresses what gains from it: not the short, and not what would hold the loop for long."""

    def encode(self, frame: Frame) -> Frame:
        if WS_DEFLATE_MIN_BYTES <= len(frame.data) <= WS_DEFLATE_MAX_BYTES:
            return super().encode(frame)
        return frame


class Handshake:
    """A client's request for a WebSocket, found to be in order.

    Raises BadRequest: 426 for another version, 400 for anything malformed in the Sec-WebSocket fields.
    """

    __slots__ = ("_accept", "_extensions", "_extensions_field", "subprotocols")

    def __init__(self, target: str, headers: Fields, *, deflate: bool) -> None:
        fields = Headers()
        versions = []
        self.subprotocols: list[str] = []  # what the client offers, best first
        try:
            for name, value in headers:
                if name == b"sec-websocket-protocol":
                    self.subprotocols += parse_subprotocol(value.decode("ascii"))
                elif name == b"sec-websocket-version":
                    versions.append(value)
                fields[name.decode("ascii")] = value.decode("latin-1")
            if versions and versions != [b"13"]:
                raise BadRequest(426, "a WebSocket version other than 13")
            judge = ServerProtocol(extensions=[_DEFLATE] if deflate else None, logger=_quiet)
            self._accept, self._extensions_field, _ = judge.process_request(Request(target, fields))
        except (InvalidHandshake, UnicodeDecodeError) as error:
            raise BadRequest(400, f"not a WebSocket handshake: {error}") from None
        self._extensions: list[Extension] = [_sparing(extension) for extension in judge.extensions]

    def accept(self, subprotocol: str | None, headers: Fields, date_and_server: bytes) -> bytes:
        """Return the reply that opens the session.

        Raises ValueError or TypeError for a subprotocol that was not offered, or a header that is not the application's to
        set or that HTTP does not allow.
        """
        lines = [
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n",
            b"sec-websocket-accept: %b\r\n" % self._accept.encode(),
        ]
        if self._extensions_field is not None:
            lines.append(b"sec-websocket-extensions: %b\r\n" % self._extensions_field.encode())
        if subprotocol is not None:
            if subprotocol not in self.subprotocols:
                raise ValueError(f"subprotocol {subprotocol!r} was not offered: the client offers {self.subprotocols}")
            lines.append(b"sec-websocket-protocol: %b\r\n" % subprotocol.encode())
        for name, value in headers:
            line, _, _ = header_line(name, value)
            if bytes(name).lower() in _OURS:
                raise ValueError(f"{name!r} is the server's to send in a WebSocket handshake")
            lines.append(line)
        lines.append(date_and_server)
        lines.append(b"\r\n")
        return b"".join(lines)

    def open(self, max_size: int, max_fragments: int) -> MessageStream:
        """Return the session's frames, after `accept`."""
        return MessageStream(self._extensions, max_size, max_fragments)


def _sparing(extension: Extension) -> Extension:
    if not isinstance(extension, PerMessageDeflate):
        return extension
    return _SparingDeflate(
        extension.remote_no_context_takeover,
        extension.local_no_context_takeover,
        extension.remote_max_window_bits,
        extension.local_max_window_bits,
        extension.compress_settings,
    )


class MessageStream:
    """The frames of one open session. After each call `output()` is what to write; `over` ends it.

    Once over, `code` and `reason` say how: the peer's Close (1005 if it gave no code), or why we failed it.
    """

    __slots__ = (
        "_decoder",
        "_fragments",
        "_head",
        "_max_fragments",
        "_max_size",
        "_owed",
        "_parts",
        "_protocol",
        "code",
        "frames_seen",
        "over",
        "reason",
    )

    def __init__(self, extensions: list[Extension], max_size: int, max_fragments: int) -> None:
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=max_size or None, logger=_quiet)
        self._protocol.extensions = extensions
        self._max_fragments = max_fragments
        self._max_size = min(max_size or _PLAIN_MAX_BYTES, _PLAIN_MAX_BYTES)
        self._head = b""  # the beginning of a frame whose size is not known yet
        self._owed = 0  # bytes still to come of a frame that the library has begun to read
        self._parts: list[bytes | str] | None = None  # of the message being put together
        self._fragments = 0
        self._decoder: codecs.IncrementalDecoder | None = None  # of a text in fragments
        self.frames_seen = 0
        self.over = False
        self.code = ABNORMAL
        self.reason = ""

    def feed(self, data: bytes) -> list[str | bytes]:
        """Take bytes of the peer; return the messages that are complete."""
        messages: list[str | bytes] = []
        if self._head:
            data, self._head = self._head + data, b""
        at, size = 0, len(data)
        if self._owed:
            at = min(self._owed, size)
            self._owed -= at
            self._give_library(data if at == size else data[:at], messages)
        while at < size and not self.over:
            found = _span(data, at, size)
            if found is None:
                self._head = data[at:]
                break
            start, end = found
            if end <= size and self._is_plain(data[at], data[at + 1], end - start):
                self.frames_seen += 1
                payload = apply_mask(data[start:end], data[start - 4 : start])
                try:
                    messages.append(payload.decode() if data[at] == _TEXT else payload)
                except UnicodeDecodeError:
                    self.fail(CloseCode.INVALID_DATA, "invalid UTF-8")
            else:
                self._owed = max(0, end - size)
                self._give_library(data[at:end], messages)
            at = min(end, size)
        return messages

    def _is_plain(self, first: int, second: int, payload_bytes: int) -> bool:
        return (
            (first == _TEXT or first == _BINARY)
            and second >= _MASKED
            and payload_bytes <= self._max_size
            and self._parts is None
            and self._protocol.state is State.OPEN
        )

    def _give_library(self, data: bytes, messages: list[str | bytes]) -> None:
        """Let the library read one frame, or a part of it."""
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self.frames_seen += 1
                if event.opcode in _DATA or event.opcode is Opcode.CONT:
                    try:
                        self._add(event, messages)
                    except UnicodeDecodeError:
                        self.fail(CloseCode.INVALID_DATA, "invalid UTF-8")
                        break
                    if self.over:
                        break
        if self.over:
            return
        if protocol.close_rcvd is not None:
            self.code, self.reason = int(protocol.close_rcvd.code), protocol.close_rcvd.reason
        elif protocol.parser_exc is not None and protocol.close_sent is not None:
            self.code, self.reason = int(protocol.close_sent.code), protocol.close_sent.reason

    def _add(self, frame: Frame, messages: list[str | bytes]) -> None:
        data = bytes(frame.data)
        parts = self._parts
        if parts is None:
            text = frame.opcode is Opcode.TEXT
            if frame.fin:
                messages.append(data.decode() if text else data)
                return
            self._decoder = codecs.getincrementaldecoder("utf-8")() if text else None
            self._fragments = 0
            parts = self._parts = []
        self._fragments += 1
        if self._fragments > self._max_fragments > 0:
            self.fail(CloseCode.MESSAGE_TOO_BIG, f"over {self._max_fragments} fragments")
            return
        parts.append(data if self._decoder is None else self._decoder.decode(data, frame.fin))
        if frame.fin:
            self._parts = None
            if self._decoder is None:
                messages.append(b"".join(parts))  # type: ignore[arg-type]
            else:
                messages.append("".join(parts))  # type: ignore[arg-type]
                self._decoder = None

    def output(self) -> bytes:
        """Return what is to be written. Sets `over` when it ends the session."""
        writes = self._protocol.data_to_send()
        if not writes:
            return b""
        if writes[-1] == b"":
            self.over = True
            self._parts = self._decoder = None
        return writes[0] if len(writes) == 1 else b"".join(writes)

    def send(self, message: str | bytes) -> None:
        """Send a message in one frame. Raises UnicodeEncodeError for text that UTF-8 cannot tell."""
        protocol = self._protocol
        is_text = isinstance(message, str)
        data: bytes = message.encode() if is_text else message  # type: ignore[union-attr, assignment]
        size = len(data)
        compressible = bool(protocol.extensions) and size >= WS_DEFLATE_MIN_BYTES
        if size > _PLAIN_MAX_BYTES or compressible or protocol.state is not State.OPEN:
            (protocol.send_text if is_text else protocol.send_binary)(data)
        elif size < _SIZE_IN_2:
            protocol.writes.append((_TEXT_HEADS if is_text else _BINARY_HEADS)[size] + data)
        else:
            protocol.writes.append(_HEAD_WITH_2(_TEXT if is_text else _BINARY, _SIZE_IN_2, size) + data)

    def ping(self) -> None:
        """Ask the peer for a sign of life."""
        self._protocol.send_ping(b"")

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake. Raises ValueError for a code that cannot be sent; a long reason is cut."""
        try:
            Close(code, "").check()
        except ProtocolError:
            raise ValueError(f"{code!r} is no close code that can be sent: 1000, 1001, 3000-4999, ...") from None
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, _short(reason))

    def fail(self, code: int, reason: str) -> None:
        """Give the session up: a Close is sent, nothing more is read."""
        self._protocol.fail(code, reason)
        self.code, self.reason = int(code), reason
        self.over = True


def _short(reason: str) -> str:
    data = reason.encode("utf-8", "replace")
    return reason if len(data) <= _MAX_REASON_BYTES else data[:_MAX_REASON_BYTES].decode("utf-8", "ignore")


def _span(data: bytes, at: int, size: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `at` begins and ends; None: that takes more bytes."""
    start = at + 2
    if start > size:
        return None
    second = data[at + 1]
    length = second & ~_MASKED
    if length == _SIZE_IN_2:
        start += 2
        length = int.from_bytes(data[at + 2 : start], "big")
    elif length == _SIZE_IN_8:
        start += 8
        length = int.from_bytes(data[at + 2 : start], "big")
    if second & _MASKED:
        start += 4
    return None if start > size else (start, start + length)
