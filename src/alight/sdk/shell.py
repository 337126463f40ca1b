"""A container of a function, for a person to look around in: its image, files, volumes, secrets and GPU; no code runs.

The container is one of an app of its own, whose one function waits. So it is placed, built and paid for like every
other, nothing scales it down while its call goes on, and it ends with the app, which ends soon after its client.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional, Tuple

from alight.sdk import single
from alight.sdk.callee import Callee
from alight.sdk.function import Function
from alight.sdk.run import Plan, Run
from alight.sdk.sync import call_blocking
from alight.wire import calling, errors, messages
from alight.wire.codec import loads_head
from alight.wire.record import replace
from alight.wire.spec import Autoscaling, FunctionSpec, RetryPolicy
from alight.wire.states import ContainerState

if TYPE_CHECKING:
    from alight.sdk.conversation import Stream
    from alight.sdk.running import RunningApp

#: Seconds that such a container may live.
LONGEST = 24 * 3600


def waiting(spec: FunctionSpec) -> FunctionSpec:
    """What needs the same as this function and only waits: one container, one input, no code of the user's."""
    return replace(
        spec,
        definition="module",
        module="time",
        qualname="sleep",
        source_path="",
        serialized="",
        timeout=float(LONGEST),
        startup_timeout=None,
        retries=RetryPolicy(),
        autoscaling=Autoscaling(max_containers=1),
        is_generator=False,
        is_async=False,
        is_web=False,
        web={},
        enable_memory_snapshot=False,
        class_name="",
        methods=(),
        class_parameters=(),
        parameters="",
    )


class Shell(Run):
    """A run of that app. ``enter`` brings the container up, ``end`` ends it."""

    def __init__(self, plan: Plan, name: str, function: Function) -> None:
        """``plan.needed`` names the function: its image is built before it is called."""
        super().__init__(plan, {name: function})
        self._client = plan.client
        self._name = name
        self._changed = threading.Event()
        self._container = ""
        self._call_id = ""
        self._error: Optional[BaseException] = None
        self._watch: Optional[Stream] = None

    def enter(self) -> str:
        """Everything up to a container that is ready; its id. Raises what keeps it from running. Blocking."""
        running = call_blocking(self.begin())
        call_blocking(self.prepare())
        if self._name in running.problems:
            raise running.problems[self._name]
        message = messages.AppWatch(running.app_id, hold=False, logs=False)
        self._watch = call_blocking(self._client.open("app.watch", message))
        self._watch.listen(self._on_event)
        callee = Callee(self._client, running.function_ids[self._name], self._name, running=running)
        self._call_id = call_blocking(single.start(callee, (float(LONGEST),), {}))
        threading.Thread(target=self._follow, args=(callee,), name="alight-shell", daemon=True).start()
        self._changed.wait()
        if not self._container:
            raise self._error or errors.ServiceError("the container ended before anybody could enter it")
        return self._container

    def leave(self, error: Optional[BaseException]) -> None:
        """End the container and its app. Blocking."""
        if self._watch is not None:
            self._watch.leave()
        if self._call_id:
            # What waits in it need not be given time to come to an end.
            with contextlib.suppress(errors.Error):
                call_blocking(self._client.do("call.cancel", calling.CallCancel(self._call_id)))
        call_blocking(self.end(error))

    async def _resolve(self, running: RunningApp) -> Dict[str, FunctionSpec]:
        return {name: waiting(spec) for name, spec in (await super()._resolve(running)).items()}

    def _follow(self, callee: Callee) -> None:
        """In a thread of its own: the call that keeps the container. It ends early when something is wrong."""
        message = calling.CallResult(self._call_id)
        try:
            call_blocking(single.wait(callee, "call.result", self._call_id, message))
        except BaseException as error:  # noqa: BLE001  it is for the thread that waits
            self._error = error
        self._changed.set()

    def _on_event(self, message: Optional[Tuple[bytes, bytes]], error: Optional[errors.Error]) -> None:
        """Called by the thread that read it."""
        if message is None:
            if not self._changed.is_set():
                gone = "the app ended before its container was ready"
                self._error = self._error or error or errors.ServiceError(gone)
                self._changed.set()
            return
        event = loads_head(messages.AppEvent, message[0])
        if event.kind == "container" and event.state == ContainerState.READY:
            self._container = event.container
            self._changed.set()


def plain(options: Mapping[str, Any]) -> Function:
    """A function that is nothing but what its container needs. ``options`` as ``@app.function`` takes them."""
    from alight.sdk.app import App  # noqa: PLC0415  whoever has a function of the user's has loaded it

    made: Function = App().function(include_source=False, name="shell", **options)(_nothing)
    return made


def _nothing() -> None:
    """Never called: see ``waiting``."""
