"""Names of GPUs, requests for them, and what was handed out."""

from __future__ import annotations

import pytest

from alight.wire import gpus
from alight.wire.errors import InvalidError


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a100", "A100"),
        ("A100-SXM4-80GB", "A100-80GB"),
        ("a10g", "A10"),
        ("B200+", "B200"),
        ("rtx4090", "RTX-4090"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("4090", "RTX-4090"),
        ("RTX 6000 Ada", "RTX-6000-ADA"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX-6000-ADA"),
        ("RTX_PRO_6000", "RTX-PRO-6000"),
        ("A6000", "RTX-A6000"),
        ("Tesla V100", "V100"),
        ("any", "ANY"),
        ("A9000", ""),
    ],
)
def test_names_as_people_write_them(given, name):
    assert gpus.canonical(given) == name


def test_every_name_of_the_table_is_found_by_itself():
    assert {gpus.canonical(name) for name in gpus.KNOWN} == set(gpus.KNOWN)


@pytest.mark.parametrize(
    ("given", "near"), [("H1000", "H100"), ("RTX409", "RTX-4090"), ("B20", "B200"), ("A100-90GB", "A100-80GB")]
)
def test_typos_have_neighbours(given, near):
    assert near in gpus.nearest(given)


def test_a_machine_s_own_name_is_a_neighbour():
    assert gpus.nearest("MIN-24GB", ["MINE-24GB"])[0] == "MINE-24GB"


@pytest.mark.parametrize("text", ["A100", "H100!:4", "A100:0.5", "ANY:20GB", "L4!:0.25", "T4:512MIB", "A100:12.5GB"])
def test_a_request_is_written_as_it_is_read(text):
    assert str(gpus.read(text)) == text


@pytest.mark.parametrize("text", ["", "!", ":2", "A100:", "A100:0", "A100:9", "A100:x", "A100:.", "A100:1.0", "a;b"])
def test_requests_that_cannot_be(text):
    with pytest.raises(InvalidError):
        gpus.read(text)


def test_a_site_gives_names_of_its_own():
    assert gpus.aliases("small=L4, H100 = RTX 4090,") == {"SMALL": "L4", "H100": "RTX-4090"}
    for wrong in ("small", "=L4", "small=", "small=L4:2", "small=L4!", "a:2=L4"):
        with pytest.raises(InvalidError, match="gives no GPU a name"):
            gpus.aliases(wrong)


@pytest.mark.parametrize("one", [gpus.Grant("GPU-a"), gpus.Grant("GPU-a", 20480), gpus.Grant("MIG-a", 20480, 50)])
def test_what_was_handed_out_is_read_as_it_is_written(one):
    assert gpus.grant(str(one)) == one
