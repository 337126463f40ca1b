"""Environments: names kept apart on one server. Calls name one with `environment_name=`."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence

from alight.sdk import config
from alight.sdk.client import Client, default_client
from alight.sdk.object import Object, classproperty
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual, dual_function
from alight.wire import ambient, deploying, messages
from alight.wire.errors import NotFoundError, UnimplementedError
from alight.wire.ids import check_environment
from alight.wire.states import AppState

DEFAULT_ENVIRONMENT = "main"  # where nothing names one

if TYPE_CHECKING:
    from alight.sdk.reports import AppInfo, BillingReportItem, EnvironmentBillingSummary


class EnvironmentManager:
    """``Environment.objects``."""

    @dual
    async def create(
        self,
        name: str,
        *,
        restricted: bool = False,
        default_role: Optional[str] = None,
        experimental_options: Optional[Dict[str, Any]] = None,
        client: Optional[Client] = None,
    ) -> None:
        """Make an environment. Raises AlreadyExistsError. There are no roles: an environment keeps names apart."""
        del experimental_options
        if restricted or default_role is not None:
            raise UnimplementedError("environments have no roles: restricted= and default_role= cannot be set")
        message = deploying.EnvironmentNamed(check_environment(name))
        await (client or default_client()).do("environment.create", message)

    @dual
    async def list(self, *, client: Optional[Client] = None) -> List[Environment]:
        """Every environment, by name."""
        via = client or default_client()
        listed = await via.call("environment.list", deploying.EnvironmentListed(), deploying.EnvironmentListed)
        return [Environment._of(one.name, via) for one in listed.environments]  # noqa: SLF001  of this file

    @dual
    async def delete(self, name: str, *, client: Optional[Client] = None) -> None:
        """Stop all apps of an environment and forget its names. NotFoundError; ConflictError while it has volumes."""
        message = deploying.EnvironmentNamed(check_environment(name))
        await (client or default_client()).do("environment.delete", message)


class EnvironmentApps:
    """``environment.apps``."""

    def __init__(self, name: str) -> None:
        self._name = name

    @dual
    async def list(self) -> List[AppInfo]:
        """Its apps that run or are deployed, the newest first."""
        from alight.sdk.deploying import info  # noqa: PLC0415  only who asks

        client = default_client()
        asked = messages.AppList(environment=self._name, limit=1_000_000)
        listed = await client.call("app.list", asked, messages.AppListed)
        found: List[AppInfo] = []
        for one in listed.apps:
            if one.state == AppState.STOPPED:
                continue
            try:
                described = await client.call(
                    "app.find", deploying.AppFind(one.app_id, self._name), deploying.AppDescribed
                )
            except NotFoundError:
                continue  # it ended meanwhile
            found.append(info(described))
        return found


class EnvironmentBilling:
    """``environment.billing``: what was used in it, at the prices of the server."""

    def __init__(self, name: str, client: Optional[Client] = None) -> None:
        self._name = name or DEFAULT_ENVIRONMENT
        self._client = client

    @dual
    async def summary(self, cycle: Optional[str] = None) -> EnvironmentBillingSummary:
        """What it cost in a month: "2026-01", "this month" or "last month"; without one, this month."""
        from alight.sdk import billing  # noqa: PLC0415  few ask
        from alight.sdk.reports import EnvironmentBillingSummary  # noqa: PLC0415  few ask

        start, end, costs = await billing.month(self._client or default_client(), self._name, cycle)
        return EnvironmentBillingSummary(start, end, sum(costs.values(), Decimal(0)), costs)

    @dual
    async def report(
        self,
        *,
        start: datetime,
        end: Optional[datetime] = None,
        resolution: str = "d",
        tag_names: Optional[Sequence[str]] = None,
    ) -> List[BillingReportItem]:
        """What it cost, a row for each app and day ("d") or hour ("h"). Times without a zone are UTC."""
        from alight.sdk import billing  # noqa: PLC0415  few ask

        return await billing.report(self._client or default_client(), self._name, start, end, resolution, tag_names)


class EnvironmentRoles:
    """``environment.roles``."""

    @dual
    @unimplemented("Environment.roles.list would list who may do what; there are no roles yet")
    async def list(self, *, exclude_default: bool = False) -> Dict[str, Dict[str, str]]:
        """Who may do what."""

    @dual
    @unimplemented("Environment.roles.update would change who may do what; there are no roles yet")
    async def update(
        self, *, users: Optional[Mapping[str, str]] = None, service_users: Optional[Mapping[str, str]] = None
    ) -> None:
        """Change who may do what."""


class EnvironmentMembers:
    """``environment.members``. Deprecated: ``environment.roles``."""

    @dual
    @unimplemented("Environment.members.list would list who may do what; there are no roles yet")
    async def list(self) -> Dict[str, Dict[str, str]]:
        """Deprecated: ``roles.list``."""

    @dual
    @unimplemented("Environment.members.update would change who may do what; there are no roles yet")
    async def update(
        self, *, users: Optional[Mapping[str, str]] = None, service_users: Optional[Mapping[str, str]] = None
    ) -> None:
        """Deprecated: ``roles.update``."""

    @dual
    @unimplemented("Environment.members.remove would take roles away; there are no roles yet")
    async def remove(
        self, *, users: Optional[Sequence[str]] = None, service_users: Optional[Sequence[str]] = None
    ) -> None:
        """Deprecated: ``roles.update``."""


class Environment(Object):
    """One environment."""

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self._create_if_missing = False

    @classproperty
    def objects(cls) -> EnvironmentManager:  # noqa: N805  of the class
        """Making, listing and deleting environments."""
        return EnvironmentManager()

    @staticmethod
    def from_name(name: str, *, create_if_missing: bool = False, client: Optional[Client] = None) -> Environment:
        """The environment of this name."""
        made = Environment()
        made._name = check_environment(name)
        made._create_if_missing, made._client = create_if_missing, client
        return made

    @staticmethod
    def from_context(*, client: Optional[Client] = None) -> Environment:
        """The environment in force here: a container's own, else the configured one."""
        made = Environment()
        made._name = ambient.container.environment if ambient.container else config.load().environment
        made._client = client
        return made

    @property
    def name(self) -> str:
        """Its name; empty means the server's default."""
        return self._name

    @property
    def apps(self) -> EnvironmentApps:
        """Its apps."""
        return EnvironmentApps(self._name)

    @property
    def billing(self) -> EnvironmentBilling:
        """What it cost."""
        return EnvironmentBilling(self._name, self._client)

    @property
    def roles(self) -> EnvironmentRoles:
        """Who may do what."""
        return EnvironmentRoles()

    @property
    def members(self) -> EnvironmentMembers:
        """Deprecated: ``roles``."""
        return EnvironmentMembers()

    async def _load(self, client: Client) -> str:
        if self._create_if_missing:
            message = deploying.EnvironmentNamed(self._name, allow_existing=True)
            await client.do("environment.create", message)
            return self._name
        names = {one.name for one in await EnvironmentManager().list.aio(client=client)}
        if self._name not in names:
            raise NotFoundError(
                f"there is no environment {self._name!r}", hint=f"there is: {', '.join(sorted(names)) or 'none'}"
            )
        return self._name

    @staticmethod
    def _of(name: str, client: Client) -> Environment:
        made = Environment()
        made._name = made._object_id = name
        made._client = client
        return made


@dual_function
async def create_environment(name: str, client: Optional[Client] = None) -> None:
    """Deprecated: ``Environment.objects.create``."""
    await EnvironmentManager().create.aio(name, client=client)


@dual_function
async def delete_environment(name: str, client: Optional[Client] = None) -> None:
    """Deprecated: ``Environment.objects.delete``."""
    await EnvironmentManager().delete.aio(name, client=client)


@dual_function
async def list_environments(client: Optional[Client] = None) -> List[Any]:
    """Deprecated: ``Environment.objects.list``."""
    found: List[Any] = await EnvironmentManager().list.aio(client=client)
    return found


@dual_function
@unimplemented("update_environment would rename an environment; names cannot be changed yet")
async def update_environment(
    current_name: str,
    *,
    new_name: Optional[str] = None,
    new_web_suffix: Optional[str] = None,
    client: Optional[Client] = None,
) -> None:
    """Rename an environment."""
