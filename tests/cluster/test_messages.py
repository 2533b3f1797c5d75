"""The records of the handoff socket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multiloop._wire import messages as wire

numbers = st.integers(0, 2**60)
entries = st.lists(
    st.tuples(numbers, st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=50)), max_size=wire.MAX_ENTRIES
)


@given(entries)
def test_entries_come_back_as_they_were(sent: list[wire.Entry]) -> None:
    record = wire.pack_entries(wire.CONNECTIONS, sent)
    assert wire.kind_of(record) == wire.CONNECTIONS
    assert wire.unpack_entries(memoryview(record)) == sent


@given(st.lists(st.integers(0, 2**63), max_size=300))
def test_numbers_come_back_as_they_were(sent: list[int]) -> None:
    record = wire.pack_numbers(wire.ACKS, sent)
    assert wire.kind_of(record) == wire.ACKS
    assert list(wire.unpack_numbers(memoryview(record))) == sent
