"""What scripts declare is checked where it is written, and talks to nobody."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import pytest

import alight
from alight.sdk import options, resources
from alight.sdk.image_patterns import FilePatternMatcher
from alight.wire.errors import DeprecationError, InvalidError
from alight.wire.spec import RetryPolicy


def plain(x, y=1):
    return x + y


async def plain_async(x):
    return x


def plain_generator():
    yield 1


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, ()),
        ("a100-40gb", ("A100-40GB",)),
        ("H100:1", ("H100",)),
        ("h100!:8", ("H100!:8",)),
        (["h100", "A100:2"], ("H100", "A100:2")),
        ("any", ("ANY",)),
        ("rtx 4090", ("RTX-4090",)),
        ("a100:0.50", ("A100:0.5",)),
        ("A100!:20gb", ("A100!:20GB",)),
        ("any:512MiB", ("ANY:512MIB",)),
    ],
)
def test_gpus_are_read_as_people_write_them(given, meant):
    assert resources.gpus(given) == meant


@pytest.mark.parametrize("given", ["A100:x", "A100:0", "A100:-1", "A100:9", ":2", "!", "A100,T4", []])
def test_a_gpu_that_cannot_be_is_refused(given):
    with pytest.raises(InvalidError):
        resources.gpus(given)


@pytest.mark.parametrize("part", ["0.0", "1.0", "1.5", "-0.5", "0.333", "0.001"])
def test_a_part_of_a_gpu_is_between_nothing_and_all_of_it(part):
    with pytest.raises(InvalidError, match="a part of a GPU is") as caught:
        resources.gpus(f"A100:{part}")
    assert '"A100:0.5"' in caught.value.hint


@pytest.mark.parametrize("given", [True, 4, 1.5, "none", ["A100", None]])
def test_what_is_no_name_of_a_gpu_is_said_to_be_none(given):
    with pytest.raises(InvalidError, match="names no GPU"):
        resources.gpus(given)


def test_gpu_memory_asks_for_so_much_of_one_gpu():
    assert resources.gpus(None, "20GB") == ("ANY:20GB",)
    assert resources.gpus(["h100", "A100!"], "20 GB") == ("H100:20GB", "A100!:20GB")
    assert resources.gpus("L4", 4096) == ("L4:4096MIB",)
    for gpu in ("A100:2", "A100:0.5", "A100:10GB"):
        with pytest.raises(InvalidError, match="different parts"):
            resources.gpus(gpu, "20GB")
    for amount in ("20", "GB", "-1GB", 0, True, 1.5, "0GB"):
        with pytest.raises(InvalidError, match="is not an amount of memory"):
            resources.gpus("A100", amount)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpu": 0},
        {"cpu": "2"},
        {"cpu": (2, 1)},
        {"memory": 1.5},
        {"memory": (512, 256)},
        {"memory": True},
        {"timeout": None},
        {"timeout": 0},
        {"startup_timeout": -1},
        {"min_containers": 3, "max_containers": 2},
        {"max_containers": 0},
        {"scaledown_window": 1},
        {"scaledown_window": 4000},
        {"retries": -1},
        {"retries": "3"},
        {"env": {"A": 1}},
        {"env": {"A=B": "1"}},
        {"secrets": ["name"]},
        {"secrets": alight.Secret.from_dict({})},
        {"image": "debian"},
        {"volumes": {"data": alight.Volume.from_name("v")}},
        {"volumes": {"/": alight.Volume.from_name("v")}},
        {"volumes": {"/root": alight.Volume.from_name("v")}},
        {"volumes": {"/a/../b": alight.Volume.from_name("v")}},
        {"volumes": {"/a": "v"}},
        {"volumes": {"/a": alight.Volume.from_name("v"), "/b": alight.Volume.from_name("v")}},
        {"max_inputs": 2},
        {"ephemeral_disk": 0},
        {"name": "not a name"},
    ],
)
def test_options_that_cannot_be_are_refused_in_one_sentence(wrong):
    with pytest.raises(InvalidError) as caught:
        alight.App("a").function(**wrong)(plain)
    assert "\n" not in str(caught.value)


def test_options_become_what_the_server_reads():
    app = alight.App("a", secrets=[alight.Secret.from_name("first")], volumes={"/v": alight.Volume.from_name("of-app")})
    function = app.function(
        cpu=(1, 2),
        memory=512,
        gpu="t4:2",
        timeout=10,
        retries=2,
        env={"A": "1", "B": None},
        secrets=[alight.Secret.from_name("second")],
        volumes={"/w/": alight.Volume.from_name("own")},
        scaledown_window=5,
        single_use_containers=True,
        block_network=True,
        restrict_modal_access=True,
    )(plain)
    found = function.options
    assert (found.resources.cpu, found.resources.cpu_limit, found.resources.memory) == (1, 2, 512)
    assert found.resources.gpus == ("T4:2",)
    assert found.retries == RetryPolicy(max_retries=2, backoff_coefficient=1.0, initial_delay=1.0)
    assert found.env == {"A": "1"}
    assert [secret.name for secret in found.secrets] == ["first", "second"]
    assert sorted(found.volumes) == ["/v", "/w"]
    assert found.autoscaling.single_use
    assert found.block_network
    assert found.restrict_access


def test_retries_objects_are_read():
    wanted = resources.retries(alight.Retries(max_retries=3, backoff_coefficient=2.0, initial_delay=1.5))
    assert (wanted.max_retries, wanted.backoff_coefficient, wanted.initial_delay) == (3, 2.0, 1.5)


def test_old_keywords_work_with_a_warning_and_gone_ones_say_what_to_do():
    app = alight.App("a")
    with pytest.warns(DeprecationError, match="min_containers"):
        function = app.function(keep_warm=2)(plain)
    assert function.options.autoscaling.min_containers == 2
    with pytest.warns(DeprecationError, match="secrets"):
        function = alight.App("b").function(secret=alight.Secret.from_name("s"))(plain)
    assert len(function.options.secrets) == 1
    with pytest.warns(DeprecationError, match="concurrent"):
        function = alight.App("c").function(allow_concurrent_inputs=4)(plain)
    assert function.options.autoscaling.max_concurrent_inputs == 4
    with pytest.raises(DeprecationError, match="add_local_dir"):
        alight.App("d").function(mounts=[])(plain)
    with pytest.raises(TypeError, match="unexpected keyword argument 'gpus'"):
        alight.App("e").function(gpus="T4")(plain)


def test_hosted_only_options_warn_once_and_are_kept():
    options._WARNED.clear()
    with pytest.warns(UserWarning, match="region= is for a hosted cloud"):
        function = alight.App("a").function(region="us-east", cloud=None)(plain)
    assert function.options.hosted_only == {"region": "us-east"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alight.App("b").function(region=["eu"])(plain)


def test_what_is_no_plain_function_is_refused():
    app = alight.App("a")

    class Model:
        def method(self): ...

    def local(): ...

    with pytest.raises(TypeError, match=r"use @app\.cls"):
        app.function()(Model)
    with pytest.raises(InvalidError, match="within another function"):
        app.function()(local)
    app.function(serialized=True)(local)
    with pytest.raises(InvalidError, match=r"takes self|within another function"):
        app.function()(Model.method)
    with pytest.raises(InvalidError, match="decorated twice"):
        app.function()(app.function()(plain))


def test_a_handle_is_not_called_and_runs_here_when_told_to():
    function = alight.App("a").function()(plain)
    with pytest.raises(TypeError, match=r"\.remote\(…\) runs it in a container"):
        function(1)
    assert function.local(1) == 2
    assert function._raw is plain
    assert function.traits == {"is_generator": False, "is_async": False}
    assert alight.App("b").function()(plain_async).traits["is_async"]
    with pytest.raises(InvalidError, match="is a generator"):
        alight.App("c").function()(plain_generator).remote()
    with pytest.raises(alight.Error, match="its app is not running"):
        function.remote(1)
    with pytest.raises(alight.Error, match="its app is not running"):
        list(function.map([1]))


def test_declaring_twice_warns_and_the_last_counts():
    app = alight.App("a")
    app.function(name="f")(plain)
    with pytest.warns(UserWarning, match="declared twice"):
        second = app.function(name="f")(plain_async)
    assert app._functions["f"] is second


def test_entrypoints_are_called_as_they_are():
    app = alight.App("a")

    @app.local_entrypoint()
    def main(x: int = 3):
        return x

    assert main() == 3
    assert app._entrypoints["test_entrypoints_are_called_as_they_are.<locals>.main"] is main
    with pytest.raises(InvalidError, match="already"):
        app.local_entrypoint(name=next(iter(app._entrypoints)))(plain)
    with pytest.raises(InvalidError, match="parentheses"):
        app.local_entrypoint(plain)


def test_an_included_app_brings_its_functions():
    one, other = alight.App("one"), alight.App("other", tags={"a": "b"})
    function = other.function()(plain)
    assert one.include(other) is one
    assert one._functions["plain"] is function


def test_handles_travel_as_declarations_without_values_or_clients():
    app = alight.App("a")
    function = app.function()(plain)
    secret = alight.Secret.from_dict({"KEY": "hidden-value"})
    volume = alight.Volume.from_name("v", create_if_missing=True).read_only()
    data = pickle.dumps((app, function, secret, volume, alight.Image.debian_slim()))
    assert b"hidden-value" not in data
    app_there, function_there, _, volume_there, _ = pickle.loads(data)
    assert (app_there.name, function_there.info_name, function_there.app.name) == ("a", "plain", "a")
    assert volume_there.mount_read_only
    with pytest.raises(AttributeError, match="hydrate"):
        _ = volume_there.object_id


# images


def ops(image):
    return [step.op for step in image.steps]


def test_an_image_is_a_chain_and_never_changes():
    base = alight.Image.debian_slim("3.12")
    one = base.pip_install("numpy", ["torch==2", "a"]).apt_install("git").run_commands("echo a", ["echo b"])
    assert ops(base) == [{"op": "debian_slim", "python": "3.12"}]
    assert ops(one)[1:] == [
        {"op": "pip_install", "tool": "pip", "packages": ["a", "numpy", "torch==2"]},
        {"op": "apt_install", "packages": ["git"]},
        {"op": "run", "command": "echo a"},
        {"op": "run", "command": "echo b"},
    ]
    more = base.uv_pip_install("x", pre=True, index_url="https://i", force_build=True, env={"A": "b"})
    assert ops(more)[1] == {
        "op": "pip_install", "tool": "uv", "packages": ["x"], "index_url": "https://i", "pre": True,
        "force": True, "env": {"A": "b"},
    }  # fmt: skip
    assert ops(base.env({"A": "1"}).workdir("/w").entrypoint(["a"]).shell(["b"]).cmd(["c"]))[1:] == [
        {"op": "env", "vars": {"A": "1"}},
        {"op": "workdir", "path": "/w"},
        {"op": "entrypoint", "args": ["a"]},
        {"op": "shell", "args": ["b"]},
        {"op": "cmd", "args": ["c"]},
    ]
    assert base.pip_install() is base


@pytest.mark.parametrize(
    "wrong",
    [
        lambda image: image.pip_install("--pre"),
        lambda image: image.pip_install(3),
        lambda image: image.env({"A": 1}),
        lambda image: image.env({"A B": "1"}),
        lambda image: image.workdir("relative"),
        lambda image: image.run_commands(3),
        lambda image: image.entrypoint("bash"),
        lambda image: image.add_local_dir(".", "relative"),
        lambda image: image.add_local_file("a", "/a/../b"),
        lambda image: image.add_local_dir(".", "/a", ignore="*.pyc"),
        lambda image: image.add_local_python_source(alight),
        lambda image: image.add_local_dir(".", "/a").pip_install("numpy"),
        lambda image: image.pipe(lambda _image: None),
        lambda image: alight.Image.debian_slim("3"),
    ],
)
def test_image_steps_that_cannot_be_are_refused(wrong):
    with pytest.raises(InvalidError):
        wrong(alight.Image.debian_slim())


def test_a_version_that_lost_its_zero_is_a_type_error():
    with pytest.raises(TypeError, match="loses zeros"):
        alight.Image.debian_slim(3.1)


def test_local_files_come_last_unless_copied():
    image = alight.Image.debian_slim().add_local_dir(".", "/a", copy=True).pip_install("x").add_local_file("f", "/b/")
    assert [op["op"] for op in ops(image)] == ["debian_slim", "copy", "pip_install"]
    assert image.added[0]().remote == "/b/f"
    assert image.add_local_dir("x", "/c").added[1]().local == Path("x").absolute()


def test_an_image_is_meant_by_its_name_environment_and_tag():
    image = alight.Image.from_name("of-the-team").pip_install("torch")
    assert ops(image)[0] == {"op": "from_id", "image_id": "/of-the-team:latest"}
    assert ops(alight.Image.from_name("dev/mine:1"))[0]["image_id"] == "dev/mine:1"
    assert ops(alight.Image.from_name("mine", environment_name="dev"))[0]["image_id"] == "dev/mine:latest"
    for wrong in ("", "a/b/c", "mine:", "no spaces", "dev/"):
        with pytest.raises(InvalidError):
            alight.Image.from_name(wrong)
    with pytest.raises(InvalidError, match="names an environment"):
        alight.Image.from_name("dev/mine", environment_name="main")


def test_imports_pass_over_what_only_the_image_has():
    image = alight.Image.debian_slim()
    with image.imports():
        import surely_not_here  # noqa: F401
    with pytest.raises(ValueError, match="mine"), image.imports():
        raise ValueError("mine")


@pytest.mark.parametrize(
    ("patterns", "path", "meant"),
    [
        (["*.pyc"], "a.pyc", True),
        (["*.pyc"], "d/a.pyc", False),
        (["**/*.pyc"], "d/e/a.pyc", True),
        (["node_modules"], "node_modules/x/y.js", True),
        (["data", "!data/keep.txt"], "data/keep.txt", False),
        (["data", "!data/keep.txt"], "data/drop.txt", True),
        (["a?c"], "abc", True),
        (["[ab].txt"], "b.txt", True),
        (["# comment", ""], "# comment", False),
    ],
)
def test_patterns_mean_what_dockerignore_means(patterns, path, meant):
    assert FilePatternMatcher(*patterns)(Path(path)) is meant
    assert (~FilePatternMatcher(*patterns))(Path(path)) is not meant
