"""The rules of locks, without workers."""

from multiloop.worker_threads._lock_table import GRANTED, STOLEN, UNAVAILABLE, LockTable, Request, Verdict


def ask(number, mode="exclusive", name="a", **options):
    return Request((0, number), name, mode, **options)


def granted(*numbers):
    return [Verdict((0, number), GRANTED) for number in numbers]


def test_exclusive_locks_are_given_one_after_the_other():
    table = LockTable()
    assert table.request(ask(1)) == granted(1)
    assert table.request(ask(2)) == []
    assert table.request(ask(3)) == []
    assert table.request(ask(4, name="b")) == granted(4)
    assert table.release((0, 1)) == granted(2)
    assert table.release((0, 2)) == granted(3)
    assert table.release((0, 3)) == []
    assert table.request(ask(5)) == granted(5)


def test_shared_locks_are_held_together_and_do_not_pass_a_waiting_exclusive_one():
    table = LockTable()
    assert table.request(ask(1, "shared")) == granted(1)
    assert table.request(ask(2, "shared")) == granted(2)
    assert table.request(ask(3)) == []
    assert table.request(ask(4, "shared")) == []
    assert table.request(ask(5, "shared")) == []
    assert table.release((0, 1)) == []
    assert table.release((0, 2)) == granted(3)
    assert table.release((0, 3)) == granted(4, 5)


def test_a_withdrawn_request_lets_the_others_through():
    table = LockTable()
    table.request(ask(1, "shared"))
    table.request(ask(2))
    table.request(ask(3, "shared"))
    assert table.release((0, 2)) == granted(3)
    assert table.release((0, 2)) == []
    assert table.release((7, 7)) == []


def test_if_available_never_waits():
    table = LockTable()
    table.request(ask(1))
    assert table.request(ask(2, if_available=True)) == [Verdict((0, 2), UNAVAILABLE)]
    assert table.release((0, 1)) == []
    assert table.request(ask(3, if_available=True)) == granted(3)


def test_stealing_takes_it_from_all_holders_and_leaves_the_queue():
    table = LockTable()
    table.request(ask(1, "shared"))
    table.request(ask(2, "shared"))
    table.request(ask(3))
    assert table.request(ask(4, steal=True)) == [Verdict((0, 1), STOLEN), Verdict((0, 2), STOLEN), *granted(4)]
    assert table.release((0, 1)) == []
    assert table.release((0, 4)) == granted(3)


def test_the_query_lists_holders_and_waiters_and_nothing_is_kept_of_the_gone():
    table = LockTable()
    table.request(ask(1))
    table.request(ask(2))
    held, waiting = table.query()
    assert ([each.key for each in held], [each.key for each in waiting]) == ([(0, 1)], [(0, 2)])
    table.release((0, 2))
    table.release((0, 1))
    assert table.query() == ([], [])
    assert not table._names
    assert not table._waiting
