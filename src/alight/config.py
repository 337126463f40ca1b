"""The settings in force, as scripts look at them: `alight.config.config["environment"]`.

Read anew at each look, because a script may set the environment variables itself.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, Mapping

from alight.sdk import config as _settings


class Settings(Mapping[str, Any]):
    """A read-only mapping of every setting."""

    def __getitem__(self, name: str) -> Any:
        return _settings.load().values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_settings.DEFAULTS)

    def __len__(self) -> int:
        return len(_settings.DEFAULTS)

    def to_dict(self) -> Dict[str, Any]:
        """All of them, secrets left out."""
        return {name: value for name, value in self.items() if name != "token_secret"}


config = Settings()


def config_profiles() -> list[str]:
    """The names of the profiles in the file."""
    return list(_settings.read_profiles())


def __getattr__(name: str) -> Any:
    if name == "_profile":  # scripts print it
        return _settings.load().profile
    if name == "user_config_path":
        return str(_settings.path())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Settings", "config", "config_profiles"]
