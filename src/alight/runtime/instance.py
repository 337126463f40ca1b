"""The instance of a class whose methods are inputs: made without its constructor, entered, and left.

What decorators said lies on the members of the class as ``shape`` (``sdk.shaping``), and is read here by its names, so
that nothing of the SDK has to be imported.
"""

from __future__ import annotations

import binascii
import sys

from alight.runtime.load import unwrap
from alight.runtime.runner import Target
from alight.wire import payload
from alight.wire.errors import ExecutionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterator, List, Tuple


class Instance:
    """Hooks run once, in ``enter_before_snapshot``, ``enter`` and ``exit``. ``loop`` makes the
    container's event loop, where a hook is async."""

    def __init__(self, function: Dict[str, Any], handle: Any) -> None:
        self._function = function
        self._handle = handle
        raw = unwrap(handle)
        if not isinstance(raw, type):
            raise ExecutionError(
                f"{function['class_name']} is a {type(raw).__name__} inside the container, not a class"
            )
        self._class = raw
        self._members = list(_members(raw))
        self.object: Any = None

    def enter_before_snapshot(self, loop: Callable[[], Any]) -> None:
        """Make the instance, set its parameters, run the hooks that a template runs for its forks. Raises what they
        raise."""
        self.object = self._made()
        for _, name in self._hooks("enter", "snap"):
            self._call(name, loop)

    def enter(self, loop: Callable[[], Any]) -> None:
        """Run the hooks of this very container. Raises what they raise."""
        self._legacy(("__enter__", "__aenter__"), (), loop)
        for _, name in self._hooks("enter", "start"):
            self._call(name, loop)

    def exit(self, loop: Callable[[], Any]) -> None:
        """Run the exit hooks. One that raises is told in the container's log, and keeps no other from running."""
        names = [name for _, name in self._hooks("exit", True)]
        for name in names:
            self._guarded(lambda name=name: self._call(name, loop))  # type: ignore[misc]  # mypy cannot infer defaults
        self._guarded(lambda: self._legacy(("__exit__", "__aexit__"), (None, None, None), loop))

    def targets(self) -> Dict[str, Target]:
        """What inputs may run, by the names of the methods."""
        found: Dict[str, Target] = {}
        declared = {one["name"]: one.get("is_generator", False) for one in self._function.get("methods", ())}
        for value, name in self._members:
            shape = getattr(value, "shape", None)
            if name in declared or getattr(shape, "method", False) or getattr(shape, "batch", None):
                streams = declared.get(name, bool(getattr(shape, "is_generator", None)))
                found[name] = Target(self._bound(name), f"{self._class.__name__}.{name}", streams=streams)
        return found

    def _made(self) -> Any:
        kind: Any = self._class
        made = kind.__new__(kind)
        given: Dict[str, Any] = {}
        text = self._function.get("parameters")
        if text:
            given = payload.loads(binascii.a2b_base64(text), f"the parameters of {self._class.__name__}")
        for value, name in self._members:
            if name not in given and getattr(value, "has_default", False) and hasattr(value, "init"):
                made.__dict__[name] = value.default
        made.__dict__.update(given)
        self._bind(made)
        return made

    def bind(self) -> None:
        """In a fork: let the instance's methods know which container they are in now."""
        self._bind(self.object)

    def _bind(self, made: Any) -> None:
        # The SDK makes the methods of the instance handles as well, where it is loaded; else they are plain.
        sdk = sys.modules.get("alight.sdk.cls")
        if sdk is not None:
            sdk.bind_instance(self._handle, made)

    def _hooks(self, word: str, said: Any) -> List[Tuple[Any, str]]:
        return [one for one in self._members if getattr(getattr(one[0], "shape", None), word, None) == said]

    def _bound(self, name: str) -> Any:
        """The method as the class (or the base that has it) defines it, with our instance."""
        for kind in self._class.__mro__:
            if name in vars(kind):
                return unwrap(vars(kind)[name]).__get__(self.object, self._class)
        raise ExecutionError(f"{self._class.__name__} has no method {name} inside the container")

    def _call(self, name: str, loop: Callable[[], Any], args: Any = ()) -> None:
        made = self._bound(name)(*args)
        if isinstance(made, _Coroutine):
            loop().run_until_complete(made)

    def _legacy(self, names: Tuple[str, str], args: Any, loop: Callable[[], Any]) -> None:
        """Classes written as context managers."""
        for name in names:
            if hasattr(self._class, name):
                self._call(name, loop, args)

    @staticmethod
    def _guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  a hook may raise anything, and the container ends all the same
            from alight.runtime import failures  # noqa: PLC0415  paid by failures only

            failures.print_local(error)


async def _nothing() -> None: ...


def _coroutine() -> type:
    """The type that ``inspect.iscoroutine`` looks for, for none of the 25 modules that ``inspect`` imports."""
    one = _nothing()
    one.close()
    return type(one)


_Coroutine = _coroutine()


def _members(raw: type) -> Iterator[Tuple[Any, str]]:
    """What bases and the class define, bases first, in the order of definition; the last word on a name counts unless
    it says nothing of its own (an overridden hook stays one)."""
    found: Dict[str, Any] = {}
    for kind in reversed(raw.__mro__):
        for name, value in vars(kind).items():
            if name not in found or hasattr(value, "shape") or not hasattr(found[name], "shape"):
                found[name] = value
    return iter([(value, name) for name, value in found.items()])
