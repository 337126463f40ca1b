"""What runs inside a container: connects to the node, imports the user's code, takes inputs, returns outputs.

Standard library and `wire` only. Every import here is paid at each cold start, so nothing is imported before it is
needed, and no module here may import asyncio, typing-heavy libraries or the SDK.

Read in this order: __main__ (start), init (pid 1), link (frames), context (environment), load (the user's code),
serve (the loop), runner (one input), failures (exceptions on their way home).
"""
