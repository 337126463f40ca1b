"""The gateway in this server: its leases are inputs of the scheduler, its table follows what is published.

A lease is a call with one input that nobody stores and no machine hears of (decision 0013). Its id says what it is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alight.gateway.gateway import Dial, Gateway
from alight.gateway.limits import Limits
from alight.gateway.table import Table, Target
from alight.scheduler import decisions as decided
from alight.scheduler import events
from alight.scheduler.state import State
from alight.server.events import Inbox
from alight.server.services import urls
from alight.server.services.access import ProxyTokens
from alight.server.services.hub import Hub
from alight.server.services.published import Published, scaled_spec
from alight.server.services.web_names import WebNames
from alight.wire import ids
from alight.wire.failure import Failure
from alight.wire.messages import AppEvent
from alight.wire.states import ResultStatus

log = logging.getLogger(__name__)
_PREFIX = "wl"
_ONE = range(1)
_PUBLISHING = (
    events.FunctionPublished,
    events.FunctionReverted,
    events.FunctionRetired,
    events.FunctionScaled,
    events.AppEnded,
    events.AppsHeld,
)
#: What everybody may read. Whose budget it is and how large, its owner reads in the app's log.
_HELD = "this app is held: a budget of it is used up. It answers again once the budget is raised, or begins anew"
_OFTEN = (events.InputsArrived, events.AttemptsEnded, events.ItemsCame, events.InputsWaiting, events.InputsReturned)


def is_lease(call_id: str) -> bool:
    """Whether a call is a lease of the gateway's."""
    return call_id.startswith("wl-")


@dataclass
class _Lease:
    function_id: str
    container_id: str = ""
    attempt: int = 1


@dataclass
class Around:
    """What says who serves, who may call it, and who hears of what goes wrong."""

    functions: Mapping[str, Published]
    names: WebNames
    access: ProxyTokens
    hub: Hub
    init_failures: Mapping[str, tuple[Failure | None, bytes]]  # by function: what its start raised last


