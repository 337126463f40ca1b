"""Which GPUs a container gets: names, parts, MIG instances, links, and those out of service."""

from __future__ import annotations

from dataclasses import replace

import pytest

from alight.scheduler import events, gpu_room, gpus, place
from alight.scheduler.decisions import Start
from alight.scheduler.state import Gpu, Need
from alight.scheduler.topology import best_linked
from alight.scheduler.why import waiting_of
from alight.wire import errors
from tests.unit.scheduler.world import Pretend

A100 = Gpu("a", "A100-40GB", 40536, "NVIDIA A100-SXM4-40GB")
OTHER = Gpu("b", "A100-40GB", 40536, "NVIDIA A100-SXM4-40GB")
LARGE = Gpu("c", "A100-80GB", 81251, "NVIDIA A100-SXM4-80GB")
L4 = Gpu("l", "L4", 23034, "NVIDIA L4")
SLICE = Gpu("MIG-1", "H100", 40448, "NVIDIA H100 MIG 3g.40gb", slice_of="h", whole=81559)
SMALL = Gpu("MIG-2", "H100", 9984, "NVIDIA H100 MIG 1g.10gb", slice_of="h", whole=81559)


def chosen(text, *free, shared=()):
    return gpus.choose(gpus.parse(text, free), list(free), shared)


def published(world, *functions, memory=10, **options):
    for name, asked in functions:
        need = Need(memory=memory, gpus=(asked,) if isinstance(asked, str) else asked, **options)
        world.happen(events.FunctionPublished(name, "app", name, need))


def arrive(world, call, function):
    made = world.happen(events.InputsArrived(call, function, ((0, 1),)))
    return [one.gpus for one in made if isinstance(one, Start)]


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("a100", ("a",)),
        ("A100-80gb", ("c",)),
        ("NVIDIA L4", ("l",)),
        ("any", ("l",)),
        ("T4", ("l",)),
        ("T4!", ()),
        ("A100:2", ("a", "b")),
        ("any:2", ("a", "b")),
        ("any:3", ()),
        ("rtx 4090", ("l",)),
        ("RTX 6000 Ada", ("c",)),
        ("H100", ("c",)),
        ("H200", ()),
    ],
)
def test_whole_gpus(asked, got):
    assert chosen(asked, L4, A100, OTHER, LARGE) == got


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("A100:0.5", ("a@20268/50",)),
        ("L4:0.25", ("l@5758/25",)),
        ("A100-80GB:0.1", ("c@8125/10",)),
        ("any:0.5", ("l@11517/50",)),
        ("any:20GB", ("l@19073",)),
        ("any:30GB", ("a@28610",)),
        ("A100:70GB", ("c@66757",)),
        ("H100!:0.5", ()),
        ("H100:0.5", ("a@36864/91",)),
        ("any:100GB", ()),
    ],
)
def test_parts_of_gpus(asked, got):
    """What a part of a GPU that is not there stands for: so much memory of another one."""
    assert chosen(asked, L4, A100, LARGE) == got


def test_a_mig_instance_serves_parts_alone_and_the_smallest_that_is_large_enough():
    assert chosen("H100:0.5", SMALL, SLICE) == ("MIG-1",)
    assert chosen("H100:0.1", SLICE, SMALL) == ("MIG-2",)
    assert chosen("any:8GB", SLICE, SMALL, L4) == ("MIG-2",)
    assert chosen("A100!:0.1", SLICE, SMALL) == ()
    assert chosen("H100", SLICE, SMALL) == chosen("any", SLICE) == ()


def test_parts_are_packed_and_whole_gpus_stay_whole():
    world = Pretend()
    world.node(gpus=(A100, OTHER))
    published(world, ("half", "A100:0.5"), ("small", "A100:0.2"), ("whole", "A100"), ("memory", "any:30GB"))
    assert arrive(world, "1", "small") == [("a@8107/20",)]
    assert arrive(world, "2", "half") == [("a@20268/50",)]
    assert arrive(world, "3", "small") == [("a@8107/20",)]
    assert arrive(world, "4", "whole") == [("b",)]
    world.all_ready()
    assert not arrive(world, "5", "half"), "0.9 of one are held, and the other is whole"
    assert not arrive(world, "6", "memory")
    name = next(one for one, start in world.ready.items() if start.gpus == ("b",))
    world.answer_head(name)  # idle, it makes room
    assert name in world.stopping
    assert not world.starting, "it is being killed: nobody gets its GPU"
    world.die(name)
    # The function without a container comes first.
    assert [start.gpus for start in world.starting.values()] == [("b@28610",)]


def test_a_whole_gpu_waits_until_the_last_part_is_given_back():
    world = Pretend()
    world.node(gpus=(A100,))
    published(world, ("part", "A100:0.3"), ("whole", "A100"), single_use=True)
    for call in ("1", "2"):
        arrive(world, call, "part")
    world.all_ready()
    assert not arrive(world, "3", "whole")
    first, second = list(world.ready)
    world.answer_head(first)
    world.die(first)
    assert not world.starting
    world.answer_head(second)
    world.die(second)
    assert [start.gpus for start in world.starting.values()] == [("a",)]


