"""Frames survive any way in which a stream can be cut, and refuse what is none."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiloop._wire.frames import Decoder, Frame, encode
from multiloop.errors import FrameError, FrameTooLarge

LARGE = bytes(range(256)) * 1024  # 256 KiB: collected in memory of its own
EXAMPLES = [
    Frame(0, b""),
    Frame(1, b"x"),
    Frame(2, b"body", (b"one", bytearray(b"two"), b""), (7, 2**63)),
    Frame(3, LARGE),
    Frame(4, b"", (LARGE, bytearray(LARGE))),
    Frame(5, LARGE, (b"small", bytearray(LARGE[:70_000]), b"end"), (1,)),
    Frame(6, b"", (), (9,)),
]


def on_the_wire(frames):
    return b"".join(b"".join(encode(*frame)) for frame in frames)


def read_directly(decoder, data, limit):
    """Do as the channel does: where the decoder gives memory, fill it."""
    frames, view = [], memoryview(data)
    while view:
        room = decoder.room()
        if room is None:
            count = min(limit, len(view))
            frames += decoder.feed(view[:count])
        else:
            count = min(len(room), limit, len(view))
            room[:count] = view[:count]
            frames += decoder.filled(count)
        view = view[count:]
    return frames


def test_frames_fed_whole_come_out_equal_and_in_order():
    assert Decoder().feed(on_the_wire(EXAMPLES)) == EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_frame_fed_byte_by_byte_comes_out_with_its_last_byte(example):
    data = on_the_wire([example])
    decoder = Decoder()
    early = [frame for index in range(len(data) - 1) for frame in decoder.feed(data[index : index + 1])]
    assert early == []
    assert decoder.is_inside_frame
    assert decoder.feed(data[-1:]) == [example]
    assert not decoder.is_inside_frame


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_follows_a_frame_is_kept_for_the_next(example):
    data = on_the_wire([example, EXAMPLES[2]])
    decoder = Decoder()
    assert decoder.feed(data[:-3]) == [example]
    assert decoder.feed(data[-3:]) == [EXAMPLES[2]]


@given(
    st.lists(
        st.builds(
            Frame,
            st.integers(0, 65535),
            st.binary(max_size=300),
            st.lists(st.one_of(st.binary(max_size=300), st.binary(max_size=9).map(bytearray)), max_size=4).map(tuple),
            st.lists(st.integers(0, 2**64 - 1), max_size=4).map(tuple),
        ),
        max_size=8,
    ),
    st.lists(st.integers(1, 120), min_size=1, max_size=30),
)
@settings(deadline=None)
def test_frames_cut_anywhere_come_out_equal(frames, cuts):
    data, decoder, found, position, turn = on_the_wire(frames), Decoder(), [], 0, 0
    while position < len(data):
        step = cuts[turn % len(cuts)]
        found += decoder.feed(data[position : position + step])
        position, turn = position + step, turn + 1
    assert found == frames


@pytest.mark.parametrize("limit", [1_000, 65_536, 131_072, 10**9])
@pytest.mark.parametrize("offset", [*range(1, 60), 20_000, 70_000])
def test_frames_read_straight_into_their_memory_come_out_equal(limit, offset):
    data, decoder = on_the_wire(EXAMPLES), Decoder()
    # The first read ends at `offset`: all later ones are cut at another place of each frame.
    found = read_directly(decoder, data[:offset], limit) + read_directly(decoder, data[offset:], limit)
    assert found == EXAMPLES


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=6), st.lists(st.integers(3_000, 200_000), min_size=1, max_size=9)
)
@settings(deadline=None, max_examples=60)
def test_large_and_small_frames_cut_anywhere_come_out_equal(picks, cuts):
    frames = [EXAMPLES[pick] for pick in picks]
    data, decoder, found, position, turn = on_the_wire(frames), Decoder(), [], 0, 0
    while position < len(data):
        step = cuts[turn % len(cuts)]
        found += read_directly(decoder, data[position : position + step], step)
        position, turn = position + step, turn + 1
    assert found == frames


def test_read_only_buffers_arrive_as_bytes_and_others_as_bytearrays():
    sent = Frame(1, b"", (b"small", bytearray(b"small"), LARGE, bytearray(LARGE), memoryview(LARGE)))
    [frame] = Decoder().feed(on_the_wire([sent]))
    assert [type(buffer) for buffer in frame.buffers] == [bytes, bytearray, bytes, bytearray, bytes]
    frame.buffers[3][0] = 99


def test_large_pieces_are_not_copied_by_encode():
    pieces = encode(1, b"head", [LARGE])
    assert pieces[1].obj is LARGE


def test_multidimensional_and_typed_views_are_sent_as_bytes():
    view = memoryview(bytes(80_000)).cast("d", (100, 100))
    [frame] = Decoder().feed(b"".join(encode(1, b"", [view])))
    assert frame.buffers == (bytes(80_000),)


def test_foreign_bytes_are_refused_and_stay_refused():
    decoder = Decoder()
    with pytest.raises(FrameError, match="GET / HT"):
        decoder.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(FrameError):
        decoder.feed(on_the_wire(EXAMPLES))


def test_frames_before_foreign_bytes_are_still_delivered():
    decoder = Decoder()
    assert decoder.feed(on_the_wire(EXAMPLES[:2]) + b"x" * 40) == EXAMPLES[:2]
    assert decoder.failed
    with pytest.raises(FrameError):
        decoder.feed(b"")


@pytest.mark.parametrize("cut", [10**6, 1, 7])
def test_foreign_bytes_in_small_pieces_are_refused(cut):
    decoder = Decoder()
    data = on_the_wire(EXAMPLES[:1]) + b"y" * 40
    raised = []
    for start in range(0, len(data), cut):
        try:
            decoder.feed(data[start : start + cut])
        except FrameError as error:
            raised.append(error)
    assert decoder.failed
    assert raised or cut > len(data)


@pytest.mark.parametrize(
    "frame",
    [Frame(1, bytes(1001)), Frame(1, bytes(500), (bytes(501),)), Frame(1, b"", (bytes(400), bytearray(601)))],
)
def test_a_frame_over_the_limit_is_refused_with_its_size(frame):
    with pytest.raises(FrameTooLarge) as caught:
        Decoder(max_message_bytes=1000).feed(on_the_wire([frame]))
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (1001, 1000)


def test_a_head_that_announces_too_much_takes_no_memory():
    with pytest.raises(FrameTooLarge):
        Decoder().feed(struct.pack("<HHIIQ", 0x6C6D, 1, 0, 0, 2**62))
    with pytest.raises(FrameError, match="announces"):
        Decoder().feed(struct.pack("<HHIIQ", 0x6C6D, 1, 2**31, 2**31, 0))


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_noise_never_breaks_the_decoder(noise):
    decoder = Decoder(max_message_bytes=10_000)
    try:
        for byte in noise:
            decoder.feed(bytes((byte,)))
    except (FrameError, FrameTooLarge):
        assert decoder.failed
