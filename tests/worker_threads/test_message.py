"""Packing and unpacking: what a message keeps, what it copies, and transfer lists that are all or nothing."""

import array
import os
import threading

import pytest
from tests.support import descriptors_left, open_descriptors

from multiloop.errors import FrameTooLarge, NotSendable, TransferError
from multiloop.worker_threads import MessageChannel, SharedBuffer
from multiloop.worker_threads._message import IN_MEMORY, INLINE, memory_bytes, pack, unpack


def travel(value, transfer_list=(), **options):
    parcel = pack(value, transfer_list, **options)
    return unpack(*parcel[:3])


class Point:
    def __init__(self, x):
        self.x = x
        self.self = self

    def __eq__(self, other):
        return self.x == other.x


VALUES = [
    None,
    0,
    -(10**40),
    "text",
    "x" * 200_000,
    b"",
    b"y" * 200_000,
    bytearray(b"z" * 100),
    bytearray(b"z" * 200_000),
    {"a": [1, {2, 3}, (4.5, True)], "b": b"q" * 70_000},
    array.array("d", [1.5, 2.5]),
    array.array("i", range(50_000)),
    list(range(100_000)),
    ValueError("an error", 3),
    Point(3),
]


@pytest.mark.parametrize("value", VALUES, ids=[f"{type(value).__name__}-{i}" for i, value in enumerate(VALUES)])
def test_values_arrive_equal_and_of_the_same_type(value):
    arrived = travel(value)
    assert type(arrived) is type(value)
    if isinstance(value, ValueError):
        assert arrived.args == value.args
    else:
        assert arrived == value


def test_identity_and_cycles_within_a_message_are_kept():
    shared = [1]
    value = {"a": shared, "b": shared}
    value["self"] = value
    arrived = travel(value)
    assert arrived["a"] is arrived["b"]
    assert arrived["self"] is arrived


def test_a_message_is_a_snapshot():
    value = bytearray(100_000)
    parcel = pack([value, memoryview(value)])
    value[0] = 1
    first, second = unpack(*parcel[:3])
    assert first[0] == 0
    assert second[0] == 0


