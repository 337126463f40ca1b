"""Records are dataclasses to whoever looks, and have imported nothing until somebody does."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Dict, Optional, Tuple

import msgspec
import pytest

from alight.wire import messages
from alight.wire.record import dataclass, field, replace, shape_of


@dataclass(frozen=True)
class Point:
    """Of two numbers."""

    x: int
    y: int = 2
    tags: Dict[str, str] = field(default_factory=dict)
    next: Optional[Point] = None


@dataclass
class Counter:
    n: int = 0

    def __post_init__(self) -> None:
        self.n += 1


@dataclasses.dataclass(frozen=True)
class Real:
    x: int
    y: int = 2


def test_what_it_holds():
    point = Point(1, next=Point(5))
    assert (point.x, point.y, point.tags) == (1, 2, {})
    assert point == Point(1, 2, {}, Point(5)) != Point(1)
    assert Point(1).tags is not Point(1).tags, "each has a dict of its own"
    assert repr(Point(1)) == "Point(x=1, y=2, tags={}, next=None)"
    assert Point(1) != Real(1)
    assert Counter().n == 1
    with pytest.raises(TypeError):
        Point()
    with pytest.raises(TypeError):
        Point(1, z=1)


def test_frozen_means_frozen():
    point = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 2
    with pytest.raises(AttributeError):
        del point.x
    counter = Counter()
    counter.n = 7
    assert counter.n == 7
    with pytest.raises(TypeError):
        hash(counter)


@dataclass(frozen=True)
class Pair:
    a: str
    b: Tuple[int, ...] = ()


def test_equal_ones_hash_equally_and_copies_are_equal():
    pair = Pair("a", (1, 2))
    assert len({pair, Pair("a", (1, 2)), replace(pair, a="b")}) == 2
    assert copy.deepcopy(pair) == pickle.loads(pickle.dumps(pair)) == pair


def test_dataclasses_take_it_for_one_of_theirs():
    assert dataclasses.is_dataclass(Point)
    assert dataclasses.is_dataclass(Point(1))
    assert [one.name for one in dataclasses.fields(Point)] == ["x", "y", "tags", "next"]
    assert dataclasses.asdict(Point(1, next=Point(3)))["next"] == {"x": 3, "y": 2, "tags": {}, "next": None}
    assert dataclasses.replace(Point(1), y=9) == replace(Point(1), y=9) == Point(1, 9)
    assert shape_of(Real) is None
    assert str(inspect.signature(Real)) == "(x: 'int', y: 'int' = 2) -> None"


def test_msgspec_takes_it_for_one_too():
    point = Point(1, tags={"a": "b"}, next=Point(3))
    assert msgspec.json.decode(msgspec.json.encode(point), type=Point) == point
    assert msgspec.json.decode(b'{"x": 4, "new": 1}', type=Point) == Point(4)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"x": "4"}', type=Point)


def test_mistakes_are_found_where_they_are_made():
    with pytest.raises(TypeError, match="follows"):

        @dataclass
        class Wrong:
            a: int = 1
            b: str

    with pytest.raises(TypeError, match="bases"):

        @dataclass(frozen=True)
        class More(Pair):
            c: int = 0


def test_messages_cost_no_dataclasses_until_somebody_asks():
    script = (
        "import sys; from alight.wire import messages, commands;"
        "messages.Hello(1, 'x'); print('dataclasses' in sys.modules, 'inspect' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(Path(messages.__file__).parents[2])}
    said = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert said.stdout.split() == ["False", "False"]
    assert dataclasses.is_dataclass(messages.Hello)
