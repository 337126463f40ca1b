"""The machine's end of uploads and fetches, behind the fake server: the real code of the node on a real directory."""

from __future__ import annotations

import json

from alight.node.volume_fetch import _Reading
from alight.node.volume_uploads import Uploads
from alight.node.volumes import Volumes
from alight.wire import errors
from alight.wire.codec import from_plain
from alight.wire.stored import VolumePath
from alight.wire.transfers import FetchAsk

VOLUME = "vo-0000000000000000000001"


class Machine:
    """Answers volume.upload and volume.fetch of ``far``."""

    def __init__(self, home, far):
        self.volumes = Volumes(home)
        self.data = self.volumes.data(VOLUME)
        self.uploads = Uploads(self.volumes.data, self.volumes.staging)
        self.heads = []  # that came for uploads
        self.bodies = 0
        self.before_message = lambda asked, said: None
        self._under_way = {}
        far.at_data["volume.upload"] = self._uploaded
        far.answers["volume.upload"] = lambda asked: None
        far.at_data["volume.fetch"] = self._fetched
        far.answers["volume.fetch"] = lambda asked: None
        far.at_end["volume.fetch"] = self._fetch_ended

    def break_off(self, asked):
        """What happens when the connection is lost: the node hears of it."""
        self._under_way.pop(id(asked)).close(False)
        asked.break_off()

    def close(self):
        """Let go of what clients left."""
        for one in self._under_way.values():
            one.close(*(() if isinstance(one, _Reading) else (False,)))

    def _uploaded(self, asked, head, body):
        at = from_plain(VolumePath, {**asked.args, "volume_id": VOLUME})
        upload = self._under_way.get(id(asked))
        if upload is None:
            upload = self._under_way[id(asked)] = self.uploads._begin(at)
        said = json.loads(head)
        self.heads.append(said)
        self.bodies += len(body)
        self.before_message(asked, said)
        if id(asked) not in self._under_way:
            return
        try:
            answers, finished = upload.take_all([(head, body)])
            for answer in answers:
                asked.say(answer)
            if finished:
                result = upload.place()
                self._under_way.pop(id(asked)).close(True)
                asked.answer(result)
        except errors.Error as error:
            self._under_way.pop(id(asked)).close(False)
            asked.fail(error)

    def _fetched(self, asked, head, body):
        reading = self._under_way.get(id(asked))
        if reading is None:
            reading = self._under_way[id(asked)] = _Reading(self.data)
        said = from_plain(FetchAsk, json.loads(head))
        for wanted in said.files:
            reading.ask(wanted, doors=said.doors)
        reading.taken.extend(said.taken)
        while messages := reading.next_messages():
            for message, piece in messages:
                self.before_message(asked, message)
                if asked._end.dead:
                    return
                asked.say(message, piece)

    def _fetch_ended(self, asked):
        self._under_way.pop(id(asked)).close()
        asked.end()
