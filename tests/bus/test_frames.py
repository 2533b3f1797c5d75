"""What travels on a bus, and noticing what did not come. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiloop.bus._frames import Frame, Kind, pack, unpack
from multiloop.bus._sequence import Counters, Sequences
from multiloop.errors import FrameError, FrameTooLarge, NotSendable

LIMIT = 1 << 20
SLOW_MACHINE = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@SLOW_MACHINE
@given(plain, st.text(min_size=1, max_size=20), st.integers(0, 2**40))
def test_what_is_packed_comes_back(value: Any, topic: str, number: int) -> None:
    frame = Frame(Kind.MESSAGE, "sender", topic, number, value, "id", "who")
    assert unpack(pack(frame, LIMIT), LIMIT) == frame


def test_tuples_come_as_lists_and_keys_with_a_dollar_stay() -> None:
    value = {"$bytes": "text", "$": 1, "plain": (1, (2, b"\x00"))}
    found = unpack(pack(Frame(Kind.MESSAGE, "s", "t", 1, value), LIMIT), LIMIT).value
    assert found == {"$bytes": "text", "$": 1, "plain": [1, [2, b"\x00"]]}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, {2, 3}]}, r"value\['a'\]\[1\] \(set\)"),
        (math.nan, "value"),
        ({1: 2}, r"value\.keys\(\)"),
        (object(), "value"),
    ],
)
def test_what_json_cannot_say_is_named(value: Any, path: str) -> None:
    with pytest.raises(NotSendable, match=path):
        pack(Frame(Kind.MESSAGE, "s", "t", 1, value), LIMIT)


def test_cycles_and_depth_are_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(NotSendable, match="nested"):
        pack(Frame(Kind.MESSAGE, "s", "t", 1, value), LIMIT)
    deep = b'{"k":"m","s":"s","t":"t","n":1,"d":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(FrameError):
        unpack(deep, LIMIT)


def test_sizes_are_capped_both_ways() -> None:
    data = pack(Frame(Kind.MESSAGE, "s", "t", 1, "x" * 1000), LIMIT)
    with pytest.raises(FrameTooLarge):
        pack(Frame(Kind.MESSAGE, "s", "t", 1, "x" * 1000), 500)
    with pytest.raises(FrameError, match="the limit is 500"):
        unpack(data, 500)


@SLOW_MACHINE
@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_raise(data: bytes) -> None:
    try:
        unpack(data, LIMIT)
    except FrameError:
        pass


@SLOW_MACHINE
@given(st.dictionaries(st.sampled_from("kstndir"), plain))
def test_no_object_does_more_than_raise(fields: dict[str, Any]) -> None:
    try:
        found = unpack(json.dumps(fields, default=str).encode(), LIMIT)
    except FrameError:
        return
    assert isinstance(found.kind, Kind)
    assert found.sender


def test_pickles_are_not_looked_at() -> None:
    import pickle

    with pytest.raises(FrameError):
        unpack(pickle.dumps({"k": "m"}), LIMIT)


# --- numbers ------------------------------------------------------------------------------------------------------
def test_gaps_and_doubles_are_told_by_numbers() -> None:
    heard = Sequences()
    assert [heard.take("a", "t", number) for number in (5, 6, 9, 9, 7, 10)] == [0, 0, 2, -1, -1, 0]
    assert heard.take("b", "t", 1) == 0
    assert heard.take("a", "other", 3) == 0


def test_a_beat_tells_of_lost_last_messages() -> None:
    heard = Sequences()
    heard.take("a", "t", 3)
    assert [heard.beat("a", "t", number) for number in (3, 5, 5)] == [0, 2, 0]
    assert heard.beat("new", "t", 7) == 0
    assert heard.take("new", "t", 9) == 1
    heard.forget("t")
    assert heard.take("a", "t", 50) == 0


def test_beats_grow_rarer_and_stop() -> None:
    counters = Counters()
    assert [counters.next("t", 0.0) for _ in range(3)] == [1, 2, 3]
    assert counters.wait_s(0.0) == 1.0
    assert counters.beats(0.5) == []
    assert counters.beats(1.0) == [("t", 3)]
    assert counters.beats(6.0) == [("t", 3)]
    assert counters.beats(36.0) == [("t", 3)]
    assert counters.wait_s(36.0) is None
    assert counters.next("t", 40.0) == 4
    assert counters.wait_s(40.0) == 1.0
