"""Containers that are not there yet, one at a word: how long from the call to the first line of the function.

    cold_start.py           with KIND replaced: what the function's module imports

Says `ready`, then answers each line on stdin with a line of JSON:

    cold FUNCTION           one call that meets no container: milliseconds, and the container's id
    fill FUNCTION COUNT     so many containers of the function are kept busy
    drain FUNCTION          and no more
    starts - CONTAINER...   where the starts of these containers went, as the server keeps it

Every container of these functions takes one input, so that each call is a cold start, and reserves little memory, so
that hundreds find room.
"""

import json
import os
import sys
import time

import alight
from alight.sdk.client import default_client
from alight.sdk.sync import run
from alight.wire.starts import ContainerDetails, ContainerShow

KIND = "nothing"
PACKAGES = {"nothing": [], "numpy": ["numpy==2.2.6"], "torch": ["torch==2.13.0"]}[KIND]
PATIENCE_S = 120

image = alight.Image.debian_slim(python_version="3.11")
if PACKAGES:
    image = image.pip_install(*PACKAGES)
app = alight.App(f"bench-cold-{KIND}", image=image)

with image.imports():
    if KIND == "numpy":
        import numpy  # noqa: F401
    if KIND == "torch":
        import torch  # noqa: F401


@app.function(single_use_containers=True, max_containers=200, memory=64, timeout=3600)
def once(seconds=0.0):
    began = time.monotonic_ns()
    time.sleep(seconds)
    return began, os.environ["ALIGHT_TASK_ID"]


@app.function(single_use_containers=True, max_containers=200, memory=64, timeout=3600, enable_memory_snapshot=True)
def snapped(seconds=0.0):
    began = time.monotonic_ns()
    time.sleep(seconds)
    return began, os.environ["ALIGHT_TASK_ID"]


FUNCTIONS = {"once": once, "snapped": snapped}
busy = {"once": [], "snapped": []}


def until(there):
    """Wait for a condition; what is measured next must not begin before it."""
    give_up = time.monotonic() + PATIENCE_S
    while not there():
        if time.monotonic() > give_up:
            raise TimeoutError("the containers are not as they should be")
        time.sleep(0.02)


def cold(name):
    function = FUNCTIONS[name]
    until(lambda: function.get_current_stats().num_total_runners == len(busy[name]))
    time.sleep(0.1)  # the last one's end may still be on its way through node and spawner
    called = time.monotonic_ns()
    line, container = function.remote()
    return {"ms": (line - called) / 1e6, "container": container}


def fill(name, count):
    function = FUNCTIONS[name]
    began = time.monotonic()
    busy[name] += [function.spawn(3600) for _ in range(count)]
    until(lambda: function.get_current_stats().num_running_inputs == len(busy[name]))
    return {"seconds": time.monotonic() - began}


def drain(name):
    while busy[name]:
        busy[name].pop().cancel(terminate_containers=True)
    until(lambda: FUNCTIONS[name].get_current_stats().num_total_runners == 0)
    return {}


def starts(*containers):
    return run(look_up(containers))


async def look_up(containers):
    found = []
    for one in containers:
        shown = await default_client().call("container.show", ContainerShow(one), ContainerDetails)
        stages = {stage.name: 1e3 * stage.seconds for stage in shown.start.stages} if shown.start else {}
        how = f"{shown.container.how} {shown.container.level}"
        found.append({"how": how, "refused": shown.start.refused if shown.start else (), "stages": stages})
    return found


if __name__ == "__main__":
    with app.run():
        print("ready", flush=True)
        for line in sys.stdin:
            word, name, *rest = line.split()
            if word == "cold":
                answer = cold(name)
            elif word == "fill":
                answer = fill(name, int(rest[0]))
            elif word == "starts":
                answer = starts(*rest)
            else:
                answer = drain(name)
            print(json.dumps(answer), flush=True)
