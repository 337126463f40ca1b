"""Carrying the wire over asyncio:

for server, node and gateway. Clients and containers have their own, without asyncio.
"""
