"""Amounts of bytes as people type them."""

from __future__ import annotations

import pytest

from alight.cli import sizes


@pytest.mark.parametrize(
    ("text", "count"),
    [("20GB", 20 * 10**9), ("500MiB", 500 << 20), ("1.5t", 15 * 10**11), ("4096", 4096), ("1 Gi", 1 << 30), ("7B", 7)],
)
def test_amounts(text, count):
    assert sizes.parse(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1G", "1X", "1e9", "1,5G", "1iB", "0x10"])
def test_what_is_none(text):
    assert sizes.parse(text) is None
