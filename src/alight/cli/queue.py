"""``alight queue``: shared queues, listed and looked into from a terminal."""

from __future__ import annotations

import sys
from typing import Any, List, Optional

import click

from alight.cli import options, session, shared_words
from alight.cli.errors import UsageError
from alight.sdk import client as sdk_client
from alight.sdk.dict import cut
from alight.sdk.queue import Queue
from alight.sdk.shared import ask
from alight.sdk.sync import run
from alight.wire.codec import loads_head
from alight.wire.shared import DictCount, QueueItems, QueuePeek, QueueWhich

_partition = click.option(
    "-p", "--partition", metavar="KEY", help="The partition; the default one when it is left out."
)


@click.group(short_help="Queues that functions share.")
def queue() -> None:
    """Queues that functions share."""


@queue.command("list")
@options.environment
@options.as_json
def list_(environment: Optional[str], as_json: bool) -> None:
    """List queues."""
    shared_words.show_list("queue", environment, as_json=as_json)


@queue.command()
@click.argument("name")
@options.environment
def create(name: str, environment: Optional[str]) -> None:
    """Make a queue. Nothing happens when there is one of this name."""
    shared_words.create("queue", name, environment)
    print(f'The queue {name} is there. Use it:\n\n    q = alight.Queue.from_name("{name}")', file=sys.stderr)


@queue.command()
@click.argument("name")
@_partition
@click.option("-a", "--all", "everything", is_flag=True, help="Clear every partition.")
@options.yes
@options.environment
def clear(name: str, partition: Optional[str], everything: bool, yes: bool, environment: Optional[str]) -> None:
    """Remove what is in a partition of a queue, or in all of them."""
    _one_of(partition, everything, "--all")
    which = "every partition" if everything else _named(partition)
    queue_id = shared_words.find("queue", name, environment)
    options.confirm(f"Clear {which} of the queue {name}?", yes=yes)
    session.tell("queue.clear", QueueWhich(queue_id, _key(partition), everything))


@queue.command()
@click.argument("name")
@click.option("--allow-missing", is_flag=True, help="Do not mind when there is none of this name.")
@options.yes
@options.environment
def delete(name: str, allow_missing: bool, yes: bool, environment: Optional[str]) -> None:
    """Delete a queue with everything in it."""
    shared_words.delete("queue", name, environment, allow_missing=allow_missing, yes=yes)


@queue.command()
@click.argument("name")
@click.argument("n", default=1)
@_partition
@click.option("-r", "--repr", "as_repr", is_flag=True, help="Print the values as Python writes them.")
@options.as_json
@options.environment
def peek(name: str, n: int, partition: Optional[str], as_repr: bool, as_json: bool, environment: Optional[str]) -> None:
    """Show the next N values of a queue, and leave them there."""
    queue_id, key = shared_words.find("queue", name, environment), _key(partition)
    found: List[bytes] = []
    after = -1
    while len(found) < n:
        asked = QueuePeek(queue_id, key, after, n - len(found))
        head, body = run(ask(sdk_client.default_client(), "queue.peek", asked))
        page = loads_head(QueueItems, head)
        if not page.sizes:
            break
        found += [bytes(piece) for piece in cut(page.sizes, body)]
        after = page.last
    if as_json:
        import json  # noqa: PLC0415  start-up weight

        rows: List[Any] = [shared_words.json_value(data, as_repr=as_repr) for data in found[:n]]
        print(json.dumps(rows, indent=2))
    elif not found:
        print(f"Nothing is in {_named(partition)} of the queue {name}.", file=sys.stderr)
    else:
        for data in found[:n]:
            shared_words.show(shared_words.value(data, as_repr=as_repr))


@queue.command("len")
@click.argument("name")
@_partition
@click.option("-t", "--total", is_flag=True, help="Count all partitions.")
@options.environment
def len_(name: str, partition: Optional[str], total: bool, environment: Optional[str]) -> None:
    """Print how many values are in a partition of a queue, or in all of them."""
    _one_of(partition, total, "--total")
    queue_id = shared_words.find("queue", name, environment)
    print(session.ask("queue.len", QueueWhich(queue_id, _key(partition), total), DictCount).count)


def _one_of(partition: Optional[str], everything: bool, word: str) -> None:
    if partition is not None and everything:
        raise UsageError(f"--partition names one partition and {word} means every one: give one of them")


def _named(partition: Optional[str]) -> str:
    return f"the partition {partition!r}" if partition else "the default partition"


def _key(partition: Optional[str]) -> str:
    return Queue.validate_partition_key(partition).decode()
