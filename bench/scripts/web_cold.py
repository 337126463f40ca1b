"""Requests and calls that wake functions of web_app.py from zero: milliseconds of each kind, as JSON.

Each meets a machine that has rested for as long, and none always goes first: what follows another start within a
moment finds everything warm, and takes much less.

web_cold.py URL ROUNDS
"""

import json
import sys
import time
import urllib.request

import alight

REST = 4.0  # seconds; their containers end two seconds after what they did last

url, rounds = sys.argv[1], int(sys.argv[2])
called = alight.Function.from_name("bench-web", "called")
awaited = alight.Function.from_name("bench-web", "awaited")
ways = [
    ("requests", lambda: urllib.request.urlopen(url, timeout=60).read()),
    ("calls", called.remote),
    ("awaited", awaited.remote),
]
took = {name: [] for name, _ in ways}
for number in range(rounds + 1):
    for name, wake in ways[number % 3 :] + ways[: number % 3]:
        began = time.perf_counter()
        wake()
        if number:
            took[name].append(1000 * (time.perf_counter() - began))
        time.sleep(REST)
print(json.dumps(took))
