"""Secrets: values that only ever travel towards the server, and from there into containers that ask for them."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from alight.sdk import config
from alight.sdk.client import Client, default_client
from alight.sdk.object import Object, checked_name, classproperty, environment_or_default
from alight.sdk.sync import dual
from alight.sdk.types import SecretInfo
from alight.wire import stored
from alight.wire.errors import AlreadyExistsError, InvalidError, NotFoundError


class SecretManager:
    """``Secret.objects``: making, listing and deleting named secrets."""

    @dual
    async def create(
        self,
        name: str,
        env_dict: Mapping[str, str],
        *,
        allow_existing: bool = False,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
    ) -> None:
        """Make a named secret. AlreadyExistsError when there is one, unless ``allow_existing`` (it is left as it
        is).
        """
        message = stored.SecretCreate(
            values=_checked(env_dict, "Secret.objects.create"),
            name=checked_name(name, "secret"),
            environment=environment_or_default(environment_name),
        )
        try:
            await (client or default_client()).call("secret.create", message, stored.SecretInfo)
        except AlreadyExistsError:
            if not allow_existing:
                raise

    @dual
    async def list(
        self,
        *,
        max_objects: Optional[int] = None,
        created_before: Optional[Union[datetime, str]] = None,
        environment_name: str = "",
        client: Optional[Client] = None,
    ) -> List[Secret]:
        """The named secrets of the environment, newest first. Their values cannot be read."""
        via = client or default_client()
        limit = 0 if created_before is not None else max_objects or 0
        message = stored.NamedList(environment=environment_or_default(environment_name), limit=limit)
        listed = (await via.call("secret.list", message, stored.SecretListed)).secrets
        listed = tuple(info for info in listed if is_before(info.created_at, created_before))
        return [Secret._of(info, via) for info in listed[: max_objects or None]]  # noqa: SLF001  of this file

    @dual
    async def delete(
        self,
        name: str,
        *,
        allow_missing: bool = False,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
    ) -> None:
        """Delete a named secret. Containers that hold it keep it until they end."""
        message = stored.SecretLookup(
            name=checked_name(name, "secret"),
            environment=environment_or_default(environment_name),
            allow_missing=allow_missing,
        )
        await (client or default_client()).do("secret.delete", message)


class Secret(Object):
    """Environment variables that a container gets and nobody can read back."""

    def __init__(self) -> None:
        super().__init__()
        self._name: Optional[str] = None
        self._environment: Optional[str] = None
        self._required: Tuple[str, ...] = ()
        self._values: Optional[Dict[str, str]] = None
        self._info: Optional[stored.SecretInfo] = None

    @classproperty
    def objects(cls) -> SecretManager:  # noqa: N805  of the class
        """Making, listing and deleting named secrets."""
        return SecretManager()

    @staticmethod
    def from_dict(env_dict: Mapping[str, Optional[str]] = {}) -> Secret:
        """A secret of these values, for the app that uses it alone. A value of None is left out."""
        if not isinstance(env_dict, Mapping):
            raise InvalidError(f"Secret.from_dict() takes a dict, not {type(env_dict).__name__}")
        kept = {key: value for key, value in env_dict.items() if value is not None}
        secret = Secret()
        secret._values = _checked(kept, "Secret.from_dict")
        return secret

    @staticmethod
    def from_local_environ(env_keys: Sequence[str]) -> Secret:
        """A secret of variables of this process's environment. InvalidError when one is not set."""
        if isinstance(env_keys, str):
            raise InvalidError(f"Secret.from_local_environ() takes a list of names: [{env_keys!r}]")
        if config.in_container():
            return Secret.from_dict({})
        missing = [key for key in env_keys if key not in os.environ]
        if missing:
            raise InvalidError(
                f"Secret.from_local_environ() needs {', '.join(missing)}, not set in this environment",
                hint=f"export {missing[0]}=…",
            )
        return Secret.from_dict({key: os.environ[key] for key in env_keys})

    @staticmethod
    def from_dotenv(
        path: Optional[Union[str, os.PathLike[str]]] = None,
        *,
        filename: str = ".env",
        client: Optional[Client] = None,
    ) -> Secret:
        """A secret of the variables in a .env file, searched from ``path`` (a directory, or a file in it; default: the
        working directory) upwards. InvalidError when there is none, or with the number of a line that cannot be read.
        """
        del client  # anonymous secrets go with their app
        if config.in_container():
            return Secret.from_dict({})
        start = Path(path or os.getcwd()).resolve()
        if not start.is_dir():
            start = start.parent
        for directory in (start, *start.parents):
            file = directory / filename
            if file.is_file():
                return Secret.from_dict(read_dotenv(file))
        raise InvalidError(f"there is no {filename} in {start} or above it", hint="make one with lines KEY=value")

    @staticmethod
    def from_name(
        name: str,
        *,
        environment_name: Optional[str] = None,
        required_keys: Sequence[str] = (),
        client: Optional[Client] = None,
    ) -> Secret:
        """The secret of this name. Found out at its first use: NotFoundError, or InvalidError naming keys that it
        lacks.
        """
        secret = Secret()
        secret._name = checked_name(name, "secret")
        secret._environment = environment_name
        secret._required = tuple(required_keys)
        secret._client = client
        return secret

    @property
    def name(self) -> Optional[str]:
        """None for an anonymous one."""
        return self._name

    @dual
    async def info(self, *, refresh: bool = False) -> SecretInfo:
        """What is known of it; never its values."""
        del refresh  # it is always asked for
        if self._name is None:
            raise InvalidError("an anonymous secret has no info: it lives with its app")
        via = self._client or default_client()
        found = await via.call("secret.lookup", self._lookup(), stored.SecretInfo)
        return SecretInfo(
            name=found.name,
            environment_name=found.environment,
            created_at=moment(found.created_at),
            created_by=found.created_by or None,
            last_used=None if found.last_used_at is None else moment(found.last_used_at),
        )

    @dual
    async def update(self, env_dict: Mapping[str, str]) -> None:
        """Set these keys and keep the others. Containers started from now on see them."""
        if self._name is None:
            raise InvalidError("an anonymous secret cannot be updated", hint="make it anew with Secret.from_dict()")
        message = stored.SecretCreate(
            values=_checked(env_dict, "Secret.update"),
            name=self._name,
            environment=environment_or_default(self._environment),
            merge=True,
            overwrite=True,
        )
        await (self._client or default_client()).call("secret.create", message, stored.SecretInfo)

    async def for_app(self, client: Client, app_id: str) -> str:
        """The id to run an app with: a named secret is looked up, an anonymous one is made for this app."""
        if self._values is None:
            return await self._resolve(client)
        message = stored.SecretCreate(values=self._values, app_id=app_id)
        return (await client.call("secret.create", message, stored.SecretInfo)).secret_id

    async def _load(self, client: Client) -> str:
        if self._name is None:
            raise InvalidError("an anonymous secret has no id of its own: it is made with the app that uses it")
        try:
            return (await client.call("secret.lookup", self._lookup(), stored.SecretInfo)).secret_id
        except NotFoundError as error:
            if error.hint is None:
                error.hint = f"alight secret create {self._name} KEY=value"
            raise

    def _lookup(self) -> stored.SecretLookup:
        return stored.SecretLookup(
            name=self._name or "",
            environment=environment_or_default(self._environment),
            required_keys=self._required,
        )

    @staticmethod
    def _of(info: stored.SecretInfo, client: Client) -> Secret:
        secret = Secret()
        secret._name, secret._environment = info.name, info.environment
        secret._object_id, secret._client = info.secret_id, client
        return secret

    def __getstate__(self) -> Dict[str, Any]:
        # Values never leave towards a container by way of a pickle.
        return {**super().__getstate__(), "_values": None if self._values is None else {}}

    def __repr__(self) -> str:
        return f"Secret({self._name!r})" if self._name else "Secret(anonymous)"


