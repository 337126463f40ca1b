"""The runtime's side of the link: bare frames over the node's unix socket.

Keeps every output until the node acknowledged it. When the node is restarted the link dials again, says which inputs it
holds, and sends again what was not acknowledged: user code notices nothing. Knows nothing of functions; must not run
user code, nor hold its lock while it waits.

Who reads: the main thread itself while it has nothing to do, because handing each input from one thread to another
would cost more than all else here. When an input (or an import) has run for some milliseconds, a helper thread takes
over, so that cancellations are heard; it hands back with the next input. It sleeps where nothing runs.
"""

from __future__ import annotations

import os
import sys
import time
from _queue import SimpleQueue
from _thread import allocate_lock, start_new_thread

from alight.runtime.quick_json import decode, encode
from alight.wire.codec import HEADER, FrameReader, Kind
from alight.wire.errors import ConnectionError as NodeGone
from alight.wire.version import WIRE_VERSION, __version__

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    import socket
    from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

    Buffer = Union[bytes, bytearray, memoryview]
    #: What arrives: the frame's kind, its head in plain words, its body. Kind.END: the node is gone for good.
    Arrival = Tuple[int, Dict[str, Any], bytes]
else:
    import _socket as socket  # without the enumerations and selectors, which take longer than all of this

#: A container without a node for this long is alone and leaves.
GIVE_UP_AFTER = 600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 2.0
_CHUNK = 1 << 18
#: The helper looks this often whether something runs for long; after so many looks at nothing it sleeps.
_LOOK, _LOOKS = 0.005, 100