def test_parts_are_adopted_by_a_server_that_starts_again():
    world = Pretend()
    world.node(gpus=(A100,))
    published(world, ("part", "A100:0.6"), ("rest", "A100:0.4"), ("more", "A100:0.5"))
    arrive(world, "1", "part")
    world.all_ready()
    held = [world.held(name) for name in world.ready]
    world.state = type(world.state)(make_id=world.state.make_id)
    published(world, ("part", "A100:0.6"), ("rest", "A100:0.4"), ("more", "A100:0.5"))
    world.node(gpus=(A100,), held=held)
    assert not arrive(world, "2", "more")
    assert arrive(world, "3", "rest") == [("a@16214/40",)]


def test_what_a_container_without_a_function_holds_is_nobody_elses_until_it_is_gone():
    world = Pretend()
    published(world, ("whole", "A100"))
    orphan = events.Held("old", "gone", True, (), 10, ("a",))
    world.happen(events.NodeJoined("n", "host-n", 4, 1000, (A100,), (orphan,)))
    world.memory["n"], world.gpus["n"] = 1000, {"a": A100}
    assert not arrive(world, "1", "whole")
    world.happen(events.ContainerEnded("old"))
    assert [start.gpus for start in world.starting.values()] == [("a",)]


def test_a_gpu_out_of_service_is_given_to_nobody_and_said():
    world = Pretend()
    broken = replace(A100, fault="XID 79: it has fallen off the bus")
    world.node(gpus=(broken,))
    published(world, ("whole", "A100"), ("part", "A100:0.5"))
    assert place.check_possible(world.state, "whole", Need(gpus=("A100",))) == ""
    assert not arrive(world, "1", "whole")
    assert not arrive(world, "2", "part")
    facts = waiting_of(world.state, "1", 0)
    assert facts.why == (
        "waiting for a GPU (A100): NVIDIA A100-SXM4-40GB of host-n is out of service: XID 79: it has fallen off the bus"
    )
    assert facts.starts_when == "a GPU is back in service"
    world.gpus["n"] = {"a": A100}
    world.happen(events.GpusChanged("n", (A100,)))
    assert len(world.starting) == 1


def test_who_holds_a_gpu_that_breaks_keeps_it_and_nobody_gets_it_afterwards():
    world = Pretend()
    world.node(gpus=(A100, L4))
    published(world, ("whole", "A100"))
    arrive(world, "1", "whole")
    world.all_ready()
    world.gpus["n"] = {"a": replace(A100, fault="it is lost"), "l": L4}
    world.happen(events.GpusChanged("n", tuple(world.gpus["n"].values())))
    assert not world.stopping
    world.die(next(iter(world.ready)))
    assert not [start for start in world.starting.values() if "a" in start.gpus]


def test_work_goes_to_a_substitute_while_the_only_one_of_a_type_is_broken():
    world = Pretend()
    world.node(gpus=(replace(L4, fault="it is lost"), A100))
    published(world, ("whole", "L4"))
    assert arrive(world, "1", "whole") == [("a",)]


@pytest.mark.parametrize("asked", ["A100:4", "A100:80GB", "B200:0.9", ("H100!", "B200!"), "any:3", "any:500GB"])
def test_more_than_any_machine_has_is_refused_at_once_with_what_there_is(asked):
    world = Pretend()
    world.node(gpus=(A100, OTHER))
    need = Need(gpus=(asked,) if isinstance(asked, str) else asked)
    with pytest.raises(errors.InvalidError, match=r"2 x NVIDIA A100-SXM4-40GB \(40 GB\), which is not enough"):
        place.check_possible(world.state, "f", need)


def test_a_list_is_tried_in_order():
    world = Pretend()
    world.node(gpus=(A100, L4))
    published(world, ("f", ("H100!", "L4", "A100")))
    assert arrive(world, "1", "f") == [("l",)]
    assert arrive(world, "2", "f") == [("a",)]


def test_a_site_s_names_come_before_all_others():
    world = Pretend()
    world.state.aliases = {"SMALL": "L4", "H100": "A100"}
    world.node(gpus=(A100, L4))
    published(world, ("f", "small"), ("g", "H100!"))
    assert place.check_possible(world.state, "f", Need(gpus=("small:0.5",))) == ""
    assert arrive(world, "1", "f") == [("l",)]
    assert arrive(world, "2", "g") == [("a",)]


def test_typos_get_the_nearest_names():
    with pytest.raises(errors.InvalidError, match="no such GPU") as caught:
        gpus.parse("A10O", [A100])
    assert "did you mean A10 or A100?" in caught.value.hint
    assert "the machines here have A100-40GB" in caught.value.hint
    with pytest.raises(errors.InvalidError):  # one typo in a list is one too many
        place.check_possible(Pretend().state, "f", Need(gpus=("A100", "H10000")))