def moment(seconds: float) -> datetime:
    """Seconds since 1970 as a time with its zone."""
    return datetime.fromtimestamp(seconds, tz=timezone.utc)


def is_before(created_at: float, limit: Optional[Union[datetime, str]]) -> bool:
    """Whether something was made before ``limit`` (a time, or its ISO text; None: always)."""
    if limit is None:
        return True
    when = datetime.fromisoformat(limit) if isinstance(limit, str) else limit
    return created_at < when.timestamp()


def read_dotenv(path: Path) -> Dict[str, str]:
    """The values of a .env file; what it says of itself and of this process's environment is filled in.

    Raises InvalidError with the number of a line that cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise InvalidError(f"{path} could not be read: {error.strerror}") from None
    from alight.sdk.dotenv import parse_dotenv  # noqa: PLC0415  for those who have such a file

    return parse_dotenv(text, os.environ, str(path))


def _checked(values: Mapping[Any, Any], where: str) -> Dict[str, str]:
    for key, value in values.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidError(f"{where}() takes text keys and values; {key!r} has {type(value).__name__}")
        if not key or "=" in key or "\0" in key or "\0" in value:
            raise InvalidError(f"{key!r} cannot be an environment variable")
        if len(key) > stored.SECRET_KEY_MOST or len(value) > stored.SECRET_VALUE_MOST:
            raise InvalidError(
                f"{where}(): {key[:64]!r} or its value is too long: a key has at most {stored.SECRET_KEY_MOST:,} "
                f"characters, a value {stored.SECRET_VALUE_MOST:,}",
                hint="put a file into the image or a volume",
            )
        try:
            size = len(key.encode()) + len(value.encode())
        except UnicodeEncodeError:
            raise InvalidError(
                f"{where}(): the value of {key[:64]!r} is not text", hint="encode bytes, as base64 for one"
            ) from None
        if size > stored.SECRET_BYTES_MOST:
            raise InvalidError(
                f"{where}(): {key[:64]!r} and its value have {size:,} bytes; {stored.SECRET_BYTES_MOST:,} is the most"
            )
    return dict(values)
