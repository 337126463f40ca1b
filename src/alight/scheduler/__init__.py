"""Decide: which input goes where, which container starts or stops.

``step(state, events, now)`` is pure: no clock, socket, database, randomness or log. Read ``state``, ``events`` and
``decisions`` for the words, then ``step``, which calls ``dispatch`` (inputs to containers), ``scale`` (containers to
machines, by ``place`` and ``gpus``), ``retry`` (what a failure means) and ``why`` (what a waiting input waits for).
"""
