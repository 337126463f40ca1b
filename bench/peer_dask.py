"""Dask's distributed scheduler with two processes."""

from __future__ import annotations

import distributed
import peers

NAME = f"Dask {distributed.__version__}"


def main() -> None:
    """All rows."""
    peers.say("Dask: calls and maps")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        call = peers.latency(lambda: client.submit(peers.nothing, pure=False).result(), 700)
        tiny = peers.rates(lambda: client.gather(client.map(peers.square, range(10_000), pure=False)), 10_000, 3)
        naps = peers.rates(lambda: client.gather(client.map(peers.nap, range(1000), pure=False)), 500.0, 3)
    peers.rows(
        (f"{NAME}: submit, no-op", call, "ms"),
        (f"{NAME}: map, 10,000 tiny", tiny, "inputs/s"),
        (f"{NAME}: 1,000 calls of 10 ms", naps, "% of ideal"),
    )


if __name__ == "__main__":
    main()
