"""What is said to connect a user's terminal with a program in a container. See ``messages`` for the notation.

One client of an app has a terminal to lend (terminal.attach); containers of that app ask for it (terminal.open), one
has it at a time. On both streams a message with a head is a ``TerminalWord``, and one without is bytes as they are:
keys towards the container, output towards the terminal.
"""

from __future__ import annotations

from alight.wire.record import dataclass


@dataclass(frozen=True)
class TerminalAttach:
    """terminal.attach ⇄ TerminalWord and bytes, for as long as the app's client lends its terminal.

    From the server ``connect`` and ``released``, from the client ``size``: once as the answer to ``connect``, and then
    whenever it changes. A client that comes again takes the place of the earlier one.
    """

    app_id: str


@dataclass(frozen=True)
class TerminalOpen:
    """terminal.open ⇄ TerminalWord and bytes, until the container ends its half.

    From the server ``waiting``, while another container has the terminal, and ``size``: with the first one the
    container has it. InvalidError when no client of the container's app has a terminal to lend.
    """

    input_id: str = ""


@dataclass(frozen=True)
class TerminalWord:
    """``turn`` counts connections, so that keys meant for an earlier program never reach the next one."""

    kind: str  # connect | size | waiting | released
    turn: int = 0
    container: str = ""
    function: str = ""
    text: str = ""
    rows: int = 0
    columns: int = 0
    term: str = ""  # what the terminal is (TERM)
