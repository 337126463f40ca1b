"""Names that exist and do not work yet: each raises UnimplementedError, with one sentence, when it is used.

The registry tells how much of the public surface works; nothing is listed by hand.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, TypeVar, cast

from alight.wire.errors import UnimplementedError

F = TypeVar("F", bound=Callable[..., Any])

#: Qualified name ("Function.map") → the sentence that its use raises.
UNIMPLEMENTED: Dict[str, str] = {}

_COROUTINE = 0x80
_ASYNC_GENERATOR = 0x200


def unimplemented(sentence: str) -> Callable[[F], F]:
    """Make a function raise UnimplementedError(sentence) when it is called, and register its name. Its signature
    stays.
    """

    def decorate(function: F) -> F:
        UNIMPLEMENTED[function.__qualname__] = sentence
        flags = function.__code__.co_flags
        if flags & _COROUTINE:

            async def refuse_later(*_args: Any, **_kwargs: Any) -> Any:
                raise UnimplementedError(sentence)

            return cast("F", functools.wraps(function)(refuse_later))

        if flags & _ASYNC_GENERATOR:

            async def refuse_items(*_args: Any, **_kwargs: Any) -> Any:
                if sentence:  # always: the yield below is what makes this a generator
                    raise UnimplementedError(sentence)
                yield

            return cast("F", functools.wraps(function)(refuse_items))

        def refuse(*_args: Any, **_kwargs: Any) -> Any:
            raise UnimplementedError(sentence)

        return cast("F", functools.wraps(function)(refuse))

    return decorate
