"""What ``@app.server`` makes of a class: one function "Name.*" without methods, whose port answers requests."""

from __future__ import annotations

from typing import Any, Dict, Mapping

from alight.sdk import methods, options, parameters, shaping
from alight.sdk.cls import check_constructor
from alight.sdk.server import Server
from alight.wire.errors import InvalidError, UnimplementedError
from alight.wire.ids import check_name
from alight.wire.record import replace

_MOST_REQUESTS = 100
_LONGEST = 86_400.0  # a server's requests have no time limit of their own
_LOADING = 600.0  # seconds that import and hooks may take before the port is waited for
_DEFAULT_REGION = "us-east"
#: Options of servers that functions have not, or have under another name.
_OF_SERVERS = frozenset(
    {"target_concurrency", "max_concurrency", "scaleup_window", "startup_timeout", "name", "port", "unauthenticated"}
    | {"h2_enabled", "exit_grace_period", "compute_region", "routing_region"}
)


def made_from(app: Any, thing: Any, given: Mapping[str, Any]) -> Server:
    """The handle of the class, registered with its app. Raises InvalidError and UnimplementedError."""
    shape, raw = shaping.of(thing), shaping.raw_of(thing)
    if not isinstance(raw, type):
        raise TypeError(f"@app.server() is for classes; {raw!r} is none: use @app.function() with @web_server()")
    where = f"the server {raw.__name__}"
    name = check_name(given["name"], "server") if given["name"] is not None else raw.__qualname__
    _check_class(raw, shape, where)
    values = {key: value for key, value in given.items() if key not in _OF_SERVERS}
    values["region"] = given["compute_region"]
    if given["routing_region"] != _DEFAULT_REGION:
        values["routing_region"] = given["routing_region"]
    checked = options.check({**values, "timeout": int(_LONGEST)}, {}, where, shaping.Shape())
    most = _most(given, where)
    scaling = replace(
        checked.autoscaling,
        max_concurrent_inputs=most,
        target_concurrent_inputs=_target(given, most),
        scaleup_window=0.0 if given["scaleup_window"] is None else _seconds(given, "scaleup_window", where),
    )
    if given["target_concurrency"] == 0:  # it is not scaled by what comes
        scaling = replace(scaling, max_containers=max(1, scaling.min_containers))
    patience = _seconds(given, "startup_timeout", where)
    checked = replace(checked, autoscaling=scaling, startup_timeout=_LOADING + patience)
    made = Server()
    said = {**_said(given, patience, where), "sessioned": shape.sessioned}
    made.declare(app, name, raw, app._with_defaults(checked, where), said)  # noqa: SLF001
    app._register(name, app._classes, made)  # noqa: SLF001  of this package
    return made


def _check_class(raw: type, shape: shaping.Shape, where: str) -> None:
    check_constructor(raw, raw.__qualname__)
    others = [word for word in shape.words if word != "sessioned"]
    if others:
        raise InvalidError(
            f"@{others[0]}() cannot be at {where}",
            hint="how many requests at a time is @app.server(max_concurrency=…)",
        )
    found = methods.of_class(raw, raw.__qualname__)
    if found:
        raise InvalidError(f"{where} has the method {next(iter(found))}() to call; a server answers on its port alone")
    if parameters.of_class(raw, raw.__qualname__)[0]:
        raise InvalidError(f"{where} has parameters; a server has none", hint="take them from its environment")
    members = [value for base in raw.__mro__ for value in vars(base).values() if isinstance(value, shaping.Shaped)]
    if not any(value.shape.enter for value in members):
        raise InvalidError(
            f"{where} has no @alight.enter() method that starts its server", hint="start it there, in the background"
        )


def _said(given: Mapping[str, Any], patience: float, where: str) -> Dict[str, Any]:
    """What a decorator of a web function would say (``FunctionSpec.web``)."""
    port = given["port"]
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise InvalidError(f"port={port!r} of {where}: a port is from 1 to 65535")
    if given["h2_enabled"]:
        raise UnimplementedError(f"h2_enabled=True of {where}: requests come as HTTP/1.1 in this version")
    return {
        "kind": "web_server",
        "label": None,
        "custom_domains": [],
        "requires_proxy_auth": not given["unauthenticated"],
        "port": port,
        "startup_timeout": patience,
        "max_concurrency": given["max_concurrency"],
        "exit_grace_period": _seconds(given, "exit_grace_period", where),
    }


def _most(given: Mapping[str, Any], where: str) -> int:
    value = given["max_concurrency"] or given["target_concurrency"] or _MOST_REQUESTS
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 1:
        raise InvalidError(f"max_concurrency={value!r} of {where}: at least 1 request at a time")
    return int(value)


def _target(given: Mapping[str, Any], most: int) -> Any:
    target = given["target_concurrency"]
    return None if not target else max(1, min(int(target), most))


def _seconds(given: Mapping[str, Any], name: str, where: str) -> float:
    value = given[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 3600:
        raise InvalidError(f"{name}={value!r} of {where}: seconds, from 0 to 3600")
    return float(value)
