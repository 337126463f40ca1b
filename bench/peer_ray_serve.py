"""Ray Serve with the application of web_site.py, until it is ended. Runs in any interpreter that has ray[serve]."""

from __future__ import annotations

import sys
import threading

import ray
from ray import serve
from web_site import site


@serve.deployment(num_replicas=1, max_ongoing_requests=2000)
@serve.ingress(site())
class Site:
    """One replica, as there is one container of ours."""


def main() -> None:
    """On the port that the command line names."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    quiet = {"enable_access_log": False, "log_level": "ERROR"}
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])}, logging_config=quiet)
    serve.run(Site.bind(), logging_config=quiet)
    threading.Event().wait()


if __name__ == "__main__":
    main()
