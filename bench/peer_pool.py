"""concurrent.futures.ProcessPoolExecutor: two processes, nothing durable, no isolation: what Python has by itself."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import peers

NAME = "ProcessPoolExecutor"


def main() -> None:
    """All rows."""
    peers.say("ProcessPoolExecutor: calls and maps")
    with ProcessPoolExecutor(2) as pool:
        call = peers.latency(lambda: pool.submit(peers.nothing).result(), 1200)
        single = peers.rates(lambda: sum(pool.map(peers.square, range(30_000))), 30_000, 3)
        chunked = peers.rates(lambda: sum(pool.map(peers.square, range(100_000), chunksize=256)), 100_000, 3)
        naps = peers.rates(lambda: list(pool.map(peers.nap, range(1000))), 500.0, 3)
        data = bytes(100_000_000)
        argument = peers.rates(lambda: pool.submit(peers.nothing, data).result(), 0.1, 3)
    peers.rows(
        (f"{NAME}: call, no-op", call, "ms"),
        (f"{NAME}: map, 30,000 tiny, chunksize 1", single, "inputs/s"),
        (f"{NAME}: map, 100,000 tiny, chunksize 256", chunked, "inputs/s"),
        (f"{NAME}: 1,000 calls of 10 ms", naps, "% of ideal"),
        (f"{NAME}: 100 MB argument", argument, "GB/s"),
    )


if __name__ == "__main__":
    main()
