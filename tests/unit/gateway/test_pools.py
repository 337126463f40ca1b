"""Who serves whom: first come first served, to the container with least, and no container that nobody needs."""

from __future__ import annotations

from alight.gateway.pools import Pool


class Scheduler:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.asked, self.ended, self.cancelled = [], [], []

    def ask(self, function_id):
        self.asked.append(f"wl-{len(self.asked) + 1}")
        return self.asked[-1]

    def end(self, lease_id, *, timed_out=False):
        self.ended.append(lease_id)

    def cancel(self, lease_id):
        self.cancelled.append(lease_id)

    def broken(self, container_id, why):
        raise AssertionError


class Request:
    def __init__(self) -> None:
        self.lease = self.refused = None

    def begin(self, lease):
        self.lease = lease

    def refuse(self, status, said):
        self.refused = status


def pool_of(capacity=1, **more):
    scheduler = Scheduler()
    pool = Pool("fu-1", scheduler)
    pool.capacity = capacity
    for name, value in more.items():
        setattr(pool, name, value)
    return pool, scheduler


def enter(pool, count, now=0.0):
    requests = [Request() for _ in range(count)]
    for one in requests:
        pool.enter(one, now)
    return requests


def test_a_lease_for_each_containers_worth_of_requests():
    pool, scheduler = pool_of(capacity=10)
    requests = enter(pool, 25)
    assert len(scheduler.asked) == 3
    pool.on_given("wl-1", "a", 1.0)
    assert [one.lease is not None for one in requests] == [True] * 10 + [False] * 15
    pool.on_given("wl-2", "b", 1.0)
    pool.on_given("wl-3", "c", 1.0)
    assert all(one.lease is not None for one in requests)
    assert len(scheduler.asked) == 3


def test_the_container_with_least_in_flight_is_next():
    pool, _ = pool_of(capacity=4)
    enter(pool, 8)
    pool.on_given("wl-1", "a", 0.0)
    pool.on_given("wl-2", "b", 0.0)
    first, second = pool.given.values()
    for _ in range(2):
        pool.release(second, 1.0, 0.5)
    (one,) = enter(pool, 1)
    assert one.lease is second
    assert (first.in_flight, second.in_flight) == (4, 3)


def test_requests_are_served_in_the_order_in_which_they_came():
    pool, _ = pool_of()
    requests = enter(pool, 3)
    pool.on_given("wl-1", "a", 0.0)
    lease = requests[0].lease
    assert lease is not None
    pool.leave(requests[1])
    pool.release(lease, 0.1, 0.1)
    assert requests[1].lease is None
    assert requests[2].lease is lease


def test_short_requests_start_no_crowd_of_containers_but_a_long_wait_does():
    pool, scheduler = pool_of(pace=0.001)
    enter(pool, 1)
    pool.on_given("wl-1", "a", 0.0)
    enter(pool, 20, now=0.0)
    assert len(scheduler.asked) == 1
    pool.tick(0.3, 1.0)
    assert len(scheduler.asked) == 21


def test_a_lease_without_requests_is_given_back_after_a_while_and_one_not_given_is_cancelled():
    pool, scheduler = pool_of()
    one, other = enter(pool, 2)
    pool.on_given("wl-1", "a", 0.0)
    pool.release(one.lease, 1.0, 1.0)
    assert other.lease is one.lease
    pool.release(one.lease, 1.5, 0.5)
    pool.tick(2.0, 1.0)
    assert (scheduler.ended, scheduler.cancelled) == ([], ["wl-2"])
    pool.tick(2.6, 1.0)
    assert scheduler.ended == ["wl-1"]
    assert pool.is_over


def test_a_leaving_container_gets_nothing_new_and_is_given_back_after_its_last():
    pool, scheduler = pool_of(capacity=2)
    (one,) = enter(pool, 1)
    pool.on_given("wl-1", "a", 0.0)
    pool.close(one.lease)
    (late,) = enter(pool, 1)
    assert late.lease is None
    assert scheduler.asked == ["wl-1", "wl-2"]
    assert not scheduler.ended
    pool.release(one.lease, 1.0, 1.0)
    assert scheduler.ended == ["wl-1"]


