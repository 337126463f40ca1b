"""Changed options of a function: what ``with_options()``, ``with_concurrency()`` and ``with_batching()`` ask for.

Checked where they are written, merged when they are chained, put into the server's words at their first use. Whatever
is falsy is left as it is: nothing can be unset here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Awaitable, Callable, Dict, List, Mapping, Optional, Tuple

from alight.sdk import options, resources, shaping
from alight.wire.codec import to_plain
from alight.wire.errors import InvalidError
from alight.wire.record import dataclass, field, replace
from alight.wire.spec import BucketMount, VolumeMount

if TYPE_CHECKING:
    from alight.sdk.client import Client

#: Chained changes of these add up, key by key; of all others the last counts.
_MERGED = ("resources", "autoscaling", "env")


@dataclass(frozen=True)
class Changes:
    """``fields`` are fields of a FunctionSpec in plain words; secrets and volumes are handles until they are used.

    ``env`` is a field of the spec here, and no secret as it is for declared functions: it adds to what was declared,
    and equal changes must be one variant for everybody, which secrets made for each caller would not be.
    """

    fields: Dict[str, Any] = field(default_factory=dict)
    secrets: Tuple[Any, ...] = ()
    volumes: Dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.fields or self.secrets or self.volumes)

    def then(self, later: Changes) -> Changes:
        """These, and then those."""
        fields = dict(self.fields)
        for name, value in later.fields.items():
            fields[name] = {**fields.get(name, {}), **value} if name in _MERGED else value
        return Changes(fields, later.secrets or self.secrets, later.volumes or self.volumes)

    async def plain(self, client: Client, app_id: str, where: str) -> Dict[str, Any]:
        """What ``function.bind`` takes. Looks secrets and volumes up; NotFoundError when one is not there."""
        changes = dict(self.fields)
        buckets = [volume for volume in self.volumes.values() if is_bucket(volume)]
        used = [*self.secrets, *(one.secret for one in buckets if one.secret is not None)]
        if not app_id and any(secret.name is None for secret in used):
            raise InvalidError(
                f"{where} was made from an id, so that nobody here knows the app that Secret.from_dict() is for",
                hint="use Function.from_name(), or a secret with a name",
            )
        if self.secrets:
            changes["secrets"] = [await secret.for_app(client, app_id) for secret in self.secrets]
        if self.volumes:
            # What is mounted is replaced as a whole, volumes and buckets.
            mounts = await mounts_of(self.volumes, client)
            changes["volumes"] = [{"path": one.path, **to_plain(one)} for one in mounts]
            found = await buckets_of(self.volumes, lambda secret: secret.for_app(client, app_id))
            changes["buckets"] = [{"path": one.path, "bucket": one.bucket, **to_plain(one)} for one in found]
        return changes


def is_bucket(volume: Any) -> bool:
    """Whether this entry of ``volumes=`` is a CloudBucketMount."""
    return hasattr(volume, "bucket_name")


async def buckets_of(volumes: Mapping[str, Any], secret_id: Callable[[Any], Awaitable[str]]) -> Tuple[BucketMount, ...]:
    """The buckets among ``volumes=``, their secrets looked up by ``secret_id``. Raises UnimplementedError for what a
    bucket cannot have yet."""
    found = []
    for path, volume in volumes.items():
        if is_bucket(volume):
            spec: BucketMount = volume._spec(path)  # noqa: SLF001  of this package
            secret = volume.secret
            found.append(spec if secret is None else replace(spec, secret_id=await secret_id(secret)))
    return tuple(found)


async def mounts_of(volumes: Mapping[str, Any], client: Client) -> List[VolumeMount]:
    """The volumes among ``volumes=`` by path, as the server knows them."""
    mounts = []
    for path, volume in volumes.items():
        if is_bucket(volume):
            continue
        mounts.append(
            VolumeMount(
                path=path,
                volume_id=await volume._resolve(client),  # noqa: SLF001  of this package
                read_only=volume.mount_read_only,
                sub_path=volume.mount_sub_path,
            )
        )
    return mounts


def of_options(given: Mapping[str, Any], where: str) -> Changes:
    """What ``with_options(**given)`` changes. Raises InvalidError for what cannot be."""
    values = {name: value for name, value in given.items() if value}
    options.warn_hosted(values, 4)
    fields: Dict[str, Any] = {}
    wanted = _resources(values, where)
    if wanted:
        fields["resources"] = wanted
    scaling = resources.autoscaling(values)
    changed = {
        name: getattr(scaling, name)
        for name in ("max_containers", "buffer_containers", "scaledown_window")
        if name in values
    }
    if changed:
        fields["autoscaling"] = changed
    if "retries" in values:
        fields["retries"] = to_plain(resources.retries(values["retries"]))
    if "timeout" in values:
        fields["timeout"], _ = resources.timeouts(values["timeout"], None)
    if "env" in values:
        fields["env"] = resources.environment(values["env"], where)
    return Changes(
        fields, options.secrets(values.get("secrets"), where), resources.volumes(values.get("volumes"), where)
    )


def of_concurrency(max_inputs: int, target_inputs: Optional[int]) -> Changes:
    """What ``with_concurrency()`` changes."""
    shaping.check_concurrent("with_concurrency", max_inputs, target_inputs)
    scaling = {"max_concurrent_inputs": max_inputs, "target_concurrent_inputs": target_inputs}
    return Changes({"autoscaling": scaling})


def of_batching(max_batch_size: int, wait_ms: int) -> Changes:
    """What ``with_batching()`` changes."""
    shaping.check_batched("with_batching", max_batch_size, wait_ms)
    scaling = {"batch_size": max_batch_size, "batch_wait": wait_ms / 1000}
    return Changes({"autoscaling": {**scaling, "max_concurrent_inputs": 1, "target_concurrent_inputs": None}})


def _resources(values: Mapping[str, Any], where: str) -> Dict[str, Any]:
    gpu = values.get("gpu")
    if gpu is not None and not isinstance(gpu, str):
        raise InvalidError(f"gpu={gpu!r} of {where}: a variant asks for one kind of GPU", hint='gpu="A100:2"')
    found = resources.resources(values.get("cpu"), values.get("memory"), gpu, None, values.get("gpu_memory"))
    wanted: Dict[str, Any] = {}
    if found.cpu is not None:
        wanted.update(cpu=found.cpu, cpu_limit=found.cpu_limit)
    if found.memory is not None:
        wanted.update(memory=found.memory, memory_limit=found.memory_limit)
    if found.gpus:
        wanted["gpus"] = list(found.gpus)
    return wanted
