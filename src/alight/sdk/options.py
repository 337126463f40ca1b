"""What ``@app.function`` and ``@app.cls`` were given, checked, in one place for both.

Old keywords still work, with a warning that names the new one. Keywords that only a shared cloud can honour are
accepted, kept to be shown, and warned about once.
"""

from __future__ import annotations

import warnings
from typing import Any, Dict, Mapping, Optional, Sequence, Set, Tuple

from alight.sdk import resources
from alight.sdk.image import Image
from alight.sdk.secret import Secret
from alight.sdk.shaping import Shape
from alight.wire import ambient
from alight.wire.errors import DeprecationError, InvalidError
from alight.wire.record import dataclass, field, replace
from alight.wire.spec import Autoscaling, Resources, RetryPolicy

#: Without effect on one's own machines; kept in the spec to be shown.
_HOSTED = ("cloud", "region", "routing_region", "nonpreemptible", "i6pn", "proxy")

#: Old keyword → new one.
_RENAMED = {
    "keep_warm": "min_containers",
    "concurrency_limit": "max_containers",
    "container_idle_timeout": "scaledown_window",
    "secret": "secrets",
}

_REMOVED = {
    "mounts": "Image.add_local_dir(), add_local_file() or add_local_python_source()",
    "mount": "Image.add_local_dir(), add_local_file() or add_local_python_source()",
    "shared_volumes": "volumes",
    "interactive": "`alight run -i`",
    "checkpointing_enabled": "enable_memory_snapshot",
}


@dataclass(frozen=True)
class Options:
    """Checked options of a function or class."""

    image: Optional[Image] = None
    secrets: Tuple[Secret, ...] = ()
    env: Dict[str, str] = field(default_factory=dict)
    volumes: Dict[str, Any] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    autoscaling: Autoscaling = field(default_factory=Autoscaling)
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float = 300.0
    startup_timeout: Optional[float] = None
    schedule: Any = None
    serialized: bool = False
    include_source: Optional[bool] = None
    block_network: bool = False
    restrict_access: bool = False
    enable_memory_snapshot: bool = False
    is_generator: Optional[bool] = None
    cluster: int = 0  # containers for each input; 0: one alone
    hosted_only: Dict[str, Any] = field(default_factory=dict)


def check(given: Mapping[str, Any], old: Mapping[str, Any], where: str, shape: Shape) -> Options:
    """The options in ``given``; ``old`` are keywords that are no longer in the signature. Raises InvalidError."""
    if shape.sessioned:
        raise InvalidError(f"@sessioned() at {where}: only classes below @app.server() have sessions")
    values = dict(given)
    concurrent = _take_old(values, old, where)
    autoscaling = resources.autoscaling(values)
    if concurrent or shape.max_concurrent_inputs:
        autoscaling = replace(
            autoscaling,
            max_concurrent_inputs=shape.max_concurrent_inputs or concurrent,
            target_concurrent_inputs=shape.target_concurrent_inputs,
        )
    image = values.get("image")
    if image is not None and not isinstance(image, Image):
        raise InvalidError(f"image= of {where} is {type(image).__name__}, not an Image", hint="Image.debian_slim()…")
    volumes = resources.volumes(values.get("volumes"), where)
    if values.get("network_file_systems"):
        from alight.sdk.network_file_system import volumes_of  # noqa: PLC0415  few old scripts have them

        volumes.update(resources.volumes(volumes_of(values["network_file_systems"], where), where))
    timeout, startup_timeout = resources.timeouts(values.get("timeout", 300), values.get("startup_timeout"))
    return Options(
        image=image,
        secrets=secrets(values.get("secrets"), where),
        env=resources.environment(values.get("env"), where),
        volumes=volumes,
        resources=resources.resources(
            values.get("cpu"),
            values.get("memory"),
            values.get("gpu"),
            values.get("ephemeral_disk"),
            values.get("gpu_memory"),
        ),
        autoscaling=batched(autoscaling, shape.batch),
        retries=resources.retries(values.get("retries")),
        timeout=timeout,
        startup_timeout=startup_timeout,
        schedule=schedule(values.get("schedule"), where),
        serialized=bool(values.get("serialized")),
        include_source=values.get("include_source"),
        block_network=bool(values.get("block_network")),
        restrict_access=bool(values.get("restrict_modal_access")),
        enable_memory_snapshot=bool(values.get("enable_memory_snapshot")),
        is_generator=values.get("is_generator"),
        cluster=_cluster(shape, values, where),
        hosted_only=_hosted_only(values),
    )


def _cluster(shape: Shape, values: Mapping[str, Any], where: str) -> int:
    if shape.cluster is None:
        return 0
    if shape.max_concurrent_inputs:
        raise InvalidError(f"{where} is @clustered() and @concurrent(): its containers take one input at a time")
    if values.get("block_network"):
        raise InvalidError(f"{where} is @clustered(), and block_network=True keeps its containers from each other")
    return shape.cluster[0]


