"""Which command makes which step. One line an op; what the commands are, is for the file of each family."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alight.builder import conda, functions, installs, projects
from alight.builder.installs import Command, Indexes
from alight.builder.recipe import Step


def command(
    step: Step, indexes: Indexes, python: str, shell: Sequence[str], *, uv: bool = True, micromamba: str = ""
) -> Command:
    """What makes the layer of ``step`` in a container of the image so far, whose interpreter is ``python``.

    ``uv``: whether that image has a uv. ``micromamba``: where this machine says that it is had.
    """
    made: dict[str, Callable[[], Command]] = {
        "pip_install": lambda: installs.pip_install(step, indexes, python, uv=uv),
        "pip_private": lambda: projects.pip_private(step, indexes, python),
        "poetry_install": lambda: projects.poetry_install(step, indexes, python),
        "uv_sync": lambda: projects.uv_sync(step, indexes, python),
        "apt_install": lambda: installs.apt_install(step),
        "micromamba": lambda: conda.micromamba(step, micromamba, python),
        "micromamba_install": lambda: conda.install(step),
        "run": lambda: installs.run(step, shell),
        "run_function": lambda: functions.run_function(step, python),
        "copy": lambda: installs.copy(step),
    }
    return made[step.op]()
