"""Nameless objects: kept by a thread that says now and then that they are wanted, deleted at the end of their block."""

from __future__ import annotations

from alight.sdk.client import Client
from alight.sdk.sync import call_blocking
from alight.wire import errors
from alight.wire.shared import EphemeralNamed


class Keeper:
    """Holds one object while its block runs. ``seconds`` between two words to the server."""

    def __init__(self, client: Client, object_id: str, seconds: float) -> None:
        import threading  # noqa: PLC0415  whoever only declares does without

        self._client = client
        self._named = EphemeralNamed(object_id)
        self._seconds = seconds
        self._over = threading.Event()
        threading.Thread(target=self._keep, daemon=True, name="alight-keeper").start()

    async def end(self) -> None:
        """Delete the object. One that is gone already is no error."""
        self._over.set()
        try:
            await self._client.do("ephemeral.drop", self._named)
        except errors.NotFoundError:
            pass

    def _keep(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                call_blocking(self._client.do("ephemeral.keep", self._named))
            except errors.NotFoundError:
                return  # whoever uses it next hears so
            except errors.ConnectionError:
                continue  # a server that comes back gives everybody time
            except errors.Error:
                return
