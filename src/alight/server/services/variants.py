"""Variants: what becomes of a function with changed options or with the parameters of its class. Pure.

A variant is a function of its own in everything but its code: its own options, its own pool of containers. It is named
after the function and a digest of what makes it different, so that the same wish is the same variant for everybody.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import msgspec

from alight.wire import errors
from alight.wire.codec import to_plain
from alight.wire.record import shape_of
from alight.wire.spec import FunctionSpec

#: Merged field by field: who asks for more memory keeps the GPU that was declared.
MERGED = ("resources", "autoscaling", "env")
#: What a variant may change. Everything else is what the function is: its code, its image, what it may reach.
CHANGEABLE = (*MERGED, "secrets", "volumes", "buckets", "timeout", "startup_timeout", "retries", "hosted_only")


@dataclass(frozen=True)
class Wish:
    """What makes a variant different. ``parameters`` are a constructor's keyword arguments, pickled, in base64.

    ``given`` names them with their types; None when whoever asked did not say.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    parameters: str = ""
    given: dict[str, str] | None = None

    @property
    def is_empty(self) -> bool:
        return not self.changes and not self.parameters

    @property
    def digest(self) -> str:
        """Names the variant among those of its function."""
        plain = json.dumps([self.changes, self.parameters], separators=(",", ":"), sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()[:16]


def wish(changes: dict[str, Any], body: bytes, given: dict[str, str] | None) -> Wish:
    """What a request asks for. Changes that say nothing ({} or None) are left out."""
    said = {name: value for name, value in changes.items() if value is not None and value != {}}
    return Wish(said, base64.b64encode(body).decode("ascii") if body else "", given if body else None)


def merged(first: Wish, then: Wish) -> Wish:
    """A wish upon a variant: later ones win, field by field where fields are merged."""
    changes = dict(first.changes)
    for name, value in then.changes.items():
        old = changes.get(name)
        if name in MERGED and isinstance(old, dict) and isinstance(value, dict):
            value = {**old, **value}  # noqa: PLW2901  the same value with more in it
        changes[name] = value
    if then.parameters:
        return Wish(changes, then.parameters, then.given)
    return Wish(changes, first.parameters, first.given)


def derive(spec: FunctionSpec, asked: Wish) -> FunctionSpec:
    """The variant's spec. Raises InvalidError for what a function cannot have, or a class has no parameter for."""
    _check_parameters(spec, asked)
    plain = to_plain(spec)
    for name, value in asked.changes.items():
        if name not in CHANGEABLE:
            raise errors.InvalidError(
                f"{spec.name}(): {name!r} cannot be changed for a variant",
                hint=f"what can be: {', '.join(CHANGEABLE)}",
            )
        if name in MERGED:
            plain[name] = {**plain.get(name, {}), **_fields(spec, name, value)}
        else:
            plain[name] = value
    plain["parameters"] = asked.parameters or spec.parameters
    try:
        return msgspec.convert(plain, FunctionSpec)
    except msgspec.ValidationError as error:
        raise errors.InvalidError(f"{spec.name}(): these options cannot be: {error}") from error


def _fields(spec: FunctionSpec, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise errors.InvalidError(f"{spec.name}(): {name} is changed field by field, and got {value!r}")
    shape = shape_of(type(getattr(spec, name)))  # None for the environment, which may have any name
    for one in value:
        if shape is not None and one not in shape.names:
            raise errors.InvalidError(
                f"{spec.name}(): there is no {one!r} in {name}", hint=f"there is: {', '.join(shape.names)}"
            )
    return value


def _check_parameters(spec: FunctionSpec, asked: Wish) -> None:
    if not asked.parameters:
        return
    if not spec.class_name:
        raise errors.InvalidError(f"{spec.name}() is a function, and only classes have parameters")
    if asked.given is None:
        return
    known = {one.name: one for one in spec.class_parameters}
    for name, kind in asked.given.items():
        if name not in known:
            names = ", ".join(known)
            raise errors.InvalidError(
                f"{spec.class_name} has no parameter {name!r}",
                hint=f"it has: {names}" if names else "it has none: declare one with alight.parameter()",
            )
        if kind != known[name].type:
            raise errors.InvalidError(f"{spec.class_name}({name}=…) takes {known[name].type}, not {kind}")
    missing = [one.name for one in spec.class_parameters if one.required and one.name not in asked.given]
    if missing:
        words = ", ".join(f"{name}=" for name in missing)
        raise errors.InvalidError(f"{spec.class_name}() was made without {words}", hint="it has no default")
