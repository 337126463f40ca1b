"""Requests and calls that wake functions of web_app.py from zero, in turn: milliseconds of both, as JSON.

web_cold.py URL ROUNDS
"""

import json
import sys
import time
import urllib.request

import alight

url, rounds = sys.argv[1], int(sys.argv[2])
called = alight.Function.from_name("bench-web", "called")
requests, calls = [], []
for number in range(rounds + 1):
    for took, wake in ((requests, lambda: urllib.request.urlopen(url, timeout=60).read()), (calls, called.remote)):
        began = time.perf_counter()
        wake()
        if number:
            took.append(1000 * (time.perf_counter() - began))
    if number < rounds:
        time.sleep(5)  # their containers end two seconds after what they did last
print(json.dumps({"requests": requests, "calls": calls}))
