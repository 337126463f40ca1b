"""How GPUs are named, how a request for them is written, and how what was handed out is.

A request is "TYPE[!]", "TYPE[!]:COUNT", "TYPE[!]:FRACTION" or "TYPE[!]:MEMORY": "A100:2" is two, "A100:0.5" half of
one, "A100:20GB" so much of one's memory. What a container got is the GPU's uuid, and for a share "UUID@MIB" or
"UUID@MIB/PERCENT".
"""

from __future__ import annotations

import re
from typing import Dict, Iterable, List, Optional

from alight.wire.errors import InvalidError
from alight.wire.record import dataclass

ANY = "ANY"
#: GPUs of one container; more are several containers (`@clustered`).
MOST = 8

#: What clouds rent out, in GB as the names say it. NVML reports a little less (ECC, reserved).
CLOUD: Dict[str, int] = {
    "T4": 16, "L4": 24, "A10": 24, "L40S": 48, "A100": 40, "A100-40GB": 40, "A100-80GB": 80, "RTX-PRO-6000": 96,
    "H100": 80, "H200": 141, "B200": 180, "B300": 288,
}  # fmt: skip
#: Other cards of data centres, workstations and desktops. Where a name was sold with several sizes, the smallest.
_OTHERS: Dict[str, int] = {
    "A2": 16, "A16": 16, "A30": 24, "A40": 48, "A800": 80, "H800": 80, "H20": 96, "GH200": 96, "GB200": 186,
    "GB300": 288, "L40": 48, "P4": 8, "P40": 24, "P100": 16, "V100": 16, "V100-32GB": 32,
    "RTX-PRO-5000": 48, "RTX-PRO-4500": 32, "RTX-PRO-4000": 24, "RTX-PRO-2000": 16,
    "RTX-6000-ADA": 48, "RTX-5000-ADA": 32, "RTX-4500-ADA": 24, "RTX-4000-ADA": 20, "RTX-2000-ADA": 16,
    "RTX-A6000": 48, "RTX-A5500": 24, "RTX-A5000": 24, "RTX-A4500": 20, "RTX-A4000": 16, "RTX-A2000": 6,
    "RTX-8000": 48, "RTX-6000": 24, "RTX-5000": 16, "RTX-4000": 8, "TITAN-RTX": 24, "TITAN-V": 12, "TITAN-XP": 12,
    "RTX-5090": 32, "RTX-5090-D": 32, "RTX-5080": 16, "RTX-5070-TI": 16, "RTX-5070": 12, "RTX-5060-TI": 8,
    "RTX-5060": 8, "RTX-5050": 8, "RTX-4090": 24, "RTX-4090-D": 24, "RTX-4080-SUPER": 16, "RTX-4080": 16,
    "RTX-4070-TI-SUPER": 16, "RTX-4070-TI": 12, "RTX-4070-SUPER": 12, "RTX-4070": 12, "RTX-4060-TI": 8,
    "RTX-4060": 8, "RTX-3090-TI": 24, "RTX-3090": 24, "RTX-3080-TI": 12, "RTX-3080": 10, "RTX-3070-TI": 8,
    "RTX-3070": 8, "RTX-3060-TI": 8, "RTX-3060": 8, "RTX-3050": 6, "RTX-2080-TI": 11, "RTX-2080-SUPER": 8,
    "RTX-2080": 8, "RTX-2070-SUPER": 8, "RTX-2070": 8, "RTX-2060": 6, "GTX-1660-TI": 6, "GTX-1660": 6,
    "GTX-1650": 4, "GTX-1080-TI": 11, "GTX-1080": 8, "GTX-1070-TI": 8, "GTX-1070": 8, "GTX-1060": 3,
}  # fmt: skip
KNOWN: Dict[str, int] = {**CLOUD, **_OTHERS}

_SPELLINGS = {
    "A10G": "A10",
    "A100SXM440GB": "A100-40GB",
    "A100SXM480GB": "A100-80GB",
    "A100PCIE40GB": "A100-40GB",
    "A10080GBPCIE": "A100-80GB",
    "B200+": "B200",
    "H10080GB": "H100",
    "H200141GB": "H200",
    "PRO6000": "RTX-PRO-6000",
    "V10016GB": "V100",
    **{f"A{number}": f"RTX-A{number}" for number in (2000, 4000, 4500, 5000, 5500, 6000)},
}
_MAKERS = re.compile(r"\b(NVIDIA|GEFORCE|TESLA|QUADRO|GENERATION)\b")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(GIB|GB|G|MIB|MB|M)")
_SHARE = re.compile(r"(.+)@(\d+)(?:/(\d+))?")
#: MiB. A GB is 10^9 bytes: a card of 24 GB has a little less than 24 GiB.
_UNITS = {"G": 1000**3 / 2**20, "GB": 1000**3 / 2**20, "GIB": 1024.0, "M": 1000**2 / 2**20, "MB": 1000**2 / 2**20,
          "MIB": 1.0}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """One choice of a request. At most one of ``count`` above 1, ``percent`` (of one GPU) and ``memory`` (MiB)."""

    type: str  # upper case, as it was spelled otherwise
    count: int = 1
    exact: bool = False
    percent: int = 0
    memory: int = 0

    @property
    def shares(self) -> bool:
        """Whether a part of one GPU will do."""
        return bool(self.percent or self.memory)

    def __str__(self) -> str:
        name = self.type + ("!" if self.exact else "")
        if self.percent:
            return f"{name}:{self.percent / 100:g}"
        if self.memory:
            size = round(self.memory / _UNITS["GB"], 1)
            return f"{name}:{size:g}GB" if int(size * _UNITS["GB"]) == self.memory else f"{name}:{self.memory}MIB"
        return f"{name}:{self.count}" if self.count > 1 else name


