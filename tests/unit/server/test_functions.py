"""Protects variants, scaling by hand and looking up by name: pools that are made once, survive and follow their app."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from alight.scheduler.events import FunctionPublished, FunctionScaled
from alight.server.auth import CONTAINER, OWNER, USER, Principal
from alight.server.events import Inbox
from alight.server.services import variants
from alight.server.services.apps import Apps
from alight.server.services.functions import Functions
from alight.server.services.hub import Hub
from alight.server.services.published import may_use
from alight.server.services.variants import Wish
from alight.store import open_store
from alight.wire import errors
from alight.wire.messages import AppCreate, FunctionScaling
from alight.wire.spec import Autoscaling, FunctionSpec, MethodSpec, ParameterSpec, Resources, RetryPolicy

TRAIN = FunctionSpec(name="train", resources=Resources(cpu=2.0, gpus=("H100",)), secrets=("st-1",))
MODEL = FunctionSpec(
    name="Model.*",
    class_name="Model",
    methods=(MethodSpec("predict"),),
    class_parameters=(ParameterSpec("size", "int"), ParameterSpec("name", "str", required=False)),
)
ME = Principal(OWNER, "owner")


class Place:
    """Functions and apps over a store in a file; ``again`` is a server process that starts after this one."""

    def __init__(self, path, store):
        self.path, self.store, self.inbox = path, store, Inbox()
        self.possible = lambda name, need: ""
        self.functions = Functions(store, self.inbox, lambda name, need: self.possible(name, need))
        self.apps = Apps(store, self.functions, Hub(), self.inbox, 30)

    async def app(self, *specs, who=ME, kind="deployed", environment="main", **fields):
        app_id = (await self.apps.create(AppCreate(kind=kind, **fields), environment, who)).app_id
        return app_id, await self.functions.publish(app_id, environment, who.owner, specs)

    async def again(self):
        place = Place(self.path, self.store)
        await place.apps.load()
        return place


@pytest.fixture
def place(tmp_path):
    """``place(work)`` runs ``work(Place)`` on an event loop of its own."""

    def drive(work):
        async def main():
            store = await open_store(tmp_path / "alight.db")
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(store.close)
                return await work(Place(tmp_path, store))

        return asyncio.run(main())

    return drive


# variants


def test_fields_are_merged_and_lists_replaced():
    asked = Wish({"resources": {"memory": 4096}, "secrets": ["st-2"], "retries": {"max_retries": 2}})
    spec = variants.derive(TRAIN, asked)
    assert spec.resources == Resources(cpu=2.0, memory=4096, gpus=("H100",))
    assert spec.secrets == ("st-2",)
    assert spec.retries == RetryPolicy(max_retries=2)
    assert spec.name == "train"
    declared = FunctionSpec(name="train", env={"A": "1", "B": "2"})
    assert variants.derive(declared, Wish({"env": {"B": "3", "C": "4"}})).env == {"A": "1", "B": "3", "C": "4"}


def test_a_wish_upon_a_variant_is_merged_with_its_own():
    first = Wish({"resources": {"memory": 4096, "cpu": 1.0}, "timeout": 5.0})
    both = variants.merged(first, Wish({"resources": {"cpu": 4.0}}, "params", {"size": "int"}))
    assert both == Wish({"resources": {"memory": 4096, "cpu": 4.0}, "timeout": 5.0}, "params", {"size": "int"})


def test_the_order_of_options_makes_no_other_variant():
    one, other = Wish({"timeout": 5.0, "env": {}}), Wish({"env": {}, "timeout": 5.0})
    assert one.digest == other.digest != Wish({"timeout": 6.0, "env": {}}).digest


@pytest.mark.parametrize(
    ("spec", "asked", "words"),
    [
        (TRAIN, Wish({"image": {}}), "'image' cannot be changed"),
        (TRAIN, Wish({"restrict_access": False}), "'restrict_access' cannot be changed"),
        (TRAIN, Wish({"resources": {"cpus": 2}}), "no 'cpus' in resources"),
        (TRAIN, Wish({"resources": {"cpu": "two"}}), "train(): these options cannot be"),
        (TRAIN, Wish({"env": {"A": 1}}), "train(): these options cannot be"),
        (TRAIN, Wish({"resources": 3}), "resources is changed field by field"),
        (TRAIN, Wish({}, "eA==", {}), "only classes have parameters"),
        (MODEL, Wish({}, "eA==", {"size": "int", "sise": "int"}), "Model has no parameter 'sise'"),
        (MODEL, Wish({}, "eA==", {"size": "str"}), "Model(size=…) takes int, not str"),
        (MODEL, Wish({}, "eA==", {"name": "str"}), "Model() was made without size="),
    ],
)
def test_what_cannot_be_is_said_with_its_name(spec, asked, words):
    with pytest.raises(errors.InvalidError) as raised:
        variants.derive(spec, asked)
    assert words in str(raised.value)


def test_the_same_wish_is_the_same_variant_for_everybody(place):
    async def work(place):
        _, (train,) = await place.app(TRAIN)
        wish = Wish({"resources": {"gpus": ["A100"]}})
        both = await asyncio.gather(*[place.functions.bind(train.function_id, wish) for _ in range(2)])
        assert both[0].function_id == both[1].function_id != train.function_id
        again = await place.again()
        assert (await again.functions.bind(train.function_id, wish)).function_id == both[0].function_id
        # the scheduler of the new process hears of its pool
        published = {one.function_id: one for one in again.inbox.take() if isinstance(one, FunctionPublished)}
        assert published[both[0].function_id].need.gpus == ("A100",)
        assert published[train.function_id].need.gpus == ("H100",)

    place(work)


def test_an_empty_wish_is_the_function_itself(place):
    async def work(place):
        _, (train,) = await place.app(TRAIN)
        assert await place.functions.bind(train.function_id, variants.wish({"env": {}}, b"", {})) == train

    place(work)


def test_binding_a_variant_leads_to_a_variant_of_the_function(place):
    async def work(place):
        _, (model,) = await place.app(MODEL)
        larger = await place.functions.bind(model.function_id, Wish({"resources": {"memory": 512}}))
        pool = await place.functions.bind(larger.function_id, Wish({}, "eA==", {"size": "int"}))
        whole = Wish({"resources": {"memory": 512}}, "eA==", {"size": "int"})
        assert (await place.functions.bind(model.function_id, whole)).function_id == pool.function_id
        spec = place.functions.get(pool.function_id).spec
        assert (spec.resources.memory, spec.parameters) == (512, "eA==")

    place(work)


def test_variants_follow_what_is_published_anew(place):
    async def work(place):
        app_id, (train,) = await place.app(TRAIN)
        variant = await place.functions.bind(train.function_id, Wish({"resources": {"memory": 512}}))
        place.inbox.take()
        changed = FunctionSpec(name="train", source_path="/root/new.py", resources=Resources(cpu=3.0))
        await place.functions.publish(app_id, "main", "owner", (changed,))
        spec = place.functions.get(variant.function_id).spec
        assert (spec.source_path, spec.resources) == ("/root/new.py", Resources(cpu=3.0, memory=512))
        assert {one.function_id for one in place.inbox.take()} == {train.function_id, variant.function_id}
        # and nothing happens when nothing is new
        await place.functions.publish(app_id, "main", "owner", (changed,))
        assert place.inbox.take() == []

    place(work)


def test_a_pool_whose_parameter_is_gone_stays_what_it_was(place):
    async def work(place):
        app_id, (model,) = await place.app(MODEL)
        wish = Wish({}, "eA==", {"size": "int"})
        pool = await place.functions.bind(model.function_id, wish)
        before = place.functions.get(pool.function_id).spec
        bare = FunctionSpec(name="Model.*", class_name="Model", methods=MODEL.methods)
        await place.functions.publish(app_id, "main", "owner", (bare,))
        assert place.functions.get(pool.function_id).spec == before
        with pytest.raises(errors.InvalidError, match="no parameter 'size'"):
            await place.functions.bind(model.function_id, Wish({"timeout": 9.0}, "eA==", {"size": "int"}))

    place(work)


def test_a_variant_that_no_machine_can_run_says_so(place):
    async def work(place):
        def no_gpu(name, need):
            if "B300" in need.gpus:
                raise errors.InvalidError(f"{name}() asks for B300")
            return ""

        place.possible = no_gpu
        _, (train,) = await place.app(TRAIN)
        answer = await place.functions.bind(train.function_id, Wish({"resources": {"gpus": ["B300"]}}))
        assert answer.impossible is not None
        assert answer.impossible["message"] == "train() asks for B300"

    place(work)


def test_variants_go_with_their_app_and_are_not_listed(place):
    async def work(place):
        app_id, (train,) = await place.app(TRAIN, name="trainer")
        variant = await place.functions.bind(train.function_id, Wish({"timeout": 9.0}))
        with pytest.raises(errors.NotFoundError) as raised:
            place.functions.lookup(app_id, "nothing")
        assert raised.value.hint == "it has: train"
        await place.apps.stop(app_id, "")
        with pytest.raises(errors.NotFoundError):
            place.functions.get(variant.function_id)

    place(work)


# scaling by hand


def test_scaling_changes_the_need_in_place_and_survives(place):
    async def work(place):
        _, (train,) = await place.app(TRAIN)
        place.inbox.take()
        scaling = await place.functions.scale(train.function_id, {"min_containers": 2, "scaledown_window": 5})
        assert scaling == FunctionScaling(2, None, 0, 5.0)
        (event,) = place.inbox.take()
        assert isinstance(event, FunctionScaled)
        assert (event.need.min_containers, event.need.scaledown_window) == (2, 5.0)
        again = await place.again()
        assert await again.functions.scale(train.function_id, {}) == scaling
        assert again.inbox.take()[0].need.min_containers == 2
        # None takes back what was set; what was not named stays
        assert await again.functions.scale(train.function_id, {"min_containers": None}) == FunctionScaling(
            0, None, 0, 5.0
        )

    place(work)


def test_publishing_anew_takes_scaling_back(place):
    async def work(place):
        app_id, (train,) = await place.app(TRAIN)
        variant = await place.functions.bind(train.function_id, Wish({"timeout": 9.0}))
        for one in (train, variant):
            await place.functions.scale(one.function_id, {"max_containers": 3})
        place.inbox.take()
        await place.functions.publish(app_id, "main", "owner", (TRAIN,))
        events = place.inbox.take()
        # the code is the same, so containers stay
        assert {(type(one), one.function_id, one.need.max_containers) for one in events} == {
            (FunctionScaled, train.function_id, None),
            (FunctionScaled, variant.function_id, None),
        }
        # and with other code they go, with the same scaling as if nobody had touched it
        await place.functions.scale(train.function_id, {"max_containers": 3})
        place.inbox.take()
        changed = FunctionSpec(name="train", source_path="/root/new.py")
        await place.functions.publish(app_id, "main", "owner", (changed,))
        events = {one.function_id: one for one in place.inbox.take()}
        assert isinstance(events[train.function_id], FunctionPublished)
        assert events[train.function_id].need.max_containers is None
        assert (await place.functions.scale(train.function_id, {})).max_containers is None

    place(work)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_containers": 0}, "max_containers=0 is too small: it is at least 1"),
        ({"min_containers": 5, "max_containers": 2}, "it is at least min_containers=5"),
        ({"min_containers": -1}, "min_containers=-1 is not a number of containers"),
        ({"min_containers": 1.5}, "min_containers=1.5 is not a number of containers"),
        ({"scaledown_window": float("inf")}, "scaledown_window=inf is not seconds"),
        ({"gpu": 1}, "'gpu' is not a setting of the autoscaler"),
    ],
)
def test_scaling_that_cannot_be(place, changes, words):
    async def work(place):
        _, (train,) = await place.app(TRAIN)
        before = await place.functions.scale(train.function_id, {})
        with pytest.raises(errors.InvalidError) as raised:
            await place.functions.scale(train.function_id, changes)
        assert words in str(raised.value)
        assert await place.functions.scale(train.function_id, {}) == before

    place(work)


def test_the_scheduler_hears_what_scaling_aims_at(place):
    async def work(place):
        scaling = Autoscaling(max_concurrent_inputs=20, target_concurrent_inputs=8, batch_size=4)
        await place.app(FunctionSpec(name="f", autoscaling=scaling))
        need = place.inbox.take()[0].need
        assert (need.max_concurrent, need.target_concurrent, need.batch_size) == (20, 8, 4)

    place(work)


# by name


def test_deployed_apps_are_found_before_others_and_new_before_old(place):
    async def work(place):
        names = {"name": "trainer"}
        deployed, _ = await place.app(TRAIN, **names)
        await place.app(TRAIN, kind="detached", **names)
        newer, _ = await place.app(MODEL, kind="detached", **names)
        apps = [app.app_id for app in place.apps.named("trainer", "main", ME)]
        assert apps[:2] == [deployed, newer]
        assert place.functions.find(apps, "trainer", "train").app_id == deployed
        # another one answers for what the deployed one lacks
        info = place.functions.find(apps, "trainer", "Model.*")
        assert (info.app_id, info.class_name, info.methods) == (newer, "Model", MODEL.methods)
        assert info.parameters == MODEL.class_parameters

    place(work)


def test_what_is_not_there_names_what_is(place):
    async def work(place):
        app_id, _ = await place.app(TRAIN, MODEL, name="trainer")
        for name, words, hint in [
            ("trian", "the app 'trainer' has no function 'trian'", "it has: Model, train"),
            ("Model", "the app 'trainer' has no function 'Model'", "Model is a class: look it up with Cls.from_name"),
            (
                "train.*",
                "the app 'trainer' has no class 'train'",
                "train is a function: look it up with Function.from_name",
            ),
        ]:
            with pytest.raises(errors.NotFoundError) as raised:
                place.functions.find([app_id], "trainer", name)
            assert (str(raised.value), raised.value.hint) == (words, hint)
        with pytest.raises(errors.NotFoundError) as raised:
            place.apps.named("trianer", "main", ME)
        assert raised.value.hint == "there is: trainer"

    place(work)


def test_others_apps_and_environments_are_not_there(place):
    async def work(place):
        alice = Principal(USER, "alice")
        app_id, (train,) = await place.app(TRAIN, name="trainer", who=alice)
        with pytest.raises(errors.NotFoundError) as raised:
            place.apps.named("trainer", "main", Principal(USER, "bob"))
        assert "trainer" not in (raised.value.hint or "")
        for environment in ("main", "other"):
            inside = Principal(CONTAINER, "alice", app_id="ap-another", environment=environment)
            assert may_use(inside, place.functions.get(train.function_id)) == (environment == "main")
        inside = Principal(CONTAINER, "alice", app_id="ap-another", environment="main")
        assert place.apps.named("trainer", "main", inside)[0].app_id == app_id
        assert not may_use(Principal(USER, "bob"), place.functions.get(train.function_id))

    place(work)
