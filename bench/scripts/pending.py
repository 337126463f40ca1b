"""Many inputs that wait: how long they take to be accepted, and how quickly calls are listed beside them.

    pending.py INPUTS CALLS      one call of INPUTS inputs, and CALLS calls of one

The one container is busy until the end. Then prints `full` and waits for a line on stdin, so that the server can be
looked at; the last line is JSON.
"""

import asyncio
import json
import sys
import time

import alight
from alight.sdk.client import default_client
from alight.sdk.sync import run
from alight.wire import calling

app = alight.App("bench-pending", image=alight.Image.debian_slim(python_version="3.11"))


@app.function(max_containers=1, timeout=3600)
def wait(seconds):
    time.sleep(seconds)


async def spawn_many(count: int) -> None:
    """Calls of one input, a hundred on their way at a time."""
    left = iter(range(count))

    async def one_after_another() -> None:
        for _ in left:
            await wait.spawn.aio(0)

    await asyncio.gather(*(one_after_another() for _ in range(100)))


async def list_calls() -> float:
    began = time.perf_counter()
    await default_client().call("call.list", calling.CallList(limit=50), calling.CallListed)
    return time.perf_counter() - began


if __name__ == "__main__":
    inputs, calls = int(sys.argv[1]), int(sys.argv[2])
    with app.run():
        holder = wait.spawn(3600)
        while wait.get_current_stats().num_running_inputs == 0:
            time.sleep(0.05)
        began = time.perf_counter()
        many = wait.experimental_spawn_map(0 for _ in range(inputs))
        accepted = time.perf_counter() - began
        began = time.perf_counter()
        asyncio.run(spawn_many(calls))
        spawned = time.perf_counter() - began
        listed = [run(list_calls()) for _ in range(20)]
        assert wait.get_current_stats().backlog >= inputs + calls
        print("full", flush=True)
        sys.stdin.readline()
        many.cancel()
    print(json.dumps({"accepted": accepted, "spawned": spawned, "listed": listed}))
