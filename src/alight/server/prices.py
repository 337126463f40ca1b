"""``prices.toml`` in the state directory: what an hour of everything costs. Reading it is pure but for the file.

Either a rate (a number, or text with a unit: "2.50/h", "0.0007/s") or what is owned: its price, its lifetime and its
watts, from which a rate follows. Whatever is not understood is an error that names the line and what is known.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomllib

from alight.server.costs import MONTH, RENTED, Prices, kind_of
from alight.wire import errors, gpus

log = logging.getLogger(__name__)
FILE = "prices.toml"
_LOOK_EVERY = 1.0
_HOURS_OF_YEAR = 8766.0
_RATES = {"s": 1 / 3600, "second": 1 / 3600, "min": 1 / 60, "h": 1.0, "hr": 1.0, "hour": 1.0, "d": 24.0, "day": 24.0,
          "month": MONTH, "year": _HOURS_OF_YEAR}  # fmt: skip
_TIMES = {"day": 24.0, "days": 24.0, "month": MONTH, "months": MONTH, "year": _HOURS_OF_YEAR, "years": _HOURS_OF_YEAR,
          "y": _HOURS_OF_YEAR}  # fmt: skip
_POWERS = {"W": 1.0, "kW": 1000.0}
_ENERGIES = {"/kWh": 1.0, "/MWh": 0.001}
_STORED = {"/month": 1.0, "/day": MONTH / 24, "/h": MONTH, "/year": MONTH / _HOURS_OF_YEAR}
_TOP = ("currency", "cpu_core_hour", "memory_gib_hour", "storage_gib_month", "kwh", "gpu_hour", "own")
_OWN_GPU = ("price", "lifetime", "watts")
_OWN_MACHINE = ("price", "lifetime", "watts", "cores", "memory_gib")
_NUMBER = re.compile(r"\s*(?P<number>[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(?P<unit>.*?)\s*")

EXAMPLE = """\
# What an hour costs: numbers, or text with a unit ("2.50/h", "0.0007/s"). What is not here keeps its default.
currency = "USD"
cpu_core_hour = 0.05
memory_gib_hour = 0.01
storage_gib_month = 0.20
kwh = 0.30

[gpu_hour]
"A100-40GB" = 2.50
default = 1.00            # of a type that is not named

# What you own instead of rent: price / lifetime, and watts at the price of a kWh.
[own.gpu."RTX-4090"]
price = 1800
lifetime = "4 years"
watts = 350

[own.machine]             # half of it for its cores, half for its memory
price = 6000
lifetime = "5 years"
watts = 200
cores = 32
memory_gib = 128
"""


def load(folder: Path) -> Prices:
    """The prices in force. Raises InvalidError for a file that cannot be read."""
    file = folder / FILE
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Prices()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InvalidError(f"{file} cannot be read: {error}") from error
    return parse(text, str(file))


def parse(text: str, where: str = FILE) -> Prices:
    """Read the file. Raises InvalidError with the line."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise errors.InvalidError(f"{where}: {error}", hint="it is TOML: `alight billing rates --example`") from error
    return _Reader(text, where).prices(found)


