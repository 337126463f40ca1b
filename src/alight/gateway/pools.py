"""Who serves whom: the leased containers of one function, what they have in flight, and who waits. Pure.

A lease is a container that the scheduler lets the gateway use (decision 0013). More are asked for when requests wait
that those at hand will not have begun in a moment; one is given back when it has had nothing to do for a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from alight.gateway.sessions import Session

AHEAD = 0.25  # seconds in which what waits should have begun before another container is asked for
MOST_PENDING = 256  # leases asked for and not given: more would not start sooner


class Waiter(Protocol):
    """A request, as far as it waits."""

    def begin(self, lease: Lease) -> None:
        """A container has room for it."""

    def refuse(self, status: int, said: str) -> None:
        """Nobody will serve it."""


class Leases(Protocol):
    """The scheduler, as the gateway sees it."""

    def ask(self, function_id: str) -> str:
        """Ask for a container; the id of the lease."""

    def end(self, lease_id: str, *, timed_out: bool = False) -> None:
        """The container is not needed (any more). ``timed_out``: it must end, for it will not stop what it does."""

    def cancel(self, lease_id: str) -> None:
        """The container that was asked for is not needed any more."""

    def broken(self, container_id: str, why: str) -> None:
        """A container cannot be reached although it runs: it has to go."""


class Lease:
    """One container that serves. ``usable``: new requests may go there; ``sessions``: whose requests must."""

    __slots__ = ("container_id", "in_flight", "lease_id", "line", "pool", "served", "sessions", "since", "usable")

    def __init__(self, pool: Pool, lease_id: str) -> None:
        self.pool = pool
        self.lease_id = lease_id
        self.container_id = ""
        self.in_flight = 0
        self.since = 0.0  # without a request
        self.served = 0
        self.usable = True
        self.sessions: dict[Session, None] = {}
        self.line: dict[Waiter, None] = {}  # requests of those that wait for room here, for they go nowhere else


class Pool:
    """The containers of one function. ``capacity``: requests in each at a time; ``aim``: how many scaling aims at.
    ``most``: requests in all, where more are refused (0: they wait); ``scaleup``: seconds for which containers must
    have been too few before more are asked for.
    """

    def __init__(self, function_id: str, leases: Leases) -> None:
        self.function_id = function_id
        self.capacity = 1
        self.aim: int | None = None
        self.single_use = False
        self.most = 0
        self.scaleup = 0.0
        self.pace: float | None = None  # seconds that a request takes
        self.waiting: dict[Waiter, float] = {}  # since when, first come first
        self.given: dict[str, Lease] = {}
        self.pending: dict[str, Lease] = {}
        self._leases = leases
        self._short: float | None = None  # since when containers have been too few

    def enter(self, waiter: Waiter, now: float) -> None:
        """A request comes: it begins at once where there is room, or waits for its turn."""
        lease = None if self.waiting else self._roomiest()
        if lease is None:
            if self._is_full():
                waiter.refuse(429, "all containers have as many requests as they take at a time")
                return
            self.waiting[waiter] = now
            self._ask(now)
            return
        self._begin(lease, waiter)
        if self.aim is not None and not self.pending and self._is_above_aim() and not self._is_patient(now):
            self._ask_one()

    def enter_at(self, waiter: Waiter, lease: Lease) -> None:
        """A request comes that no other container may have."""
        if lease.in_flight < self.capacity:
            self._begin(lease, waiter)
        elif self.most:
            waiter.refuse(429, "the container of this session has as many requests as it takes at a time")
        else:
            lease.line[waiter] = None

    def begin_apart(self, waiter: Waiter, now: float) -> None:
        """The first request of a session: to the container with the fewest sessions, so that they spread. When all have
        enough, it begins nevertheless, and those that come later find one more.
        """
        open_to = [one for one in self.given.values() if one.usable and one.in_flight < self.capacity]
        if self.waiting or not open_to:
            self.enter(waiter, now)
        else:
            self._begin(min(open_to, key=lambda one: (len(one.sessions), one.in_flight)), waiter)
            if not self.pending and self._is_above_aim() and not self._is_patient(now):
                self._ask_one()

    def enter_first(self, waiter: Waiter, now: float) -> None:
        """A request that had its turn comes back: it never reached its container."""
        self.waiting = {waiter: now, **self.waiting}
        self._serve()
        self._ask(now)

    def leave(self, waiter: Waiter) -> None:
        """A request is not wanted any more, and had not begun."""
        self.waiting.pop(waiter, None)
        for lease in self.given.values():
            lease.line.pop(waiter, None)

    def let_go(self, lease: Lease, session: Session, now: float) -> None:
        """A session is over: its container may go like any other."""
        if session in lease.sessions:
            del lease.sessions[session]
            lease.since = max(lease.since, now)
            if not lease.usable:
                self._end_if_done(lease)

    def release(self, lease: Lease, now: float, seconds: float) -> None:
        """A request is over after so many seconds; 0: it was not served."""
        lease.in_flight -= 1
        lease.since = now
        if seconds > 0:
            lease.served += 1
            self.pace = seconds if self.pace is None else self.pace + (seconds - self.pace) * 0.2
        if self.single_use:
            lease.usable = False
        if lease.line and lease.in_flight < self.capacity:
            waiter = next(iter(lease.line))
            del lease.line[waiter]
            self._begin(lease, waiter)
        if not lease.usable:
            self._end_if_done(lease)
        elif self.waiting:
            self._serve()

    def on_given(self, lease_id: str, container_id: str, now: float) -> Lease | None:
        """The scheduler says which container it is, or says it again. None: the lease was cancelled meanwhile."""
        lease = self.pending.pop(lease_id, None) or self.given.get(lease_id)
        if lease is None:
            return None
        if lease.container_id != container_id:
            lease.container_id, lease.usable, lease.served = container_id, True, 0
        self.given[lease_id] = lease
        lease.since = now
        self._serve()
        return lease

    def on_lost(self, lease_id: str, now: float, returning: int = 0) -> None:
        """Its container is gone, and the scheduler looks for another one. So many requests are about to come back."""
        lease = self.given.pop(lease_id, None)
        if lease is None:
            return
        lease.usable = False
        if (self.waiting or returning) and not lease.served:
            # The same lease, so that the scheduler counts containers that are lost before they serve anybody.
            fresh = Lease(self, lease_id)
            self.pending[lease_id] = fresh
        else:
            self._leases.cancel(lease_id)
            self._ask(now)

    def on_failed(self, lease_id: str, now: float) -> bool:
        """No container will come for a lease; whether those who wait have to hear so."""
        lease = self.given.pop(lease_id, None)
        if lease is None:
            return self.pending.pop(lease_id, None) is not None and bool(self.waiting)
        lease.usable = False
        if not lease.served:
            return bool(self.waiting)
        self._ask(now)
        return False

    def close(self, lease: Lease) -> None:
        """No new requests for this one (it is leaving, or a newer version takes over); those in flight go on."""
        lease.usable = False
        self._end_if_done(lease)

    def tick(self, now: float, linger: float) -> None:
        """Give back what has had nothing to do for ``linger`` seconds, and look whether more is needed."""
        for lease in list(self.given.values()):
            if lease.usable and not (lease.in_flight or lease.sessions) and now - lease.since >= linger:
                lease.usable = False
                self._end_if_done(lease)
        above = self._is_above_aim()
        needed = -(-len(self.waiting) // self.capacity) + above
        for lease_id in list(self.pending)[max(needed, 0) :] if len(self.pending) > needed else ():
            del self.pending[lease_id]
            self._leases.cancel(lease_id)
        if self.waiting:
            self._ask(now)
        elif not above:
            self._short = None
        elif not self.pending and not self._is_patient(now):
            self._ask_one()

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left of it."""
        return not (self.waiting or self.given or self.pending)

    def _begin(self, lease: Lease, waiter: Waiter) -> None:
        lease.in_flight += 1
        if self.single_use:
            lease.usable = False
        waiter.begin(lease)

    def _serve(self) -> None:
        while self.waiting:
            lease = self._roomiest()
            if lease is None:
                return
            waiter = next(iter(self.waiting))
            del self.waiting[waiter]
            self._begin(lease, waiter)

    def _roomiest(self) -> Lease | None:
        best, least = None, self.capacity
        for lease in self.given.values():
            if lease.in_flight < least and lease.usable:
                best, least = lease, lease.in_flight
                if not least:
                    break
        return best

    def _is_above_aim(self) -> bool:
        """Whether containers have more than scaling aims at. A session counts as a request, also while it has none."""
        each = self.capacity if self.aim is None else self.aim
        load = sum(max(lease.in_flight, len(lease.sessions)) for lease in self.given.values())
        return load > each * len(self.given)

    def _is_full(self) -> bool:
        """Whether one more request would be more than all containers that there may be take."""
        if not self.most:
            return False
        # Those that leave have no room for it, and keep nobody's.
        busy = sum(lease.in_flight for lease in self.given.values() if lease.usable)
        return busy + len(self.waiting) >= self.most

    def _is_patient(self, now: float) -> bool:
        """Whether containers are too few, but have not been for long enough."""
        if not self.scaleup:
            return False
        if not self.given:
            return bool(self.pending)  # one has to come before they can be too few
        if self._short is None:
            self._short = now
        return now - self._short < self.scaleup

    def _ask(self, now: float) -> None:
        """One lease more for each container's worth of requests that will not begin in a moment."""
        waiting = len(self.waiting)
        if not waiting or len(self.pending) * self.capacity >= waiting or self._is_patient(now):
            return
        if self.scaleup and not self.given:
            self._ask_one()
            return
        usable = sum(lease.usable for lease in self.given.values())
        if usable and self.pace is not None and not self.single_use:
            oldest = next(iter(self.waiting.values()))
            if waiting * self.pace <= AHEAD * usable * self.capacity and now - oldest < AHEAD:
                return
        for _ in range(min(MOST_PENDING, -(-waiting // self.capacity)) - len(self.pending)):
            self._ask_one()

    def _ask_one(self) -> None:
        lease_id = self._leases.ask(self.function_id)
        self.pending[lease_id] = Lease(self, lease_id)

    def _end_if_done(self, lease: Lease) -> None:
        if not (lease.in_flight or lease.sessions) and self.given.get(lease.lease_id) is lease:
            del self.given[lease.lease_id]
            self._leases.end(lease.lease_id)
