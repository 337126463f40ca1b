"""``alight gpu``: the GPUs of all machines, who holds them and how they are."""

from __future__ import annotations

from typing import Optional

import click

from alight.cli import options, session, tables
from alight.wire.gpus import GpuRestore
from alight.wire.measures import GpuShown, GpusListed, NodeList


@click.group(short_help="List GPUs: who holds them, how busy and how warm they are.")
def gpu() -> None:
    """List GPUs: who holds them, how busy and how warm they are."""


@gpu.command("list")
@options.as_json
def list_(as_json: bool) -> None:
    """List the GPUs of all connected machines. What a driver does not say stays empty."""
    found = session.ask("gpu.list", NodeList(), GpusListed).gpus
    if as_json:
        columns = ("Machine", "Index", "Name", "UUID", "Held by", "Function", "Utilization", "Memory used", "Memory",
                   "Temperature", "Power", "Health", "Fake")  # fmt: skip
        rows = [
            (one.machine, one.index, one.name, one.uuid, list(one.holders), one.holder_function, one.utilization,
             one.memory_used, one.memory, one.temperature, one.power, one.health or "well", one.fake)
            for one in found
        ]  # fmt: skip
        tables.show(columns, rows, as_json=True)
        return
    heads = ("Machine", "GPU", "UUID", "Held by", "Busy", "Memory", "Temperature", "Power", "Health")
    shown = [
        (
            one.machine,
            f"{one.index} {one.name}",
            one.uuid,
            _holder(one),
            _or_empty(one.utilization, "{:.0%}"),
            f"{tables.size(one.memory_used) if one.memory_used is not None else '?'} of {tables.size(one.memory)}",
            _or_empty(one.temperature, "{:.0f} °C"),
            _or_empty(one.power, "{:.0f} W"),
            one.health or "well",
        )
        for one in found
    ]
    tables.show(heads, shown, as_json=False, empty="No machine that is connected has a GPU.")


@gpu.command("restore")
@click.argument("uuid")
def restore(uuid: str) -> None:
    """Have a GPU serve again that is out of service. UUID may be its beginning.

    For who has looked at what was wrong with it (`alight doctor` says what). If the driver still reports it, the GPU is
    out of service again within seconds.
    """
    session.tell("gpu.restore", GpuRestore(uuid))
    click.echo(f"{uuid} is to serve again; `alight gpu list` says whether it does")


def _holder(one: GpuShown) -> str:
    if not one.holder:
        return "free"
    more = f" and {len(one.holders) - 1} more" if len(one.holders) > 1 else ""
    return f"{one.holder} ({one.holder_function}){more}" if one.holder_function else one.holder + more


def _or_empty(number: Optional[float], form: str) -> str:
    return "" if number is None else form.format(number)