class _Reader:
    """One file, for errors that name its lines."""

    def __init__(self, text: str, where: str) -> None:
        self._lines = text.splitlines()
        self._where = where

    def prices(self, found: Mapping[str, Any]) -> Prices:
        self._known(found, _TOP, "")
        kwh = self._value(found, "kwh", _ENERGIES, 0.0, "")
        by_type: dict[str, float] = dict(RENTED)
        rented = self._table(found, "gpu_hour")
        for name in rented:
            _put(by_type, name, self._value(rented, name, None, 0.0, "gpu_hour"))
        default = by_type.pop("default", None)
        own = self._table(found, "own")
        self._known(own, ("gpu", "machine"), "own")
        for name, one in self._table(own, "gpu", "own.").items():
            if not isinstance(one, dict):
                raise self._wrong(name, f"own.gpu.{name} is no table", f'write [own.gpu."{name}"]')
            _put(by_type, name, self._owned(one, f'own.gpu."{name}"', _OWN_GPU, kwh))
        prices = Prices(
            currency=self._currency(found),
            core_hour=self._value(found, "cpu_core_hour", None, Prices.core_hour, ""),
            gib_hour=self._value(found, "memory_gib_hour", None, Prices.gib_hour, ""),
            storage_gib_month=self._value(found, "storage_gib_month", _STORED, Prices.storage_gib_month, ""),
            kwh=kwh,
            gpus=by_type,
            any_gpu=default,
        )
        machine = self._table(own, "machine", "own.")
        if machine:
            whole = self._owned(machine, "own.machine", _OWN_MACHINE, kwh)
            cores = self._value(machine, "cores", {}, 0.0, "own.machine")
            memory = self._value(machine, "memory_gib", {}, 0.0, "own.machine")
            if not cores or not memory:
                what = "its cores and its memory_gib"
                raise self._wrong("[own.machine]", f"own.machine needs {what}", "both above 0")
            prices = dataclasses.replace(prices, core_hour=whole / 2 / cores, gib_hour=whole / 2 / memory)
        return prices

    def _owned(self, one: Mapping[str, Any], place: str, known: tuple[str, ...], kwh: float) -> float:
        """An hour of something that was bought: its share of the price, and its energy.

        Energy that is measured (a GPU's) is priced by the kWh besides; ``watts`` is for what nobody measures.
        """
        self._known(one, known, place)
        price = self._value(one, "price", {}, 0.0, place)
        lifetime = self._value(one, "lifetime", _TIMES, 0.0, place)
        if not lifetime or "price" not in one:
            raise self._wrong(f"[{place}]", f"{place} needs a price and a lifetime", 'lifetime = "4 years"')
        if "watts" in one and not kwh:
            raise self._wrong("watts", f"{place} has watts, and no kwh says what energy costs", "kwh = 0.30 at the top")
        return price / lifetime + self._value(one, "watts", _POWERS, 0.0, place) / 1000 * kwh

    def _currency(self, found: Mapping[str, Any]) -> str:
        value = found.get("currency", Prices.currency)
        if not isinstance(value, str) or not re.fullmatch(r"[A-Z]{3}", value):
            raise self._wrong("currency", f"currency {value!r} is no code of three letters", 'for example "EUR"')
        return value

    def _table(self, found: Mapping[str, Any], name: str, before: str = "") -> Mapping[str, Any]:
        value = found.get(name, {})
        if not isinstance(value, dict):
            raise self._wrong(
                name, f"{before}{name} is no table", f"write [{before}{name}] and what belongs to it below"
            )
        return value

    def _known(self, found: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
        for name in found:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                guess = f"did you mean {near[0]}? " if near else ""
                inside = f" in [{place}]" if place else ""
                raise self._wrong(name, f"there is no {name!r}{inside}", f"{guess}known are {', '.join(known)}")

    def _value(
        self, found: Mapping[str, Any], name: str, units: Mapping[str, float] | None, default: float, place: str
    ) -> float:
        """A number of 0 or more. ``units`` None: of a rate by time, whose plain number is by the hour."""
        if name not in found:
            return default
        value = found[name]
        said = f"{place}.{name}" if place else name
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise self._wrong(name, f"{said} = {value!r} is no number", "for example 2.5")
        if not isinstance(value, str):
            if units is _TIMES:
                raise self._wrong(name, f"{said} = {value} has no unit", f'{_listed(units)}, as in "4 years"')
            number, unit = float(value), ""
        else:
            read = _NUMBER.fullmatch(value)
            if read is None:
                raise self._wrong(name, f"{said} = {value!r} is no number", "for example 2.5")
            number, unit = float(read["number"]), read["unit"]
        if not math.isfinite(number) or number < 0:
            raise self._wrong(name, f"{said} = {value} is not 0 or more", "for example 2.5")
        if not unit:
            return number
        if units is None:
            by = unit.removeprefix("/").strip()
            if unit.startswith("/") and by in _RATES:
                return number / _RATES[by]
            raise self._unit(name, said, unit, [f"/{one}" for one in _RATES])
        if unit in units:
            factor = units[unit]
            return number * factor
        raise self._unit(name, said, unit, units)

    def _unit(self, name: str, said: str, unit: str, known: Any) -> errors.InvalidError:
        what = f"known units are {_listed(known)}" if known else "it has none: write the number alone"
        return self._wrong(name, f"{said} has the unit {unit!r}, which is not one of it", what)

    def _wrong(self, name: str, text: str, hint: str) -> errors.InvalidError:
        return errors.InvalidError(f"{self._where}, line {self._line(name)}: {text}", hint=hint)

    def _line(self, name: str) -> int:
        bare = name.strip("[]")
        for number, line in enumerate(self._lines, 1):
            code = line.strip()
            key = code.partition("=")[0].strip().strip("\"'")
            if key == name or (code.startswith("[") and code.partition("]")[0].strip("[] ").endswith(bare)):
                return number
            if code.startswith("[") and f'"{bare}"' in code:
                return number
        return 1


def _put(prices: dict[str, float], name: str, price: float) -> None:
    """A price in place of what the same type had before, however its name was written there."""
    for same in [known for known in prices if kind_of(known) == kind_of(name)]:
        del prices[same]
    prices[name] = price


def unknown(prices: Prices) -> tuple[str, ...]:
    """Sentences about names that no GPU has as far as Alight knows: a misspelt one would have no effect."""
    said = []
    for name in prices.gpus:
        if not gpus.canonical(name):
            near = " or ".join(gpus.nearest(name))
            said.append(f"{name} is no type of GPU that Alight knows" + (f"; did you mean {near}?" if near else ""))
    return tuple(said)


def _listed(units: Any) -> str:
    return ", ".join(units)


class PriceFile:
    """The file as it is now: looked at again when it has changed. What cannot be read leaves what was in force."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self._folder = folder
        self._prices = Prices()
        self._seen: tuple[int, int] | None = None
        self._looked = -math.inf
        self.problem: errors.InvalidError | None = None

    def __call__(self) -> Prices:
        """The prices in force. Looks at the file once a second at most."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY:
            self._looked = now
            self._look()
        return self._prices

    def checked(self) -> Prices:
        """The same, for who must not be told costs by other prices than the file's. Raises InvalidError."""
        self._looked = -math.inf
        prices = self()
        if self.problem is not None:
            raise self.problem
        return prices

    @property
    def is_there(self) -> bool:
        return self._seen is not None

    def _look(self) -> None:
        try:
            stat = self.file.stat()
            seen: tuple[int, int] | None = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            seen = None
        if seen == self._seen and seen is not None:
            return
        self._seen = seen
        try:
            self._prices, self.problem = load(self._folder), None
        except errors.InvalidError as error:
            if self.problem is None or str(error) != str(self.problem):
                log.error("prices stay as they were: %s", error)
            self.problem = error
