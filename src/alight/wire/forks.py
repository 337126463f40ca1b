"""What the spawner says to a template and to its forks (decision 0012). Packets on SOCK_SEQPACKET sockets.

Template: descriptor 3, from its start. The spawner sends one packet for each fork; its descriptors are, in this
order, a pidfd of the shell's first process, the fork's own control socket, stdout, stderr, and files to write "0"
into (tasks of control groups, version 1). Its data is ``REQUEST`` and then the shell's seccomp filter (array of
``struct sock_filter``; empty: none). The template answers nothing there: what becomes of a fork is said on the
fork's control socket.

Fork: its control socket. First packet from the fork: ``PARKED`` when all is dropped and it waits, or ``FAILED`` and
a sentence. The kernel adds whose it is (SCM_CREDENTIALS), which is how the spawner learns its pid. Then one packet
from the spawner: ``WAKE`` and a JSON object: ``env`` (all of the environment), ``cwd``. With it may come a descriptor:
the fork's link to the node, connected, with LINK_START in it or on its way. The fork closes the control socket and is a
container's runtime from then on. When the spawner closes the socket instead, the fork exits.
"""

from __future__ import annotations

import struct

#: The template's end.
DESCRIPTOR = 3
#: Largest packet, either way.
PACKET = 128 * 1024
#: Capabilities that the fork keeps (a mask by number), and its limit of open files (0: the one of the template).
REQUEST = struct.Struct("!QQ")

PARKED = b"P"
FAILED = b"F"
WAKE = b"W"
