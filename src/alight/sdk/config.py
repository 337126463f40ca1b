"""Settings: environment over profile over default. Reads and writes ``~/.alight.toml`` and nothing else.

The file holds one table per profile, ``active = true`` in one of them. Inside containers it is ignored: their way to
the server is the node's socket. Nothing here talks to a server.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from alight.wire import ambient
from alight.wire.errors import InvalidError
from alight.wire.ids import check_environment
from alight.wire.record import dataclass, field

Profiles = Dict[str, Dict[str, Any]]

#: Every setting with its default. `ALIGHT_<NAME>` sets it; where scripts set the older `MODAL_<NAME>`, that counts too.
DEFAULTS: Mapping[str, Any] = {
    "server_url": "",
    "token_id": "",
    "token_secret": "",
    "fingerprint": "",
    "environment": "",
    "loglevel": "INFO",
    "traceback": False,
    "force_build": False,
    "ignore_cache": False,
    "build_validation": "error",
    "image_builder_version": "",
    "image_substitutes": "",
    "dev_suffix": "dev",
    "async_warnings": True,
    "engine": "",
    "fake_gpus": "",
}

#: Read from scripts' environments as they were written for the older name. Never the way to a server or its keys.
_OLD_TWINS = frozenset(
    {"environment", "loglevel", "traceback", "force_build", "ignore_cache", "build_validation", "image_builder_version",
     "dev_suffix", "async_warnings"}
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """The settings in force. ``sources`` says where each that is not the default comes from."""

    profile: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def environment(self) -> str:
        return str(self.values["environment"])


def load() -> Config:
    """The settings in force now. Raises InvalidError for a file or a value that cannot be read."""
    profile, table = ("", {}) if in_container() else _active(read_profiles())
    values: Dict[str, Any] = {}
    sources: Dict[str, str] = {}
    for name, default in DEFAULTS.items():
        variable, text = _from_environment(name)
        if text is not None:
            values[name] = _convert(name, text, variable)
            sources[name] = variable
        elif name in table:
            values[name] = _convert(name, table[name], f"the profile {profile!r}")
            sources[name] = f"profile {profile}"
        else:
            values[name] = default
    if values["environment"]:
        check_environment(values["environment"])
    return Config(profile, values, sources)


def in_container() -> bool:
    """Whether this process runs in one of our containers (child processes of a function included)."""
    return ambient.container is not None or os.environ.get("ALIGHT_IS_REMOTE") == "1"


def home() -> Path:
    """The state directory of this machine's server: ALIGHT_HOME, else by who runs this."""
    configured = os.environ.get("ALIGHT_HOME")
    if configured:
        return Path(configured).expanduser().absolute()
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/alight")
    return Path.home() / ".local" / "share" / "alight"


def cache_directory() -> Path:
    """Where a client keeps what it can make again (hashes of files)."""
    if os.environ.get("ALIGHT_HOME") or (hasattr(os, "geteuid") and os.geteuid() == 0):
        return home() / "cache"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "alight"


# the file


def path() -> Path:
    """Where the profiles are."""
    configured = os.environ.get("ALIGHT_CONFIG_PATH")
    return Path(configured).expanduser() if configured else Path.home() / ".alight.toml"


def read_profiles() -> Profiles:
    """Every profile with its settings, as they stand in the file; empty without a file."""
    file = path()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{file} could not be read: {error}") from error
    try:
        tables = _parse(text)
    except ValueError as error:
        raise InvalidError(f"{file} is not valid TOML: {error}", hint="mend the file, or move it away") from error
    return {name: table for name, table in tables.items() if isinstance(table, dict)}


def write_profiles(profiles: Profiles) -> None:
    """Replace the file, at once and readable by its owner alone, since it holds tokens."""
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_symlink():
        file = file.resolve()
    import tempfile  # noqa: PLC0415  a container that only declares pays for none of it

    handle, temporary = tempfile.mkstemp(dir=str(file.parent), prefix=file.name + ".")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(_render(profiles))
        os.chmod(temporary, stat.S_IRUSR | stat.S_IWUSR)
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def store_profile(name: str, settings: Mapping[str, Any], *, activate: bool = True) -> None:
    """Write settings into a profile, keeping its other ones. A setting of None is removed."""
    profiles = read_profiles()
    table = profiles.setdefault(name, {})
    for key, value in settings.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
    if activate:
        for other in profiles.values():
            other.pop("active", None)
        table["active"] = True
    write_profiles(profiles)


