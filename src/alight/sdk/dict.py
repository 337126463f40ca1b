"""A dictionary that every container shares. Declared here; it is kept by the server (not there yet)."""

from __future__ import annotations

import builtins
from datetime import datetime
from typing import Any, AsyncIterator, List, Mapping, Optional, Tuple, Union

from alight.sdk.client import Client
from alight.sdk.object import Object, classproperty
from alight.sdk.reports import DictInfo
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual, dual_context_function, dual_gen
from alight.wire.errors import UnimplementedError
from alight.wire.ids import check_name

_NOT_YET = "shared dictionaries are not there yet; a file in a Volume may do"
_MISSING: Any = object()


class DictManager:
    """``Dict.objects``: making, listing and deleting named dictionaries."""

    @dual
    @unimplemented(f"Dict.objects.create would make a named dictionary; {_NOT_YET}")
    async def create(
        self,
        name: str,
        *,
        allow_existing: bool = False,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
    ) -> None:
        """Make a named dictionary."""

    @dual
    @unimplemented(f"Dict.objects.list would list named dictionaries; {_NOT_YET}")
    async def list(
        self,
        *,
        max_objects: Optional[int] = None,
        created_before: Optional[Union[datetime, str]] = None,
        environment_name: str = "",
        client: Optional[Client] = None,
    ) -> List[Dict]:
        """The named dictionaries, newest first."""

    @dual
    @unimplemented(f"Dict.objects.delete would delete a named dictionary; {_NOT_YET}")
    async def delete(
        self,
        name: str,
        *,
        allow_missing: bool = False,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
    ) -> None:
        """Delete a named dictionary with all it holds."""


class Dict(Object):
    """Keys and values of any picklable kind, shared by all functions that name it."""

    def __init__(self) -> None:
        super().__init__()
        self._name: Optional[str] = None
        self._environment: Optional[str] = None
        self._create_if_missing = False

    @classproperty
    def objects(cls) -> DictManager:  # noqa: N805  of the class
        """Making, listing and deleting named dictionaries."""
        return DictManager()

    @staticmethod
    def from_name(
        name: str,
        *,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
        client: Optional[Client] = None,
    ) -> Dict:
        """The dictionary of this name, found or made at its first use."""
        made = Dict()
        made._name = check_name(name, "dict")
        made._environment = environment_name
        made._create_if_missing = create_if_missing
        made._client = client
        return made

    @staticmethod
    def from_id(dict_id: str, client: Optional[Client] = None) -> Dict:
        """The dictionary with this id."""
        made = Dict()
        made._object_id, made._client = dict_id, client
        return made

    @staticmethod
    @dual_context_function
    @unimplemented(f"Dict.ephemeral would make a dictionary for one block; {_NOT_YET}")
    async def ephemeral(
        *, client: Optional[Client] = None, environment_name: Optional[str] = None, _heartbeat_sleep: float = 300
    ) -> AsyncIterator[Dict]:
        """A nameless dictionary that lives as long as the block."""
        yield Dict()

    @property
    def name(self) -> Optional[str]:
        """None for a nameless one."""
        return self._name

    @dual
    @unimplemented(f"Dict.info would say when and by whom it was made; {_NOT_YET}")
    async def info(self) -> DictInfo:
        """When and by whom it was made."""

    @dual
    @unimplemented(f"Dict.get would return the value of a key; {_NOT_YET}")
    async def get(self, key: Any, default: Optional[Any] = None) -> Any:
        """The value of a key, or ``default``."""

    @dual
    @unimplemented(f"Dict.put would set a key; {_NOT_YET}")
    async def put(self, key: Any, value: Any, *, skip_if_exists: bool = False) -> bool:
        """Set a key. Returns whether it was set."""

    @dual
    @unimplemented(f"Dict.pop would take a key out; {_NOT_YET}")
    async def pop(self, key: Any, default: Any = _MISSING) -> Any:
        """Take a key out and return its value. KeyError, or ``default``, when there is none."""

    @dual
    @unimplemented(f"Dict.contains would look for a key; {_NOT_YET}")
    async def contains(self, key: Any) -> bool:
        """Whether there is such a key."""

    @dual
    @unimplemented(f"Dict.len would count the keys; {_NOT_YET}")
    async def len(self) -> int:
        """The number of keys."""

    @dual
    @unimplemented(f"Dict.clear would remove every key; {_NOT_YET}")
    async def clear(self) -> None:
        """Remove every key."""

    @dual
    @unimplemented(f"Dict.update would set several keys; {_NOT_YET}")  # noqa: S608  not a query
    async def update(self, other: Optional[Mapping[Any, Any]] = None, /, **kwargs: Any) -> None:
        """Set several keys."""

    @dual_gen
    @unimplemented(f"Dict.keys would iterate over the keys; {_NOT_YET}")
    async def keys(self) -> AsyncIterator[Any]:
        """Every key, in no order."""
        yield

    @dual_gen
    @unimplemented(f"Dict.values would iterate over the values; {_NOT_YET}")
    async def values(self) -> AsyncIterator[Any]:
        """Every value, in no order."""
        yield

    @dual_gen
    @unimplemented(f"Dict.items would iterate over keys and values; {_NOT_YET}")
    async def items(self) -> AsyncIterator[Tuple[Any, Any]]:
        """Every key with its value, in no order."""
        yield None, None

    @dual
    @unimplemented(f"Dict[key] would return the value of a key; {_NOT_YET}")
    async def __getitem__(self, key: Any) -> Any:
        """KeyError when there is none."""

    @dual
    @unimplemented(f"Dict[key] = value would set a key; {_NOT_YET}")
    async def __setitem__(self, key: Any, value: Any) -> None:
        """Set a key."""

    @dual
    @unimplemented(f"del Dict[key] would remove a key; {_NOT_YET}")
    async def __delitem__(self, key: Any) -> None:
        """KeyError when there is none."""

    @dual
    @unimplemented(f"key in Dict would look for a key; {_NOT_YET}")
    async def __contains__(self, key: Any) -> bool:
        """Whether there is such a key."""

    async def _load(self, client: Client) -> str:
        raise UnimplementedError(f"the Dict {self._name!r} cannot be looked up: {_NOT_YET}")

    def __repr__(self) -> builtins.str:
        return f"Dict({self._name!r})" if self._name else "Dict(…)"
