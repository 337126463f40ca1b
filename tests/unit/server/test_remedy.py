"""What a start could have done without: only what follows from its numbers, the most seconds first."""

from __future__ import annotations

import pytest

from alight.server.services.container_views import in_order, percentile
from alight.server.services.remedy import Facts, remedies, shown

ONCE = "would run them once for many containers"
NOT_YET = "this start had no template yet; those with snap=True run once for the starts after it"
SAVES = "enable_memory_snapshot=True would save it"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Facts({"exec": 0.06, "import": 0.1}), ()),
        (Facts({}), ()),
        (Facts({"import": 3.2}, imports=[("torch", 3.1), ("numpy", 0.2)]), (f"import torch 3.1 s: {SAVES}",)),
        (Facts({"import": 3.2}), (f"import 3.2 s: {SAVES}",)),
        # The user's own module is what was imported; what it imports is the cause.
        (
            Facts({"import": 3.2}, imports=[("train", 3.2), ("torch", 3.1)], module="train"),
            (f"import torch 3.1 s: {SAVES}",),
        ),
        # Nobody is told to switch on what is on.
        (
            Facts({"import": 3.2}, imports=[("torch", 3.1)], snapshot=True),
            ("import torch 3.1 s: this start had no template yet; starts after it may be forked",),
        ),
        (Facts({"import": 3.2}, snapshot=True, level=2), ()),
        # Nor that a template would help where there is a reason against one.
        (
            Facts({"import": 3.2}, imports=[("torch", 3.1)], refused=["it has an open socket"], snapshot=True),
            ("import torch 3.1 s; the template was refused: it has an open socket",),
        ),
        (
            Facts({"import": 0.01, "exec": 0.1}, refused=["it has an open socket"], snapshot=True),
            ("the template was refused: it has an open socket",),
        ),
        (Facts({"exec": 0.1}, refused=["this machine has no user namespaces"]), ()),
        (Facts({"image": 41.3}, built=True), ("the image was built now: 41 s; the next start finds it",)),
        (Facts({"image": 0.1}, built=True), ()),
        (
            Facts({"wait": 12.0}, waited="waiting for a GPU (A100-40GB): held by train (1)"),
            ("waited 12 s for a GPU (A100-40GB): held by train (1)",),
        ),
        (Facts({"wait": 1.5}), ("waited 1.5 s before a container was started for it",)),
        (Facts({"wait": 0.3}, waited="waiting for memory"), ()),
        (
            Facts({"enter": 2.0}, snapshot=True),
            (f"@enter hooks 2.0 s: {NOT_YET}",),
        ),
        (
            Facts({"enter": 2.0}),
            (f"@enter hooks 2.0 s: enable_memory_snapshot=True with @enter(snap=True) {ONCE}",),
        ),
        (Facts({"network": 0.14}), ("network 0.1 s: block_network=True saves it, if the function needs none",)),
    ],
)
def test_what_is_said(facts, expected):
    assert remedies(facts) == expected


def test_the_most_seconds_come_first():
    said = remedies(Facts({"wait": 2.0, "image": 40.0, "import": 3.0}, built=True))
    assert [one.split()[0] for one in said] == ["the", "import", "waited"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0.4 ms"), (0.04, "40 ms"), (0.099, "99 ms"), (0.1, "0.1 s"), (3.14, "3.1 s"), (41.4, "41 s")],
)
def test_durations(seconds, text):
    assert shown(seconds) == text


def test_percentiles_are_values_that_occurred():
    values = [float(one) for one in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7.0
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2.0


def test_stages_come_as_they_pass():
    assert in_order({"other": 1, "import": 1, "wait": 1, "strange": 1, "exec": 1}) == [
        "wait",
        "exec",
        "import",
        "other",
        "strange",
    ]
