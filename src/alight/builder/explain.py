"""Why a step is not cached: what differs from an earlier one in its place. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

#: For a step that is as it was, on an image that is not.
ELSEWHERE = "not cached: it was made on other steps or settings before"

_SHOWN = 4


def why(what: Mapping[str, Any], earlier: Iterable[Mapping[str, Any]]) -> str:
    """One line that names what changed against the nearest of ``earlier`` (steps on the same image); "" without any."""
    same = [one for one in earlier if one.get("op") == what.get("op")]
    if not same:
        return ""
    nearest = min(same, key=lambda one: len(_changed(what, one)))
    return "not cached: " + "; ".join(
        _difference(name, nearest.get(name), what.get(name)) for name in _changed(what, nearest)
    )


def _changed(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {*new, *old} if new.get(name) != old.get(name))


def _difference(name: str, old: Any, new: Any) -> str:
    if name == "requirements":
        return _texts(old or [], new or [])
    if name in ("tree", "context"):
        return "the content of its files changed"
    if name == "locked":
        return "its lock changed" if old and new else "it has a lock now" if new else "it has no lock any more"
    if name == "code":
        return "the function's source, its arguments or a global value that it names changed"
    if isinstance(old, list) and isinstance(new, list):
        added = [f"+{one}" for one in new if one not in old]
        gone = [f"-{one}" for one in old if one not in new]
        return f"{name} changed ({_some(added + gone) or 'order'})"
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return f"{name} changed ({_some(_changed(new, old))})"
    return f"{name} was {_short(old)} and is {_short(new)}"


def _texts(old: list[Mapping[str, str]], new: list[Mapping[str, str]]) -> str:
    before = {one["name"]: one["text"] for one in old}
    for one in new:
        if before.get(one["name"]) != one["text"]:
            lines = difflib.unified_diff(
                before.get(one["name"], "").splitlines(), one["text"].splitlines(), n=0, lineterm=""
            )
            changed = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
            return f"{one['name']} changed ({_some(changed)})"
    return "other requirements files"


def _some(words: list[str]) -> str:
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more


def _short(value: Any) -> str:
    text = "not there" if value is None else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
