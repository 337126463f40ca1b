"""The runtime's side of the link: bare frames over the node's unix socket.

When the node is restarted the link dials again, says which inputs it holds, and sends again what was not acknowledged:
user code notices nothing. Knows nothing of functions; must not run user code, nor hold the lock while it waits for
anything but the node's reading.

Who reads: the main thread itself while it has nothing to do, because handing each input from one thread to another
would cost more than all else here. When an input (or an import) has run for some milliseconds, a helper thread takes
over, so that cancellations are heard and values do not wait; it hands back with the next inputs. It sleeps where
nothing runs.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from _queue import SimpleQueue
from _thread import allocate_lock, start_new_thread

from alight.runtime import stdio
from alight.runtime.inputs import Held
from alight.runtime.outputs import LATE, Outputs, message
from alight.runtime.quick_json import decode
from alight.wire import chunk
from alight.wire.codec import FrameReader, Kind
from alight.wire.errors import ConnectionError as NodeGone
from alight.wire.version import WIRE_VERSION, __version__

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    import socket
    from typing import Any, Callable, Dict, List, Optional, Tuple, Union

    Buffer = Union[bytes, bytearray, memoryview]
    #: What arrives: the frame's kind; its head in plain words, or (LINK_INPUT) a chunk of inputs; its body. Kind.END:
    #: the node is gone for good.
    Arrival = Tuple[int, Any, bytes]
else:
    import _socket as socket  # without the enumerations and selectors, which take longer than all of this

#: A container without a node for this long is alone and leaves.
GIVE_UP_AFTER = 600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 2.0
_CHUNK = 1 << 18
#: The helper looks this often whether something runs for long; after so many looks at nothing it sleeps.
_LOOK, _LOOKS = 0.005, 100
#: The exit status of a runtime that failed itself.
_FAILED = 70
_HALF_A_SECOND = struct.pack("@ll", 0, 500_000)


class Link:
    """``deliver`` gets every arrival but those that are answered here: acknowledgements, recalls, and cancellations
    (``on_cancel``, after what they mean is marked). ``next`` returns what it got, unless somebody puts another
    function in its place."""

    def __init__(self, path: str, on_cancel: Callable[[], Any], given: int = -1) -> None:
        """``given`` is the descriptor of a connection that is there already."""
        self.held = Held()
        self.outputs = Outputs(self.held, self._send, _let_prints_leave, self._stir)
        self._inbox: SimpleQueue[Optional[Arrival]] = SimpleQueue()
        self.deliver: Callable[[Arrival], Any] = self._inbox.put
        self._reading = allocate_lock()  # held by whoever reads; what is read is delivered under it
        self._reader = FrameReader()
        self._stretch = 0  # counts what the main thread began
        self._busy = False
        self._always = False
        self._leaving = False
        self._helped = False
        self._asleep = False
        self._poll: Any = None
        self._pipe = (-1, -1)  # stirs the helper while it waits for the node
        self._deaf = False  # it does, with nothing else in mind
        self._alarm: SimpleQueue[None] = SimpleQueue()
        self._on_cancel = on_cancel
        self._path = path
        self._given = given
        self._lock = self.outputs.lock
        self._socket: Optional[socket.socket] = None
        self._ready = False
        self._full = False
        self._closed = False

    def open(self) -> None:
        """Dial and say hello. Raises NodeGone when nobody answers."""
        self._dial(time.monotonic() + 10.0)

    def next(self) -> Arrival:
        """The next arrival, for the main thread, which has nothing to do until then."""
        inbox, reading = self._inbox, self._reading
        if inbox.empty():
            self.outputs.flush()
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
        self._stretch += 1
        self._busy = True
        if self._asleep:
            self._asleep = False
            self._alarm.put(None)
        elif not self._helped:
            self._helped = True
            start_new_thread(self._help, ())

    def redirect(self, deliver: Optional[Callable[[Arrival], Any]] = None) -> List[Arrival]:
        """From now on the helper reads and calls ``deliver`` (None: as before), because the main thread has an event
        loop to run, or waits with a limit.

        Returns what arrived before, for ``deliver``.
        """
        early = []
        if deliver is not None:
            self.deliver = deliver
            while not self._inbox.empty():
                arrival = self._inbox.get()
                if arrival is not None:
                    early.append(arrival)
        self._always = True
        self.begin()
        return early

    def next_within(self, seconds: Optional[float]) -> Optional[Arrival]:
        """The next arrival, or None when there was none for so long (None: for ever). Only after ``redirect()``."""
        from _queue import Empty  # noqa: PLC0415  only batches wait with a limit

        try:
            return self._inbox.get(timeout=seconds)
        except Empty:
            return None

    def interrupt(self) -> None:
        """For signal handlers: nothing more is read, and who waits in ``next`` looks at what was delivered."""
        self._leaving = True
        link = self._socket
        if link is not None:
            try:
                link.shutdown(socket.SHUT_RD)
            except OSError:
                return  # it was not connected any more

    @property
    def descriptor(self) -> int:
        """Of the socket; -1 without one."""
        link = self._socket
        return link.fileno() if link is not None else -1

    def ready(self, head: Dict[str, Any], parts: Any = (), *, ok: bool) -> None:
        """The user's code is imported (``ok``), or ``head`` says what came instead."""
        with self._lock:
            self._ready = ok
            self._send(message(Kind.LINK_READY, head, b"".join(parts)))

    def waiting(self, count: int) -> None:
        """How many inputs are blocked on results of other functions."""
        with self._lock:
            self._send(message(Kind.LINK_WAITING, {"count": count}))

    def give_back(self, *, for_good: bool, begun: bool = False) -> None:
        """Return what was not begun (with ``begun``: all that is not answered). ``for_good``: what still comes is
        returned as well."""
        with self._lock:
            self._full = self._full or for_good
            runs = self.held.running() if begun else []
            taken = self.held.withdraw()
            self._send(message(Kind.LINK_RETURNED, {"runs": runs or taken}))

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
        """The helper thread. Without it nobody would hear or answer while user code runs, so its failure is the
        container's: its inputs are tried again elsewhere.
        """
        try:
            self._help_for_ever()
        except BaseException:  # noqa: BLE001  whatever it is, an end that is seen is better than silence
            if self._closed:
                return  # the socket was closed while we looked at it
            try:
                stdio.flush()
                sys.stderr.write("alight: the thread that speaks to the node failed, and this container ends\n")
                sys.__excepthook__(*sys.exc_info())
                stdio.flush()
            finally:
                os._exit(_FAILED)

    def _help_for_ever(self) -> None:
        looks = 0
        while not self._closed:
            stretch = self._stretch
            if not self._always:
                time.sleep(LATE if self.outputs.is_waiting else _LOOK)
                self.outputs.flush_late()
            if self._always or (self._busy and self._stretch == stretch):
                self._relieve(stretch)
                looks = 0
            elif self._busy or self._stretch != stretch:
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

    def _relieve(self, stretch: int) -> None:
        """Read while the main thread is at one thing, and until it has begun the next."""
        if not self._reading.acquire(False):
            return  # it was done just now, and reads
        try:
            while (self._always or self._stretch == stretch) and not (self._leaving or self._closed):
                if self._in_time():
                    self._read()
        finally:
            self._reading.release()
            self._inbox.put(None)  # it may wait for what we would have read
        if self._leaving:
            self._look_after_the_rest()

    def _in_time(self) -> bool:
        """Wait until there is something to read. Values that wait for company leave meanwhile, when it is time."""
        outputs, link = self.outputs, self._socket
        if link is None:
            return True
        if self._poll is None:
            import select  # noqa: PLC0415  only this thread waits for several things

            self._poll, self._pipe = select.poll, os.pipe()
            os.set_blocking(self._pipe[1], False)
        poll = self._poll()
        poll.register(link.fileno(), 1)  # POLLIN
        poll.register(self._pipe[0], 1)
        self._deaf = True  # before looking: who adds looks at this after adding
        there = poll.poll(LATE * 1000 if outputs.is_waiting else None)
        self._deaf = False
        outputs.flush_late()
        if any(number == self._pipe[0] for number, _ in there):
            os.read(self._pipe[0], 64)
        return any(number != self._pipe[0] for number, _ in there)

    def _stir(self) -> None:
        """A value waits for company, and the helper may wait for the node alone."""
        if self._deaf:
            self._deaf = False
            os.write(self._pipe[1], b"!")

    def _look_after_the_rest(self) -> None:
        """Nothing is read any more; what user code still ends with leaves all the same."""
        while not self._closed:
            time.sleep(_LOOK)
            self.outputs.flush_late()

    def _read(self) -> None:
        """Under ``_reading``: wait for bytes, deliver the frames that are whole; dial again when the node is gone."""
        link = self._socket
        if link is not None:
            try:
                data = link.recv(_CHUNK)
            except BlockingIOError:
                return  # a look at signals; see _dial
            except OSError:
                data = b""
            if data:
                for kind, _stream, head, body in self._reader.feed(data):
                    self._arrived(kind, head, body)
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

    def _arrived(self, kind: int, head: bytes, body: bytes) -> None:
        if kind == Kind.LINK_INPUT:
            with self._lock:
                new = self.held.add(chunk.Inputs.decode(head), body)
            if self._full:
                self.give_back(for_good=True)
                return
            for given in new:
                self.deliver((kind, given, b""))
        elif kind == Kind.LINK_ACK:
            self.outputs.acknowledged(chunk.unpack_serials(body))
        elif kind == Kind.LINK_RECALL:
            self.give_back(for_good=False)
        else:
            words = decode(head.decode()) if head else {}
            if kind == Kind.LINK_CANCEL:
                if self.held.cancel(words["call_id"], words.get("position", -1)):
                    self._on_cancel()
                return
            if kind == Kind.LINK_STOP:
                self.give_back(for_good=True)
            self.deliver((kind, words, body))  # kinds of a newer node are the loop's to ignore

    def _dial(self, deadline: float) -> None:
        pause = _FIRST_PAUSE
        while not (self._closed or self._leaving):
            given, self._given = self._given, -1
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, None if given < 0 else given)
            try:
                if given < 0:
                    link.connect(self._path)
                # A signal that comes just before the system call does not interrupt it, and Python would hear of it
                # with the next input only: so no wait is without an end.
                link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _HALF_A_SECOND)
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
            "running": self.held.running(),
            "ready": self._ready,
        }
        return message(Kind.HELLO, hello) + self.outputs.unacknowledged()


def _let_prints_leave() -> bool:
    """Before a frame: what was printed is in the pipes, at least. True when it has left them already."""
    stdio.flush()
    return stdio.is_empty()
