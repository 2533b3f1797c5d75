"""Values become bodies and buffers and come back; what cannot travel is named."""

import array
import collections
import dataclasses
import pickle
import threading

import pytest

from multiloop._wire import _memory
from multiloop._wire.frames import Decoder, dumps, encode, loads, snapshot
from multiloop.errors import NotSendable

BIG = bytes(range(256)) * 400  # 100 KiB


def round_trip(value):
    body, buffers = dumps(value)
    [frame] = Decoder().feed(b"".join(encode(0, body, [snapshot(buffer) for buffer in buffers])))
    return loads(frame.body, frame.buffers)


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "text",
        b"",
        b"few",
        {"a": [1, (2.5, {3})]},
        BIG,
        bytearray(BIG),
        {"x": BIG, "y": [bytearray(BIG)]},
        (BIG, 1),
    ],
)
def test_a_value_comes_back_equal_and_of_its_type(value):
    back = round_trip(value)
    assert back == value
    assert type(back) is type(value)


def test_large_bytes_stay_out_of_the_pickle_wherever_they_are_seen():
    for value in (BIG, [BIG], {"a": {"b": [BIG]}}):
        body, buffers = dumps(value)
        assert len(body) < 300
        assert [buffer.obj for buffer in buffers] == [BIG]
        assert buffers[0].obj is BIG


def test_the_same_object_twice_is_one_object_again():
    first, second, third = round_trip([BIG, BIG, [BIG]])
    assert first is second is third[0]
    shared = bytearray(BIG)
    left, right = round_trip((shared, {"again": shared}))
    assert left is right["again"]


def test_a_value_that_contains_itself_comes_back():
    value = [BIG]
    value.append(value)
    back = round_trip(value)
    assert back[0] == BIG
    assert back[1] is back


def test_arrays_and_large_bytes_in_one_value_find_their_buffers():
    value = [
        pickle.PickleBuffer(array.array("q", range(2000))),
        BIG,
        pickle.PickleBuffer(bytearray(9000)),
        bytearray(BIG),
    ]
    back = round_trip(value)
    assert memoryview(back[0]).cast("B") == memoryview(value[0].raw())
    assert back[1] == BIG
    assert len(back[2]) == 9000
    assert back[3] == BIG


def test_small_buffers_stay_in_the_pickle():
    assert dumps(pickle.PickleBuffer(bytearray(100)))[1] == []


def test_a_snapshot_copies_only_what_can_change():
    assert snapshot(memoryview(BIG)).obj is BIG
    writable = bytearray(BIG)
    taken = snapshot(memoryview(writable))
    taken_read_only = snapshot(memoryview(writable).toreadonly())
    writable[0] = 255
    assert taken[0] == 0
    assert type(taken) is bytearray
    assert taken_read_only[0] == 0
    assert type(taken_read_only) is bytes


@dataclasses.dataclass
class Job:
    name: str
    lock: object = None


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner):
        self.inner = inner


class Refuses:
    def __reduce__(self):
        raise ValueError("no journeys today")


Point = collections.namedtuple("Point", "x y")
LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (LOCK, "value"),
        ({"a": [1, 2, 3, Job("x", LOCK)]}, 'value["a"][3].lock'),
        ([[0, LOCK]], "value[0][1]"),
        ({1: {(2, 3): LOCK}}, "value[1][(2, 3)]"),
        (Point(1, LOCK), "value.y"),
        (Slotted([LOCK]), "value.inner[0]"),
        ({LOCK: 1}, None),
        ([1, lambda: 0], "value[1]"),
        (collections.deque([1, LOCK]), None),
        ({"é": LOCK}, 'value["é"]'),
        ({"deep": Refuses()}, 'value["deep"]'),
    ],
)
def test_what_cannot_be_pickled_is_named_with_its_path(value, path):
    with pytest.raises(NotSendable) as caught:
        dumps(value)
    if path is not None:
        assert caught.value.path == path
    assert str(caught.value).startswith(caught.value.path)
    assert caught.value.__cause__ is not None
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, pickle.PicklingError)


def test_the_reason_of_a_failing_reduce_is_told():
    with pytest.raises(NotSendable, match="no journeys today"):
        dumps(Refuses())


def test_a_cycle_with_something_bad_in_it_is_named_too():
    value = {"self": None, "bad": LOCK}
    value["self"] = value
    with pytest.raises(NotSendable) as caught:
        dumps(value)
    assert caught.value.path == 'value["bad"]'


def test_large_bytes_beside_something_bad_are_named_too():
    with pytest.raises(NotSendable) as caught:
        dumps([BIG, {"x": LOCK}])
    assert caught.value.path == 'value[1]["x"]'


def test_a_value_nested_too_deep_is_refused_at_the_call():
    value: list = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(NotSendable):
        dumps(value)
    while value:
        value = value.pop()  # taken apart here: the interpreter would recurse


def test_a_block_of_bytes_is_filled_in_place_and_not_copied():
    size = 1 << 20
    block = _memory.take_block(size, read_only=True)
    block.view[:] = b"a" * size
    assert block.done() == b"a" * size
    block = _memory.take_block(size, read_only=False)
    block.view[:] = b"b" * size
    done = block.done()
    done += b"c"  # no view is left that would forbid it
    assert done == b"b" * size + b"c"


def test_without_ctypes_blocks_are_the_same(monkeypatch):
    monkeypatch.setattr(_memory, "_makers", lambda: None)
    block = _memory.take_block(1 << 20, read_only=True)
    block.view[:] = b"a" * (1 << 20)
    assert block.done() == b"a" * (1 << 20)
