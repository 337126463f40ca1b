"""``alight secret``: values that containers see and nobody else. Values are sent and never read back."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Dict, Optional, Tuple

import click

from alight.cli import options, session, tables, terminal
from alight.cli.errors import UsageError
from alight.wire.errors import AlreadyExistsError, InvalidError
from alight.wire.ids import check_name
from alight.wire.stored import NamedList, SecretCreate, SecretInfo, SecretListed, SecretLookup


@click.group(short_help="Values that only containers see.")
def secret() -> None:
    """Values that only containers see."""


@secret.command("list")
@options.environment
@options.as_json
def list_(environment: Optional[str], as_json: bool) -> None:
    """List secrets by name. Values are never shown."""
    listed = session.ask("secret.list", NamedList(environment=session.environment(environment)), SecretListed)
    rows = [
        (one.name, tables.when(one.created_at), one.created_by, tables.when(one.last_used_at)) for one in listed.secrets
    ]
    tables.show(
        ("Name", "Created at", "Created by", "Last used at"),
        rows,
        as_json=as_json,
        empty="No secrets yet. `alight secret create NAME KEY=VALUE` makes one.",
    )


@secret.command()
@click.argument("name")
@click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    "--from-dotenv", metavar="PATH", type=click.Path(path_type=Path), help="Take the values from a .env file."
)
@click.option(
    "--from-json",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Take the values from a file with one JSON object.",
)
@click.option("-f", "--force", is_flag=True, help="Replace a secret of this name.")
@options.environment
def create(
    name: str,
    pairs: Tuple[str, ...],
    from_dotenv: Optional[Path],
    from_json: Optional[Path],
    force: bool,
    environment: Optional[str],
) -> None:
    """Make a secret of KEY=VALUE pairs, or of a file.

    KEY=- opens an editor for the value, so that it stands in no shell history.
    """
    if sum(bool(source) for source in (pairs, from_dotenv, from_json)) > 1:
        raise UsageError("KEY=VALUE pairs, --from-dotenv and --from-json exclude each other")
    if not pairs and from_dotenv is None and from_json is None:
        raise UsageError(f"the secret {name!r} has no values", hint=f"alight secret create {name} KEY=VALUE")
    check_name(name, "secret")
    if from_dotenv is not None:
        from alight.sdk.secret import parse_dotenv  # noqa: PLC0415  this form only

        values = parse_dotenv(_read(from_dotenv))
    elif from_json is not None:
        values = _parse_json(from_json)
    else:
        values = _parse_pairs(pairs)
    request = SecretCreate(values=values, name=name, environment=session.environment(environment), overwrite=force)
    try:
        session.ask("secret.create", request, SecretInfo)
    except AlreadyExistsError as error:
        error.hint = "--force replaces it"
        raise
    keys = ", ".join(values)
    print(f"Created the secret {name} ({keys}). Use it:\n", file=sys.stderr)
    print(f'    @app.function(secrets=[alight.Secret.from_name("{name}")])', file=sys.stderr)


@secret.command()
@click.argument("name")
@click.option("--allow-missing", is_flag=True, help="Do not mind when there is none of this name.")
@options.yes
@options.environment
def delete(name: str, allow_missing: bool, yes: bool, environment: Optional[str]) -> None:
    """Delete a secret. Containers that run keep what they got."""
    options.confirm(f"Delete the secret {name}?", yes=yes)
    session.tell(
        "secret.delete",
        SecretLookup(name=name, environment=session.environment(environment), allow_missing=allow_missing),
    )


def _parse_pairs(pairs: Tuple[str, ...]) -> Dict[str, str]:
    values: Dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            # the word itself is not repeated: it may be the secret
            raise UsageError("one of the values is not written KEY=VALUE", hint="KEY=- asks for the value in an editor")
        values[key] = _from_editor(key) if value == "-" else value
    return values


def _parse_json(path: Path) -> Dict[str, str]:
    try:
        values = json.loads(_read(path))
    except ValueError as error:
        raise InvalidError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise InvalidError(f"{path} does not hold one JSON object whose values are strings")
    return values


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path} could not be read: {error}") from error


def _from_editor(key: str) -> str:
    """The value as it was typed into $EDITOR, in a file that only its owner can read and that is gone afterwards."""
    if not terminal.is_terminal(sys.stdin):
        return sys.stdin.read().rstrip("\n")
    handle, path = tempfile.mkstemp(prefix=f"alight-{key}-")
    os.close(handle)
    try:
        click.edit(filename=path)
        value = Path(path).read_text(encoding="utf-8").rstrip("\n")
    finally:
        Path(path).unlink()
    if not value:
        raise InvalidError(f"no value was given for {key}")
    return value