class Web:
    """What the loop, the listeners and the gateway know each other by. Fills ``gateway.pools.Leases``."""

    def __init__(self, inbox: Inbox, around: Around, dial: Dial, limits: Limits) -> None:
        self._inbox = inbox
        self._around = around
        self._leases: dict[str, _Lease] = {}
        self.table = Table()
        self.gateway = Gateway(self.table, self, dial, self._check, limits)

    # from the gateway

    def ask(self, function_id: str) -> str:
        """See ``gateway.pools.Leases``."""
        lease_id = ids.new_id(_PREFIX)
        self._leases[lease_id] = _Lease(function_id)
        self._inbox.put(events.InputsArrived(lease_id, function_id, ((0, 1),)))
        return lease_id

    def end(self, lease_id: str, *, timed_out: bool = False) -> None:
        """See ``gateway.pools.Leases``."""
        lease = self._leases.pop(lease_id, None)
        if lease is not None:
            self._answer(lease_id, lease, ResultStatus.TIMEOUT if timed_out else ResultStatus.SUCCESS)

    def cancel(self, lease_id: str) -> None:
        """See ``gateway.pools.Leases``."""
        if self._leases.pop(lease_id, None) is not None:
            self._inbox.put(events.CallCancelled(lease_id))

    def broken(self, container_id: str, why: str) -> None:
        """See ``gateway.pools.Leases``."""
        log.warning("the container %s cannot be reached by the gateway and is stopped: %s", container_id, why)
        self._inbox.put(events.StopAsked(container_id, "the gateway could not reach it", 5.0))

    # from the loop

    def on_decision(self, decision: Any) -> None:
        """The scheduler has decided about a lease."""
        lease_id = decision.call_id
        lease = self._leases.get(lease_id)
        if isinstance(decision, decided.Give):
            if lease is None:
                # It was cancelled in this very step: the container is free again.
                self._answer(lease_id, _Lease("", decision.container_id, decision.attempt), ResultStatus.SUCCESS)
                return
            lease.container_id, lease.attempt = decision.container_id, decision.attempt
            self.gateway.given(lease_id, decision.container_id)
        elif isinstance(decision, decided.Again):
            if lease is None:
                self._inbox.put(events.CallCancelled(lease_id))
            else:
                lease.container_id = ""
                self.gateway.lost(lease_id)
        elif isinstance(decision, decided.Fail) and lease is not None:
            del self._leases[lease_id]
            self._on_failed(lease_id, lease, decision)

    def after_step(self, facts: Sequence[events.Event], state: State) -> None:
        """What happened may have changed what there is, and which containers may still serve."""
        if all(isinstance(one, _OFTEN) for one in facts):
            return
        if any(isinstance(one, _PUBLISHING) for one in facts):
            self._fill(state.budgets)

        def is_stale(container_id: str) -> bool:
            container = state.containers.get(container_id)
            function = state.functions.get(container.function_id) if container is not None else None
            if container is None or function is None:
                return container is not None
            return is_leaving(container_id) or container.version < function.proven

        def is_leaving(container_id: str) -> bool:
            container = state.containers.get(container_id)
            return container is not None and (container.stopping or bool(container.draining))

        if self._leases or self.gateway.knows_containers:
            self.gateway.stale(is_stale, is_leaving)

    # inside

    def _check(self, key: str, secret: str, target: Target) -> bool:
        return self._around.access.check(key, secret, target.function_id)

    def _answer(self, lease_id: str, lease: _Lease, status: str) -> None:
        self._inbox.put(events.AttemptsEnded(lease_id, lease.container_id, lease.attempt, _ONE, status))

    def _on_failed(self, lease_id: str, lease: _Lease, decision: decided.Fail) -> None:
        function = self._around.functions.get(lease.function_id)
        name = function.spec.name if function is not None else "the function"
        if self.gateway.failed(lease_id, f"no container of {name} could be started; its app's log says why"):
            said = decision.error.get("message")
            failure = self._around.init_failures.get(lease.function_id, (None, b""))[0]
            if decision.status == ResultStatus.INIT_FAILURE and failure is not None:
                said = f"{failure.type.removeprefix('builtins.')}: {failure.message}"
            log.info("requests for %s were refused: %s", name, said)
            if function is not None:
                text = f"web requests for {name} were answered with 503: {said}"
                self._around.hub.tell(function.app_id, AppEvent("system", function=name, text=text))

    def _fill(self, held: Mapping[str, str]) -> None:
        found = self._around.names.endpoints()
        made: dict[int, Target] = {id(one): self._target(one, held) for one in found}
        self.table.fill(
            {label: made[id(one)] for label, one in urls.assign(found).items()},
            {key: made[id(one)] for key, one in urls.paths(found).items()},
            {domain: made[id(one)] for domain, one in urls.domains(found).items()},
        )
        for target in made.values():
            if target.held:
                self.gateway.held(target.function_id, target.held)

    def _target(self, one: urls.Endpoint, held: Mapping[str, str]) -> Target:
        function = self._around.functions[one.function_id]
        spec = scaled_spec(function.spec, function.scaled)
        scaling = spec.autoscaling
        bounded = one.web.get("max_concurrency") and scaling.max_containers
        return Target(
            one.function_id,
            one.function,
            one.kind,
            endpoint=one.method,
            port=one.port,
            protected=one.requires_proxy_auth,
            timeout=spec.timeout,
            # The scheduler counts the slots of a class that answers calls, too.
            slots=max(1, scaling.max_concurrent_inputs) if spec.is_web else 1,
            aim=scaling.target_concurrent_inputs if spec.is_web else None,
            single_use=scaling.single_use,
            sessioned=bool(one.web.get("sessioned")),
            most=scaling.max_concurrent_inputs * scaling.max_containers if bounded and scaling.max_containers else 0,
            scaleup=scaling.scaleup_window,
            held=_HELD if function.app_id in held else "",
        )
