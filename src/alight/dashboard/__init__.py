"""THE DASHBOARD: an application of the server at a host of its own. What it shows it asks of the server's own routes.

Pages are files (``static/``); what is on them comes as JSON from ``api`` and, when something changed, from ``events``.
Knows ``wire`` and nothing else of Alight: who may ask what, and the answers, come from outside (``seams``).
"""
