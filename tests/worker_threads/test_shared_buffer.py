"""SharedBuffer: what it promises where it is, and on its way to others."""

import copy
import gc
import os
import pickle
import sys

import pytest
from tests.support import open_descriptors

from multiloop.errors import ClosedError, FrameError, TransferError, UsageError
from multiloop.worker_threads import Atomics, MessageChannel, SharedBuffer, receive_message_on_port
from multiloop.worker_threads._message import pack, unpack
from multiloop.worker_threads._primitives import native


def travel(value, transfer_list=()):
    parcel = pack(value, transfer_list)
    return unpack(parcel.kind, parcel.body, parcel.fds)


@pytest.mark.parametrize("format_", ["i", "I", "q", "Q", "B"])
def test_it_begins_zeroed_and_counts_elements(format_):
    with SharedBuffer(64, format_) as buffer:
        assert list(buffer) == [0] * len(buffer)
        assert len(buffer) * buffer.view.itemsize == buffer.size_bytes == 64
        buffer[1] = 200
        assert buffer[1] == 200
        assert buffer.view.format == buffer.format == format_


def test_the_word_bytes_is_a_format():
    with SharedBuffer(3, format="bytes") as buffer:
        assert buffer.format == "B"
        assert len(buffer) == 3


@pytest.mark.parametrize(("size", "format_"), [(0, "q"), (12, "q"), (-8, "q"), (8, "d"), (8, "")])
def test_impossible_sizes_and_formats_are_refused(size, format_):
    with pytest.raises(UsageError, match="SharedBuffer"):
        SharedBuffer(size, format_)


def test_a_memoryview_of_it_is_its_bytes():
    with SharedBuffer(16) as buffer:
        view = memoryview(buffer)
        view[8] = 5
        assert buffer[1] == 5
        view.release()


def test_numpy_sees_the_memory_itself():
    numpy = pytest.importorskip("numpy")
    buffer = SharedBuffer(80)
    array = buffer.numpy()
    assert array.dtype == numpy.int64
    array[:] = range(10)
    assert buffer[9] == 9
    del array
    buffer.close()


def test_views_hold_it_open_and_say_so():
    buffer = SharedBuffer(8)
    view = buffer.view
    with pytest.raises(BufferError, match="still in use"):
        buffer.close()
    buffer[0] = 3
    assert view[0] == 3
    view.release()
    buffer.close()


def test_a_closed_one_says_so():
    buffer = SharedBuffer(8)
    buffer.close()
    buffer.close()
    for use in (lambda: buffer[0], lambda: buffer.view, lambda: buffer.numpy(), lambda: list(buffer)):
        with pytest.raises((ClosedError, ImportError)):
            use()
    assert "closed" in repr(buffer)


def test_its_memory_is_sealed_and_private():
    with SharedBuffer(8) as buffer:
        fd = buffer._attachment.fd
        assert os.fstat(fd).st_mode & 0o777 == 0o600
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 1 << 20)
        assert not os.get_inheritable(fd)


def test_an_error_of_an_atomic_operation_does_not_hold_it_open():
    buffer = SharedBuffer(8)
    with pytest.raises(IndexError) as error:
        Atomics.load(buffer, 1)
    buffer.close()
    assert "outside" in str(error.value)


def memory_descriptors():
    return [each for each in open_descriptors() if "multiloop-shared" in each]


def use_nothing(buffer):
    pass


def use_elements(buffer):
    buffer[0] = 1
    assert next(iter(buffer)) == buffer.view[0] == 1


def use_atomics(buffer):
    Atomics.add(buffer, 0, 1)
    Atomics.wait(buffer, 0, 1, 0)
    Atomics.notify(buffer, 0)


def use_messages(buffer):
    port1, port2 = MessageChannel()
    port1.post_message(buffer)
    assert receive_message_on_port(port2).message is buffer
    port1.close()
    port2.close()


@pytest.mark.parametrize("use", [use_nothing, use_elements, use_atomics, use_messages])
def test_a_dropped_one_lets_go_of_its_memory_without_the_collector(use):
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            buffer = SharedBuffer(8)
            use(buffer)
            del buffer
            assert memory_descriptors() == []
    finally:
        gc.enable()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="a map always duplicates its descriptor there")
@pytest.mark.skipif(native() is None, reason="the lock without the extension has a descriptor of its own")
def test_it_has_one_descriptor():
    with SharedBuffer(8):
        assert len(memory_descriptors()) == 1


def test_in_one_place_it_is_one_object():
    with SharedBuffer(8) as buffer:
        assert travel([buffer, buffer]) == [buffer, buffer]
        assert travel({"b": buffer})["b"] is buffer


def test_transferring_closes_it_here_and_opens_it_there():
    buffer = SharedBuffer(8)
    buffer[0] = 11
    parcel = pack(buffer, [buffer])
    with pytest.raises(ClosedError, match="transferred"):
        buffer[0]
    arrived = unpack(*parcel[:3])
    assert arrived is not buffer
    assert arrived[0] == 11
    arrived.close()


def test_a_view_in_use_prevents_the_transfer_and_nothing_is_detached():
    first, second = SharedBuffer(8), SharedBuffer(8)
    view = second.view
    with pytest.raises(TransferError, match="in use"):
        pack([first, second], [first, second])
    first[0] = second[0] = 1
    view.release()
    first.close()
    second.close()


def test_a_buffer_in_the_list_but_not_in_the_message_is_refused():
    with SharedBuffer(8) as buffer:
        with pytest.raises(TransferError, match="not in the message"):
            pack("nothing", [buffer])
        assert buffer[0] == 0


def test_it_is_no_plain_value():
    with SharedBuffer(8) as buffer:
        with pytest.raises(TypeError, match="post_message"):
            pickle.dumps(buffer)
        with pytest.raises(UsageError, match="shared"):
            copy.copy(buffer)
        with pytest.raises(UsageError, match="shared"):
            copy.deepcopy([buffer])


def test_a_strangers_descriptor_is_refused():
    with SharedBuffer(8) as buffer:
        kind, body, fds, _ = pack(buffer)
        os.close(fds[0])
        stranger = os.memfd_create("stranger")
        os.ftruncate(stranger, 1 << 16)
        with pytest.raises(FrameError, match="not sealed"):
            unpack(kind, body, [stranger])


def test_a_hundred_megabytes_travel_without_a_copy():
    with SharedBuffer(100 << 20) as buffer:
        parcel = pack(buffer, [])
        assert parcel.memory_bytes == 0
        assert len(parcel.body) < 1000
        assert unpack(*parcel[:3]) is buffer
