"""What a user writes: declarations, handles and calls. Imports `wire` and itself; declaring an app imports no network.

Public names are re-exported by `alight` itself, lazily; nothing here is imported before it is used.
"""
