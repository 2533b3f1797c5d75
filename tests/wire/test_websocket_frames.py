"""The frames of a session, however they are cut: what is read in a few steps and what the library reads are one stream."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from multiloop._limits import WS_DEFLATE_MIN_BYTES
from multiloop._wire.websocket import MessageStream

SIZES = st.sampled_from([0, 1, 5, 124, 125, 126, 127, 300, 65_535, 65_536, 70_000])


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


@st.composite
def sessions(draw: Any) -> tuple[bytes, list[Any], int]:
    """What a client sends, the messages in it, and how many pings."""
    sent, messages, pings = b"", [], 0
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["text", "binary", "ping", "fragments"]))
        size = draw(SIZES)
        if kind == "ping":
            pings += 1
            sent += frame(Opcode.PING, b"p" * min(size, 125))
        elif kind == "binary":
            messages.append(bytes(size))
            sent += frame(Opcode.BINARY, bytes(size))
        elif kind == "text":
            messages.append("ä" * size)
            sent += frame(Opcode.TEXT, "ä".encode() * size)
        else:
            data = "ö".encode() * size
            cut = draw(st.integers(0, len(data)))
            messages.append("ö" * size)
            sent += frame(Opcode.TEXT, data[:cut], fin=False) + frame(Opcode.PING, b"")
            sent += frame(Opcode.CONT, data[cut:])
            pings += 1
    return sent, messages, pings


@settings(max_examples=150, deadline=None)
@given(sessions(), st.lists(st.integers(0, 2**32), max_size=12))
def test_a_session_reads_the_same_wherever_it_is_cut(session: tuple[bytes, list[Any], int], cuts: list[int]) -> None:
    sent, expected, pings = session
    stream = MessageStream([], 1 << 20, 10)
    places = sorted({0, len(sent), *(cut % (len(sent) + 1) for cut in cuts)})
    messages, output = [], b""
    for start, end in itertools.pairwise(places):
        messages += stream.feed(sent[start:end])
        output += stream.output()
    assert messages == expected
    assert output.count(b"\x8a") >= pings
    assert not stream.over


def test_every_byte_may_come_alone() -> None:
    stream = MessageStream([], 1 << 20, 10)
    sent = (
        frame(Opcode.TEXT, b"one")
        + frame(Opcode.BINARY, b"x" * 300)
        + frame(Opcode.PING, b"?")
        + frame(Opcode.TEXT, b"two")
    )
    messages: list[Any] = []
    for byte in sent:
        messages += stream.feed(bytes([byte]))
    assert messages == ["one", b"x" * 300, "two"]
    assert stream.output() == b"\x8a\x01?"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (frame(Opcode.TEXT, b"\xff"), 1007),
        (b"\x83" + frame(Opcode.TEXT, b"x")[1:], 1002),  # a reserved opcode
        (b"\xc1" + frame(Opcode.TEXT, b"x")[1:], 1002),  # compressed, without an agreement
        (frame(Opcode.TEXT, b"x" * 1001), 1009),
        (b"\x81\xff" + (2**40).to_bytes(8, "big") + b"mask", 1009),
        (frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.TEXT, b"b"), 1002),  # a new message inside of one
        (frame(Opcode.CONT, b"b"), 1002),
    ],
    ids=["unmasked", "no UTF-8", "reserved", "compressed", "long", "huge", "inside of one", "continues nothing"],
)
def test_what_breaks_the_rules_fails_the_session_after_what_came_before(sent: bytes, code: int) -> None:
    stream = MessageStream([], 1000, 10)
    assert stream.feed(frame(Opcode.TEXT, b"good") + sent + frame(Opcode.TEXT, b"late")) == ["good"]
    output = stream.output()
    assert stream.over
    assert stream.code == code
    assert output[:1] == b"\x88"
    assert int.from_bytes(output[2:4], "big") == code
    assert stream.feed(frame(Opcode.TEXT, b"later")) == []


def test_nothing_is_read_behind_a_close() -> None:
    stream = MessageStream([], 1000, 10)
    close = frame(Opcode.CLOSE, (3000).to_bytes(2, "big") + b"bye")
    assert stream.feed(frame(Opcode.TEXT, b"good") + close + frame(Opcode.TEXT, b"late")) == ["good"]
    stream.output()
    assert (stream.over, stream.code, stream.reason) == (True, 3000, "bye")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_000])
@pytest.mark.parametrize("deflate", [False, True])
def test_what_is_sent_is_what_the_library_would_send(size: int, deflate: bool) -> None:
    data = os.urandom(size)

    def extensions() -> list[Any]:
        return [PerMessageDeflate(True, True, 12, 12)] if deflate else []

    stream = MessageStream(extensions(), 0, 10)
    stream.send(data)
    if not deflate or size < WS_DEFLATE_MIN_BYTES:
        assert stream.output() == Frame(Opcode.BINARY, data).serialize(mask=False)
    else:
        compressed = Frame(Opcode.BINARY, data).serialize(mask=False, extensions=extensions())
        assert stream.output() == compressed
    stream.send("ä" * (size // 2))
    assert len(stream.output()) >= 2