@pytest.mark.parametrize("size", [100, 200_000])
def test_memoryviews_arrive_as_memoryviews(size):
    data = bytearray(range(100)) * (size // 100)
    view = travel(memoryview(data))
    assert bytes(view) == data
    view[0] = 255
    assert travel(memoryview(bytes(data))).readonly
    shaped = memoryview(data).cast("h", (size // 4, 2))
    arrived = travel(shaped)
    assert arrived.shape == shaped.shape
    assert arrived.format == "h"
    assert arrived.tolist() == shaped.tolist()


def test_a_view_that_is_not_contiguous_is_refused():
    with pytest.raises(NotSendable, match="contiguous"):
        pack([memoryview(bytearray(10))[::2]])


def test_large_arrays_become_views_of_the_message_and_can_be_written():
    numpy = pytest.importorskip("numpy")
    value = numpy.arange(1_000_000)
    arrived = travel({"a": value, "b": value[:10]})
    assert (arrived["a"] == value).all()
    arrived["a"][0] = 7
    assert value[0] == 0
    assert not arrived["a"].flags.owndata
    read_only = numpy.zeros(100_000)
    read_only.flags.writeable = False
    assert not travel(read_only).flags.writeable


def test_several_receivers_of_one_message_do_not_see_each_others_writing():
    numpy = pytest.importorskip("numpy")
    kind, body, fds, _ = pack(numpy.zeros(100_000), for_many=True)
    copies = [unpack(kind, body, [os.dup(fd) for fd in fds]) for _ in range(2)]
    copies[0][:] = 1
    assert copies[1].sum() == 0
    os.close(fds[0])


def test_small_messages_need_no_descriptor_and_large_ones_exactly_one():
    assert pack("x" * 60_000).kind == INLINE
    before = open_descriptors()
    parcel = pack([b"x" * 70_000, bytearray(80_000), array.array("q", range(10_000))])
    assert parcel.kind == IN_MEMORY
    assert len(open_descriptors() - before) == len(parcel.fds) == 1
    assert parcel.memory_bytes == memory_bytes(parcel.kind, parcel.body) > 220_000
    unpack(*parcel[:3])
    assert not descriptors_left(before)


def test_a_message_over_the_limit_is_refused_before_it_is_copied():
    with pytest.raises(FrameTooLarge) as caught:
        pack(bytes(2_000_000), max_bytes=1_000_000)
    assert caught.value.size_bytes > 2_000_000


# --- what cannot be sent ----------------------------------------------------------------------------------------------
def test_the_error_names_the_path_to_what_cannot_be_pickled():
    value = {"jobs": [1, {"lock": threading.Lock()}]}
    with pytest.raises(NotSendable, match=r'value\["jobs"\]\[1\]\["lock"\]') as caught:
        pack(value)
    assert isinstance(caught.value, TypeError)


def test_the_path_leads_past_what_only_a_message_can_carry():
    with SharedBuffer(8) as buffer:
        value = [buffer, memoryview(b"1"), array.array("i", [1]), lambda: None]
        with pytest.raises(NotSendable, match=r"value\[3\]"):
            pack(value)


class Exploding:
    def __reduce__(self):
        raise RuntimeError("no")


class ExplodingThere:
    def __reduce__(self):
        return (explode, ())


def explode():
    raise RuntimeError("there")


def test_errors_of_reduce_and_of_unpickling_come_out_and_leave_nothing_open():
    with pytest.raises(NotSendable, match="no"):
        pack([bytes(100_000), Exploding()])
    parcel = pack([bytes(100_000), ExplodingThere()])
    with pytest.raises(RuntimeError, match="there"):
        unpack(*parcel[:3])
    with SharedBuffer(8) as buffer:
        parcel = pack([ExplodingThere(), buffer])
        with pytest.raises(RuntimeError, match="there"):
            unpack(*parcel[:3])


# --- transfer lists ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [10, 200_000])
def test_a_transferred_bytearray_is_empty_here(size):
    value = bytearray(b"x" * size)
    arrived = travel({"v": value}, [value])
    assert arrived["v"] == b"x" * size
    assert value == b""


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: [b"bytes"], "bytes cannot be transferred"),
        (lambda: [array.array("i", [1])], "array cannot be transferred"),
        (lambda: ["text"], "str cannot be transferred"),
        (lambda: bytearray(3), "list of objects"),
        (lambda: [value := bytearray(3), value], "twice"),
    ],
)
def test_what_cannot_be_transferred_is_refused_by_name(make, why):
    with pytest.raises(TransferError, match=why):
        pack("value", make())


def test_a_bytearray_with_views_is_refused_and_stays_whole():
    value = bytearray(b"abc")
    other = bytearray(b"def")
    with memoryview(value), pytest.raises(TransferError, match="views"):
        pack([value, other], [other, value])
    assert (value, other) == (b"abc", b"def")


def test_nothing_is_detached_when_anything_fails():
    buffer, plain = SharedBuffer(8), bytearray(b"abc")
    port, other = MessageChannel()
    transfer_list = [plain, buffer, port]
    with pytest.raises(NotSendable):
        pack([plain, buffer, port, lambda: None], transfer_list)
    with pytest.raises(TransferError, match="not in the message"):
        pack([plain, buffer], transfer_list)
    with pytest.raises(FrameTooLarge):
        pack([plain, buffer, port, bytes(100_000)], transfer_list, max_bytes=1000)
    assert plain == b"abc"
    buffer[0] = 1
    assert port.post_message("still works")
    parcel = pack([plain, buffer, port], transfer_list)
    assert plain == b""
    arrived = unpack(*parcel[:3])
    assert arrived[:2] == [b"abc", arrived[1]]
    assert arrived[1][0] == 1
    arrived[1].close()
    arrived[2].close()
    other.close()


def test_a_message_carries_a_bounded_number_of_descriptors():
    with SharedBuffer(8) as buffer:
        ports = [port for _ in range(126) for port in MessageChannel()]
        with pytest.raises((NotSendable, TransferError, Exception), match="at most 250"):
            pack([buffer, ports], ports)
        for port in ports:
            port.close()
