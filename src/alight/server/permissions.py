"""Who may call which method: the whole table, so that it can be read at once and tested row by row.

A method that is missing here is refused to everybody. What is checked per object (a container's own environment, an
app's owner) is in the routes.
"""

from __future__ import annotations

from alight.server.auth import CONTAINER, NODE, OWNER, STRANGER, USER, Principal
from alight.wire import errors

_PEOPLE = frozenset({OWNER, USER})
_CODE = frozenset({OWNER, USER, CONTAINER})
_BLOBS = frozenset({OWNER, USER, CONTAINER, NODE})
_OWNER = frozenset({OWNER})
_ANYBODY = frozenset({OWNER, USER, STRANGER})

ALLOWED: dict[str, frozenset[str]] = {
    "server.info": _PEOPLE,
    "server.stop": _OWNER,
    "server.backup": _OWNER,
    "app.create": _PEOPLE,
    "app.publish": _PEOPLE,
    "app.watch": _PEOPLE,
    "app.stop": _PEOPLE,
    "app.detach": _PEOPLE,
    "app.list": _PEOPLE,
    "app.stats": _PEOPLE,
    "app.find": _CODE,
    "app.tags": _PEOPLE,
    "deploy.begin": _PEOPLE,
    "deploy.publish": _PEOPLE,
    "deploy.rollback": _PEOPLE,
    "deploy.promote": _PEOPLE,
    "deploy.rollover": _PEOPLE,
    "deploy.history": _PEOPLE,
    "environment.list": _PEOPLE,
    "environment.create": _PEOPLE,
    "environment.delete": _OWNER,
    "schedule.list": _PEOPLE,
    "schedule.run": _PEOPLE,
    "schedule.pause": _PEOPLE,
    "schedule.resume": _PEOPLE,
    "container.list": _PEOPLE,
    "container.show": _PEOPLE,
    "container.stop": _PEOPLE,
    "container.series": _PEOPLE,
    "logs.query": _CODE,
    "function.lookup": _CODE,
    "function.find": _CODE,
    "function.bind": _CODE,
    "function.scale": _CODE,
    "function.stats": _CODE,
    "function.urls": _CODE,
    "web.session_start": _CODE,
    "web.session_end": _CODE,
    "proxy_token.create": _PEOPLE,
    "proxy_token.lend": _PEOPLE,
    "proxy_token.list": _PEOPLE,
    "proxy_token.update": _PEOPLE,
    "proxy_token.delete": _PEOPLE,
    "image.ensure": _PEOPLE,
    "image.work": _OWNER,  # images are everybody's, and so is what prune removes
    "image.get": _PEOPLE,
    "blob.missing": _BLOBS,
    "blob.put": _BLOBS,
    "blob.get": _BLOBS,
    "blob.put_many": _BLOBS,
    "blob.get_many": _BLOBS,
    "blob.place": _BLOBS,
    "call.start": _CODE,
    "call.result": _CODE,
    "call.cancel": _CODE,
    "call.list": _PEOPLE,
    "call.show": _PEOPLE,
    "call.graph": _CODE,
    "volume.ensure": _CODE,
    "volume.list": _CODE,
    "volume.info": _CODE,
    "volume.delete": _CODE,
    "volume.rename": _PEOPLE,
    "volume.files": _CODE,
    "volume.read": _CODE,
    "volume.write": _CODE,
    "volume.upload": _CODE,
    "volume.fetch": _CODE,
    "volume.remove": _CODE,
    "volume.copy": _CODE,
    "volume.history": _PEOPLE,
    "volume.snapshot": _PEOPLE,
    "volume.snapshot_delete": _PEOPLE,
    "volume.diff": _PEOPLE,
    "volume.restore": _PEOPLE,
    "volume.commit": _CODE,
    "volume.reload": _CODE,
    "secret.create": _PEOPLE,
    "secret.lookup": _CODE,
    "secret.list": _PEOPLE,
    "secret.delete": _PEOPLE,
    "secret.rotate": _OWNER,
    "dict.ensure": _CODE,
    "dict.list": _CODE,
    "dict.find": _CODE,
    "dict.delete": _CODE,
    "dict.get": _CODE,
    "dict.contains": _CODE,
    "dict.put": _CODE,
    "dict.pop": _CODE,
    "dict.len": _CODE,
    "dict.clear": _CODE,
    "dict.scan": _CODE,
    "queue.ensure": _CODE,
    "queue.list": _CODE,
    "queue.find": _CODE,
    "queue.delete": _CODE,
    "queue.put": _CODE,
    "queue.get": _CODE,
    "queue.back": _CODE,
    "queue.peek": _CODE,
    "queue.len": _CODE,
    "queue.clear": _CODE,
    "ephemeral.keep": _CODE,
    "ephemeral.drop": _CODE,
    "token.create": _OWNER,
    "token.list": _OWNER,
    "token.delete": _OWNER,
    "setup.begin": _ANYBODY,
    "setup.poll": _ANYBODY,
    "setup.pending": _OWNER,
    "setup.approve": _OWNER,
    "container.exec": _PEOPLE,
    "terminal.attach": _PEOPLE,
    "terminal.open": frozenset({CONTAINER}),
    "dashboard.link": _CODE,
    "function.report": _PEOPLE,
    "function.metrics": _PEOPLE,
    "function.info": _PEOPLE,
    "function.variants": _PEOPLE,
    "app.report": _PEOPLE,
    "node.list": _PEOPLE,
    "gpu.list": _PEOPLE,
    "gpu.restore": _OWNER,
    "function.view": _PEOPLE,
    "function.series": _PEOPLE,
    "call.inputs": _PEOPLE,
    "call.retry": _PEOPLE,
    "audit.list": _PEOPLE,
    "usage.report": _PEOPLE,
    "usage.call": _PEOPLE,
    "usage.app": _PEOPLE,
    "usage.rates": _PEOPLE,
    "budget.set": _PEOPLE,
    "budget.list": _PEOPLE,
    "node.session": frozenset({NODE}),
    "web.enter": frozenset({NODE}),
}


def check(who: Principal, method: str) -> None:
    """Raise UnimplementedError for a method that nobody has, PermissionDeniedError for one that is not theirs."""
    allowed = ALLOWED.get(method)
    if allowed is None:
        raise errors.UnimplementedError(
            f"this server has no {method}", hint="a newer client asks for it: update the server with pip and restart it"
        )
    if who.kind in allowed:
        return
    if who.kind == STRANGER:
        raise errors.AuthError(
            "this server wants a token", hint="`alight setup <url of the server>` gets one from its owner"
        )
    if who.kind == CONTAINER:
        raise errors.PermissionDeniedError(f"code in a container may not use {method}")
    raise errors.PermissionDeniedError(f"only the owner of this server may use {method}")
