"""What crosses a process boundary: plain data and a codec. Standard library only, no sockets, no files.

Everything else in Alight imports this package; this package imports nothing of Alight but itself.
"""
