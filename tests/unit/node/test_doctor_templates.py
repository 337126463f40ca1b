"""What `alight doctor` says of templates, from what the node left in run/templates.json."""

from __future__ import annotations

import json

import pytest

from alight.node import doctor

ROW = {"id": "tp-1", "for": "app.f", "level": 2, "ready": True, "memory_bytes": 50 << 20, "forks": 1, "parked": 2}
SAID = {"level": 2, "possible": True, "limit_bytes": 1 << 30, "templates": [ROW, {**ROW, "memory_bytes": 10 << 20}]}


@pytest.mark.parametrize(
    ("said", "level", "words"),
    [
        (SAID, doctor.OK, ["2 with 60 MiB of 1024", "4 forks wait", "app.f with 50 MiB"]),
        ({**SAID, "templates": []}, doctor.OK, ["0 with 0 MiB", "0 forks"]),
        ({**SAID, "level": 0}, doctor.OK, ["ALIGHT_TEMPLATES is off"]),
        ({**SAID, "possible": False}, doctor.WARNING, ["start plainly", "node.log"]),
        (None, doctor.OK, ["no node runs"]),
        ([], doctor.OK, ["no node runs"]),
    ],
)
def test_what_templates_use_is_said(tmp_path, said, level, words):
    (tmp_path / "run").mkdir()
    if said is not None:
        (tmp_path / "run" / "templates.json").write_text(json.dumps(said))
    check = doctor._templates(tmp_path)
    assert check.level == level
    assert all(word in check.sentence for word in words), check.sentence
