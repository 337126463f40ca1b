"""HTTP FROM THE WORLD: requests to the containers that serve them, one process, no task per request.

heads (what HTTP/1.1 says before a body), framing (where a body ends), websocket (RFC 6455) and pools (who serves whom)
are pure. client, exchange, backend, sockets and splice move bytes between the three: a client's connection, a request,
a container's connection. The server assembles it (``server/web.py``) and gives it leases, connections and the table.
"""
