"""The people and tokens of one server. From Python one manages tokens of web functions; `alight token` has the rest."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Union

from alight.sdk.client import Client, default_client
from alight.sdk.object import Object
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual
from alight.wire import admission, urls
from alight.wire.errors import UnimplementedError

if TYPE_CHECKING:
    from alight.sdk.reports import (
        BillingReportItem,
        MemberTokenInfo,
        ProxyTokenInfo,
        ServiceUserInfo,
        TokenData,
        WorkspaceBillingSummary,
        WorkspaceMemberInfo,
        WorkspaceSettings,
    )

_NO_PEOPLE = "there are no members beside the owner yet"
_NO_SERVICE_USERS = "there are no service users yet; `alight setup` makes tokens"
_NO_SCOPES = "tokens are good in all environments"


class WorkspaceBilling:
    """``workspace.billing``: what was used, at the prices of the server. Nobody is charged."""

    def __init__(self, client: Optional[Client] = None) -> None:
        self._client = client

    @dual
    async def summary(self, cycle: Optional[str] = None) -> WorkspaceBillingSummary:
        """What a month cost: "2026-01", "this month" or "last month"; without one, this month."""
        from alight.sdk import billing  # noqa: PLC0415  few ask
        from alight.sdk.reports import WorkspaceBillingSummary  # noqa: PLC0415  few ask

        start, end, costs = await billing.month(self._client or default_client(), "", cycle)
        total = sum(costs.values(), Decimal(0))
        return WorkspaceBillingSummary(start, end, total, costs, {}, total)

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

        return await billing.report(self._client or default_client(), "", start, end, resolution, tag_names)

    @dual
    async def rates(self) -> Dict[str, Any]:
        """Prices by resource: {"currency": …, "cpu": {"price": …, "unit": "core-hour"}, …}."""
        from alight.sdk import billing  # noqa: PLC0415  few ask

        return await billing.rates(self._client or default_client())


class WorkspaceMembers:
    """``workspace.members``."""

    @dual
    @unimplemented(f"Workspace.members.list would list the members; {_NO_PEOPLE}")
    async def list(self) -> List[WorkspaceMemberInfo]:
        """The members."""


class WorkspaceMemberTokens:
    """``workspace.member_tokens``."""

    @dual
    @unimplemented(f"Workspace.member_tokens.list would list the members' tokens; {_NO_PEOPLE}")
    async def list(self) -> List[MemberTokenInfo]:
        """The members' tokens."""

    @dual
    @unimplemented(f"Workspace.member_tokens.enable would enable tokens; {_NO_PEOPLE}")
    async def enable(self, *token_ids: str) -> None:
        """Enable tokens."""

    @dual
    @unimplemented(f"Workspace.member_tokens.disable would disable tokens; {_NO_PEOPLE}")
    async def disable(self, *token_ids: str) -> None:
        """Disable tokens."""

    @dual
    @unimplemented(f"Workspace.member_tokens.delete would delete a token; {_NO_PEOPLE}")
    async def delete(self, token_id: str, *, allow_missing: bool = False) -> None:
        """Delete a token."""