def activate_profile(name: str) -> None:
    """Make a profile the active one. Raises InvalidError when there is none of that name."""
    if name not in read_profiles():
        raise InvalidError(f"there is no profile {name!r} in {path()}", hint=f"profiles: {_names(read_profiles())}")
    store_profile(name, {})


def _active(profiles: Profiles) -> Tuple[str, Dict[str, Any]]:
    wanted = os.environ.get("ALIGHT_PROFILE")
    if wanted:
        if wanted not in profiles:
            raise InvalidError(
                f"ALIGHT_PROFILE names the profile {wanted!r}, which is not in {path()}",
                hint=f"profiles: {_names(profiles)}",
            )
        return wanted, profiles[wanted]
    active = [name for name, table in profiles.items() if table.get("active") is True]
    if len(active) > 1:
        raise InvalidError(
            f"{path()} has more than one active profile: {', '.join(sorted(active))}",
            hint="leave `active = true` in one of them",
        )
    if active:
        return active[0], profiles[active[0]]
    return ("default", profiles["default"]) if "default" in profiles else ("", {})


def _names(profiles: Profiles) -> str:
    return ", ".join(sorted(profiles)) or "none yet (`alight setup <url>` makes one)"


def _from_environment(name: str) -> Tuple[str, Optional[str]]:
    variable = f"ALIGHT_{name.upper()}"
    if variable in os.environ:
        return variable, os.environ[variable]
    old = f"MODAL_{name.upper()}"
    if name in _OLD_TWINS and old in os.environ:
        return old, os.environ[old]
    return variable, None


def _convert(name: str, value: Any, where: str) -> Any:
    if not isinstance(DEFAULTS[name], bool):
        return str(value)
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off", ""}:
        return False
    raise InvalidError(f"{name} in {where} is {value!r}, which is neither true nor false")


# TOML: one level of tables is all that we write


def _parse(text: str) -> Dict[str, Any]:
    try:
        import tomllib  # noqa: PLC0415  absent before 3.11
    except ImportError:
        return _parse_flat(text)
    return tomllib.loads(text)


_TABLE = re.compile(r"^\[\s*(?P<name>\"(?:[^\"\\]|\\.)*\"|'[^']*'|[A-Za-z0-9_.-]+)\s*\]$")
_ENTRY = re.compile(r"^(?P<key>\"(?:[^\"\\]|\\.)*\"|'[^']*'|[A-Za-z0-9_-]+)\s*=\s*(?P<value>.+)$")
_VALUE = re.compile(r"^(?P<value>\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^#\"']+?)\s*(?:#.*)?$")


def _parse_flat(text: str) -> Dict[str, Any]:
    """Tables of strings, numbers and booleans: what Python 3.9 and 3.10 can read without help."""
    tables: Dict[str, Any] = {}
    table: Dict[str, Any] = tables
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        head = _TABLE.match(stripped.split(" #")[0].strip())
        if head:
            table = tables.setdefault(_unquote(head["name"]), {})
            continue
        entry = _ENTRY.match(stripped)
        value = _VALUE.match(entry["value"].strip()) if entry else None
        if entry is None or value is None:
            raise ValueError(f"line {number} is neither a [table] nor a plain key = value")
        table[_unquote(entry["key"])] = _literal(value["value"], number)
    return tables


def _literal(text: str, number: int) -> Any:
    if text[:1] in {'"', "'"}:
        return _unquote(text)
    if text in {"true", "false"}:
        return text == "true"
    try:
        return int(text.replace("_", ""))
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"line {number}: {text!r} is not a string, number, true or false") from None


def _unquote(text: str) -> str:
    if text.startswith("'"):
        return text[1:-1]
    return str(json.loads(text)) if text.startswith('"') else text


def _render(profiles: Profiles) -> str:
    lines = []
    for name, table in profiles.items():
        lines.append(f"[{name if re.fullmatch(r'[A-Za-z0-9_-]+', name) else json.dumps(name)}]")
        lines += [f"{key} = {_render_value(value)}" for key, value in table.items()]
        lines.append("")
    return "\n".join(lines)


def _render_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False)
