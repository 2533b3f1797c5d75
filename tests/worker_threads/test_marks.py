"""Objects that are marked travel nowhere."""

import gc

import pytest

from multiloop import worker_threads as wt
from multiloop.errors import NotSendable, TransferError
from multiloop.worker_threads import MessageChannel, SharedBuffer, receive_message_on_port


class Thing:
    pass


def test_what_is_marked_is_not_transferred_and_kept():
    port1, port2 = MessageChannel()
    buffer, other = SharedBuffer(8), SharedBuffer(8)
    wt.mark_as_untransferable(buffer)
    assert wt.is_marked_as_untransferable(buffer)
    assert not wt.is_marked_as_untransferable(other)
    with pytest.raises(TransferError, match="marked"):
        port1.post_message([buffer, other], [other, buffer])
    other[0] = buffer[0] = 1  # neither is closed
    port1.post_message(buffer)  # sharing is no transfer
    assert receive_message_on_port(port2).message is buffer
    for each in (port1, port2, buffer, other):
        each.close()


def test_what_is_marked_is_not_cloned_and_the_error_names_the_path_to_it():
    port1, port2 = MessageChannel()
    secret, plain = Thing(), Thing()
    wt.mark_as_uncloneable(secret)
    assert wt.is_marked_as_uncloneable(secret)
    with pytest.raises(NotSendable, match=r'\["deep"\]\[1\].*marked as not cloneable'):
        port1.post_message({"deep": [plain, secret]})
    port1.post_message({"deep": [plain]})
    assert isinstance(receive_message_on_port(port2).message["deep"][0], Thing)
    del secret
    gc.collect()
    assert not wt._marks.has_uncloneable()
    port1.close()
    port2.close()


def test_what_takes_no_weak_reference_cannot_be_marked():
    for mark in (wt.mark_as_untransferable, wt.mark_as_uncloneable):
        for value in (1, "x", [], bytearray(1)):
            with pytest.raises(TypeError, match="cannot be marked"):
                mark(value)
