"""Who may be picked: accounts and groups under any sequence of events, with every policy."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from multiloop.cluster._dealing import Account, Group
from multiloop.cluster._policy import ConnectionView, LeastConnections, LeastRequests, RoundRobin, Sticky

CREDIT = 4
POLICIES = (RoundRobin, LeastConnections, LeastRequests, Sticky)

numbers = st.integers(0, 5)


class Dealing(RuleBasedStateMachine):
    """Two listening sockets, some workers that serve one of them or both; whatever happens to workers, happens."""

    @initialize(policy=st.sampled_from(POLICIES), seed=st.integers(0, 100))
    def begin(self, policy: type, seed: int) -> None:
        self.random = random.Random(seed)
        self.groups = [Group(policy()), Group(policy())]
        self.accounts: list[Account] = []
        self.under_way: list[Account] = []  # dealt and not adopted
        self.adopted: list[Account] = []
        self.next_number = 1

    def one(self, index: int) -> Account | None:
        return self.accounts[index % len(self.accounts)] if self.accounts else None

    # -- workers -------------------------------------------------------------------------------------------------------
    @precondition(lambda self: len(self.accounts) < 6)
    @rule(serves=st.sampled_from([(0,), (1,), (0, 1)]), capacity=st.sampled_from([2, 5, 1000]))
    def a_worker_comes(self, serves: tuple[int, ...], capacity: int) -> None:
        account = Account(self.next_number, CREDIT, seat=len(self.accounts))
        self.next_number += 1
        account.capacity = capacity
        self.accounts.append(account)
        for group in serves:
            self.groups[group].join(account)

    @rule(index=numbers)
    def a_worker_is_ready(self, index: int) -> None:
        if (account := self.one(index)) is not None:
            account.is_open = True
            account.list()

    @rule(index=numbers)
    def a_worker_is_blocked_or_drains(self, index: int) -> None:
        if (account := self.one(index)) is not None:
            account.is_open = False
            account.unlist()

    @rule(index=numbers)
    def a_worker_is_congested(self, index: int) -> None:
        if (account := self.one(index)) is not None:
            account.congested = True
            account.unlist()

    @rule(index=numbers)
    def time_passes(self, index: int) -> None:
        if (account := self.one(index)) is not None:
            account.congested = False
            account.ask_again()
            account.list()

    @rule(index=numbers)
    def a_worker_dies(self, index: int) -> None:
        if (account := self.one(index)) is not None:
            account.is_open = False
            account.unlist()
            for group in list(account.groups):
                group.leave(account)
            self.accounts.remove(account)
            self.under_way = [each for each in self.under_way if each is not account]
            self.adopted = [each for each in self.adopted if each is not account]

    @rule(index=numbers, group=st.integers(0, 1))
    def a_worker_begins_to_serve(self, index: int, group: int) -> None:
        if (account := self.one(index)) is not None:
            self.groups[group].join(account)

    @rule(index=numbers, group=st.integers(0, 1))
    def a_worker_serves_no_more(self, index: int, group: int) -> None:
        if (account := self.one(index)) is not None:
            self.groups[group].leave(account)

    # -- connections ---------------------------------------------------------------------------------------------------
    @rule(group=st.integers(0, 1), client=st.integers(0, 9))
    def a_connection_comes(self, group: int, client: int) -> None:
        at = self.groups[group]
        if not at.offered():
            return
        picked = at.pick(ConnectionView((f"10.0.0.{client}", 1), None))
        assert picked in at.members
        assert picked.is_open
        assert picked.connections < picked.capacity
        assert picked.is_taken_by(at)
        if picked.listed:
            assert picked.free > 0
            picked.dealt(at)
            self.under_way.append(picked)
        else:
            assert at.waits  # it waits for this worker

    @precondition(lambda self: self.under_way)
    @rule()
    def a_connection_is_adopted(self) -> None:
        account = self.under_way.pop(self.random.randrange(len(self.under_way)))
        account.free += 1
        self.adopted.append(account)
        account.list()

    @precondition(lambda self: self.under_way)
    @rule()
    def a_connection_is_lost_on_the_way(self) -> None:
        account = self.under_way.pop(self.random.randrange(len(self.under_way)))
        account.undone()
        account.list()

    @precondition(lambda self: self.adopted)
    @rule(group=st.integers(0, 1))
    def a_connection_is_refused(self, group: int) -> None:
        account = self.adopted.pop(self.random.randrange(len(self.adopted)))
        account.refused(self.groups[group])
        assert self.groups[group] not in account.groups or not account.is_taken_by(self.groups[group])
        account.list()

    @precondition(lambda self: self.adopted)
    @rule()
    def a_connection_ends(self) -> None:
        account = self.adopted.pop(self.random.randrange(len(self.adopted)))
        account.closed()
        account.list()

    # -- what always holds ---------------------------------------------------------------------------------------------
    @invariant()
    def credit_and_room_are_respected(self) -> None:
        for account in getattr(self, "accounts", []):
            under_way = sum(each is account for each in self.under_way)
            assert account.free == CREDIT - under_way
            assert account.connections == under_way + sum(each is account for each in self.adopted)
            assert 0 <= account.connections <= account.capacity

    @invariant()
    def exactly_those_are_offered_that_may_be_picked(self) -> None:
        for group in getattr(self, "groups", []):
            expected = [a for a in group.members if a.listed and a.is_taken_by(group)]
            assert group.eligible == expected
            assert all(a.may_be_picked for a in group.eligible)
            assert [a.number for a in group.members] == sorted(a.number for a in group.members)
        for account in getattr(self, "accounts", []):
            assert account.listed == account.may_be_picked


def full_account(group: Group) -> Account:
    """A worker with two connections that has just refused a third."""
    account = Account(1, CREDIT)
    group.join(account)
    account.is_open = True
    account.list()
    for _ in range(3):
        account.dealt(group)
        account.free += 1
    account.refused(group)
    assert group.eligible == []
    return account


def test_for_each_connection_that_closes_a_full_server_is_offered_one() -> None:
    group = Group(RoundRobin())
    account = full_account(group)
    account.closed()
    account.closed()
    account.dealt(group)
    assert group.eligible == [account]
    account.dealt(group)
    assert group.eligible == []


def test_a_full_server_that_takes_the_one_it_is_asked_with_is_offered_any_number() -> None:
    group = Group(RoundRobin())
    account = full_account(group)
    account.ask_again()
    account.dealt(group)
    assert group.eligible == []
    account.ask_again()
    account.dealt(group)
    assert group.eligible == [account]
    assert not account.full


def test_a_full_server_that_refuses_the_one_it_is_asked_with_stays_full() -> None:
    group = Group(RoundRobin())
    account = full_account(group)
    for _ in range(3):
        account.ask_again()
        account.dealt(group)
        account.free += 1
        account.refused(group)
        assert group.eligible == []


Dealing.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
test_dealing = Dealing.TestCase
