"""Numbers as Prometheus reads them: its text format, with the names that ``docs/metrics.md`` lists. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Labels = Mapping[str, str]
Sample = tuple[Labels, float]

CONTENT_TYPE = "text/plain; version=0.0.4"


class Page:
    """One answer, put together metric by metric."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def gauge(self, name: str, help_: str, samples: Iterable[Sample]) -> None:
        """What goes up and down."""
        self._simple(name, "gauge", help_, samples)

    def counter(self, name: str, help_: str, samples: Iterable[Sample]) -> None:
        """What only grows, until the server starts again. Its name ends in ``_total``."""
        self._simple(name, "counter", help_, samples)

    def histogram(
        self,
        name: str,
        help_: str,
        bounds: Sequence[float],
        samples: Iterable[tuple[Labels, Sequence[int], int, float]],
    ) -> None:
        """Labels, how many are not above each bound, how many in all, and their sum."""
        self._head(name, "histogram", help_)
        for labels, counts, count, total in samples:
            for bound, at_most in zip(bounds, counts, strict=True):
                self._line(f"{name}_bucket", {**labels, "le": _number(bound)}, at_most)
            self._line(f"{name}_bucket", {**labels, "le": "+Inf"}, count)
            self._line(f"{name}_sum", labels, total)
            self._line(f"{name}_count", labels, count)

    def text(self) -> str:
        """All of it."""
        return "\n".join(self._lines) + "\n"

    def _simple(self, name: str, kind: str, help_: str, samples: Iterable[Sample]) -> None:
        self._head(name, kind, help_)
        for labels, value in samples:
            self._line(name, labels, value)

    def _head(self, name: str, kind: str, help_: str) -> None:
        self._lines += [f"# HELP {name} {help_}", f"# TYPE {name} {kind}"]

    def _line(self, name: str, labels: Labels, value: float) -> None:
        words = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        self._lines.append(f"{name}{{{words}}} {_number(value)}" if words else f"{name} {_number(value)}")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1 << 53 else repr(round(float(value), 9))
