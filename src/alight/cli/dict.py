"""``alight dict``: shared dictionaries, listed and looked into from a terminal."""

from __future__ import annotations

import sys
from typing import Any, List, Optional, Tuple

import click

from alight.cli import options, session, shared_words, tables
from alight.sdk import client as sdk_client
from alight.sdk import large
from alight.sdk.dict import cut, key_bytes
from alight.sdk.shared import ask, new_request
from alight.sdk.sync import run
from alight.wire.calling import Payload
from alight.wire.codec import loads_head
from alight.wire.errors import NotFoundError
from alight.wire.shared import DictKeys, DictPage, DictScan, DictValue


@click.group("dict", short_help="Dictionaries that functions share.")
def dict_() -> None:
    """Dictionaries that functions share."""


@dict_.command("list")
@options.environment
@options.as_json
def list_(environment: Optional[str], as_json: bool) -> None:
    """List dicts."""
    shared_words.show_list("dict", environment, as_json=as_json)


@dict_.command()
@click.argument("name")
@options.environment
def create(name: str, environment: Optional[str]) -> None:
    """Make a dict. Nothing happens when there is one of this name."""
    shared_words.create("dict", name, environment)
    print(f'The dict {name} is there. Use it:\n\n    d = alight.Dict.from_name("{name}")', file=sys.stderr)


@dict_.command()
@click.argument("name")
@options.yes
@options.environment
def clear(name: str, yes: bool, environment: Optional[str]) -> None:
    """Remove everything from a dict."""
    dict_id = shared_words.find("dict", name, environment)
    options.confirm(f"Remove everything from the dict {name}?", yes=yes)
    session.tell("dict.clear", DictKeys(dict_id, new_request("d")))


@dict_.command()
@click.argument("name")
@click.option("--allow-missing", is_flag=True, help="Do not mind when there is none of this name.")
@options.yes
@options.environment
def delete(name: str, allow_missing: bool, yes: bool, environment: Optional[str]) -> None:
    """Delete a dict with everything in it."""
    shared_words.delete("dict", name, environment, allow_missing=allow_missing, yes=yes)


@dict_.command()
@click.argument("name")
@click.argument("key")
@click.option("-r", "--repr", "as_repr", is_flag=True, help="Print the value as Python writes it.")
@options.environment
def get(name: str, key: str, as_repr: bool, environment: Optional[str]) -> None:
    """Print the value of a key that is text."""
    dict_id = shared_words.find("dict", name, environment)
    head, body = run(ask(sdk_client.default_client(), "dict.get", DictKeys(dict_id), key_bytes(key)))
    found = loads_head(DictValue, head)
    if not found.found:
        raise NotFoundError(
            f"the dict {name} has no key {key!r}",
            hint=f"`alight dict items {name} --repr` shows other keys, too",
        )
    shared_words.show(shared_words.value(_bytes(found.large, found.size, body), as_repr=as_repr))


@dict_.command()
@click.argument("name")
@click.argument("n", default=20)
@click.option("-a", "--all", "everything", is_flag=True, help="Show all entries.")
@click.option("-r", "--repr", "as_repr", is_flag=True, help="Show keys and values as Python writes them.")
@options.as_json
@options.environment
def items(name: str, n: int, everything: bool, as_repr: bool, as_json: bool, environment: Optional[str]) -> None:
    """Show N entries of a dict (20 when nothing is said)."""
    dict_id = shared_words.find("dict", name, environment)
    shown = shared_words.json_value if as_json else shared_words.value
    rows: List[Tuple[Any, Any]] = []
    asked = DictScan(dict_id, limit=0 if everything else max(1, n))
    for head, body in session.stream("dict.scan", asked):
        page = loads_head(DictPage, head)
        pieces = cut(page.sizes, body)
        for index in range(len(pieces) // 2):
            data = bytes(pieces[2 * index + 1])
            if page.large and page.large[index]:
                data = _bytes(page.large[index], page.lengths[index], data)
            rows.append((shown(bytes(pieces[2 * index]), as_repr=as_repr), shown(data, as_repr=as_repr)))
    tables.show(("Key", "Value"), rows, as_json=as_json, empty=f"The dict {name} is empty.")


def _bytes(blob: str, size: int, body: bytes) -> bytes:
    """The value's own bytes, or those of its blob."""
    return bytes(run(large.get_blob(sdk_client.default_client(), Payload(blob, size)))) if blob else body
