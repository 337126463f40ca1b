"""How to tell that a sandbox is ready: a port that answers, or a command that succeeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from alight.wire.errors import InvalidError


@dataclass(frozen=True)
class Probe:
    """Tried every ``interval_ms`` milliseconds until it succeeds. One of the two ways, not both."""

    tcp_port: Optional[int] = None
    exec_argv: Optional[Tuple[str, ...]] = None
    interval_ms: int = 100

    def __post_init__(self) -> None:
        if (self.tcp_port is None) == (self.exec_argv is None):
            raise InvalidError("Probe() takes a port or a command", hint="Probe.with_tcp(8000) or Probe.with_exec(…)")
        if self.tcp_port is not None and not 1 <= self.tcp_port <= 65535:
            raise InvalidError(f"Probe(): a port is from 1 to 65535, not {self.tcp_port}")
        if self.exec_argv is not None and not self.exec_argv:
            raise InvalidError("Probe.with_exec() needs a command")
        if self.interval_ms < 1:
            raise InvalidError(f"Probe(): interval_ms is at least 1, not {self.interval_ms}")

    @classmethod
    def with_tcp(cls, port: int, *, interval_ms: int = 100) -> Probe:
        """Ready when something listens on ``port`` of the sandbox."""
        return cls(tcp_port=port, interval_ms=interval_ms)

    @classmethod
    def with_exec(cls, *argv: str, interval_ms: int = 100) -> Probe:
        """Ready when the command ends with exit code 0."""
        return cls(exec_argv=tuple(argv), interval_ms=interval_ms)
