"""``alight token``: who may use the server. Run where the server runs, or with a token of its owner."""

from __future__ import annotations

import socket
import sys
from typing import Optional

import click

from alight.cli import options, session, tables
from alight.cli.errors import UsageError
from alight.wire.admission import SetupApprove, SetupPending, TokenCreate, TokenCreated, TokenListed
from alight.wire.errors import InvalidError
from alight.wire.urls import ProxyTokenCreate


@click.group(short_help="Who may use the server.")
def token() -> None:
    """Who may use the server."""


@token.command()
@click.option("-n", "--name", help="A name for the token. [default: this machine's]")
@click.option("--node", is_flag=True, help="For a machine that lends itself: `alight node start`.")
@click.option("--call", metavar="APP", help="For programs that call functions of this app over HTTP, and nothing else.")
@click.option("-e", "--env", "environment", metavar="NAME", help="With --call: the app's environment.")
@options.as_json
def new(name: str, node: bool, call: Optional[str], environment: Optional[str], as_json: bool) -> None:
    """Make a token and show it, once, as the settings that another machine needs."""
    if call is not None:
        if node:
            raise UsageError("--node and --call are for two tokens")
        _for_calls(call, name, environment, as_json=as_json)
        return
    made = session.ask("token.create", TokenCreate(name=name or socket.gethostname(), node=node), TokenCreated)
    if as_json:
        tables.show(("Token ID", "Token secret"), [(made.token_id, made.token_secret)], as_json=True)
        return
    print("This is shown once. On the other machine:\n", file=sys.stderr)
    print(f"export ALIGHT_TOKEN_ID={made.token_id}\nexport ALIGHT_TOKEN_SECRET={made.token_secret}")


def _for_calls(app: str, name: Optional[str], environment: Optional[str], *, as_json: bool) -> None:
    asked = ProxyTokenCreate(name or "", f"call:{app}", session.environment(environment))
    made = session.ask("proxy_token.create", asked, TokenCreated)
    if as_json:
        tables.show(("Token ID", "Token secret"), [(made.token_id, made.token_secret)], as_json=True)
        return
    print("This is shown once. `alight workspace proxy-tokens` lists and deletes it.\n", file=sys.stderr)
    print(f"Authorization: Bearer {made.token_id}.{made.token_secret}")
    print(f"\nPOST /v1/apps/{app}/functions/FUNCTION/call on the address of web functions", file=sys.stderr)


@token.command("list")
@options.as_json
def list_(as_json: bool) -> None:
    """List tokens. Secrets are not kept and cannot be shown."""
    listed = session.ask("token.list", {}, TokenListed)
    rows = [
        (one.token_id, one.name, tables.when(one.created_at), tables.when(one.last_used_at)) for one in listed.tokens
    ]
    tables.show(("Token ID", "Name", "Created at", "Last used at"), rows, as_json=as_json, empty="No tokens yet.")


@token.command()
@click.argument("token_id")
@options.yes
def delete(token_id: str, yes: bool) -> None:
    """Delete a token. Whoever uses it is refused from then on."""
    options.confirm(f"Delete the token {token_id}?", yes=yes)
    session.tell("token.delete", TokenCreate(token_id=token_id))


@token.command()
@options.as_json
def pending(as_json: bool) -> None:
    """List machines that ask to be let in (`alight setup`)."""
    waiting = session.ask("setup.pending", {}, SetupPending).requests
    rows = [(one.get("hostname"), one.get("address"), tables.when(one.get("expires_at"))) for one in waiting]
    tables.show(("Host", "Address", "Expires at"), rows, as_json=as_json, empty="Nobody asks to be let in.")


@token.command()
@click.argument("code")
def approve(code: str) -> None:
    """Let in the machine that shows this code."""
    if len(code.strip().replace("-", "")) != 8:
        raise InvalidError(f"{code!r} is no code", hint="it looks like ABCD-EFGH, on the screen of the other machine")
    session.tell("setup.approve", SetupApprove(code=code))
    print("Let in. The other machine has its token now.", file=sys.stderr)