def test_a_container_lost_before_it_served_anybody_keeps_its_lease_so_that_losses_are_counted():
    pool, scheduler = pool_of()
    enter(pool, 1)
    pool.on_given("wl-1", "a", 0.0)
    pool.on_lost("wl-1", 1.0, returning=1)
    assert scheduler.cancelled == []
    assert list(pool.pending) == ["wl-1"]
    assert not pool.on_failed("wl-9", 1.0)


def test_a_container_lost_after_it_served_is_replaced_by_a_fresh_lease():
    pool, scheduler = pool_of()
    one, other = enter(pool, 2)
    pool.on_given("wl-1", "a", 0.0)
    pool.release(one.lease, 0.5, 0.5)
    assert other.lease is not None
    enter(pool, 1)
    pool.on_lost("wl-1", 1.0)
    assert scheduler.cancelled == ["wl-1"]
    assert pool.pending


def test_those_who_wait_hear_of_a_start_that_failed_once():
    pool, _ = pool_of()
    enter(pool, 2)
    assert pool.on_failed("wl-1", 1.0)
    pool.waiting.clear()
    assert not pool.on_failed("wl-2", 1.0)


def test_single_use_containers_serve_one_request():
    pool, scheduler = pool_of(single_use=True)
    one, other = enter(pool, 2)
    pool.on_given("wl-1", "a", 0.0)
    pool.release(one.lease, 1.0, 1.0)
    assert other.lease is None
    assert scheduler.ended == ["wl-1"]


def test_scaling_aims_at_the_target_before_containers_are_full():
    pool, scheduler = pool_of(capacity=10, aim=2)
    enter(pool, 1)
    pool.on_given("wl-1", "a", 0.0)
    enter(pool, 1)
    assert len(scheduler.asked) == 1
    (third,) = enter(pool, 1)
    assert third.lease is not None
    assert len(scheduler.asked) == 2


def test_more_than_all_containers_take_is_refused_and_what_leaves_makes_room():
    pool, _ = pool_of(capacity=2, most=4)
    requests = enter(pool, 5)
    assert [one.refused for one in requests] == [None, None, None, None, 429]
    pool.on_given("wl-1", "a", 0.0)
    pool.on_given("wl-2", "b", 0.0)
    assert [one.refused for one in enter(pool, 1)] == [429]
    pool.release(requests[0].lease, 1.0, 0.5)
    (one,) = enter(pool, 1)
    assert one.lease is requests[0].lease


def test_requests_of_containers_that_leave_keep_no_room():
    pool, _ = pool_of(capacity=2, most=2)
    requests = enter(pool, 2)
    pool.on_given("wl-1", "a", 0.0)
    pool.close(requests[0].lease)
    (one,) = enter(pool, 1)
    assert one.refused is None


def test_containers_that_are_too_few_for_a_moment_only_stay_as_they_are():
    pool, scheduler = pool_of(capacity=2, scaleup=5.0)
    requests = enter(pool, 6)
    assert len(scheduler.asked) == 1, "from zero one has to come before they can be too few"
    pool.on_given("wl-1", "a", 0.0)
    pool.tick(1.0, 1.0)
    pool.tick(4.0, 1.0)
    for one in requests[:2]:
        pool.release(one.lease, 4.0, 0.5)
    for one in requests[2:4]:
        pool.release(one.lease, 4.5, 0.5)
    assert requests[5].lease is not None
    pool.tick(4.6, 1.0)
    assert len(scheduler.asked) == 1
    enter(pool, 1, 10.0)
    pool.tick(14.9, 1.0)
    assert len(scheduler.asked) == 1, "it is counted anew"
    pool.tick(15.1, 1.0)
    assert len(scheduler.asked) == 2


def test_a_container_that_scaling_aims_for_is_waited_for_as_long_as_it_takes():
    pool, scheduler = pool_of(capacity=10, aim=1)
    requests = enter(pool, 1)
    pool.on_given("wl-1", "a", 0.0)
    requests += enter(pool, 1)
    assert len(scheduler.asked) == 2
    pool.tick(5.0, 1.0)
    assert not scheduler.cancelled
    for one in requests:
        pool.release(one.lease, 6.0, 0.5)
    pool.tick(6.1, 1.0)
    assert scheduler.cancelled == ["wl-2"]
