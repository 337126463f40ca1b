"""The function of a shell's container: everything of the user's around it, and nothing of theirs in it."""

from __future__ import annotations

from alight.sdk.shell import waiting
from alight.wire.spec import (
    Autoscaling,
    FilesAt,
    FunctionSpec,
    ImageSpec,
    MethodSpec,
    ParameterSpec,
    Resources,
    RetryPolicy,
    VolumeMount,
)


def test_what_a_container_is_stays_and_what_it_runs_goes():
    around = {
        "image": ImageSpec(({"op": "debian_slim", "python": "3.11"},)),
        "files": (FilesAt("tree", "/root"),),
        "resources": Resources(cpu=2.0, gpus=("T4",)),
        "secrets": ("st-1",),
        "env": {"A": "1"},
        "volumes": (VolumeMount("/v", "vo-1"),),
        "block_network": True,
        "restrict_access": True,
        "python_version": "3.11",
    }
    spec = FunctionSpec(
        name="Model.*",
        source_path="/root/model.py",
        module="model",
        qualname="Model",
        serialized="blob",
        timeout=5.0,
        startup_timeout=1.0,
        retries=RetryPolicy(max_retries=3),
        autoscaling=Autoscaling(min_containers=4, batch_size=8, max_concurrent_inputs=9, single_use=True),
        is_generator=True,
        is_async=True,
        is_web=True,
        enable_memory_snapshot=True,
        class_name="Model",
        methods=(MethodSpec("one"),),
        class_parameters=(ParameterSpec("size"),),
        parameters="AA==",
        **around,
    )
    made = waiting(spec)
    assert {name: getattr(made, name) for name in around} == around
    assert made == FunctionSpec(
        name="Model.*",
        definition="module",
        module="time",
        qualname="sleep",
        timeout=86400.0,
        autoscaling=Autoscaling(max_containers=1),
        **around,
    )
