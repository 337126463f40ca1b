"""What runs inside a container: connects to the node, imports the user's code, takes inputs, returns outputs.

Standard library and `wire` only. Every import here is paid at each cold start, so nothing is imported before it is
needed, and no module that a plain function needs may import asyncio, typing-heavy libraries or the SDK.

Read in this order: __main__ (start), init (pid 1), link (frames), inputs (what was given), outputs (what leaves),
context (environment), load (the user's code), serve (the container's life), runner (inputs one by one), failures
(exceptions on their way home), spool (large values). Imported only where they are used: instance (classes),
generators, tasks (coroutines), threads (@concurrent), batches (@batched).
"""