def schedule(value: Any, where: str) -> Any:
    """``schedule=`` as it was given. Raises InvalidError for what is none."""
    if value is None:
        return None
    from alight.sdk.schedule import Schedule  # noqa: PLC0415  containers of functions without one pay nothing

    if not isinstance(value, Schedule):
        kind = f"the text {value!r}" if isinstance(value, str) else type(value).__name__
        raise InvalidError(
            f"schedule= of {where} is {kind}, not a schedule",
            hint='alight.Cron("0 9 * * 1-5") or alight.Period(hours=6)',
        )
    return value


def check_scheduled(value: Any, raw: Any, where: str) -> None:
    """Raise InvalidError for a function with a schedule that cannot be called without arguments."""
    code = getattr(raw, "__code__", None)
    if value is None or code is None:
        return
    needed = list(code.co_varnames[: code.co_argcount - len(raw.__defaults__ or ())])
    keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    needed += [name for name in keywords if name not in (raw.__kwdefaults__ or {})]
    if needed:
        raise InvalidError(
            f"{where} has a schedule, which calls it without arguments, and needs {', '.join(needed)}",
            hint=f"give {needed[0]} a default",
        )


def batched(autoscaling: Autoscaling, batch: Optional[Tuple[int, int]]) -> Autoscaling:
    """``autoscaling`` with what ``@batched`` said: the most inputs of a batch, and the milliseconds that it waits."""
    return autoscaling if batch is None else replace(autoscaling, batch_size=batch[0], batch_wait=batch[1] / 1000)


def secrets(value: Optional[Sequence[Any]], where: str) -> Tuple[Secret, ...]:
    """``secrets=`` as a tuple of Secrets."""
    if value is None:
        return ()
    if isinstance(value, Secret):
        raise InvalidError(f"secrets= of {where} is one Secret, not a list", hint="secrets=[…]")
    for secret in value:
        if not isinstance(secret, Secret):
            raise InvalidError(
                f"secrets= of {where} holds {type(secret).__name__}, not a Secret", hint='Secret.from_name("…")'
            )
    return tuple(value)


def _take_old(values: Dict[str, Any], old: Mapping[str, Any], where: str) -> int:
    """Put old keywords under their new names. Returns how many inputs may run at a time, 0 when it was not said."""
    concurrent = 0
    for name, value in old.items():
        if name in _RENAMED:
            new = _RENAMED[name]
            _warn_old(f"{name}= of {where} is now {new}=")
            if values.get(new) is None and value is not None:
                values[new] = [value] if name == "secret" else value
        elif name == "allow_concurrent_inputs":
            _warn_old(
                f"allow_concurrent_inputs= of {where} is now a decorator: @alight.concurrent(max_inputs={value!r})"
            )
            concurrent = int(value or 0)
        elif name in _REMOVED:
            raise DeprecationError(f"{name}= of {where} is gone: use {_REMOVED[name]}")
        else:
            raise TypeError(f"{where} got an unexpected keyword argument {name!r}")
    if values.get("max_inputs") is not None:
        if values["max_inputs"] != 1:
            raise InvalidError(
                f"max_inputs={values['max_inputs']!r} of {where}: only 1 is possible", hint="leave it out"
            )
        _warn_old(f"max_inputs=1 of {where} is now single_use_containers=True")
        values["single_use_containers"] = True
    return concurrent


def warn_hosted(values: Mapping[str, Any], stacklevel: int) -> Dict[str, Any]:
    """What of ``values`` has no effect on one's own machines; says so once for each, in the user's own line."""
    given = {name: values[name] for name in _HOSTED if values.get(name)}
    for name in given:
        if name not in _WARNED:
            _WARNED.add(name)
            warnings.warn(
                f"{name}= is for a hosted cloud and has no effect on your own machines",
                UserWarning,
                stacklevel=stacklevel,
            )
    return given


def _hosted_only(values: Mapping[str, Any]) -> Dict[str, Any]:
    given = warn_hosted(values, 6)
    kept = {name: _plain(value) for name, value in given.items()}
    if values.get("experimental_options"):
        kept["experimental_options"] = {str(key): str(value) for key, value in values["experimental_options"].items()}
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool)):
        return value
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else str(value)


def _warn_old(message: str) -> None:
    if ambient.container is None:  # whoever started the container was told
        warnings.warn(message, DeprecationError, stacklevel=5)


_WARNED: Set[str] = set()


def replaced(checked: Options, changes: Dict[str, Any]) -> Options:
    """``checked`` with some options changed."""
    return replace(checked, **changes) if changes else checked
