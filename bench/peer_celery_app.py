"""The Celery app that both sides of ``peer_celery`` import; its Redis is the one that ``peer_celery`` starts."""

import os
import time

from celery import Celery

URL = f"redis://127.0.0.1:{os.environ.get('PEER_REDIS_PORT', '0')}"
app = Celery("peer_celery_app", broker=f"{URL}/0", backend=f"{URL}/1")
app.conf.update(worker_prefetch_multiplier=64, broker_connection_retry_on_startup=True, result_expires=600)


@app.task
def nothing() -> None:
    return None


@app.task
def square(x: int) -> int:
    return x * x


@app.task
def nap(x: int) -> int:
    time.sleep(0.01)
    return x