@dataclass(frozen=True)
class Grant:
    """What a container got of one GPU. ``memory`` MiB and ``percent`` of its processors; 0: all there is."""

    uuid: str
    memory: int = 0
    percent: int = 0

    @property
    def is_share(self) -> bool:
        return self.memory > 0

    def __str__(self) -> str:
        if not self.memory:
            return self.uuid
        return f"{self.uuid}@{self.memory}" + (f"/{self.percent}" if self.percent else "")


@dataclass(frozen=True)
class GpuRestore:
    """gpu.restore → {}: somebody has looked at this GPU; it is to be in service again. ``uuid``: it, or how its name
    begins, as lists show it."""

    uuid: str


def grant(text: str) -> Grant:
    """Read what was handed out. Anything that is no share is a whole GPU's uuid."""
    found = _SHARE.fullmatch(text) if "@" in text else None
    if found is None:
        return Grant(text)
    return Grant(found.group(1), int(found.group(2)), int(found.group(3) or 0))


def read(text: str) -> Asked:
    """Read one choice. Raises InvalidError for what cannot be; whether there is such a GPU is the server's to say."""
    name, colon, amount = text.partition(":")
    kind = re.sub(r"[\s_]+", "-", name.strip().upper())
    exact = kind.endswith("!")
    kind = kind.rstrip("!").strip("-")
    if not kind or not re.fullmatch(r"[A-Z0-9+.-]+", kind):
        raise InvalidError(f"gpu={text!r} is not a GPU", hint='write its type and, for several, a count: "A100-80GB:2"')
    if not colon:
        return Asked(kind, exact=exact)
    amount = amount.strip()
    if re.fullmatch(r"[+-]?\d+", amount):
        return Asked(kind, _count(int(amount), text), exact)
    if re.fullmatch(r"[+-]?\d*\.\d*", amount) and any(char.isdigit() for char in amount):
        return Asked(kind, 1, exact, percent=_percent(float(amount), text, kind))
    if _SIZE.fullmatch(amount.upper()):
        return Asked(kind, 1, exact, memory=memory(amount, f"gpu={text!r}"))
    raise InvalidError(
        f"gpu={text!r}: {amount!r} is not a number of GPUs, a part of one, nor an amount of memory",
        hint=f'write for example "{kind}:2", "{kind}:0.5" or "{kind}:10GB"',
    )


def memory(given: object, where: str) -> int:
    """MiB of "20GB", "512MiB" or a number of MiB. Raises InvalidError."""
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return given
    found = _SIZE.fullmatch(given.strip().upper()) if isinstance(given, str) else None
    amount = int(float(found.group(1)) * _UNITS[found.group(2)]) if found is not None else 0
    if amount < 1:
        raise InvalidError(f'{where}: {given!r} is not an amount of memory, as in "20GB"')
    return amount


def canonical(name: str) -> str:
    """The table's name for one that people write: "rtx 4090" and "4090" are "RTX-4090". "" for one not in it."""
    return _BY_KEY.get(key(name), "")


def key(name: str) -> str:
    """What is left of a name when its maker and everything between its letters and digits are dropped."""
    return re.sub(r"[^A-Z0-9+]", "", _MAKERS.sub("", re.sub(r"[-_]+", " ", name.upper())))


def aliases(text: str) -> Dict[str, str]:
    """Names of a site's own, by ``key``: "small=L4, H100=RTX-4090". Raises InvalidError."""
    found: Dict[str, str] = {}
    for one in filter(None, (part.strip() for part in text.split(","))):
        name, _, meant = one.partition("=")
        try:
            asked = read(meant)
        except InvalidError:
            asked = Asked("")
        if not asked.type or asked != Asked(asked.type) or not key(name) or ":" in name or "!" in name:
            raise InvalidError(f"{one!r} gives no GPU a name", hint='write it as "small=L4, large=A100-80GB"')
        found[key(name)] = asked.type
    return found


def nearest(name: str, present: Iterable[str] = ()) -> List[str]:
    """Up to three names that somebody may have meant, those of GPUs that are ``present`` among them."""
    import difflib  # noqa: PLC0415  for mistakes alone

    by_key = {**{key(one): one for one in KNOWN}, **{key(one): one for one in present}}
    return [by_key[one] for one in difflib.get_close_matches(key(name), list(by_key), 3, 0.6)]


def _count(count: int, text: str) -> int:
    if count < 1:
        raise InvalidError(f"gpu={text!r}: the number of GPUs is at least 1", hint="gpu=None is a function without one")
    if count > MOST:
        raise InvalidError(f"gpu={text!r}: a container has at most {MOST} GPUs", hint="ask for fewer")
    return count


def _percent(part: float, text: str, kind: str) -> int:
    percent = round(part * 100)
    if not 0 < part < 1 or abs(part * 100 - percent) > 1e-6:
        what = "in steps of 0.01" if 0 < part < 1 else "between 0.01 and 0.99"
        raise InvalidError(
            f"gpu={text!r}: a part of a GPU is {what}",
            hint=f'write "{kind}:0.5" for a half, "{kind}:2" for two whole ones',
        )
    return percent


def _keys() -> Dict[str, str]:
    found = {**{key(name): name for name in KNOWN}, **_SPELLINGS, ANY: ANY}
    for name in KNOWN:  # the number alone: "4090", "3060 Ti"
        number: Optional[str] = name[4:] if name.startswith(("RTX-", "GTX-")) else None
        if number and number[:4].isdigit() and not number.endswith("ADA"):
            found.setdefault(key(number), name)
    return found


_BY_KEY = _keys()
