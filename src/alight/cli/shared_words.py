"""What ``alight dict`` and ``alight queue`` have in common: finding one, listing them, and values as people read them.

Values are unpickled here, in the process of who looks: that runs their own code, as using them in a script does.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Optional

from alight.cli import options, session, tables, terminal
from alight.sdk import values
from alight.wire.errors import Error, NotFoundError
from alight.wire.ids import check_name
from alight.wire.shared import SharedEnsure, SharedInfo, SharedList, SharedListed, SharedNamed


def show_list(kind: str, environment: Optional[str], *, as_json: bool) -> None:
    """The named ones of an environment."""
    listed = session.ask(f"{kind}.list", SharedList(session.environment(environment)), SharedListed)
    tables.show(
        ("Name", "Created at", "Created by"),
        [(one.name, tables.when(one.created_at), one.created_by) for one in listed.objects],
        as_json=as_json,
        empty=f"No {kind}s yet. `alight {kind} create NAME` makes one.",
    )


def create(kind: str, name: str, environment: Optional[str]) -> None:
    """Make one; nothing happens when it is there."""
    check_name(name, kind)
    session.ask(f"{kind}.ensure", SharedEnsure(name, session.environment(environment), create=True), SharedInfo)


def find(kind: str, name: str, environment: Optional[str]) -> str:
    """Its id. Raises NotFoundError."""
    check_name(name, kind)
    return session.ask(f"{kind}.ensure", SharedEnsure(name, session.environment(environment)), SharedInfo).object_id


def delete(kind: str, name: str, environment: Optional[str], *, allow_missing: bool, yes: bool) -> None:
    """Delete one with all it holds, after asking."""
    check_name(name, kind)
    options.confirm(f"Delete the {kind} {name} with everything in it?", yes=yes)
    asked = SharedNamed(name=name, environment=session.environment(environment), allow_missing=allow_missing)
    try:
        session.tell(f"{kind}.delete", asked)
    except NotFoundError as error:
        error.hint = f"`alight {kind} list` shows what there is; --allow-missing does not mind"
        raise


def value(data: bytes, *, as_repr: bool) -> str:
    """A value as text: text as it is, all else as Python writes it."""
    try:
        found = values.value(data, "it")
    except Error as error:
        return unreadable(error, len(data))
    return found if isinstance(found, str) and not as_repr else _repr(found)


def show(text: str) -> None:
    """Print a value: as it is for programs; without what could move or hide other output on a terminal."""
    print(terminal.clean(text) if terminal.is_terminal(sys.stdout) else text)


def json_value(data: bytes, *, as_repr: bool) -> Any:
    """A value for JSON: as it is where JSON has such values, else as Python writes it."""
    try:
        found = values.value(data, "it")
    except Error as error:
        return unreadable(error, len(data))
    if as_repr:
        return _repr(found)
    try:
        return json.loads(json.dumps(found))
    except Exception:  # noqa: BLE001  whatever JSON refuses, and however it does
        return _repr(found)


def unreadable(error: Error, size: int) -> str:
    """What stands for a value that cannot be read here."""
    return f"<{size} bytes that cannot be unpickled here: {error}>"


def _repr(found: Any) -> str:
    try:
        return repr(found)
    except Exception as error:  # noqa: BLE001  the value's own code
        return f"<{type(found).__name__}, whose repr failed: {type(error).__name__}: {error}>"
