"""The control plane: apps, calls and their queue, images and volumes as records, who may do what.

Read ``wiring`` (who knows whom), then ``app`` (a frame comes in), ``routes`` (one file per noun), ``services`` (the
verbs) and ``loop`` (the scheduler's events in, its decisions out). The server needs no root,
and never opens user bytes.
"""
