"""IMAGES: from a recipe (``wire.spec.ImageSpec``) to layers on this machine's disk.

    recipe.py      a step as the user wrote it: checked, named, printed
    digest.py      names: of steps, layers, images; trees of files laid into a directory
    steps.py       the seam: what the builder asks of whoever can run a container, and what it says while building
    layers.py      the store: layers, records, locks, temporary places, sweeping
    hostconfig.py  this machine's package settings (pip, uv, apt, CA, netrc), lent to steps and kept out of layers
    bases.py       Debian by mmdebstrap
    pythons.py     the asked Python, by one of three ways
    registry/      images that others made, from registries
    foreign.py     a Python in those; foreign_steps.py makes the steps
    chain.py       what steps add up to
    commands.py    which command makes which step:
    installs.py    pip_install, apt_install, run, copy; projects.py: uv, poetry, private repositories; conda.py:
                   micromamba; functions.py: a user's function
    dockerfile.py  Dockerfiles and lines of them, through buildah.py
    installed.py   what is installed in layers; lock.py: what each step brought, and building the same again
    trouble.py     a failed step's output: redacted, cut to its tail, explained by causes.py; explain.py: why a step was
                   not cached
    inventory.py   images as people look at them, and clearing up as gc.py decides
    exchange.py    images to and from other machines: portable.py, their manifests; layerfile.py, a layer as a file
    build.py       Builder: the order of it all

This package never starts a container itself and never unpickles or imports anything of a user's.
"""

from __future__ import annotations

from alight.builder.build import Builder
from alight.builder.hostconfig import HostConfig
from alight.builder.inventory import Inventory
from alight.builder.steps import BuildEvent, BuiltImage, StepRun, StepRunner

__all__ = ["BuildEvent", "Builder", "BuiltImage", "HostConfig", "Inventory", "StepRun", "StepRunner"]
