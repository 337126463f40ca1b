"""Where requests lead is remembered, and found anew when what there is has changed."""

from alight.gateway.table import Names, Table, Target

OLD, NEW = Target("fu-1", "old"), Target("fu-2", "new")
PLACE = ("main", "a b", "f")


def test_paths_lead_to_what_is_published_now():
    table = Table()
    assert table.find("localhost", b"/_/main/a%20b/f/x") is None
    table.fill({}, {PLACE: OLD}, {})
    assert table.find("localhost", b"/_/main/a%20b/f/x") == (OLD, b"/x", b"/_/main/a%20b/f")
    assert table.find("localhost", b"/_/main/a%20b/f") == (OLD, b"/", b"/_/main/a%20b/f")
    table.fill({}, {PLACE: NEW}, {})
    assert table.find("localhost", b"/_/main/a%20b/f/x").target is NEW
    table.fill({}, {}, {})
    assert table.find("localhost", b"/_/main/a%20b/f/x") is None


def test_hosts_lead_to_what_their_names_mean_now():
    table = Table()
    table.fill({"f": OLD}, {PLACE: OLD}, {"f.example.com": NEW})
    path = b"/_/main/a%20b/f"
    assert table.find("f.example.com", path).target is NEW
    assert table.find("box", path) is None
    assert table.find("f.apps.lab", b"/") is None
    table.names = Names(base="apps.lab", hosts=frozenset({"box"}))
    assert table.find("box", path).target is OLD
    assert table.find("f.apps.lab", b"/").target is OLD
    table.names = Names()
    assert table.find("box", path) is None


def test_strange_hosts_and_paths_do_not_pile_up():
    table = Table()
    table.fill({}, {PLACE: OLD}, {})
    for number in range(5000):
        assert table.find(f"h{number}.example.com", b"/") is None
    assert len(table._hosts) < 2000
