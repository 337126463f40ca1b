"""A call that somebody started: its handle, for those that come back later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

from alight.sdk import single
from alight.sdk.callee import Callee
from alight.sdk.logs import Logs
from alight.sdk.object import Object
from alight.sdk.single import call_and_wait
from alight.sdk.sync import dual, dual_chunks, dual_function
from alight.wire import calling, errors
from alight.wire.ids import CALL, is_id
from alight.wire.states import ResultStatus

if TYPE_CHECKING:
    from alight.sdk.answers import Answers
    from alight.sdk.client import Client
    from alight.sdk.reports import InputInfo


async def spawn(callee: Callee, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> FunctionCall:
    """Call and return once the server has it on disk."""
    return FunctionCall._started(await single.start(callee, args, kwargs), callee)  # noqa: SLF001  of this file


async def spawn_many(callee: Callee, iterables: Sequence[Any], kwargs: Mapping[str, Any]) -> FunctionCall:
    """One call with many inputs; returns once the server has all of them on disk."""
    from alight.sdk import inputs, mapping  # noqa: PLC0415  who calls with one input does without

    spawned = mapping.Spawned(callee, inputs.Source(iterables, kwargs))
    await spawned.more()
    return FunctionCall._started(spawned.call_id, callee)  # noqa: SLF001  of this file


class FunctionCall(Object):
    """A call that somebody started and whose result can be had later, by anybody who knows its id."""

    def __init__(self) -> None:
        super().__init__()
        self._callee: Optional[Callee] = None

    @property
    def logs(self) -> Logs:
        """The call's output."""
        return Logs(self._about_logs)

    @staticmethod
    @dual_function
    async def from_id(function_call_id: str, client: Optional[Client] = None) -> FunctionCall:
        """The call of this id. Whether there is one shows at its first use."""
        if not is_id(function_call_id, CALL):
            raise errors.InvalidError(f"{function_call_id!r} is not the id of a call", hint="they look like fc-…")
        call = FunctionCall()
        call._object_id, call._client = function_call_id, client
        return call

    @dual
    async def get(self, timeout: Optional[float] = None, *, index: int = 0) -> Any:
        """The result of input ``index``, waiting ``timeout`` seconds at most (None: for ever; 0: not at all).

        Raises the builtin TimeoutError when it is not there yet, OutputExpiredError when it was kept for its time and
        is gone, and what the function raised.
        """
        if index < 0:
            raise errors.InvalidError(f"there is no input {index}", hint="they count from 0")
        message = calling.CallResult(self.object_id, timeout=timeout, index=index)
        return await single.wait(await self._seen_by(), "call.result", self.object_id, message, timeout=timeout)

    @dual
    async def cancel(self, terminate_containers: bool = False) -> None:
        """Cancel what waits and runs; with ``terminate_containers`` end its containers too."""
        client = await self._via()
        await client.do("call.cancel", calling.CallCancel(self.object_id, terminate_containers))

    @dual_chunks
    def iter(self, *, start: int = 0, end: Optional[int] = None) -> Any:
        """The results by number, from ``start`` to ``end`` (exclusive; None: all that there will be).

        Follows a call that still runs. Raises what the function raised when that result's turn comes.
        """
        if start < 0 or (end is not None and end < start):
            raise errors.InvalidError(f"there are no results from {start} to {end}", hint="they count from 0")
        from alight.sdk import looking, mapping  # noqa: PLC0415  who calls with one input does without

        async def begin() -> Answers:
            return looking.Looked(await self._seen_by(), self.object_id, start, end)

        return mapping.Mapping(begin, unread="")

    @dual
    async def num_inputs(self) -> int:
        """How many inputs it has; of a call that is still being sent, those that have arrived."""
        client = await self._via()
        shown = await client.call("call.show", calling.CallShow(self.object_id), calling.CallDetails)
        return shown.call.accepted if shown.call.total is None else shown.call.total

    @dual
    async def get_call_graph(self) -> List[InputInfo]:
        """Its inputs (the first 1,000), each with the inputs of the calls that it made, and so on."""
        from alight.sdk.reports import InputInfo, InputStatus  # noqa: PLC0415  few ask

        client = await self._via()
        graph = await client.call("call.graph", {"call_id": self.object_id}, calling.CallGraph)
        of_status = {
            "": InputStatus.PENDING,
            ResultStatus.SUCCESS: InputStatus.SUCCESS,
            ResultStatus.EXCEPTION: InputStatus.FAILURE,
            ResultStatus.INIT_FAILURE: InputStatus.INIT_FAILURE,
            ResultStatus.TIMEOUT: InputStatus.TIMEOUT,
        }
        found = {
            str(one["input_id"]): InputInfo(
                input_id=one["input_id"],
                function_call_id=one.get("call_id", ""),
                task_id=one.get("container", ""),
                status=of_status.get(one.get("status", ""), InputStatus.TERMINATED),
                function_name=one.get("function", ""),
                module_name=one.get("module", ""),
                children=[],
            )
            for one in graph.inputs
        }
        roots: List[InputInfo] = []
        for one in graph.inputs:
            parent = found.get(one.get("parent", ""))
            (roots if parent is None else parent.children).append(found[one["input_id"]])
        return roots

    @staticmethod
    @dual_function
    async def gather(*function_calls: FunctionCall) -> List[Any]:
        """The results of several calls, in order. The first failure among them is raised as soon as it is known."""
        from alight.sdk import looking  # noqa: PLC0415  who calls with one input does without

        return await looking.gather([(await call._seen_by(), call.object_id) for call in function_calls])  # noqa: SLF001

    async def _about_logs(self) -> Tuple[Client, str, Any]:
        from alight.wire.logs import LogQuery  # noqa: PLC0415  only who asks

        return await self._via(), self.object_id, LogQuery(call=self.object_id)

    async def _seen_by(self) -> Callee:
        client = await self._via()
        return self._callee or Callee(client, "", "the function")

    @staticmethod
    def _started(call_id: str, callee: Callee) -> FunctionCall:
        call = FunctionCall()
        call._object_id, call._client, call._callee = call_id, callee.client, callee
        return call

    def __getstate__(self) -> Dict[str, Any]:
        return {**super().__getstate__(), "_callee": None}

    def __repr__(self) -> str:
        return f"FunctionCall({self._object_id!r})"


__all__ = ["Callee", "FunctionCall", "call_and_wait", "spawn", "spawn_many"]
