"""Decide: which input goes where, which container starts or stops.

``step(state, events, now)`` is pure: no clock, socket, database, randomness or log. Read ``state``, ``events`` and
``decisions`` for the words, then ``step``, which has ``calls``, ``containers`` and ``machines`` take in what happened
(``held`` and ``line`` keep what runs and what waits, ``retry`` says what a failure means), and ``scale`` act on it:
``dispatch`` gives inputs to containers, ``place`` and ``gpus`` find machines, ``room`` and ``ending`` make space, and
``stuck`` finds who would wait for ever. ``why`` says what a call waits for.
"""
