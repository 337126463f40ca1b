"""Seconds to enter `app.run()` with an image of several steps that is there, against an app without any function.

The difference of two neighbouring runs is what the image costs.
"""

import json
import sys
import time

import alight

image = (
    alight.Image.debian_slim(python_version="3.11")
    .env({"A": "1"})
    .run_commands("echo one > /one", "echo two > /two")
    .workdir("/root")
)
with_image = alight.App("bench-rebuild", image=image)
without = alight.App("bench-rebuild-none")


@with_image.function()
def nothing() -> None:
    return None


def seconds_to_enter(app: alight.App) -> float:
    began = time.perf_counter()
    with app.run():
        return time.perf_counter() - began


if __name__ == "__main__":
    seconds_to_enter(with_image)
    enter, rebuild = [], []
    for _ in range(int(sys.argv[1])):
        bare = seconds_to_enter(without)
        enter.append(seconds_to_enter(with_image))
        rebuild.append(max(0.0, enter[-1] - bare))
    print(json.dumps({"enter": enter, "rebuild": rebuild}))