def test_whoever_is_told_of_a_substitute_hears_that_it_is_a_part():
    world = Pretend()
    world.node(gpus=(A100,))
    said = place.check_possible(world.state, "f", Need(gpus=("H100:0.25",)))
    assert said == "f() asks for H100:0.25 and gets a part of NVIDIA A100-SXM4-40GB (40 GB)"


def test_a_substitute_is_said_where_the_type_is_there_in_pieces_only():
    """A MIG instance of an H100 is not what ``gpu="H100"`` gets."""
    world = Pretend()
    world.node(gpus=(Gpu("m", "H100", 10240, slice_of="h", whole=81920), Gpu("b", "B200", 183359)))
    said = place.check_possible(world.state, "f", Need(gpus=("H100",)))
    assert said.startswith("f() asks for H100 and gets B200 (")
    assert place.check_possible(world.state, "f", Need(gpus=("H100:0.1",))) == ""


def test_of_a_list_the_choice_that_is_taken_is_said():
    world = Pretend()
    world.node(gpus=(A100,))
    said = place.check_possible(world.state, "f", Need(gpus=("H200!", "L4")))
    assert said.startswith("f() asks for L4 and gets NVIDIA A100")
    assert place.check_possible(world.state, "f", Need(gpus=("H200!", "A100"))) == ""


def test_an_unknown_name_is_said_with_the_function_that_has_it():
    world = Pretend()
    world.node(gpus=(A100,))
    with pytest.raises(errors.InvalidError, match=r"^f\(\): gpu='A10O': there is no such GPU"):
        place.check_possible(world.state, "f", Need(gpus=("A10O",)))
    with pytest.raises(errors.InvalidError, match=r"f\(\) asks for 200GB of a GPU"):
        place.check_possible(world.state, "f", Need(gpus=("ANY:200GB",)))


def test_a_cluster_with_too_many_gpus_hears_how_many_containers_would_fit():
    world = Pretend()
    world.node(gpus=(A100, L4))
    with pytest.raises(errors.InvalidError, match="all on one machine") as caught:
        place.check_possible(world.state, "f", Need(gpus=("any",), cluster=3))
    assert "at most size=2" in caught.value.hint


def linked(count, pairs):
    """GPUs g0 … with links between some."""
    links = {f"g{at}": {} for at in range(count)}
    for one, other, worth in pairs:
        links[f"g{one}"][f"g{other}"] = links[f"g{other}"][f"g{one}"] = worth
    return [Gpu(name, "A100-40GB", 40536, links=mine) for name, mine in links.items()]


def test_several_gpus_are_those_with_the_best_links():
    pairs = [(0, 2, 100), (1, 3, 100), (0, 1, 10), (2, 3, 10)]
    four = linked(4, pairs)
    assert [gpu.uuid for gpu in best_linked(four, 2)] == ["g0", "g2"]
    assert [gpu.uuid for gpu in best_linked(four[1:], 2)] == ["g1", "g3"]
    assert chosen("A100:2", *four) == ("g0", "g2")
    assert [gpu.uuid for gpu in best_linked(four, 4)] == ["g0", "g1", "g2", "g3"]
    assert best_linked(four, 5) == ()


def test_of_equal_choices_the_one_that_leaves_others_better_links():
    # A ring of PCIe switches: 0-1 and 2-3 are near, all else is far.
    four = linked(4, [(0, 1, 50), (2, 3, 50), (0, 2, 10), (0, 3, 10), (1, 2, 10), (1, 3, 10)])
    assert [gpu.uuid for gpu in best_linked(four, 2)] == ["g0", "g1"]
    line = linked(4, [(0, 1, 50), (1, 2, 50), (2, 3, 50)])
    assert [gpu.uuid for gpu in best_linked(line, 2)] == ["g0", "g1"], "1 and 2 would leave 0 and 3 without a link"


def test_many_gpus_are_chosen_in_a_moment():
    many = linked(24, [(at, at + 1, 100) for at in range(0, 24, 2)])
    assert len(best_linked(many, 8)) == 8


def test_what_is_free_is_what_containers_do_not_hold():
    class Holder:
        def __init__(self, *gpus):
            self.gpus = gpus

    room = gpu_room.of([A100, OTHER, L4], [Holder("a@100/10"), Holder("a@200"), Holder("b", "gone")])
    assert set(room.free) == {"l"}
    assert (room.shared["a"].memory, room.shared["a"].percent, room.shared["a"].holders) == (300, 10, 2)
    room.give_back(("a@100/10",), {"a": A100})
    room.give_back(("b", "gone", "gone@5"), {"b": OTHER})
    assert set(room.free) == {"l", "b"}
    room.give_back(("a@200",), {"a": A100})
    assert set(room.free) == {"l", "b", "a"}
    assert not room.shared
