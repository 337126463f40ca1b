"""``alight setup``: connect this machine to a server elsewhere, by a code that both sides show.

The code is mixed from both sides' random numbers and the certificate, so comparing it is what keeps a middleman out.
The token that comes back is written to the profile and never shown.
"""

from __future__ import annotations

import secrets
import socket
import sys
import time
from dataclasses import replace
from typing import Optional

import click

from alight.cli import terminal
from alight.cli.errors import UsageError
from alight.cli.terminal import Style
from alight.sdk import client as sdk_client
from alight.sdk import config
from alight.sdk.client import Client, Target
from alight.sdk.sync import run
from alight.wire import errors
from alight.wire.admission import SetupBegin, SetupBegun, SetupPoll, TokenCreated, setup_code


@click.command(short_help="Connect this machine to a server elsewhere.")
@click.argument("url", required=False)
@click.option("-n", "--name", metavar="PROFILE", help="The profile to write. [default: the server's host name]")
@click.option("--activate/--no-activate", default=True, help="Use this server from now on. [default: yes]")
def setup(url: Optional[str], name: Optional[str], activate: bool) -> None:
    """Connect this machine to a server elsewhere.

    URL is the server's address, for example https://gpu-box:9009. Its owner lets this machine in with
    `alight token approve CODE` there. A machine that runs its own server needs no setup.
    """
    if not url:
        raise UsageError(
            "there is no server to connect to",
            hint="alight setup https://HOST:9009; for a server on this machine nothing is needed",
        )
    target = sdk_client.parse_url(url)
    if not target.host:
        raise errors.InvalidError(f"{url!r} is on this machine, where no setup is needed")
    client = Client(replace(target, fingerprint=target.fingerprint or "any"))
    try:
        token, fingerprint = _ask_in(client)
    finally:
        client.shut()
    profile = name or target.host
    settings = {
        "server_url": f"{'https' if target.tls else 'http'}://{_host(target)}:{target.port}",
        "token_id": token.token_id,
        "token_secret": token.token_secret,
        "fingerprint": _pin(target, token, fingerprint),
    }
    config.store_profile(profile, settings, activate=activate)
    style = Style(colour=terminal.wants_colour(sys.stderr))
    print(f"{style.good('✓')} Connected to {target.host}; profile {profile} in {config.path()}", file=sys.stderr)


def _ask_in(client: Client) -> tuple[TokenCreated, str]:
    """Show the code and wait for the owner. Raises TimeoutError after five minutes."""
    nonce = secrets.token_hex(16)
    begun = run(client.call("setup.begin", SetupBegin(nonce=nonce, hostname=socket.gethostname()), SetupBegun))
    fingerprint = client.fingerprint
    code = setup_code(nonce, begun.nonce, fingerprint)
    style = Style(colour=terminal.wants_colour(sys.stderr))
    print(f"\n    {style.strong(code)}\n", file=sys.stderr)
    print(f"On the server's machine: alight token approve {code}", file=sys.stderr)
    if begun.approve_url:
        print(f"or in a browser: {terminal.clean(begun.approve_url)}", file=sys.stderr)
    print("Waiting for its owner (5 minutes) …", file=sys.stderr, flush=True)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        asked = time.monotonic()
        try:
            poll = SetupPoll(request_id=begun.request_id, nonce=nonce)
            return run(client.call("setup.poll", poll, TokenCreated)), fingerprint
        except errors.ServiceError:  # not yet: it has waited for us, or will not, and then we do
            time.sleep(max(0.0, 1.0 - (time.monotonic() - asked)))
    raise errors.TimeoutError("nobody let this machine in within 5 minutes", hint="run `alight setup` again")


def _pin(target: Target, token: TokenCreated, fingerprint: str) -> Optional[str]:
    """The certificate to insist on; None when the system's authorities vouch for it, so that it may be renewed."""
    if not target.tls:
        return None
    if target.fingerprint:
        return target.fingerprint
    plain = Client(replace(target, fingerprint="", token_id=token.token_id, token_secret=token.token_secret))
    try:
        run(plain.connect())
    except errors.AuthError:  # a certificate that nobody vouches for
        return fingerprint
    finally:
        plain.shut()
    return None


def _host(target: Target) -> str:
    return f"[{target.host}]" if ":" in target.host else target.host