class WorkspaceProxyTokens:
    """``workspace.proxy_tokens``: what callers of protected web functions show."""

    def __init__(self, client: Optional[Client] = None) -> None:
        self._client = client

    @dual
    async def create(self, name: str = "") -> TokenData:
        """Make a token, which opens the web functions of whoever makes it. Its secret is never shown again."""
        from alight.sdk import reports  # noqa: PLC0415  only who asks for it

        made = await self._there().call("proxy_token.create", urls.ProxyTokenCreate(name), admission.TokenCreated)
        return reports.TokenData(made.token_id, made.token_secret)

    @dual
    async def list(self, environment_name: Optional[str] = None) -> List[ProxyTokenInfo]:
        """Every token that one may see, newest first. They are good in all environments."""
        from alight.sdk import reports  # noqa: PLC0415  only who asks for it
        from alight.sdk.secret import moment  # noqa: PLC0415  only who asks for it

        del environment_name
        listed = await self._there().call("proxy_token.list", {}, urls.ProxyTokenListed)
        return [
            reports.ProxyTokenInfo(one.token_id, moment(one.created_at), False, one.name, one.created_by)
            for one in listed.tokens
        ]

    @dual
    async def update(self, proxy_token_id: str, *, name: str) -> None:
        """Rename a token. Raises NotFoundError."""
        await self._there().do("proxy_token.update", urls.ProxyTokenName(proxy_token_id, name))

    @dual
    @unimplemented(f"Workspace.proxy_tokens.allow would let a token into an environment; {_NO_SCOPES}")
    async def allow(self, proxy_token_id: str, environment_name: str) -> None:
        """Let a token into an environment."""

    @dual
    @unimplemented(f"Workspace.proxy_tokens.revoke would take a token out of an environment; {_NO_SCOPES}")
    async def revoke(self, proxy_token_id: str, environment_name: str) -> None:
        """Take a token out of an environment."""

    @dual
    async def delete(self, proxy_token_id: str) -> None:
        """Delete a token: whoever sends it is refused from then on. Raises NotFoundError."""
        await self._there().do("proxy_token.delete", urls.ProxyTokenName(proxy_token_id))

    def _there(self) -> Client:
        return self._client or default_client()


class WorkspaceServiceUsers:
    """``workspace.service_users``: tokens that belong to no person."""

    @dual
    @unimplemented(f"Workspace.service_users.create would make a service user; {_NO_SERVICE_USERS}")
    async def create(self, name: str, *, expires_in: Union[timedelta, None]) -> TokenData:
        """Make one, with its token."""

    @dual
    @unimplemented(f"Workspace.service_users.list would list the service users; {_NO_SERVICE_USERS}")
    async def list(self) -> List[ServiceUserInfo]:
        """Every one."""

    @dual
    @unimplemented(f"Workspace.service_users.info would describe a service user; {_NO_SERVICE_USERS}")
    async def info(self, name: str) -> ServiceUserInfo:
        """One of them."""

    @dual
    @unimplemented(f"Workspace.service_users.delete would delete a service user; {_NO_SERVICE_USERS}")
    async def delete(self, name: str, *, allow_missing: bool = False) -> None:
        """Delete one."""

    @dual
    @unimplemented(f"Workspace.service_users.set_role would say what a service user may do; {_NO_SERVICE_USERS}")
    async def set_role(self, service_user_name: str, environment_name: str, *, role: Optional[str]) -> None:
        """What it may do in an environment."""


class WorkspaceSettingsManager:
    """``workspace.settings``."""

    @dual
    @unimplemented("Workspace.settings.list would return the workspace's settings; a server's own are in its files")
    async def list(self) -> WorkspaceSettings:
        """The settings."""

    @dual
    @unimplemented("Workspace.settings.set would change a setting of the workspace; a server's own are in its files")
    async def set(self, name: str, value: Any) -> None:
        """Change a setting."""


class Workspace(Object):
    """Everything that one server holds."""

    @staticmethod
    def from_context(*, client: Optional[Client] = None) -> Workspace:
        """The workspace of the server that is configured here."""
        made = Workspace()
        made._client = client
        return made

    @property
    @unimplemented("Workspace.name would be the workspace's name; a server has none yet")
    def name(self) -> str:
        """Its name."""

    @property
    def billing(self) -> WorkspaceBilling:
        """What everything cost."""
        return WorkspaceBilling(self._client)

    @property
    def members(self) -> WorkspaceMembers:
        """People."""
        return WorkspaceMembers()

    @property
    def member_tokens(self) -> WorkspaceMemberTokens:
        """People's tokens."""
        return WorkspaceMemberTokens()

    @property
    def proxy_tokens(self) -> WorkspaceProxyTokens:
        """Tokens for protected web functions."""
        return WorkspaceProxyTokens(self._client)

    @property
    def service_users(self) -> WorkspaceServiceUsers:
        """Tokens that belong to no person."""
        return WorkspaceServiceUsers()

    @property
    def settings(self) -> WorkspaceSettingsManager:
        """Settings."""
        return WorkspaceSettingsManager()

    async def _load(self, client: Client) -> str:
        raise UnimplementedError("a Workspace cannot be looked up: a server is one workspace and has no id yet")
