"""Who is in a gang, and what all of it can do. See ``gangs``."""

from __future__ import annotations

from alight.scheduler.state import Container, Gang, State


def enter(state: State, container: Container, size: int) -> None:
    """A member is there from now on."""
    gang = state.gangs.get(container.gang)
    if gang is None:
        gang = state.gangs[container.gang] = Gang(container.gang, container.function_id, ("",) * size)
    names = list(gang.members)
    names[container.rank] = container.container_id
    gang.members = tuple(names)


def leave(state: State, container: Container) -> None:
    """A member is gone; a gang without any is forgotten."""
    gang = state.gangs.get(container.gang)
    if gang is not None and not any(name in state.containers for name in gang.members):
        del state.gangs[gang.gang_id]


def all_of(state: State, container: Container) -> list[Container]:
    """The gang of a container, the leader first, as far as it is there; of one without a gang, itself."""
    gang = state.gangs.get(container.gang) if container.gang else None
    if gang is None:
        return [container]
    return [state.containers[name] for name in gang.members if name in state.containers]


def others(state: State, container: Container) -> tuple[str, ...]:
    """The ids of the rest of its gang."""
    gang = state.gangs.get(container.gang) if container.gang else None
    return tuple(name for name in gang.members if name != container.container_id) if gang is not None else ()


def leader(state: State, container: Container) -> Container | None:
    """The member that stands for its gang, while it is there; of one without a gang, itself."""
    if not container.rank:
        return container
    gang = state.gangs.get(container.gang)
    return state.containers.get(gang.members[0]) if gang is not None else None


def is_up(state: State, container: Container) -> bool:
    """Whether a container is ready, and all of its gang."""
    if not container.gang:
        return container.ready
    gang = state.gangs[container.gang]
    return not gang.over and all(name in state.containers and state.containers[name].ready for name in gang.members)


def may_serve(state: State, container: Container) -> bool:
    """Whether a gang, as its leader, takes inputs, or works on one."""
    return is_up(state, container) and (container.open > 0 or hold_nothing(state, container))


def hold_nothing(state: State, container: Container) -> bool:
    """Whether neither it nor any of its gang has inputs, wanted or not."""
    return not any(one.open for one in all_of(state, container))


def memory(state: State, container: Container) -> int:
    """MiB that come free with it."""
    return sum(one.memory for one in all_of(state, container)) if container.gang else container.memory


def gpus(state: State, container: Container) -> tuple[str, ...]:
    """GPUs that come free with it."""
    if not container.gang:
        return container.gpus
    return tuple(uuid for one in all_of(state, container) for uuid in one.gpus)
