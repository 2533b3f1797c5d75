"""Links: frames and descriptors over a socket, whatever the pieces in which they arrive."""

import os
import random
import resource
import socket

import pytest

from multiloop.worker_threads._link import Link, socket_pair
from multiloop.worker_threads._transit import close_all


@pytest.fixture
def ends():
    left, right = (Link(end) for end in socket_pair())
    yield left, right
    left.close()
    right.close()


def receive_all(link):
    found = []
    while packets := link.receive():
        found += packets
    return found


def memory(text):
    fd = os.memfd_create("test")
    os.write(fd, text.encode())
    return fd


def text_of(fd):
    try:
        return os.pread(fd, 1000, 0).decode()
    finally:
        os.close(fd)


def test_frames_arrive_in_order_with_their_descriptors(ends):
    left, right = ends
    left.send(1, b"one")
    left.send(2, b"two", [memory("a"), memory("b")])
    left.send(3, b"")
    left.send(4, b"four", [memory("c")])
    packets = receive_all(right)
    assert [(packet.kind, bytes(packet.body)) for packet in packets] == [
        (1, b"one"),
        (2, b"two"),
        (3, b""),
        (4, b"four"),
    ]
    assert [[text_of(fd) for fd in packet.fds] for packet in packets] == [[], ["a", "b"], [], ["c"]]


def test_random_traffic_arrives_whole_although_the_kernel_takes_it_in_pieces(ends):
    left, right = ends
    chance = random.Random(5)
    sent, arrived = [], []
    for number in range(3000):
        body = bytes([number % 256]) * chance.choice([0, 1, 10, 5000, 60_000])
        names = [f"{number}-{i}" for i in range(chance.choice([0, 0, 0, 1, 3]))]
        left.send(number % 50, body, [memory(name) for name in names])
        sent.append((number % 50, body, names))
        if chance.random() < 0.3:
            arrived += right.receive()
        if chance.random() < 0.3:
            left.write_outbox()
    while left.outbox_bytes:
        left.write_outbox()
        arrived += receive_all(right)
    arrived += receive_all(right)
    found = [(packet.kind, bytes(packet.body), [text_of(fd) for fd in packet.fds]) for packet in arrived]
    assert found == sent


def test_it_can_move_with_everything_in_it(ends):
    """In the middle of a frame, with descriptors waiting on both sides."""
    left, right = ends
    chance = random.Random(6)
    sent, arrived = [], []
    for number in range(600):
        body = os.urandom(chance.choice([5, 30_000]))
        names = [str(number)] if number % 3 == 0 else []
        left.send(7, body, [memory(name) for name in names])
        sent.append((body, names))
        if number % 20 == 0:
            arrived += right.receive()
        if number % 50 == 10:
            left = moved(left)
        if number % 50 == 30:
            right = moved(right)
    while left.outbox_bytes:
        left.write_outbox()
        arrived += receive_all(right)
    arrived += receive_all(right)
    assert [(bytes(packet.body), [text_of(fd) for fd in packet.fds]) for packet in arrived] == sent
    left.close()
    right.close()


def moved(link):
    partial, batches, outbox = link.snapshot()
    copy = [([os.dup(fd) for fd in fds], lost) for fds, lost in batches]
    rest = [(data, [os.dup(fd) for fd in fds]) for data, fds in outbox]
    new = Link.revive(socket.socket(fileno=os.dup(link.fileno())), partial, copy, rest)
    link.close()
    return new


def test_the_end_comes_behind_everything_that_was_sent(ends):
    left, right = ends
    for number in range(10):
        left.send(number, b"x")
    right.send(1, b"never read")  # makes the kernel report a reset
    left.close()
    assert len(receive_all(right)) == 10
    assert right.is_ended
    right.send(1, b"dropped")
    assert right.is_peer_gone


def test_descriptors_that_do_not_fit_are_reported_and_the_link_goes_on(ends):
    left, right = ends
    for number in range(4):
        left.send(number, b"x", [memory("1"), memory("2")])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers = [os.dup(0) for _ in range(20)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers) + 1, hard))
    try:
        os.close(fillers.pop())
        first = right.receive()  # room for one of two
        for _ in range(4):
            os.close(fillers.pop())
        rest = receive_all(right)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        close_all(fillers)
    packets = first + rest
    assert [packet.kind for packet in packets] == [0, 1, 2, 3]
    assert packets[0].lost
    assert not packets[0].fds
    assert not packets[1].lost
    for packet in packets:
        close_all(packet.fds)


def test_bytes_that_are_no_frame_end_the_link(ends):
    left, right = ends
    left._socket.send(b"GET / HTTP/1.1\r\n\r\n" * 3)
    assert receive_all(right) == []
    assert right.is_ended
    assert "frame" in str(right.error)


def test_flush_waits_for_the_reader_and_no_longer_than_it_may(ends):
    left, right = ends
    while not left.outbox_bytes:
        left.send(1, bytes(50_000))
    assert not left.flush(0.02)
    receive_all(right)
    assert left.flush(0.02)
    right.close()
    assert left.flush(None)
