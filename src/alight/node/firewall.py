"""Our own nft table: what containers may reach, and the way out.

One table per instance, named after it and replaced as a whole, so that there is never half of it. Rules name devices
by prefix. In tables of others we touch nothing but forward chains that would drop our packets whatever we say.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alight.node.engine.base import EngineError

if TYPE_CHECKING:
    from alight.node.network import Names

log = logging.getLogger("alight.node.firewall")

_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_SECONDS = 20


def ruleset(names: Names, subnet: str, gangs: Collection[Sequence[str]] = ()) -> str:
    """The whole table as nft reads it; replaces one of the same name in one step.

    ``gangs``: the network devices of containers that may reach each other, and nobody else's.
    """
    ours = f'"{names.prefix}*"'
    pairs = ", ".join(filter(None, map(_pairs, gangs)))
    elements = f"elements = {{ {pairs} }}" if pairs else ""
    return f"""table inet {names.table} {{}}
delete table inet {names.table}
table inet {names.table} {{
    set together {{
        type ifname . ifname
        {elements}
    }}
    chain origin {{
        type filter hook prerouting priority raw; policy accept;
        iifname {ours} fib saddr . iif oif missing counter drop
    }}
    chain to_host {{
        type filter hook input priority -10; policy accept;
        iifname {ours} ct state established,related accept
        iifname {ours} reject
    }}
    chain through {{
        type filter hook forward priority -10; policy accept;
        iifname {ours} jump out
        oifname {ours} ct state established,related accept
        oifname {ours} drop
    }}
    chain out {{
        ct state established,related accept
        iifname . oifname @together accept
        oifname {ours} reject
        meta nfproto ipv6 reject
        ip daddr 169.254.0.0/16 reject
    }}
    chain way_out {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {subnet} oifname != {ours} masquerade
    }}
}}
"""


def install(names: Names, subnet: str, gangs: Collection[Sequence[str]] = ()) -> None:
    """Put the table in place and see that packets may pass. Idempotent. For ``gangs`` see ``ruleset``.

    Raises:
        EngineError: nft is missing or refuses.
    """
    _nft(["-f", "-"], ruleset(names, subnet, gangs))
    if _IP_FORWARD.read_text(encoding="ascii").strip() != "1":
        _IP_FORWARD.write_text("1", encoding="ascii")
        log.warning("switched net.ipv4.ip_forward on: containers reach the network through this machine")
    _remove_foreign(names)
    for chain in dropping_chains(_chains(), names.table):
        _let_through(names, chain)


def connect(names: Names, devices: Sequence[str]) -> None:
    """Let the containers behind these devices reach each other."""
    if len(devices) > 1:
        _nft(["-f", "-"], f"add element inet {names.table} together {{ {_pairs(devices)} }}\n")


def disconnect(names: Names, devices: Sequence[str]) -> None:
    """Take back what ``connect`` did."""
    if len(devices) > 1:
        # Added first, for all of it: after a reload of the table by others some may be gone, and none may be missing.
        pairs = _pairs(devices)
        table = f"element inet {names.table} together {{ {pairs} }}"
        _nft(["-f", "-"], f"add {table}\ndelete {table}\n")


def holds(names: Names) -> bool:
    """Whether all is as ``install`` left it. A reload of somebody's firewall may flush everything, ours too."""
    try:
        _nft(["list", "table", "inet", names.table])
    except EngineError:
        return False
    return all(
        any(rule.get("comment") == names.table for rule in _objects(["-j", "list", "chain", *_place(chain)], "rule"))
        for chain in dropping_chains(_chains(), names.table)
    )


def remove(names: Names) -> None:
    """Take away all that ``install`` made, but ip_forward, which others may have come to need."""
    if shutil.which("nft") is None:
        return
    _remove_foreign(names)
    _nft(["-f", "-"], f"table inet {names.table} {{}}\ndelete table inet {names.table}\n")


def dropping_chains(listing: list[dict[str, Any]], own_table: str) -> list[dict[str, Any]]:
    """The forward chains of other tables whose policy is to drop: no accept of ours overrides them."""
    return [
        one
        for one in listing
        if one.get("hook") == "forward"
        and one.get("policy") == "drop"
        and one.get("family") in {"ip", "inet"}
        and one.get("table") != own_table
    ]


def _pairs(devices: Sequence[str]) -> str:
    return ", ".join(f'"{one}" . "{other}"' for one in devices for other in devices if one != other)


def _let_through(names: Names, chain: dict[str, Any]) -> None:
    where = _place(chain)
    comment = f'comment "{names.table}"'
    for rule in (f'iifname "{names.prefix}*"', f'oifname "{names.prefix}*" ct state established,related'):
        _nft(["-f", "-"], f"insert rule {' '.join(where)} {rule} accept {comment}\n")
    log.warning("added two marked rules to the forward chain %s, which drops what it does not know", " ".join(where))


def _place(chain: dict[str, Any]) -> list[str]:
    return [str(chain[key]) for key in ("family", "table", "name")]


def _remove_foreign(names: Names) -> None:
    for rule in _objects(["-a", "-j", "list", "ruleset"], "rule"):
        if rule.get("comment") == names.table and rule.get("table") != names.table:
            where = f"{rule['family']} {rule['table']} {rule['chain']}"
            _nft(["-f", "-"], f"delete rule {where} handle {rule['handle']}\n")


def _chains() -> list[dict[str, Any]]:
    return _objects(["-j", "list", "chains"], "chain")


def _objects(arguments: list[str], kind: str) -> list[dict[str, Any]]:
    return [one[kind] for one in json.loads(_nft(arguments)).get("nftables", []) if kind in one]


def _nft(arguments: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(
            ["nft", *arguments], input=text, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise EngineError("nft is not installed", hint="Install the package nftables") from error
    except subprocess.TimeoutExpired as error:
        raise EngineError("nft does not answer", hint="Look for another program that holds the firewall") from error
    if done.returncode:
        raise EngineError(f"nft refused: {done.stderr.strip()}", hint="`alight doctor` says what this kernel lacks")
    return done.stdout
