"""A manifest from anybody is checked through and through; what it names is found by digest, never by path."""

from __future__ import annotations

import json

import pytest

from alight.builder import portable
from alight.wire.errors import InvalidError

LAYER = {"digest": "a" * 64, "size": 7, "content": "b" * 64, "title": ".pip_install('six')"}
GOOD = {
    "alight_image": 1, "machine": "x86_64", "layers": [LAYER], "env": {"PATH": "/bin"}, "workdir": "/root",
    "shell": ["/bin/sh", "-c"], "entrypoint": [], "cmd": [], "python": "/usr/local/bin/python",
    "python_version": "3.11.2", "uv": True,
}  # fmt: skip


def encoded(**changes) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def test_what_is_written_can_be_read():
    manifest = portable.decode(encoded(), "x86_64")
    assert portable.decode(manifest.encoded(), "x86_64") == manifest
    assert manifest.layers[0].title == ".pip_install('six')"


@pytest.mark.parametrize(
    "changes",
    [
        {"alight_image": 2},
        {"machine": "riscv64"},
        {"layers": []},
        {"layers": [LAYER] * 501},
        {"layers": [{**LAYER, "digest": "../../etc/passwd"}]},
        {"layers": [{**LAYER, "content": "A" * 64}]},
        {"layers": [{**LAYER, "size": -1}]},
        {"layers": [{**LAYER, "size": True}]},
        {"layers": [{**LAYER, "size": 1 << 60}]},
        {"layers": [{**LAYER, "path": "/etc"}]},
        {"layers": ["a"]},
        {"env": {"A=B": "1"}},
        {"env": {"A": 1}},
        {"env": {"A": "\0"}},
        {"workdir": "../x"},
        {"workdir": "/a/../b"},
        {"python": "bin/python"},
        {"python_version": "3.11; rm"},
        {"shell": "sh"},
        {"cmd": [1]},
        {"links": {"/etc/passwd": "x"}},
    ],
)
def test_what_cannot_be_right_is_refused(changes):
    with pytest.raises(InvalidError, match="image"):
        portable.decode(encoded(**changes), "x86_64")


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b"{}", b" " * (portable.MOST_BYTES + 1)])
def test_what_is_no_manifest_is_refused(raw):
    with pytest.raises(InvalidError):
        portable.decode(raw, "x86_64")