class Link:
    """``deliver`` gets every arrival but cancellations (``on_cancel``) and acks; ``next`` returns what it got, unless
    somebody puts another function in its place."""

    def __init__(self, path: str, on_cancel: Callable[[str], Any]) -> None:
        self._inbox: SimpleQueue[Optional[Arrival]] = SimpleQueue()
        self.deliver: Callable[[Arrival], Any] = self._inbox.put
        self._reading = allocate_lock()  # held by whoever reads; what is read is delivered under it
        self._reader = FrameReader()
        self._job = 0  # counts what the main thread began
        self._busy = False
        self._always = False
        self._leaving = False
        self._helped = False
        self._asleep = False
        self._alarm: SimpleQueue[None] = SimpleQueue()
        self._on_cancel = on_cancel
        self._path = path
        self._lock = allocate_lock()
        self._socket: Optional[socket.socket] = None
        self._held: Dict[str, int] = {}  # inputs given and not answered, with their attempt
        self._unacknowledged: Dict[str, Tuple[int, List[Buffer]]] = {}
        self._all_acknowledged: Any = None  # a lock that somebody waits for
        self._ready = False
        self._closed = False

    def open(self) -> None:
        """Dial and say hello. Raises NodeGone when nobody answers."""
        self._dial(time.monotonic() + 10.0)

    def next(self) -> Arrival:
        """The next arrival, for the main thread, which has nothing to do until then."""
        inbox, reading = self._inbox, self._reading
        self._busy = False
        while True:
            if inbox.empty() and reading.acquire(False):
                try:
                    if inbox.empty():  # the helper may have delivered until it let go
                        self._read()
                finally:
                    reading.release()
                continue
            arrival = inbox.get()
            if arrival is not None:
                return arrival

    def begin(self) -> None:
        """The main thread is about to do something that may take long."""
        self._job += 1
        self._busy = True
        if self._asleep:
            self._asleep = False
            self._alarm.put(None)
        elif not self._helped:
            self._helped = True
            start_new_thread(self._help, ())

    def redirect(self, deliver: Callable[[Arrival], Any]) -> List[Arrival]:
        """From now on the helper reads and calls ``deliver``, because the main thread has an event loop to run.

        Returns what arrived before.
        """
        self.deliver = deliver
        self._always = True
        self.begin()
        early = []
        while not self._inbox.empty():
            arrival = self._inbox.get()
            if arrival is not None:
                early.append(arrival)
        return early

    def interrupt(self) -> None:
        """For signal handlers: nothing more is read, and who waits in ``next`` looks at what was delivered."""
        self._leaving = True
        link = self._socket
        if link is not None:
            try:
                link.shutdown(socket.SHUT_RD)
            except OSError:
                return  # it was not connected any more

    def ready(self, head: Dict[str, Any], parts: Sequence[Buffer] = ()) -> None:
        """The user's code is imported, or ``head`` says how that failed."""
        with self._lock:
            self._ready = not head
            self._send(_frame(Kind.LINK_READY, head, parts))

    def waiting(self, on: bool) -> None:
        """Whether user code is blocked on another function's result."""
        with self._lock:
            self._send(_frame(Kind.LINK_WAITING, {"on": on}, ()))

    def output(self, head: Dict[str, Any], parts: Sequence[Buffer]) -> None:
        """The end of one input; kept and sent again until it is acknowledged."""
        frame = _frame(Kind.LINK_OUTPUT, head, parts)
        input_id = head["input_id"]
        with self._lock:
            self._held.pop(input_id, None)
            self._unacknowledged[input_id] = (head["attempt"], frame)
            self._send(frame)

    def holds(self, input_id: str) -> bool:
        """Whether the input was given and is not answered."""
        return input_id in self._held

    def wait_acknowledged(self, seconds: float) -> bool:
        """Whether every output is on the node's disk (or further), within ``seconds``."""
        self.begin()
        with self._lock:
            if not self._unacknowledged:
                return True
            self._all_acknowledged = gate = allocate_lock()
            gate.acquire()
        return bool(gate.acquire(timeout=seconds))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _send(self, frame: List[Buffer]) -> None:
        """Under the lock. What cannot be sent now is kept elsewhere and sent after the next hello."""
        link = self._socket
        if link is None:
            return
        try:
            for piece in frame:
                link.sendall(piece)
        except OSError:
            self._drop(link)

    def _drop(self, link: socket.socket) -> None:
        """Wake whoever reads, who dials again."""
        if self._socket is link:
            self._socket = None
        try:
            link.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it was not connected any more, which is what we want

    def _help(self) -> None:
        """The helper thread, for ever."""
        looks = 0
        while not self._closed:
            job = self._job
            if not self._always:
                time.sleep(_LOOK)
            if self._always or (self._busy and self._job == job):
                self._relieve(job)
                looks = 0
            elif self._busy or self._job != job:
                looks = 0
            else:
                looks += 1
                if looks >= _LOOKS:
                    looks = 0
                    self._sleep()

    def _sleep(self) -> None:
        """Until something begins. The main thread says that it begins before it looks whether we are asleep."""
        self._asleep = True
        if self._busy:
            self._asleep = False
            return
        self._alarm.get()

    def _relieve(self, job: int) -> None:
        """Read while the main thread is at one thing, and until it has begun the next."""
        if not self._reading.acquire(False):
            return  # it was done just now, and reads
        try:
            while (self._always or self._job == job) and not (self._leaving or self._closed):
                self._read()
        finally:
            self._reading.release()
            self._inbox.put(None)  # it may wait for what we would have read
        if self._leaving:
            self._alarm.get()

    def _read(self) -> None:
        """Under ``_reading``: wait for bytes, deliver the frames that are whole; dial again when the node is gone."""
        link = self._socket
        if link is not None:
            try:
                data = link.recv(_CHUNK)
            except OSError:
                data = b""
            if data:
                for kind, _stream, head, body in self._reader.feed(data):
                    self._arrived(kind, decode(head.decode()) if head else {}, body)
                return
            if self._leaving:
                return
            with self._lock:
                self._drop(link)
            link.close()
        self._reader = FrameReader()
        try:
            self._dial(time.monotonic() + GIVE_UP_AFTER)
        except NodeGone:
            self._closed = True
            self.deliver((Kind.END, {}, b""))

    def _arrived(self, kind: int, head: Dict[str, Any], body: bytes) -> None:
        if kind == Kind.LINK_INPUT:
            if self._is_new(head["input_id"], head["attempt"]):
                self.deliver((kind, head, body))
        elif kind == Kind.LINK_ACK:
            with self._lock:
                self._unacknowledged.pop(head["input_id"], None)
                if not self._unacknowledged and self._all_acknowledged is not None:
                    self._all_acknowledged.release()
                    self._all_acknowledged = None
        elif kind == Kind.LINK_CANCEL:
            self._on_cancel(head["input_id"])
        else:  # start, stop, an error of the handshake; kinds of a newer node are the loop's to ignore
            self.deliver((kind, head, body))

    def _is_new(self, input_id: str, attempt: int) -> bool:
        """False for what a restarted node gives again although it is here already, running or answered."""
        with self._lock:
            if self._held.get(input_id) == attempt:
                return False
            if self._unacknowledged.get(input_id, (None,))[0] == attempt:
                return False
            self._held[input_id] = attempt
        return True

    def _dial(self, deadline: float) -> None:
        pause = _FIRST_PAUSE
        while not (self._closed or self._leaving):
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                link.connect(self._path)
                with self._lock:
                    for piece in self._greeting():
                        link.sendall(piece)
                    self._socket = link
                return
            except OSError as error:
                link.close()
                if time.monotonic() + pause > deadline:
                    raise NodeGone(f"the node does not answer on {self._path}: {error}") from error
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _greeting(self) -> List[Buffer]:
        hello: Dict[str, Any] = {
            "wire": WIRE_VERSION,
            "version": __version__,
            "pid": os.getpid(),
            "python": "{}.{}.{}".format(*sys.version_info[:3]),
            "running": list(self._held),
            "ready": self._ready,
        }
        frames = _frame(Kind.HELLO, hello, ())
        for _attempt, frame in self._unacknowledged.values():
            frames += frame
        return frames


def _frame(kind: int, head: Dict[str, Any], parts: Sequence[Buffer]) -> List[Buffer]:
    """One frame as pieces to write. Small ones are one piece, so that they are one system call."""
    text = encode(head).encode()
    size = len(text)
    for part in parts:
        size += part.nbytes if isinstance(part, memoryview) else len(part)
    start = HEADER.pack(size, 0, len(text), kind) + text
    if size < 1 << 16:
        return [b"".join((start, *parts))]
    return [start, *parts]
