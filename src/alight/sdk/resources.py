"""What a function may ask of machines: checked when it is declared, so that a mistake points at the script's own line.

Whether a machine has it is the server's to say. Nothing here imports anything that can talk.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from alight.wire.errors import InvalidError
from alight.wire.spec import Autoscaling, Resources, RetryPolicy

Gpu = Union[None, str, Any, Sequence[Any]]
Cpu = Union[None, float, Tuple[float, float]]
Memory = Union[None, int, Tuple[int, int]]

_FORBIDDEN_MOUNTS = ("/", "/root", "/tmp")  # noqa: S108  paths in a container
_DAY = 86_400


def gpus(gpu: Gpu, memory: Any = None) -> Tuple[str, ...]:
    """``gpu=`` in order of preference, as ``wire.gpus`` writes it. None and "" mean none.

    ``memory``: ``gpu_memory=``, of one GPU: "20GB", or a number of MiB. Without ``gpu`` any GPU with that will do.
    """
    if gpu is None or gpu == "":
        if memory is None:
            return ()
        gpu = "any"
    from alight.wire import gpus as written  # noqa: PLC0415  few functions in few containers ask for one

    wanted = list(gpu) if isinstance(gpu, (list, tuple)) else [gpu]
    for one in wanted:
        if one is None or isinstance(one, (bool, int, float)) or (isinstance(one, str) and one.lower() == "none"):
            raise InvalidError(
                f"gpu={one!r} names no GPU",
                hint='write its type, as in gpu="A100", or gpu="any"; "A100:2" is two, gpu=None is none',
            )
    if not wanted:
        raise InvalidError("gpu=[] names no GPU", hint="leave gpu out for a function without one")
    asked = [written.read(one if isinstance(one, str) else str(one)) for one in wanted]
    if memory is not None:
        amount = written.memory(memory, "gpu_memory=")
        for one in asked:
            if one.count > 1 or one.shares:
                raise InvalidError(
                    f"gpu={str(one)!r} and gpu_memory={memory!r} ask for different parts of a GPU",
                    hint=f'write gpu="{one.type}" with gpu_memory={memory!r}, or leave gpu_memory out',
                )
        asked = [written.Asked(one.type, exact=one.exact, memory=amount) for one in asked]
    return tuple(str(one) for one in asked)


def resources(cpu: Cpu, memory: Memory, gpu: Gpu, ephemeral_disk: Any, gpu_memory: Any = None) -> Resources:
    """cpu, memory, gpu, ephemeral_disk and gpu_memory as declared. Raises InvalidError for what cannot be."""
    cpu_request, cpu_limit = _pair(cpu, "cpu", float, "cores")
    memory_request, memory_limit = _pair(memory, "memory", int, "MiB")
    if ephemeral_disk is not None and (not isinstance(ephemeral_disk, int) or ephemeral_disk <= 0):
        raise InvalidError(f"ephemeral_disk={ephemeral_disk!r} is not a number of MiB")
    return Resources(
        cpu=cpu_request,
        cpu_limit=cpu_limit,
        memory=None if memory_request is None else int(memory_request),
        memory_limit=None if memory_limit is None else int(memory_limit),
        gpus=gpus(gpu, gpu_memory),
        ephemeral_disk=ephemeral_disk,
    )


def _pair(value: Any, name: str, kind: type, unit: str) -> Tuple[Optional[float], Optional[float]]:
    if value is None:
        return None, None
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    allowed = (int, float) if kind is float else (int,)
    if len(pair) not in {1, 2} or any(isinstance(one, bool) or not isinstance(one, allowed) for one in pair):
        raise InvalidError(
            f"{name}={value!r} is not a number of {unit}",
            hint=f"{name}=2 reserves 2 {unit}, {name}=(2, 4) also limits to 4",
        )
    if any(one <= 0 for one in pair):
        raise InvalidError(f"{name}={value!r}: {name} is more than 0 {unit}")
    if len(pair) == 2 and pair[1] < pair[0]:
        raise InvalidError(f"{name}={value!r}: the limit {pair[1]} is below the request {pair[0]}")
    return pair[0], pair[1] if len(pair) == 2 else None


def timeouts(timeout: Optional[float], startup_timeout: Optional[float]) -> Tuple[float, Optional[float]]:
    """Seconds of one attempt, and of importing and entering (None: as long as ``timeout``)."""
    if timeout is None:
        raise InvalidError(
            "timeout=None: every function has a time limit", hint="timeout=86400 is a day; the default is 300"
        )
    given: Dict[str, Any] = {"timeout": timeout, "startup_timeout": startup_timeout}  # users write what they like
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 1):
            raise InvalidError(f"{name}={value!r} is not a number of seconds, at least 1")
    return float(timeout), None if startup_timeout is None else float(startup_timeout)


def autoscaling(options: Mapping[str, Any]) -> Autoscaling:
    """min_containers, max_containers, buffer_containers, scaledown_window and single_use_containers as declared."""
    least = _count(options, "min_containers", 0) or 0
    most = _count(options, "max_containers", 1)
    if most is not None and most < least:
        raise InvalidError(f"max_containers={most} is below min_containers={least}")
    window = options.get("scaledown_window")
    if window is not None and not (isinstance(window, (int, float)) and 2 <= window <= 3600):
        raise InvalidError(f"scaledown_window={window!r}: it is between 2 and 3600 seconds")
    return Autoscaling(
        min_containers=least,
        max_containers=most,
        buffer_containers=_count(options, "buffer_containers", 0) or 0,
        scaledown_window=None if window is None else float(window),
        single_use=bool(options.get("single_use_containers")),
    )


def _count(options: Mapping[str, Any], name: str, least: int) -> Optional[int]:
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidError(f"{name}={value!r} is not a number of containers, at least {least}")
    return value


def retries(value: Any) -> RetryPolicy:
    """``retries=``: an int means that many more attempts, a second apart; else a Retries."""
    if value is None:
        return RetryPolicy()
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise InvalidError(f"retries={value}: it is at least 0")
        return RetryPolicy(max_retries=value, backoff_coefficient=1.0, initial_delay=1.0)
    try:
        return RetryPolicy(
            max_retries=int(value.max_retries),
            backoff_coefficient=float(value.backoff_coefficient),
            initial_delay=_seconds(value.initial_delay),
            max_delay=_seconds(value.max_delay),
        )
    except AttributeError:
        raise InvalidError(f"retries={value!r}: give a number or alight.Retries(…)") from None


def _seconds(value: Any) -> float:
    return float(value.total_seconds()) if hasattr(value, "total_seconds") else float(value)


def volumes(value: Optional[Mapping[Any, Any]], where: str) -> Dict[str, Any]:
    """``volumes=`` with canonical paths. Raises InvalidError for paths that cannot be, and one volume at two paths."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidError(f"volumes= of {where} is a dict of path to volume, not {type(value).__name__}")
    checked: Dict[str, Any] = {}
    seen: List[Any] = []
    for given, volume in value.items():
        path = mount_path(str(given), where)
        if path in checked:
            raise InvalidError(f"{where} mounts two volumes at {path}")
        identity = getattr(volume, "_name", None) or getattr(volume, "_object_id", None) or id(volume)
        if not hasattr(volume, "_load") and not hasattr(volume, "bucket_name"):
            raise InvalidError(f"what {where} mounts at {path} is {type(volume).__name__}, not a Volume")
        if identity in seen:
            raise InvalidError(f"{where} mounts the same volume twice", hint="give it one path, or use sub_path")
        seen.append(identity if getattr(volume, "mount_sub_path", None) is None else (identity, volume.mount_sub_path))
        checked[path] = volume
    return checked


def mount_path(given: str, where: str) -> str:
    """A canonical absolute path that something may be mounted at."""
    if not given.startswith("/"):
        raise InvalidError(
            f"{where} mounts a volume at {given!r}, which is not absolute", hint=f'for example "/{given or "data"}"'
        )
    parts = [part for part in given.split("/") if part not in {"", "."}]
    if ".." in parts or "\0" in given:
        raise InvalidError(f"{where} mounts a volume at {given!r}, which is not a plain path")
    path = "/" + "/".join(parts)
    if path in _FORBIDDEN_MOUNTS:
        raise InvalidError(
            f"{where} mounts a volume at {given!r}, where it would hide the container's own files",
            hint='choose a directory of its own, such as "/data"',
        )
    return path


def environment(value: Optional[Mapping[Any, Any]], where: str) -> Dict[str, str]:
    """``env=``: text to text; None leaves a name out."""
    if value is None:
        return {}
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or not isinstance(text, (str, type(None))):
            raise InvalidError(
                f"env= of {where}: {name!r} is {type(text).__name__}; names and values are text",
                hint=f"write env={{{str(name)!r}: {str(text)!r}}}",
            )
    return {name: text for name, text in value.items() if text is not None}
