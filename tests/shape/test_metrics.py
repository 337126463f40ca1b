"""The names that Prometheus reads are the documented ones, and Grafana's file asks for no others."""

from __future__ import annotations

import json
import re

from tests.shape import tree

NAME = re.compile(r"\b(?:alight|process)_[a-z_]+")
PARTS = ("_bucket", "_sum", "_count")


def emitted() -> set[str]:
    text = (tree.PACKAGE / "server" / "measuring.py").read_text()
    return set(re.findall(r'"((?:alight|process)_[a-z_]+)"', text))


def documented() -> set[str]:
    text = (tree.REPOSITORY / "docs" / "metrics.md").read_text()
    return set(re.findall(r"`((?:alight|process)_[a-z_]+)`", text))


def test_every_metric_is_documented_and_no_other():
    assert emitted() == documented()
    assert len(emitted()) > 15


def test_grafana_asks_for_what_there_is():
    dashboard = json.loads((tree.REPOSITORY / "examples" / "grafana" / "alight.json").read_text())
    asked = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            asked |= set(NAME.findall(target["expr"]))
    names = {re.sub(f"({'|'.join(PARTS)})$", "", name) for name in asked}
    assert names
    assert names <= emitted(), names - emitted()
