"""The server's word "start", as it is written down for a later agent and as the runtime hears it."""

from __future__ import annotations

import msgspec

from alight.node import gangs
from alight.node.prepare import Prepared
from alight.wire.commands import LinkStart, StartContainer
from alight.wire.record import replace


def encode(start: StartContainer) -> bytes:
    """For the disk: without what nobody else may read."""
    return msgspec.json.encode(replace(start, secrets={}, bucket_secrets={}, function=replace(start.function, env={})))


def remembered(raw: bytes) -> StartContainer | None:
    """The start that an earlier agent wrote down."""
    try:
        return msgspec.json.decode(raw, type=StartContainer)
    except msgspec.MsgspecError:
        return None


def for_runtime(start: StartContainer, prepared: Prepared, template: int = 0) -> LinkStart:
    """What the container is for, with its secrets. Names that we reserve cannot be overridden.

    ``template``: the level of the template that it is, or that it was forked from.
    """
    reserved = dict(prepared.env)
    given = {**start.secrets, **start.function.env}
    env = {name: value for name, value in given.items() if name not in reserved}
    return LinkStart(
        start.container_id,
        start.app_id,
        start.app_name,
        start.environment,
        start.function_id,
        start.image_id,
        replace(prepared.function, env={}),
        {**gangs.environment(start.cluster), **env, **reserved},
        prepared.spool,
        template,
        start.cluster,
    )
