"""``alight secret``: values that containers see and nobody else. Values are sent and never read back."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Dict, Optional, Tuple

import click

from alight.cli import options, session, tables, terminal
from alight.cli.errors import UsageError
from alight.wire.errors import AlreadyExistsError, InvalidError, NotFoundError
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
    if any(pair.endswith("=-") for pair in pairs) and not force:
        _check_free(name, environment)  # before somebody types a value for nothing
    if from_dotenv is not None:
        from alight.sdk.secret import read_dotenv  # noqa: PLC0415  this form only

        _check_file(from_dotenv)
        values = read_dotenv(from_dotenv)
    elif from_json is not None:
        values = _parse_json(from_json)
    else:
        values = _parse_pairs(pairs)
    if not values:
        raise InvalidError(f"{from_dotenv or from_json} holds no values", hint="a secret has one KEY=VALUE at least")
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


def _check_free(name: str, environment: Optional[str]) -> None:
    try:
        session.ask("secret.lookup", SecretLookup(name, session.environment(environment)), SecretInfo)
    except NotFoundError:
        return
    raise AlreadyExistsError(f"there is a secret {name!r} already", hint="--force replaces it")


def _parse_pairs(pairs: Tuple[str, ...]) -> Dict[str, str]:
    values: Dict[str, str] = {}
    asked = [pair for pair in pairs if pair.endswith("=-") and pair.count("=") == 1]
    if len(asked) > 1 and not terminal.is_terminal(sys.stdin):
        raise UsageError(
            "one value only can be read from standard input", hint="give the others in a --from-dotenv file"
        )
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            # the word itself is not repeated: it may be the secret
            raise UsageError("one of the values is not written KEY=VALUE", hint="KEY=- asks for the value in an editor")
        if key in values:
            raise UsageError(f"{key} is given twice")
        values[key] = _from_editor(key) if value == "-" else value
    return values


def _parse_json(path: Path) -> Dict[str, str]:
    _check_file(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, OSError) as error:
        raise InvalidError(f"{path} could not be read as UTF-8 text") from error
    except ValueError as error:
        raise InvalidError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise InvalidError(f"{path} does not hold one JSON object", hint='{"KEY": "value"}')
    for key, value in values.items():
        if not isinstance(value, str):
            raise InvalidError(f"{path}: the value of {key!r} is no string", hint="put it in quotes")
    return values


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")


def _from_editor(key: str) -> str:
    """The value as it was typed into $EDITOR, in a directory that only its owner can see and that is gone afterwards,
    with what editors lay beside a file. Without a terminal: all of standard input. The last newline is no part of it.
    """
    if terminal.is_terminal(sys.stdin):
        with tempfile.TemporaryDirectory(prefix="alight-secret-") as folder:
            path = Path(folder) / "value"
            path.touch(mode=0o600)
            click.edit(filename=str(path))
            value = path.read_text(encoding="utf-8")
    else:
        value = sys.stdin.read()
    value = value.removesuffix("\n")
    if not value:
        raise InvalidError(f"no value was given for {key}, and nothing was made")
    return value
