"""``alight workspace proxy-tokens``: what callers of protected web functions show."""

from __future__ import annotations

import sys

import click

from alight.cli import options, session, tables
from alight.wire.admission import TokenCreated
from alight.wire.urls import ProxyTokenCreate, ProxyTokenListed, ProxyTokenName


@click.group(short_help="Tokens for callers of protected web functions.")
def workspace() -> None:
    """Tokens for callers of protected web functions."""


@workspace.group("proxy-tokens")
def proxy_tokens() -> None:
    """Tokens for web functions that are declared with requires_proxy_auth=True.

    A token opens the web functions of whoever made it; one that the server's owner made opens all.
    """


@proxy_tokens.command()
@click.option("-n", "--name", default="", help="A name for the token.")
@options.as_json
def create(name: str, as_json: bool) -> None:
    """Make a token and show it, once."""
    made = session.ask("proxy_token.create", ProxyTokenCreate(name), TokenCreated)
    if as_json:
        tables.show(("Token ID", "Token secret"), [(made.token_id, made.token_secret)], as_json=True)
        return
    print("This is shown once. Callers send both as headers:\n", file=sys.stderr)
    print(f"Modal-Key: {made.token_id}\nModal-Secret: {made.token_secret}")
    print(f"\nor as one: Authorization: Bearer {made.token_id}.{made.token_secret}", file=sys.stderr)


@proxy_tokens.command("list")
@options.as_json
def list_(as_json: bool) -> None:
    """List tokens. Secrets are not kept and cannot be shown."""
    listed = session.ask("proxy_token.list", {}, ProxyTokenListed)
    rows = [
        (
            one.token_id,
            one.name,
            one.scope or "web functions",
            tables.when(one.created_at),
            one.created_by,
            tables.when(one.last_used_at),
        )
        for one in listed.tokens
    ]
    columns = ("Token ID", "Name", "Opens", "Created at", "Created by", "Last used at")
    tables.show(columns, rows, as_json=as_json, empty="No tokens yet.")


@proxy_tokens.command()
@click.argument("token_id")
@options.yes
def delete(token_id: str, yes: bool) -> None:
    """Delete a token. Whoever sends it is refused from then on."""
    options.confirm(f"Delete the token {token_id}?", yes=yes)
    session.tell("proxy_token.delete", ProxyTokenName(token_id))
